//! Carries an opened plan out: clone, then in the child one step after another, then execve.
//!
//! ```text
//!   parent                                   child
//!     clone3(PIDFD | INTO_CGROUP | NEW*) ──►
//!     read report (blocks)                     join cgroup v1, namespaces
//!                                              mounts, devices, masks, pivot, names
//!                                              user, capabilities, seccomp
//!     end of file: it runs              ◄──    execve closes the report's pipe
//!     or a Failure: reap, tell          ◄──    write Failure, exit
//! ```

mod container;
mod mount;
mod program;
mod report;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_oci::runtime::NamespaceType;
use ponton_sys as sys;
use ponton_sys::clone::{Clone, clone3};
use ponton_sys::namespace::{self, Kinds};
use rustix::process::DumpableBehavior;

use crate::Error;
use crate::open::{Opened, OpenedProcess, Ready, kinds};
use crate::plan::Action;

/// The standard streams of the new process. With a terminal all three are its peer side.
#[derive(Clone, Copy, Debug)]
pub struct Stdio<'a> {
    /// Standard input.
    pub stdin: BorrowedFd<'a>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
}

/// A process that executes its program. It is a child of the calling process, which has to reap it.
#[derive(Debug)]
pub struct Started {
    /// Its process id, in the pid namespace of the caller.
    pub pid: u32,
    /// The process.
    pub pidfd: OwnedFd,
}

/// Starts the container. Blocks until its program is executed, or has failed to be.
///
/// The calling process must have one thread. On an error nothing is left behind.
pub fn start(opened: Opened, stdio: &Stdio<'_>) -> Result<Started, Error> {
    create(opened, stdio, None)
}

/// As [`start`], but the child stops before its program, until a byte can be read from `gate`: the
/// container is made, and does not run yet. Returns when it has got there.
pub fn create(mut opened: Opened, stdio: &Stdio<'_>, gate: Option<BorrowedFd<'_>>) -> Result<Started, Error> {
    const STEP: &str = "clone init (linux.namespaces)";
    let (flags, pid_namespace) = clone_flags(&opened);
    let console = container::clone_console(&opened.plan, stdio);
    let (reader, writer) = report::pipe().map_err(step(STEP))?;
    let cgroup = opened.cgroup.as_ref().and_then(|guard| guard.opened.directory());
    let cloned = clone_into(flags, cgroup, pid_namespace).map_err(step(STEP))?;
    let started = match cloned {
        Clone::Parent { pid, pidfd } => Started { pid, pidfd },
        Clone::Child => {
            drop(reader);
            let error = container::run(&opened, stdio, console, &writer, gate);
            writer.fail_and_exit(&error)
        }
    };
    drop(writer);
    await_program(&started, reader)?;
    if let Some(guard) = &mut opened.cgroup {
        guard.keep = true;
    }
    Ok(started)
}

/// Starts a further process in a running container. Blocks as [`start`] does.
pub fn exec(opened: &OpenedProcess, stdio: &Stdio<'_>) -> Result<Started, Error> {
    const STEP: &str = "clone exec";
    let (reader, writer) = report::pipe().map_err(step(STEP))?;
    let cgroup = opened.cgroup.as_ref().and_then(ponton_cgroup::Opened::directory);
    let cloned = clone_into(0, cgroup, Some(opened.target.as_fd())).map_err(step(STEP))?;
    let started = match cloned {
        Clone::Parent { pid, pidfd } => Started { pid, pidfd },
        Clone::Child => {
            drop(reader);
            let error = container::run_further(opened, stdio, &writer);
            writer.fail_and_exit(&error)
        }
    };
    drop(writer);
    await_program(&started, reader)?;
    Ok(started)
}

fn step(step: &str) -> impl Fn(sys::Error) -> Error + '_ {
    move |source| Error::Step { step: step.to_owned(), source }
}

/// Waits until the child executes its program, or stands before its gate; one that failed is reaped.
fn await_program(started: &Started, reader: report::Reader) -> Result<(), Error> {
    let Some(error) = reader.failure() else { return Ok(()) };
    // The child is ending; nothing can be done about one that cannot be reaped.
    let _ = sys::pidfd::wait(started.pidfd.as_fd());
    Err(error)
}

/// The namespaces that are made by the clone itself, and the pid namespace that is joined. A cgroup
/// namespace is made by the child, once it is in its group.
fn clone_flags(opened: &Opened) -> (u64, Option<BorrowedFd<'_>>) {
    let mut flags = Kinds::empty();
    let mut joined = None;
    for (step, ready) in opened.plan.steps.iter().zip(&opened.ready) {
        if let Action::Clone { new, .. } = &step.action {
            let made = new.iter().filter(|kind| **kind != NamespaceType::Cgroup);
            flags = made.map(|kind| kinds(*kind)).collect();
        }
        if let Ready::Clone { pid: Some(pid), .. } = ready {
            joined = Some(pid.as_fd());
        }
    }
    (u64::from(flags.bits()), joined)
}

/// Clones a child, in a pid namespace that exists if one is given. The caller cannot be seen or
/// traced by anybody in it: neither can the child until its execve.
fn clone_into(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    pid_namespace: Option<BorrowedFd<'_>>,
) -> Result<Clone, sys::Error> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(sys::Error::of("prctl", "PR_SET_DUMPABLE"))?;
    let Some(joined) = pid_namespace else { return clone3(flags, cgroup) };
    let own = namespace::own("pid")?;
    namespace::join(joined, Kinds::PROCESS_ID)?;
    let cloned = clone3(flags, cgroup);
    if !matches!(cloned, Ok(Clone::Child)) {
        namespace::join(own.as_fd(), Kinds::PROCESS_ID)?;
    }
    cloned
}
