use ponton_api::container::UpdateRequest;

use super::request::{self, RESOURCES};
use crate::command::{Arguments, Command, Complete, Invocation};
use crate::error::Error;
use crate::output;

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
    let limits = request::limits(flags)?;
    let request = UpdateRequest {
        cpu_shares: limits.cpu_shares,
        memory: limits.memory,
        nano_cpus: limits.nano_cpus,
        blkio_weight: limits.blkio_weight,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_realtime_period: limits.cpu_realtime_period,
        cpu_realtime_runtime: limits.cpu_realtime_runtime,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        memory_reservation: limits.memory_reservation,
        memory_swap: limits.memory_swap,
        pids_limit: limits.pids_limit,
        restart_policy: limits.restart_policy,
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
