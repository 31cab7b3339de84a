//! `ponton-runtime start`

use std::process::ExitCode;

use ponton_oci::runtime::Status;

use super::notify::Notify;
use super::{Context, Failure, Held, warn};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The container's id.
    id: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    let Held { directory, record, lock, .. } = context.hold(&args.id, "start", &[Status::Created])?;
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
