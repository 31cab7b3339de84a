use ponton_api::container::UpdateRequest;

use super::request::{self, RESOURCES};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::{output, value};

/// `ponton update`.
pub(crate) static UPDATE: Command = Command::new(
    "update",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    |call| Box::pin(update(call)),
)
.flags(&[RESOURCES])
.arguments(Arguments::AtLeast(1), Complete::Containers);

async fn update(call: Invocation) -> Result<u8, Error> {
    let flags = &call.flags;
    if !RESOURCES.iter().any(|flag| flags.is_set(flag.long)) {
        return Err(Error::invalid("you must provide one or more flags when using this command"));
    }
    let request = UpdateRequest {
        cpu_shares: flags.int("cpu-shares"),
        memory: flags.bytes("memory"),
        nano_cpus: flags.given("cpus").map_or(Ok(0), value::parse_nano_cpus).map_err(Error::Invalid)?,
        blkio_weight: flags.int("blkio-weight") as u16,
        cpu_period: flags.int("cpu-period"),
        cpu_quota: flags.int("cpu-quota"),
        cpu_realtime_period: flags.int("cpu-rt-period"),
        cpu_realtime_runtime: flags.int("cpu-rt-runtime"),
        cpuset_cpus: flags.text("cpuset-cpus").to_owned(),
        cpuset_mems: flags.text("cpuset-mems").to_owned(),
        memory_reservation: flags.bytes("memory-reservation"),
        memory_swap: if flags.text("memory-swap") == "-1" { -1 } else { flags.bytes("memory-swap") },
        pids_limit: flags.given_int("pids-limit"),
        restart_policy: request::restart_policy(flags.text("restart"))?,
        ..UpdateRequest::default()
    };
    let client = call.context.client().await?;
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    for name in &call.arguments {
        match client.container_update(name, &request).await {
            Ok(response) => {
                output::print_line(name)?;
                warnings.extend(response.warnings.unwrap_or_default());
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !warnings.is_empty() {
        output::print_line(&warnings.join("\n"))?;
    }
    if errors.is_empty() { Ok(0) } else { Err(Error::invalid(errors.join("\n"))) }
}
