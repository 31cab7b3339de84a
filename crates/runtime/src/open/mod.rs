//! Open before you cross: every path of a plan outside of the container becomes a descriptor.
//!
//! File systems and bind sources become detached mounts, which nobody sees and which go away with
//! their descriptor. Those that belong to namespaces of the container (proc, sysfs, mqueue, cgroup)
//! are made by the child, from fixed strings.

mod mount;
mod process;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_oci::runtime::NamespaceType;
use ponton_sys as sys;
use ponton_sys::namespace::Kinds;
use ponton_sys::path::Root;
use rustix::fs::{Mode, OFlags};

use crate::Error;
use crate::host::Host;
use crate::plan::{Action, Join, Plan, PlanError, ProcessPlan, Step};

pub(crate) use mount::{MountSource, make_filesystem};
pub(crate) use process::{Identity, Program, finish_identity};

/// Descriptors that come with a plan.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// The network namespace to join.
    pub netns: Option<OwnedFd>,
}

/// A plan whose paths are descriptors. Dropped before it was started, it leaves nothing behind.
#[derive(Debug)]
pub struct Opened {
    pub(crate) plan: Plan,
    /// What each step of the plan needs, in the same order.
    pub(crate) ready: Vec<Ready>,
    pub(crate) cgroup: Option<CgroupGuard>,
}

/// What a step needs.
#[derive(Debug)]
pub(crate) enum Ready {
    /// Nothing from outside.
    Nothing,
    /// Namespaces to join, the pid namespace apart.
    Clone { join: Vec<(Kinds, OwnedFd)>, pid: Option<OwnedFd> },
    /// What is mounted.
    Mount(MountSource),
    /// What paths are hidden behind.
    Mask { file: OwnedFd, directory: OwnedFd },
    /// The program.
    Exec(Box<Program>),
}

/// A control group that is removed again unless the container is started.
#[derive(Debug)]
pub(crate) struct CgroupGuard {
    pub(crate) opened: ponton_cgroup::Opened,
    pub(crate) keep: bool,
}

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if !self.keep {
            // There is an error on its way already; an empty group costs nobody anything.
            let _ = self.opened.cgroup().remove();
        }
    }
}

/// A process plan that is ready to be started in a running container.
#[derive(Debug)]
pub struct OpenedProcess {
    process: ProcessPlan,
    pub(crate) program: Program,
    pub(crate) target: OwnedFd,
    pub(crate) cgroup: Option<ponton_cgroup::Opened>,
    root: Root,
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
    let _ = host;
    let mut netns = descriptors.netns;
    let mut cgroup = None;
    let mut ready = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let failed = |source| Error::Step { step: step.name(), source };
        ready.push(match &step.action {
            Action::Cgroup(plan) => {
                cgroup = Some(CgroupGuard { opened: plan.create().map_err(failed)?, keep: false });
                Ready::Nothing
            }
            Action::Clone { join, .. } => open_namespaces(step, join, &mut netns)?,
            Action::Rootfs(plan) | Action::Mount(plan) => Ready::Mount(mount::open(plan).map_err(failed)?),
            Action::Mask { .. } => open_mask().map_err(failed)?,
            Action::Exec(process) => {
                let root = rootfs(&ready).map(|fd| fd.try_clone_to_owned()).transpose();
                let root = root.map_err(|error| failed(sys::Error::new("dup", "the root", error)))?;
                let root = root.map(Root::from_fd);
                Ready::Exec(Box::new(Program::new(process, root.as_ref())?))
            }
            Action::Attributes { .. }
            | Action::Devices { .. }
            | Action::Console
            | Action::ReadOnly { .. }
            | Action::Pivot
            | Action::Hostname { .. }
            | Action::Sysctl { .. } => Ready::Nothing,
        });
    }
    Ok(Opened { plan, ready, cgroup })
}

/// The detached root file system.
fn rootfs(ready: &[Ready]) -> Option<BorrowedFd<'_>> {
    ready.iter().find_map(|ready| match ready {
        Ready::Mount(source) => Some(source.detached().map(|detached| detached.mount.as_fd())),
        _ => None,
    })?
}

fn open_namespaces(step: &Step, join: &[Join], netns: &mut Option<OwnedFd>) -> Result<Ready, Error> {
    let (mut others, mut pid) = (Vec::new(), None);
    for Join { r#type, path } in join {
        let fd = match path {
            Some(path) => rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(sys::Error::of("open", path.display()))
                .map_err(|source| Error::Step { step: step.name(), source })?,
            None => netns.take().ok_or_else(|| {
                PlanError::invalid("linux.namespaces", format!("no descriptor came for the {type} namespace"))
            })?,
        };
        match kinds(*r#type) {
            Kinds::PROCESS_ID => pid = Some(fd),
            kind => others.push((kind, fd)),
        }
    }
    Ok(Ready::Clone { join: others, pid })
}

/// The kernel's bit for a kind of namespace.
pub(crate) fn kinds(namespace: NamespaceType) -> Kinds {
    match namespace {
        NamespaceType::Pid => Kinds::PROCESS_ID,
        NamespaceType::Network => Kinds::NETWORK,
        NamespaceType::Mount => Kinds::MOUNT,
        NamespaceType::Ipc => Kinds::INTER_PROCESS_COMMUNICATION,
        NamespaceType::Uts => Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME,
        NamespaceType::User => Kinds::USER,
        NamespaceType::Cgroup => Kinds::CONTROL_GROUP,
        NamespaceType::Time => Kinds::TIME,
    }
}

/// The host's `/dev/null`, and one empty directory that nobody can write to.
fn open_mask() -> Result<Ready, sys::Error> {
    use sys::mount::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
    let file = sys::mount::clone_tree(rustix::fs::CWD, c"/dev/null", false)?;
    let status = rustix::fs::fstat(&file).map_err(sys::Error::of("fstat", "/dev/null"))?;
    if status.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(sys::Error::new("open", "/dev/null: not the null device", rustix::io::Errno::NODEV));
    }
    let empty = sys::mount::Context::new("tmpfs")?;
    empty.set("mode", "755")?;
    empty.set("nr_inodes", "2")?;
    let directory =
        empty.mount(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
    Ok(Ready::Mask { file, directory })
}

/// Opens what is needed to start `process` in the container of `target`.
pub fn open_process(process: ProcessPlan, target: Target<'_>, host: &Host) -> Result<OpenedProcess, Error> {
    let step = |source| Error::Step { step: format!("exec into process {}", target.pid), source };
    let root = Root::open(format!("/proc/{}/root", target.pid)).map_err(step)?;
    // The number may have been given to another process meanwhile: then the container is gone.
    sys::pidfd::send_signal(target.pidfd, 0).map_err(step)?;
    let program = Program::new(&process, Some(&root))?;
    let cgroup = target.cgroup.map(|path| ponton_cgroup::Cgroup::new(&host.cgroup, path).open());
    let cgroup = cgroup.transpose().map_err(step)?;
    let pidfd = target.pidfd.try_clone_to_owned();
    let target = pidfd.map_err(|error| step(sys::Error::new("dup", "pidfd", error)))?;
    Ok(OpenedProcess { process, program, target, cgroup, root })
}

impl Opened {
    /// The plan that was opened.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The root file system's mount, where it is made before the clone.
    pub fn root(&self) -> Option<BorrowedFd<'_>> {
        rootfs(&self.ready)
    }

    /// The master side of a new terminal in the container's own `/dev/pts`; its other side is got by
    /// `TIOCGPTPEER`. None if the container has no `/dev/pts` of its own.
    pub fn terminal(&self) -> Result<Option<OwnedFd>, Error> {
        for (step, ready) in self.plan.steps.iter().zip(&self.ready) {
            let (Action::Mount(plan), Ready::Mount(MountSource::Detached(detached))) = (&step.action, ready)
            else {
                continue;
            };
            if plan.target == "/dev/pts" && plan.source.is_file_system("devpts") {
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
                let master = rustix::fs::openat(&detached.mount, "ptmx", flags, Mode::empty())
                    .map_err(sys::Error::of("open", "ptmx"))
                    .map_err(|source| Error::Step { step: step.name(), source })?;
                return Ok(Some(master));
            }
        }
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
        const DEVPTS_MAGIC: i64 = 0x1cd1;
        let failed = |source| Error::Step { step: "open /dev/pts/ptmx of the container".into(), source };
        // What is there is up to the container: look before it is opened.
        let Ok(found) = self.root.open_path("dev/pts/ptmx", OFlags::PATH) else { return Ok(None) };
        let status = rustix::fs::fstat(&found).map_err(sys::Error::of("fstat", "ptmx")).map_err(failed)?;
        let of = rustix::fs::fstatfs(&found).map_err(sys::Error::of("fstatfs", "ptmx")).map_err(failed)?;
        if of.f_type as i64 != DEVPTS_MAGIC || status.st_rdev != rustix::fs::makedev(5, 2) {
            return Ok(None);
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        sys::path::reopen(&found, flags)
            .map(Some)
            .map_err(|error| failed(sys::Error::new("open", "ptmx", error)))
    }
}
