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
//!     copy bind sources
//!     go ────────────────────────────────────────────────────────►  become root in it
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_oci::runtime::NamespaceType;
use ponton_sys as sys;
use ponton_sys::clone::{Clone, SIBLING, clone3};
use ponton_sys::namespace::{self, Kinds};
use ponton_sys::socket;
use ponton_sys::user_namespace;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::DumpableBehavior;

use super::bind::Binds;
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
    /// What is copied from the mount namespace that is made.
    binds: Binds<'a>,
    /// Nobody in a namespace that is joined may see or trace us, nor the child until its execve. A
    /// caller without privileges has to leave `/proc` to itself until the ids are mapped.
    hidden: bool,
}

/// Which side of an entry runs.
pub(super) enum Side {
    /// The caller; here is its child. One that could not be made ready finds out, and tells.
    Parent(Started),
    /// The caller; the go-between has failed, and its report says why.
    Failed,
    /// The child, which has to wait for its ids where they are being mapped.
    Child(Option<Go>),
}

/// The child's end: it may go on when the ids of its user namespace are mapped, and what it binds is
/// copied.
pub(super) struct Go(OwnedFd);

impl Go {
    /// Blocks until the child may go on; gives the copies in the order of the steps.
    pub(super) fn wait(&self) -> Result<Vec<OwnedFd>, sys::Error> {
        let failed = |error| sys::Error::new("wait", "for the ids to be mapped", error);
        let mut copies = Vec::new();
        loop {
            match socket::recv_with_fds(&self.0, &mut [0; 8]) {
                Ok((0, _)) => return Err(failed(Errno::CANCELED.into())),
                // What comes without a descriptor is the end.
                Ok((_, fds)) if fds.is_empty() => return Ok(copies),
                Ok((_, fds)) => copies.extend(fds),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
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
        Self {
            step: "clone init (linux.namespaces)",
            made,
            joined,
            pid,
            ids,
            binds: Binds::of(opened),
            hidden,
        }
    }

    /// Of a further process of a container.
    pub(super) fn of_process(opened: &'a OpenedProcess) -> Self {
        let target = opened.target.as_fd();
        let (joined, pid) = if opened.kinds.contains(Kinds::USER) {
            (vec![(opened.kinds, target)], None)
        } else {
            (Vec::new(), opened.kinds.contains(Kinds::PROCESS_ID).then_some(target))
        };
        let (ids, binds) = (None, Binds::default());
        Self { step: "clone exec", made: 0, joined, pid, ids, binds, hidden: opened.privileged }
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
        let waits = self.ids.is_some() || !self.binds.is_empty();
        let go = waits.then(socket::seqpacket_pair).transpose();
        let go = go.map_err(|error| failed(sys::Error::new("socketpair", "go", error)))?;
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
                if let Some((_, go)) = go {
                    self.make_ready(&started, &go, report);
                }
                Ok(Side::Parent(started))
            }
        }
    }

    /// Does what the child waits for. A failure is told as its own: the end of `go` ends it.
    fn make_ready(&self, child: &Started, go: &OwnedFd, report: &report::Writer) {
        let map = |ids: &Ids| user_namespace::write_maps(child.pid, ids.writer, &ids.uids, &ids.gids);
        if let Err(source) = self.ids.map_or(Ok(()), map) {
            let step = "map ids (linux.uidMappings, linux.gidMappings)".to_owned();
            return report.tell(&Error::Step { step, source });
        }
        match self.binds.copy(child.pidfd.as_fd(), go, report) {
            // Without a listener the child is gone, which shows.
            Ok(true) => drop(socket::send_with_fds(go, b"G", &[])),
            // It has told itself.
            Ok(false) => {}
            Err(source) => report.tell(&Error::Step { step: self.step.to_owned(), source }),
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
        // Where the hierarchy is mounted with nsdelegate, nobody comes into a group from outside of his cgroup
        // namespace: the go-between is there before it joins that, and the child with it.
        let joins_cgroup = self.joined.iter().any(|(kinds, _)| kinds.contains(Kinds::CONTROL_GROUP));
        let (of_between, of_child) = if joins_cgroup { (cgroup, None) } else { (None, cgroup) };
        let between = match clone3(0, of_between)? {
            Clone::Parent { pidfd, .. } => pidfd,
            Clone::Child => match self.join().and_then(|()| clone3(self.made | SIBLING, of_child)) {
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
