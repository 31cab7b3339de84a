//! `ponton-runtime start`

use std::process::ExitCode;

use ponton_oci::runtime::Status;
use ponton_runtime::host::Host;
use ponton_runtime::state::StateError;

use super::notify::Notify;
use super::{Context, Failure, warn};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The container's id.
    id: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let directory = context.directory(&args.id)?;
    let lock = directory.lock()?;
    let record = directory.read()?;
    let status = directory.status(&record, &Host::probe()?);
    if status != Status::Created {
        return Err(StateError::WrongStatus { id: args.id.clone(), status, attempted: "start" }.into());
    }
    let notify = Notify::from_environment(&directory).filter(Notify::is_mounted);
    if let Some(notify) = &notify {
        notify.listen()?;
    }
    directory.open_gate()?;
    warn(context, directory.read_later()?.started(&record.state(Status::Running)));
    drop(lock);
    notify.map_or(Ok(()), |notify| notify.wait_until_ready(&record))?;
    Ok(ExitCode::SUCCESS)
}
