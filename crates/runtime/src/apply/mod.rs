//! Carries an opened plan out: clone, then in the child one step after another, then execve.
//!
//! ```text
//!   parent                                   child
//!     clone3(PIDFD | INTO_CGROUP | NEW*) ──►
//!     read report (blocks)                     join cgroup v1, namespaces
//!                                              mounts, devices
//!     network devices, classes, hooks   ◄─►    wait
//!                                              names, masks, pivot
//!     limits, the seccomp agent         ◄─►    user, capabilities, seccomp
//!     end of file: it runs              ◄──    execve closes the report's pipe
//!     or a Failure: reap, tell          ◄──    write Failure, exit
//! ```

mod affinity;
mod bind;
mod container;
mod copy_up;
mod entry;
mod label;
mod limits;
mod mount;
mod node;
mod parent;
mod program;
mod report;

use std::os::fd::{BorrowedFd, OwnedFd};

use ponton_oci::runtime::Status;
use ponton_sys as sys;
use rustix::fs::{Gid, Uid};

use crate::Error;
use crate::open::{Opened, OpenedProcess};
use entry::{Entry, Side};
use report::Reader;

pub use report::await_program;

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

/// A container whose first process executes its program, or waits for [`keep`](Self::keep) before it
/// goes to its gate. It ends if this is dropped instead.
pub struct Created {
    /// The first process.
    pub started: Started,
    report: Reader,
}

impl Created {
    /// Lets it wait at its gate: whoever looks for the container finds it.
    pub fn keep(self) -> Started {
        self.report.go_on();
        self.started
    }
}

/// Where a container stops before its program.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// It goes on when a byte can be read here.
    pub wait: BorrowedFd<'a>,
    /// It tells here, to [`await_program`], if it then cannot execute its program.
    pub report: BorrowedFd<'a>,
}

/// Starts the container. Blocks until its program is executed, or has failed to be.
///
/// The calling process must have one thread. On an error nothing is left behind, and the hooks for
/// the end have been run.
pub fn start(opened: Opened, stdio: &Stdio<'_>) -> Result<Started, Error> {
    Ok(create(opened, stdio, None)?.started)
}

/// As [`start`], but the child stops before its program, at `gate`: the container is made, and does
/// not run yet. Returns when it has got there.
pub fn create(mut opened: Opened, stdio: &Stdio<'_>, gate: Option<Gate<'_>>) -> Result<Created, Error> {
    let created = try_create(&opened, stdio, gate);
    match &created {
        Ok(_) => {
            if let Some(guard) = &mut opened.cgroup {
                guard.keep = true;
            }
        }
        Err(_) => {
            let Opened { plan, ready, cgroup, .. } = opened;
            parent::take_back(&plan.steps, &ready);
            drop((ready, cgroup));
            parent::undone(&plan);
        }
    }
    created
}

fn try_create(opened: &Opened, stdio: &Stdio<'_>, gate: Option<Gate<'_>>) -> Result<Created, Error> {
    if let Some(root) = opened.plan.root_outside()
        && opened.plan.process().is_some_and(|process| process.terminal)
    {
        give_terminal(stdio, root);
    }
    let console = container::clone_console(&opened.plan, stdio);
    let entry = Entry::of_container(opened);
    let (reader, writer) = report::pair().map_err(step("clone init (linux.namespaces)"))?;
    let cgroup = opened.cgroup.as_ref().and_then(|guard| guard.opened.directory());
    let started = match entry.make(cgroup, &writer)? {
        Side::Parent(started) => started,
        Side::Failed => return Err(reader.failure_of_go_between(writer)),
        Side::Child(go) => {
            drop(reader);
            let error = container::run(opened, stdio, console, &writer, gate, go.as_ref());
            writer.fail_and_exit(&error)
        }
    };
    drop(writer);
    parent::attend(&started, &reader, Some(opened), opened.plan.process(), Status::Creating)?;
    Ok(Created { started, report: reader })
}

/// Starts a further process in a running container. Blocks as [`start`] does.
pub fn exec(opened: &OpenedProcess, stdio: &Stdio<'_>) -> Result<Started, Error> {
    const STEP: &str = "clone exec";
    if opened.program.plan.terminal
        && let Some(root) = opened.root_outside()
    {
        give_terminal(stdio, root);
    }
    let entry = Entry::of_process(opened);
    let (reader, writer) = report::pair().map_err(step(STEP))?;
    let cgroup = opened.cgroup.as_ref().and_then(ponton_cgroup::Opened::directory);
    let affinity = opened.process().affinity.as_ref().and_then(|affinity| affinity.initial.as_deref());
    let own = affinity.map(affinity::narrow).transpose().map_err(step(STEP))?;
    let made = entry.make(cgroup, &writer);
    if let (Some(own), false) = (own, matches!(made, Ok(Side::Child(_)))) {
        affinity::restore(&own).map_err(step(STEP))?;
    }
    let started = match made? {
        Side::Parent(started) => started,
        Side::Failed => return Err(reader.failure_of_go_between(writer)),
        Side::Child(_) => {
            drop(reader);
            let error = container::run_further(opened, stdio, &writer);
            writer.fail_and_exit(&error)
        }
    };
    drop(writer);
    parent::attend(&started, &reader, None, Some(opened.process()), Status::Running)?;
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
