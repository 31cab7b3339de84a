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
mod copy_up;
mod entry;
mod mount;
mod node;
mod program;
mod report;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_sys as sys;
use rustix::fs::{Gid, Uid};

use crate::Error;
use crate::open::{Opened, OpenedProcess};
use entry::{Entry, Side};

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
    if let Some(ids) = &opened.ids
        && opened.plan.process().is_some_and(|process| process.terminal)
    {
        give_terminal(stdio, ids.root_outside());
    }
    let console = container::clone_console(&opened.plan, stdio);
    let entry = Entry::of_container(&opened);
    let (reader, writer) = report::pipe().map_err(step("clone init (linux.namespaces)"))?;
    let cgroup = opened.cgroup.as_ref().and_then(|guard| guard.opened.directory());
    let started = match entry.make(cgroup, &writer)? {
        Side::Parent(started) => started,
        Side::Failed => return Err(reader.failure_of_go_between(writer)),
        Side::Child(go) => {
            drop(reader);
            let error = container::run(&opened, stdio, console, &writer, gate, go.as_ref());
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
    if opened.program.plan.terminal
        && let Some(root) = opened.terminals_owner()
    {
        give_terminal(stdio, root);
    }
    let entry = Entry::of_process(opened);
    let (reader, writer) = report::pipe().map_err(step("clone exec"))?;
    let cgroup = opened.cgroup.as_ref().and_then(ponton_cgroup::Opened::directory);
    let started = match entry.make(cgroup, &writer)? {
        Side::Parent(started) => started,
        Side::Failed => return Err(reader.failure_of_go_between(writer)),
        Side::Child(_) => {
            drop(reader);
            let error = container::run_further(opened, stdio, &writer);
            writer.fail_and_exit(&error)
        }
    };
    drop(writer);
    await_program(&started, reader)?;
    Ok(started)
}

/// Gives the terminal, which is ours or the host's, to the root of a user namespace: from inside it
/// could not be taken. Who may not give it away has made the namespace of its own id.
fn give_terminal(stdio: &Stdio<'_>, (uid, gid): (u32, u32)) {
    let _ = rustix::fs::fchown(stdio.stdin, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
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
