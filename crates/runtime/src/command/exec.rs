//! `ponton-runtime exec`

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use ponton_oci::runtime::Status;
use ponton_runtime::host::Host;
use ponton_runtime::open::{self, Target};
use ponton_runtime::plan::{ProcessInput, plan_process};
use ponton_runtime::state::{self, Directory, StateError};
use ponton_runtime::{Error, apply, seccomp};
use ponton_sys::pidfd;

use super::{Failure, own_stdio};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// An environment variable to add, `NAME=value`.
    #[arg(short, long)]
    env: Vec<String>,
    /// The working directory.
    #[arg(long)]
    cwd: Option<String>,
    /// The user, `name[:group]` or `uid[:gid]`.
    #[arg(short, long)]
    user: Option<String>,
    /// The container's id.
    id: String,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn run(root: &Path, args: Args) -> Result<ExitCode, Failure> {
    let directory = Directory::new(root, &args.id)?;
    let record = directory.read()?;
    let host = Host::probe()?;
    let status = directory.status(&record, &host);
    if status != Status::Running {
        return Err(StateError::WrongStatus { id: args.id, status }.into());
    }
    let spec = state::read_spec(&record.bundle)?;
    let mut process = spec.process.unwrap_or_default();
    process.args = args.command;
    process.terminal = false;
    process.env.extend(args.env);
    process.cwd = args.cwd.unwrap_or(process.cwd);
    let policy = spec.linux.and_then(|linux| linux.seccomp);
    let filter = policy.as_ref().map(|policy| seccomp::cache(&root.join("seccomp"), policy)).transpose()?;
    let input = ProcessInput {
        user: args.user.as_deref(),
        seccomp: filter.as_deref(),
        seccomp_flags: policy.as_ref().map_or(&[], |policy| &policy.flags),
    };
    let plan = plan_process(&process, &host, &input).map_err(Error::from)?;
    let pidfd = pidfd::open(record.pid)?;
    let target = Target { pid: record.pid, pidfd: pidfd.as_fd(), cgroup: record.cgroup.as_deref() };
    let opened = open::open_process(plan, target, &host)?;
    let started = own_stdio(|stdio| apply::exec(&opened, stdio))?;
    let exit = pidfd::wait(started.pidfd.as_fd())?;
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX)))
}
