//! How a process comes into its namespaces.
//!
//! Those that are made come with its clone; those of the host that are joined it joins itself. With
//! a user namespace the order matters: namespaces of the host are joined before it, with the rights
//! there, those that it owns after it, and what is made is owned by it only when it is made from
//! inside. Then a go-between joins, clones the process as its sibling, and ends:
//!
//! ```text
//!   parent                     go-between                         child
//!     clone3 ───────────────►    setns: the host's, user, its own
//!     read pid           ◄──     clone3(SIBLING | NEW*) ─────────►  wait
//!     uid_map, gid_map           exit
//!     go ────────────────────────────────────────────────────────►  become root in it
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_oci::runtime::NamespaceType;
use ponton_sys as sys;
use ponton_sys::clone::{Clone, SIBLING, clone3};
use ponton_sys::namespace::{self, Kinds};
use ponton_sys::user_namespace;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::DumpableBehavior;

use super::{Started, report};
use crate::Error;
use crate::open::{Ids, Opened, OpenedProcess, Ready, kinds};
use crate::plan::Action;

/// The namespaces of a process.
pub(super) struct Entry<'a> {
    step: &'static str,
    /// `CLONE_NEW*` of those that the clone makes.
    made: u64,
    /// Those that are joined, each by a descriptor that stands for these kinds.
    joined: Vec<(Kinds, BorrowedFd<'a>)>,
    /// A pid namespace that is joined without a go-between.
    pid: Option<BorrowedFd<'a>>,
    /// What ids mean in the user namespace that is made.
    ids: Option<&'a Ids>,
    /// Nobody in a namespace that is joined may see or trace us, nor the child until its execve. A
    /// caller without privileges has to leave `/proc` to itself until the ids are mapped.
    hidden: bool,
}

/// Which side of an entry runs.
pub(super) enum Side {
    /// The caller; here is its child.
    Parent(Started),
    /// The caller; the go-between has failed, and its report says why.
    Failed,
    /// The child, which has to wait for its ids where they are being mapped.
    Child(Option<Go>),
}

/// The child's end: it may go on when the ids of its user namespace are mapped.
pub(super) struct Go(OwnedFd);

impl Go {
    /// Blocks until the ids are mapped.
    pub(super) fn wait(&self) -> Result<(), sys::Error> {
        let failed = |errno| sys::Error::new("wait", "for the ids to be mapped", errno);
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut [0; 1])) {
            Ok(1) => Ok(()),
            Ok(_) => Err(failed(Errno::CANCELED)),
            Err(errno) => Err(failed(errno)),
        }
    }
}

impl<'a> Entry<'a> {
    /// Of the first process of a container. A cgroup namespace is made by the child, once it is in
    /// its group, and a time namespace as well.
    pub(super) fn of_container(opened: &'a Opened) -> Self {
        let (mut made, mut joined, mut pid) = (Kinds::empty(), Vec::new(), None);
        for (step, ready) in opened.plan.steps.iter().zip(&opened.ready) {
            let (Action::Clone { new, .. }, Ready::Clone { join, pid: own_pid }) = (&step.action, ready)
            else {
                continue;
            };
            let by_clone =
                |kind: &&NamespaceType| !matches!(kind, NamespaceType::Cgroup | NamespaceType::Time);
            made = new.iter().filter(by_clone).map(|kind| kinds(*kind)).collect();
            pid = own_pid.as_ref().map(AsFd::as_fd);
            if opened.needs_go_between() {
                joined = join.iter().map(|(kinds, fd)| (*kinds, fd.as_fd())).collect();
                joined.extend(pid.take().map(|pid| (Kinds::PROCESS_ID, pid)));
            }
        }
        let (ids, hidden) = (opened.ids.as_ref(), opened.privileged);
        let made = u64::from(made.bits());
        Self { step: "clone init (linux.namespaces)", made, joined, pid, ids, hidden }
    }

    /// Of a further process of a container.
    pub(super) fn of_process(opened: &'a OpenedProcess) -> Self {
        let target = opened.target.as_fd();
        let (joined, pid) = if opened.kinds.contains(Kinds::USER) {
            (vec![(opened.kinds, target)], None)
        } else {
            (Vec::new(), opened.kinds.contains(Kinds::PROCESS_ID).then_some(target))
        };
        Self { step: "clone exec", made: 0, joined, pid, ids: None, hidden: opened.privileged }
    }

    /// Makes the process; a failure of the go-between is written to `report`.
    pub(super) fn make(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        report: &report::Writer,
    ) -> Result<Side, Error> {
        let failed = |source| Error::Step { step: self.step.to_owned(), source };
        if self.hidden {
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .map_err(|errno| failed(sys::Error::new("prctl", "PR_SET_DUMPABLE", errno)))?;
        }
        let go = self.ids.map(|_| rustix::pipe::pipe_with(PipeFlags::CLOEXEC)).transpose();
        let go = go.map_err(|errno| failed(sys::Error::new("pipe2", "go", errno)))?;
        let cloned = if self.joined.is_empty() {
            self.clone_directly(cgroup).map(Some)
        } else {
            self.clone_by_go_between(cgroup, report)
        };
        match cloned.map_err(failed)? {
            None => Ok(Side::Failed),
            Some(Clone::Child) => Ok(Side::Child(go.map(|(waiting, _)| Go(waiting)))),
            Some(Clone::Parent { pid, pidfd }) => {
                let started = Started { pid, pidfd };
                if let (Some(ids), Some((_, go))) = (self.ids, go) {
                    map_ids(&started, ids, &go).map_err(|source| Error::Step {
                        step: "map ids (linux.uidMappings, linux.gidMappings)".to_owned(),
                        source,
                    })?;
                }
                Ok(Side::Parent(started))
            }
        }
    }

    fn clone_directly(&self, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone, sys::Error> {
        let Some(joined) = self.pid else { return clone3(self.made, cgroup) };
        let own = namespace::own("pid")?;
        namespace::join(joined, Kinds::PROCESS_ID)?;
        let cloned = clone3(self.made, cgroup);
        if !matches!(cloned, Ok(Clone::Child)) {
            namespace::join(own.as_fd(), Kinds::PROCESS_ID)?;
        }
        cloned
    }

    fn clone_by_go_between(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        report: &report::Writer,
    ) -> Result<Option<Clone>, sys::Error> {
        let (reader, writer) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(sys::Error::of("pipe2", "pid"))?;
        let between = match clone3(0, None)? {
            Clone::Parent { pidfd, .. } => pidfd,
            Clone::Child => match self.join().and_then(|()| clone3(self.made | SIBLING, cgroup)) {
                Ok(Clone::Child) => return Ok(Some(Clone::Child)),
                Ok(Clone::Parent { pid, .. }) => {
                    // The parent may be gone: nobody to tell.
                    let _ = rustix::io::write(&writer, &pid.to_ne_bytes());
                    sys::process::exit_now(0)
                }
                Err(source) => report.fail_and_exit(&Error::Step { step: self.step.to_owned(), source }),
            },
        };
        drop(writer);
        let mut pid = [0; size_of::<u32>()];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut pid));
        sys::pidfd::wait(between.as_fd())?;
        if read != Ok(pid.len()) {
            return Ok(None);
        }
        let pid = u32::from_ne_bytes(pid);
        // It is our child and nobody else reaps it: the number is its own.
        Ok(Some(Clone::Parent { pid, pidfd: sys::pidfd::open(pid)? }))
    }

    /// Joins what is joined, in the order that the rights allow.
    fn join(&self) -> Result<(), sys::Error> {
        let (user, others): (Vec<_>, Vec<_>) =
            self.joined.iter().copied().partition(|(kinds, _)| kinds.contains(Kinds::USER));
        let mut rest = user;
        for (kinds, fd) in others {
            match namespace::join(fd, kinds) {
                // It is the user namespace that gives the right to this one.
                Err(error) if error.errno() == Some(Errno::PERM.raw_os_error()) && !rest.is_empty() => {
                    rest.push((kinds, fd));
                }
                joined => joined?,
            }
        }
        rest.into_iter().try_for_each(|(kinds, fd)| namespace::join(fd, kinds))
    }
}

/// Maps the ids of a child, and lets it go on; one whose ids cannot be mapped is ended.
fn map_ids(child: &Started, ids: &Ids, go: &OwnedFd) -> Result<(), sys::Error> {
    let mapped = user_namespace::write_maps(child.pid, ids.writer, &ids.uids, &ids.gids)
        .and_then(|()| rustix::io::write(go, &[0]).map_err(sys::Error::of("write", "go")));
    if mapped.is_err() {
        sys::pidfd::send_signal(child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw())?;
        sys::pidfd::wait(child.pidfd.as_fd())?;
    }
    mapped.map(drop)
}
