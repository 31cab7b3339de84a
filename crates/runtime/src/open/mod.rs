//! Open before you cross: every path of a plan outside of the container becomes a descriptor.
//!
//! File systems and bind sources become detached mounts, which nobody sees and which go away with
//! their descriptor. Those that belong to namespaces of the container (proc, sysfs, mqueue, cgroup)
//! are made by the child, from fixed strings.

mod mount;
mod namespace;
mod process;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ponton_oci::runtime::{DeviceType, IdMapping, NamespaceType};
use ponton_sys as sys;
use ponton_sys::namespace::Kinds;
use ponton_sys::path::Root;
use ponton_sys::user_namespace::{self, Range};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::Error;
use crate::host::Host;
use crate::plan::{Action, DeviceNode, IdMaps, Join, Plan, PlanError, ProcessPlan, Step, sysctl_namespace};
use crate::rdt::Resctrl;
use mount::Makes;

pub(crate) use mount::{Detached, MountSource, clone_source, make, make_mapped};
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
    /// What ids mean in the user namespace that is made.
    pub(crate) ids: Option<Ids>,
    /// Who writes maps of ids.
    pub(crate) writer: user_namespace::Writer,
    /// Whether we may mount ourselves ([`Host::can_mount`]).
    pub(crate) privileged: bool,
}

/// What ids mean in a new user namespace.
#[derive(Debug)]
pub(crate) struct Ids {
    pub(crate) writer: user_namespace::Writer,
    pub(crate) uids: Vec<Range>,
    pub(crate) gids: Vec<Range>,
    /// The user and group that set the container up.
    pub(crate) root: (u32, u32),
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
    /// What paths are hidden behind; none where the child has to make it.
    Mask(Option<Masks>),
    /// The host's device files as detached mounts, in the order of the nodes; none is one that the
    /// child has to make.
    Devices(Vec<Option<OwnedFd>>),
    /// Where the host has procfs and sysfs, of which the container must see nothing.
    HostMounts(Vec<CString>),
    /// Where classes of cache and memory bandwidth are.
    Rdt(Resctrl),
    /// The program.
    Exec(Box<Program>),
}

/// What paths are hidden behind.
#[derive(Debug)]
pub(crate) struct Masks {
    pub(crate) file: OwnedFd,
    pub(crate) directory: OwnedFd,
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
    /// The namespaces of the target that are not ours.
    pub(crate) kinds: Kinds,
    pub(crate) cgroup: Option<ponton_cgroup::Opened>,
    pub(crate) privileged: bool,
    root: Root,
}

/// The running container that a further process is started in.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The process id of its first process.
    pub pid: u32,
    /// Its first process.
    pub pidfd: BorrowedFd<'a>,
    /// The control group that the process is put in: the container's, or one below.
    pub cgroup: Option<&'a ponton_cgroup::Cgroup>,
}

/// Opens everything that `plan` names.
pub fn open(plan: Plan, descriptors: Descriptors, host: &Host) -> Result<Opened, Error> {
    let ids = plan.ids().map(|ids| Ids::new(ids, host));
    let in_user_namespace = plan.in_user_namespace();
    let makes = Makes {
        file_systems: host.can_mount && !in_user_namespace,
        binds: host.can_mount,
        copies: in_user_namespace && plan.own_mount_namespace(),
    };
    let mut netns = descriptors.netns;
    let mut cgroup = None;
    let mut ready = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let failed = |source| Error::Step { step: step.name(), source };
        ready.push(match &step.action {
            Action::Cgroup(plan) => {
                let opened = plan.create().map_err(failed)?;
                cgroup = Some(CgroupGuard { opened, keep: false });
                Ready::Nothing
            }
            Action::Clone { join, joined_ids, .. } => {
                open_namespaces(&plan, step, join, joined_ids, &mut netns)?
            }
            Action::Rootfs(plan) | Action::Mount(plan) => {
                Ready::Mount(mount::open(plan, makes, host).map_err(failed)?)
            }
            Action::Mask { .. } => Ready::Mask(host.can_mount.then(Masks::make).transpose().map_err(failed)?),
            Action::Devices { nodes, bound, .. } => {
                let open = |node| open_device(node, *bound && host.can_mount);
                Ready::Devices(nodes.iter().map(open).collect::<Result<_, _>>().map_err(failed)?)
            }
            Action::MoveRoot => Ready::HostMounts(mount::of_kernel().map_err(failed)?),
            Action::Exec(process) => {
                let root = rootfs(&ready).map(|fd| fd.try_clone_to_owned()).transpose();
                let root = root.map_err(|error| failed(sys::Error::new("dup", "the root", error)))?;
                let root = root.map(Root::from_fd);
                Ready::Exec(Box::new(Program::new(process, root.as_ref())?))
            }
            Action::Rdt(_) => Ready::Rdt(Resctrl::mounted().map_err(failed)?),
            Action::Attributes { .. }
            | Action::NetDevices { .. }
            | Action::Hooks { .. }
            | Action::Console
            | Action::ReadOnly { .. }
            | Action::Pivot
            | Action::Hostname { .. }
            | Action::Sysctl { .. } => Ready::Nothing,
        });
    }
    Ok(Opened { plan, ready, cgroup, ids, writer: writer(host), privileged: host.can_mount })
}

/// The detached root file system.
fn rootfs(ready: &[Ready]) -> Option<BorrowedFd<'_>> {
    ready.iter().find_map(|ready| match ready {
        Ready::Mount(source) => Some(source.detached().map(|detached| detached.mount.as_fd())),
        _ => None,
    })?
}

fn open_namespaces(
    plan: &Plan,
    step: &Step,
    join: &[Join],
    joined_ids: &IdMaps,
    netns: &mut Option<OwnedFd>,
) -> Result<Ready, Error> {
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
        if path.is_some() && changes(plan, *r#type) {
            refuse_own(*r#type, &fd).map_err(|source| Error::Step { step: step.name(), source })?;
        }
        if *r#type == NamespaceType::User && !joined_ids.is_empty() {
            namespace::check_maps(&fd, joined_ids, step)?;
        }
        match kinds(*r#type) {
            Kinds::PROCESS_ID => pid = Some(fd),
            kind => others.push((kind, fd)),
        }
    }
    Ok(Ready::Clone { join: others, pid })
}

/// Whether the plan sets names or kernel parameters of the namespace of this kind.
fn changes(plan: &Plan, r#type: NamespaceType) -> bool {
    plan.steps.iter().any(|step| match &step.action {
        Action::Hostname { .. } => r#type == NamespaceType::Uts,
        Action::Sysctl { values } => values.keys().any(|name| sysctl_namespace(name) == Some(r#type)),
        _ => false,
    })
}

/// A namespace that is changed must not be the one that the runtime is in, which is the host's.
fn refuse_own(r#type: NamespaceType, joined: &OwnedFd) -> Result<(), sys::Error> {
    let own = sys::namespace::own(r#type.file_name())?;
    let failed = |error| sys::Error::new("fstat", format!("{type} namespace"), error);
    if sys::path::is_same_file(joined, &own).map_err(failed)? {
        let object = format!("the {type} namespace of the host, whose names or parameters would be set");
        return Err(sys::Error::new("join", object, Errno::PERM));
    }
    Ok(())
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

impl Ids {
    fn new(maps: &IdMaps, host: &Host) -> Self {
        Self { writer: writer(host), uids: ranges(&maps.uid), gids: ranges(&maps.gid), root: maps.root() }
    }
}

/// Who writes maps of ids.
fn writer(host: &Host) -> user_namespace::Writer {
    if host.can_map_ids { user_namespace::Writer::Privileged } else { user_namespace::Writer::Unprivileged }
}

fn ranges(mappings: &[IdMapping]) -> Vec<Range> {
    let range = |mapping: &IdMapping| Range {
        inside: mapping.container_id,
        outside: mapping.host_id,
        size: mapping.size,
    };
    mappings.iter().map(range).collect()
}

impl Masks {
    /// The host's `/dev/null`, and one empty directory that nobody can write to.
    pub(crate) fn make() -> Result<Self, sys::Error> {
        use sys::mount::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
        let file = clone_device("/dev/null", rustix::fs::makedev(1, 3))?;
        let empty = sys::mount::Context::new("tmpfs")?;
        empty.set("mode", "755")?;
        empty.set("nr_inodes", "2")?;
        let directory =
            empty.mount(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
        Ok(Self { file, directory })
    }
}

fn open_device(node: &DeviceNode, is_wanted: bool) -> Result<Option<OwnedFd>, sys::Error> {
    // A fifo is no device, and can be made by everybody.
    let is_wanted = is_wanted && node.r#type != DeviceType::P;
    is_wanted.then(|| clone_device(&node.path, rustix::fs::makedev(node.major, node.minor))).transpose()
}

/// The host's device file at `path` as a detached mount, if it is that device.
pub(crate) fn clone_device(path: &str, device: u64) -> Result<OwnedFd, sys::Error> {
    let mount = sys::mount::clone_tree(rustix::fs::CWD, &mount::c_path(path.as_ref())?, false)?;
    let status = rustix::fs::fstat(&mount).map_err(sys::Error::of("fstat", path))?;
    if status.st_rdev != device {
        return Err(sys::Error::new("open", format!("{path}: another device on the host"), Errno::NODEV));
    }
    Ok(mount)
}

/// Opens what is needed to start `process` in the container of `target`.
pub fn open_process(process: ProcessPlan, target: Target<'_>, host: &Host) -> Result<OpenedProcess, Error> {
    let step = |source| Error::Step { step: format!("exec into process {}", target.pid), source };
    let root = Root::open(format!("/proc/{}/root", target.pid)).map_err(step)?;
    let kinds = foreign_namespaces(target.pid).map_err(step)?;
    // The number may have been given to another process meanwhile: then the container is gone.
    sys::pidfd::send_signal(target.pidfd, 0).map_err(step)?;
    let program = Program::new(&process, Some(&root))?;
    let cgroup = target.cgroup.map(ponton_cgroup::Cgroup::open);
    let cgroup = cgroup.transpose().map_err(step)?;
    let pidfd = target.pidfd.try_clone_to_owned();
    let target = pidfd.map_err(|error| step(sys::Error::new("dup", "pidfd", error)))?;
    let privileged = host.can_mount;
    Ok(OpenedProcess { process, program, target, kinds, cgroup, privileged, root })
}

/// The kinds of namespaces in which a process is not in ours.
fn foreign_namespaces(pid: u32) -> Result<Kinds, sys::Error> {
    const ALL: [NamespaceType; 8] = [
        NamespaceType::User,
        NamespaceType::Mount,
        NamespaceType::Pid,
        NamespaceType::Network,
        NamespaceType::Ipc,
        NamespaceType::Uts,
        NamespaceType::Cgroup,
        NamespaceType::Time,
    ];
    let mut foreign = Kinds::empty();
    for kind in ALL {
        let inode = |of: &str| {
            let path = format!("/proc/{of}/ns/{}", kind.file_name());
            rustix::fs::stat(&path).map(|status| status.st_ino).map_err(sys::Error::of("stat", path))
        };
        match inode("self") {
            Ok(own) if own == inode(&pid.to_string())? => {}
            Ok(_) => foreign |= kinds(kind),
            // A kernel without this kind.
            Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(foreign)
}

impl Opened {
    /// Whether namespaces are joined in an order in which the child cannot join them itself: with a
    /// user namespace.
    pub(crate) fn needs_go_between(&self) -> bool {
        let joins = self.ready.iter().any(|ready| match ready {
            Ready::Clone { join, pid } => !join.is_empty() || pid.is_some(),
            _ => false,
        });
        joins && self.plan.in_user_namespace()
    }

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
    /// The user and group outside that the root of the container's user namespace stands for, where it
    /// has one: the owner of its terminals.
    pub(crate) fn root_outside(&self) -> Option<(u32, u32)> {
        let directory = self.kinds.contains(Kinds::USER).then(|| self.root.stat("dev/pts").ok());
        directory.flatten().map(|status| (status.st_uid, status.st_gid))
    }

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
