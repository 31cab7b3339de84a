//! `ponton-runtime pause` and `resume`

use std::process::ExitCode;

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::Status;

use super::{Context, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The container's id.
    id: String,
}

/// Stops all processes of the container.
pub(crate) fn pause(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    change(context, &args.id, "pause", &[Status::Created, Status::Running], Cgroup::freeze)
}

/// Lets them go on.
pub(crate) fn resume(context: &Context, args: &Args) -> Result<ExitCode, Failure> {
    change(context, &args.id, "resume", &[Status::Paused], Cgroup::thaw)
}

fn change(
    context: &Context,
    id: &str,
    attempted: &'static str,
    from: &[Status],
    change: impl FnOnce(&Cgroup) -> ponton_sys::Result<()>,
) -> Result<ExitCode, Failure> {
    let held = context.hold(id, attempted, from)?;
    let path = held.record.cgroup.as_ref().ok_or("the container has no control group")?;
    change(&Cgroup::new(&held.host.cgroup, path))?;
    Ok(ExitCode::SUCCESS)
}
