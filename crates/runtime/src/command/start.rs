//! `ponton-runtime start`

use std::os::fd::AsFd;
use std::process::ExitCode;

use ponton_oci::runtime::Status;
use ponton_runtime::state::StateError;

use super::delete::wait_until_ended;
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
    let process = ponton_sys::pidfd::open(record.pid);
    let opened = directory.open_gate();
    if let (Err(StateError::Start(_)), Ok(process)) = (&opened, process) {
        // It tells why it cannot before it ends: whoever asks next is to find it stopped.
        wait_until_ended(&record, process.as_fd())?;
    }
    opened?;
    warn(context, directory.read_later()?.started(&record.state(Status::Running)));
    drop(lock);
    notify.map_or(Ok(()), |notify| notify.wait_until_ready(&record))?;
    Ok(ExitCode::SUCCESS)
}
