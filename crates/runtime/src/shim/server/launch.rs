//! Starts processes: their standard streams, then the runtime's open and apply.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ponton_oci::runtime::Process;
use ponton_sys::pty;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::pipe::PipeFlags;

use crate::apply::{self, Started};
use crate::criu::{self, Labels};
use crate::host::Host;
use crate::open::{self, Descriptors, Target};
use crate::plan::{Plan, ProcessPlan};
use crate::shim::foreign::{self, Foreign, ForeignStart};
use crate::shim::protocol::{Failure, FailureKind, Stdio};

/// A process that executes its program, and our ends of its streams.
pub(super) struct Launched {
    pub(super) started: Started,
    pub(super) streams: Streams,
    /// The mount of a container's root file system.
    pub(super) root: Option<OwnedFd>,
}

/// Our ends of a process's standard streams, all nonblocking. With a terminal the input is a dup of
/// the one output.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) input: Option<OwnedFd>,
    pub(super) outputs: [Option<OwnedFd>; 2],
}

/// The process's ends.
struct Ends {
    stdin: OwnedFd,
    stdout: OwnedFd,
    /// With a terminal there is one end only.
    stderr: Option<OwnedFd>,
}

/// Starts a container.
pub(super) fn container(
    plan: Plan,
    netns: Option<OwnedFd>,
    stdio: &Stdio,
    host: &Host,
) -> Result<Launched, Failure> {
    let opened = open::open(plan, Descriptors { netns }, host)?;
    let master = if stdio.terminal { opened.terminal()? } else { None };
    let (streams, ends) =
        streams(stdio, master).map_err(|error| failure("open the standard streams", &error))?;
    let root = opened.root().map(|root| root.try_clone_to_owned()).transpose();
    let root = root.map_err(|error| failure("dup the root", &error))?;
    ends.give(opened.plan().root_outside())
        .map_err(|error| failure("give the standard streams away", &error))?;
    let started = apply::start(opened, &ends.as_stdio())?;
    Ok(Launched { started, streams, root })
}

/// Starts a container as it was saved. `directory` is the container's own.
pub(super) fn restored(
    plan: Plan,
    netns: Option<OwnedFd>,
    stdio: &Stdio,
    host: &Host,
    options: &criu::Options,
    directory: &Path,
) -> Result<Launched, Failure> {
    let refused = |error: criu::Error| Failure {
        kind: FailureKind::StartFailed,
        step: Some("restore".to_owned()),
        message: error.to_string(),
    };
    criu::refuse(&plan).map_err(refused)?;
    let opened = open::open(plan, Descriptors { netns }, host)?;
    let (streams, ends) =
        streams(stdio, None).map_err(|error| failure("open the standard streams", &error))?;
    let root = opened.root().map(|root| root.try_clone_to_owned()).transpose();
    let root = root.map_err(|error| failure("dup the root", &error))?;
    let started = criu::restore(options, Labels::default(), opened, &ends.as_stdio(), host, directory);
    Ok(Launched { started: started.map_err(refused)?, streams, root })
}

/// Starts a further process in a running container.
pub(super) fn process(
    process: ProcessPlan,
    target: Target<'_>,
    stdio: &Stdio,
    host: &Host,
) -> Result<Launched, Failure> {
    let opened = open::open_process(process, target, host)?;
    let master = if stdio.terminal { opened.terminal()? } else { None };
    let (streams, ends) =
        streams(stdio, master).map_err(|error| failure("open the standard streams", &error))?;
    ends.give(opened.root_outside()).map_err(|error| failure("give the standard streams away", &error))?;
    let started = apply::exec(&opened, &ends.as_stdio())?;
    Ok(Launched { started, streams, root: None })
}

/// Has another runtime start a container.
pub(super) fn foreign_container(
    foreign: ForeignStart,
    plan: &Plan,
    netns: Option<BorrowedFd<'_>>,
    stdio: &Stdio,
) -> Result<Launched, Failure> {
    let process = plan.process().cloned().unwrap_or_default();
    by_runtime(stdio, |streams| foreign.start(&plan.id, &process, netns, streams))
}

/// Has another runtime start a further process in a running container, whose first process is `first`.
pub(super) fn foreign_process(
    runtime: &Foreign,
    container: &str,
    first: u32,
    process: &Process,
    plan: &ProcessPlan,
    stdio: &Stdio,
) -> Result<Launched, Failure> {
    by_runtime(stdio, |streams| runtime.exec(container, first, process, plan, streams))
}

/// A runtime is given our pipes, or gives us its terminal.
fn by_runtime(
    stdio: &Stdio,
    start: impl FnOnce(&foreign::Streams<'_>) -> Result<(Started, Option<OwnedFd>), Failure>,
) -> Result<Launched, Failure> {
    let failed = |error: io::Error| failure("open the standard streams", &error);
    if !stdio.terminal {
        let (streams, ends) = streams(stdio, None).map_err(failed)?;
        let apply::Stdio { stdin, stdout, stderr } = ends.as_stdio();
        let (started, _) = start(&foreign::Streams::Pipes([stdin, stdout, stderr]))?;
        return Ok(Launched { started, streams, root: None });
    }
    let (started, master) = start(&foreign::Streams::Terminal)?;
    let Some(master) = master else { return Err(failed(io::Error::other("no terminal came"))) };
    let open = || -> io::Result<Streams> {
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some(size) = stdio.size {
            pty::set_size(&master, size.rows, size.cols)?;
        }
        let input = if stdio.stdin { Some(master.try_clone()?) } else { None };
        Ok(Streams { input, outputs: [Some(master), None] })
    };
    Ok(Launched { started, streams: open().map_err(failed)?, root: None })
}

/// A failure of our own side.
pub(super) fn failure(attempted: &str, error: &io::Error) -> Failure {
    Failure { kind: FailureKind::Internal, step: None, message: format!("{attempted}: {error}") }
}

impl Ends {
    /// Gives the pipes to the root of a user namespace, who may give them on to the process's user.
    fn give(&self, root: Option<(u32, u32)>) -> io::Result<()> {
        let Some((uid, gid)) = root else { return Ok(()) };
        for end in [Some(&self.stdin), Some(&self.stdout), self.stderr.as_ref()].into_iter().flatten() {
            if FileType::from_raw_mode(rustix::fs::fstat(end)?.st_mode) == FileType::Fifo {
                rustix::fs::fchown(end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
        }
        Ok(())
    }

    fn as_stdio(&self) -> apply::Stdio<'_> {
        apply::Stdio {
            stdin: self.stdin.as_fd(),
            stdout: self.stdout.as_fd(),
            stderr: self.stderr.as_ref().unwrap_or(&self.stdout).as_fd(),
        }
    }
}

/// `master` is a terminal of the container's own devpts, if it has one.
fn streams(stdio: &Stdio, master: Option<OwnedFd>) -> io::Result<(Streams, Ends)> {
    if stdio.terminal {
        return terminal_streams(stdio, master);
    }
    let (input, stdin) = if stdio.stdin {
        let (stdin, input) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&input, true)?;
        (Some(input), stdin)
    } else {
        (None, rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    };
    let (first, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (second, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&first, true)?;
    rustix::io::ioctl_fionbio(&second, true)?;
    let streams = Streams { input, outputs: [Some(first), Some(second)] };
    Ok((streams, Ends { stdin, stdout, stderr: Some(stderr) }))
}

fn terminal_streams(stdio: &Stdio, master: Option<OwnedFd>) -> io::Result<(Streams, Ends)> {
    let pty::Terminal { master, peer } = match master {
        Some(master) => pty::from_master(master)?,
        None => pty::open()?,
    };
    if let Some(size) = stdio.size {
        pty::set_size(&master, size.rows, size.cols)?;
    }
    let input = if stdio.stdin { Some(master.try_clone()?) } else { None };
    let streams = Streams { input, outputs: [Some(master), None] };
    Ok((streams, Ends { stdin: peer.try_clone()?, stdout: peer, stderr: None }))
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        let kind = match &error {
            crate::Error::CommandNotFound { .. } => FailureKind::CommandNotFound,
            crate::Error::CommandNotExecutable { .. } => FailureKind::CommandNotExecutable,
            crate::Error::NotFound { .. } => FailureKind::NotFound,
            crate::Error::Plan(_) => FailureKind::Invalid,
            crate::Error::Hook { .. } | crate::Error::Step { .. } => FailureKind::StartFailed,
        };
        let step = error.step().map(str::to_owned);
        let message = match &error {
            crate::Error::Step { source, .. } => source.to_string(),
            error => error.to_string(),
        };
        Self { kind, step, message }
    }
}
