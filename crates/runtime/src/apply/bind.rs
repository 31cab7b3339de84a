//! What a container with a user namespace binds, copied from its own mount namespace.
//!
//! The kernel locks what the host's mounts forbid (read-only, no devices, no set-user-id) in a mount
//! namespace that it makes for another user namespace, and on copies from there. A copy from the
//! host's own namespace would be unlocked: the container's root, given the right to mount, could
//! have it writable. But it is the host's rights that reach every source. So a process of ours, with
//! those rights and not yet with the container in the namespace, walks the paths there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_sys as sys;
use ponton_sys::clone::{Clone, clone3};
use ponton_sys::namespace::{self, Kinds};
use ponton_sys::user_namespace::Writer;
use ponton_sys::{pidfd, socket};

use super::report;
use crate::Error;
use crate::open::{MountSource, Opened, Ready, make_mapped};
use crate::plan::{Action, MountPlan, Step};

/// The steps whose source is copied.
#[derive(Default)]
pub(super) struct Binds<'a> {
    steps: Vec<(&'a Step, &'a MountPlan)>,
    writer: Option<Writer>,
}

impl<'a> Binds<'a> {
    pub(super) fn of(opened: &'a Opened) -> Self {
        let steps = opened.plan.steps.iter().zip(&opened.ready);
        let copied = steps.filter_map(|(step, ready)| match (&step.action, ready) {
            (Action::Rootfs(plan) | Action::Mount(plan), Ready::Mount(MountSource::Copied)) => {
                Some((step, plan))
            }
            _ => None,
        });
        Self { steps: copied.collect(), writer: Some(opened.writer) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Copies what is bound from the mount namespace of `child`, and sends it on `go`. False if that
    /// failed, which is then told to `report`.
    pub(super) fn copy(
        &self,
        child: BorrowedFd<'_>,
        go: &OwnedFd,
        report: &report::Writer,
    ) -> Result<bool, sys::Error> {
        let Some(writer) = self.writer.filter(|_| !self.is_empty()) else { return Ok(true) };
        match clone3(0, None)? {
            Clone::Parent { pidfd, .. } => {
                pidfd::wait(pidfd.as_fd()).map(|exit| exit == pidfd::Exit::Code(0))
            }
            Clone::Child => match self.copy_in(child, go, writer) {
                Ok(()) => sys::process::exit_now(0),
                Err(error) => report.fail_and_exit(&error),
            },
        }
    }

    fn copy_in(&self, child: BorrowedFd<'_>, go: &OwnedFd, writer: Writer) -> Result<(), Error> {
        let step = |step: &Step| {
            let step = step.name();
            move |source| Error::Step { step, source }
        };
        if let Some((first, _)) = self.steps.first() {
            namespace::join(child, Kinds::MOUNT).map_err(step(first))?;
        }
        for (of, plan) in &self.steps {
            let made = make_mapped(plan, writer).map_err(step(of))?;
            let sent = socket::send_with_fds(go, b"M", &[made.mount.as_fd()]);
            sent.map_err(|error| step(of)(sys::Error::new("send", "a mount", error)))?;
        }
        Ok(())
    }
}
