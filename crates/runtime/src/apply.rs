//! Carries an opened plan out: clone, then in the child one step after another, then execve.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::Error;
use crate::open::{Opened, OpenedProcess};
use crate::plan::PlanError;

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
    let _ = (opened, stdio);
    Err(PlanError::NotImplemented { field: "process".into(), message: "starting".into() }.into())
}

/// Starts a further process in a running container. Blocks as [`start`] does.
pub fn exec(opened: OpenedProcess, stdio: &Stdio<'_>) -> Result<Started, Error> {
    let _ = (opened, stdio);
    Err(PlanError::NotImplemented { field: "process".into(), message: "starting".into() }.into())
}
