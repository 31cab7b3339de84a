//! The child of a clone: the steps of the plan, one after another.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ponton_oci::runtime::{NamespaceType, Status, TimeOffset};
use ponton_sys as sys;
use ponton_sys::namespace::{self, Kinds};
use ponton_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::entry::Go;
use super::label::Label;
use super::program::Before;
use super::report::Writer;
use super::{Gate, Stdio, affinity, limits, mount, node, program};
use crate::open::{Detached, Identity, MountSource, Opened, OpenedProcess, Program, Ready, finish_identity};
use crate::plan::{Action, AffinityPlan, HookKind, MountPlan, Plan, ProcessPlan, Source, Step};
use crate::{Error, hook};

/// The child's own state between steps.
pub(super) struct Child<'a> {
    opened: &'a Opened,
    stdio: &'a Stdio<'a>,
    /// The terminal as a detached mount, where it could be copied before the clone.
    console: Option<OwnedFd>,
    root: Option<Root>,
    report: &'a Writer<'a>,
    gate: Option<Gate<'a>>,
    label: Option<Label>,
    /// Where the ids of its user namespace are being mapped.
    go: Option<&'a Go>,
    /// What the parent has copied from its mount namespace, in the order of the steps.
    copies: std::vec::IntoIter<OwnedFd>,
    /// What it has mounted itself, by the number of the step.
    made: BTreeMap<usize, OwnedFd>,
    /// Who the program is, where that could not be looked up before the clone.
    identity: Option<Identity>,
}

/// Applies all steps; comes back only with an error.
pub(super) fn run<'a>(
    opened: &'a Opened,
    stdio: &'a Stdio<'a>,
    console: Option<OwnedFd>,
    report: &'a Writer<'a>,
    gate: Option<Gate<'a>>,
    go: Option<&'a Go>,
) -> Error {
    let (root, label, identity, copies) = (None, None, None, Vec::new().into_iter());
    let made = BTreeMap::new();
    let mut child = Child { opened, stdio, console, root, report, gate, label, go, copies, made, identity };
    for (number, (step, ready)) in opened.plan.steps.iter().zip(&opened.ready).enumerate() {
        if let Err(error) = child.apply(number, step, ready) {
            return error;
        }
    }
    nothing_to_execute("the plan")
}

fn nothing_to_execute(what: &str) -> Error {
    let source = sys::Error::new("execve", format!("{what} ends without a program"), Errno::INVAL);
    Error::Step { step: "exec".into(), source }
}

/// The first process of an exec: into the container's namespaces, then the program.
pub(super) fn run_further<'a>(opened: &OpenedProcess, stdio: &Stdio<'_>, report: &'a Writer<'a>) -> Error {
    let plan = &opened.program.plan;
    let mut label = None;
    let by_parent = opened.privileged && opened.kinds.contains(Kinds::USER);
    let entered = (|| {
        label = begin(stdio, plan, by_parent)?;
        if let Some(cgroup) = &opened.cgroup {
            cgroup.join()?;
        }
        match &plan.affinity {
            Some(AffinityPlan { r#final: Some(cpus), .. }) => affinity::set(cpus)?,
            Some(AffinityPlan { initial: Some(_), .. }) => affinity::widen()?,
            _ => {}
        }
        program::schedule(plan, by_parent)?;
        if opened.kinds.contains(Kinds::USER) {
            // The go-between has joined everything.
            return become_root((0, 0));
        }
        let kinds = opened.kinds.difference(Kinds::PROCESS_ID);
        if kinds.is_empty() { Ok(()) } else { namespace::join(opened.target.as_fd(), kinds) }
    })();
    if let Err(source) = entered {
        return Error::Step { step: "enter the container".into(), source };
    }
    let before = Before { identity: None, report, gate: None, hooks: None, label, by_parent };
    match program::execute(&opened.program, &before) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Becomes the root of the user namespace that was entered; in one without such an id nobody.
fn become_root((uid, gid): (u32, u32)) -> Result<(), sys::Error> {
    match sys::user_namespace::become_root(uid, gid) {
        Err(error) if is_any(&error, &[Errno::INVAL]) => Ok(()),
        done => done,
    }
}

/// What every new process starts with: default signals, a session and a keyring of its own, and its
/// standard streams. It needs nothing but the host's own `/proc`.
fn begin(stdio: &Stdio<'_>, plan: &ProcessPlan, by_parent: bool) -> Result<Option<Label>, sys::Error> {
    rustix::process::umask(Mode::empty());
    sys::process::reset_signals()?;
    if !by_parent {
        limits::set_own_oom_score(plan)?;
    }
    rustix::process::setsid().map_err(sys::Error::of("setsid", "init"))?;
    sys::process::set_stdio([stdio.stdin, stdio.stdout, stdio.stderr])?;
    if plan.terminal {
        rustix::process::ioctl_tiocsctty(stdio.stdin).map_err(sys::Error::of("TIOCSCTTY", "terminal"))?;
    }
    if let Some((rows, columns)) = plan.console_size {
        sys::pty::set_size(stdio.stdin, rows, columns).map_err(sys::Error::of("TIOCSWINSZ", "terminal"))?;
    }
    let label = Label::open(plan)?;
    if plan.no_new_keyring {
        return Ok(label);
    }
    match sys::process::new_session_keyring() {
        // A kernel without keyrings, or a policy that forbids them, leaves nothing to be shared.
        Err(error) if !is_any(&error, &[Errno::NOSYS, Errno::PERM, Errno::ACCESS]) => Err(error),
        _ => Ok(label),
    }
}

pub(super) fn is_any(error: &sys::Error, among: &[Errno]) -> bool {
    among.iter().any(|errno| error.errno() == Some(errno.raw_os_error()))
}

/// Copies the terminal's mount, if the plan wants it shown. A terminal of the container's own
/// `/dev/pts` can be copied only by the child: none is returned.
pub(super) fn clone_console(plan: &Plan, stdio: &Stdio<'_>) -> Option<OwnedFd> {
    let wanted = plan.steps.iter().any(|step| step.action == Action::Console);
    wanted.then(|| sys::mount::clone_tree(stdio.stdin, c"", false).ok())?
}

impl Child<'_> {
    fn apply(&mut self, number: usize, step: &Step, ready: &Ready) -> Result<(), Error> {
        match (&step.action, ready) {
            (Action::Exec(_), Ready::Exec(program)) => return self.execute(program),
            (Action::Hooks { kind: HookKind::CreateContainer, hooks }, _) => {
                let state = self.opened.plan.state(Status::Creating, Some(std::process::id()));
                let directory = self.root.as_ref().map(AsFd::as_fd);
                return hook::run(HookKind::CreateContainer, hooks, &state, directory);
            }
            // With all mounts in place, and the host's /proc not yet gone.
            (Action::Pivot | Action::MoveRoot, _) => self.look_up_user()?,
            _ => {}
        }
        self.apply_to_kernel(number, step, ready).map_err(|source| Error::Step { step: step.name(), source })
    }

    fn execute(&mut self, program: &Program) -> Result<(), Error> {
        let before = Before {
            identity: self.identity.as_ref(),
            report: self.report,
            gate: self.gate,
            hooks: Some(&self.opened.plan),
            label: self.label.take(),
            by_parent: self.by_parent(),
        };
        match program::execute(program, &before)? {}
    }

    /// Whether the parent sets the limits: it has rights that the child has given up.
    fn by_parent(&self) -> bool {
        self.opened.privileged && self.opened.plan.in_user_namespace()
    }

    fn look_up_user(&mut self) -> Result<(), Error> {
        for ready in &self.opened.ready {
            if let (Ready::Exec(program), Some(root)) = (ready, &self.root)
                && program.identity.is_none()
            {
                self.identity = Some(finish_identity(&program.plan, root)?);
            }
        }
        Ok(())
    }

    fn apply_to_kernel(&mut self, number: usize, step: &Step, ready: &Ready) -> Result<(), sys::Error> {
        match (&step.action, ready) {
            (action, _) if action.is_of_parent() => self.report.wait_for_step(number),
            // Run by the program's step, behind its gate.
            (Action::Hooks { .. }, _) => Ok(()),
            (Action::Clone { new, clocks, .. }, Ready::Clone { join, .. }) => self.enter(new, join, clocks),
            (Action::Rootfs(plan), Ready::Mount(source)) => {
                let copy = self.take_copy(source)?;
                let source = copy.as_ref().unwrap_or(source);
                let mount = mount::attach_root(plan, source, self.root_place(plan))?;
                self.root = Some(Root::from_fd(mount));
                Ok(())
            }
            (Action::Mount(plan), Ready::Mount(source)) => {
                let copy = self.take_copy(source)?;
                let made = mount::attach(self.root()?, plan, copy.as_ref().unwrap_or(source))?;
                self.made.extend(made.map(|made| (number, made)));
                Ok(())
            }
            (Action::Attributes { target, attributes, propagation }, _) => match self.mounted(number, target)
            {
                Some(mount) => mount::change_mount(mount, attributes, *propagation),
                None => mount::change(self.root()?, target, attributes, *propagation),
            },
            (Action::Devices { nodes, links, bound }, Ready::Devices(mounts)) => {
                node::make(self.root()?, nodes, mounts, *bound)?;
                node::link(self.root()?, links)
            }
            (Action::Console, _) => mount::attach_console(self.root()?, self.stdio, self.console.as_ref()),
            (Action::Mask { paths }, Ready::Mask(masks)) => mount::mask(self.root()?, paths, masks.as_ref()),
            (Action::ReadOnly { paths }, _) => mount::make_read_only(self.root()?, paths),
            (Action::Pivot, _) => self.pivot(),
            (Action::MoveRoot, Ready::HostMounts(targets)) => self.move_root(targets),
            (Action::Hostname { hostname, domainname }, _) => set_names(hostname, domainname),
            (Action::Sysctl { values }, _) => {
                values.iter().try_for_each(|(name, value)| set_sysctl(self.root()?, name, value))
            }
            (Action::Cgroup(_), _) => Ok(()),
            (_, _) => Err(sys::Error::new("apply", "a step that was not opened", Errno::INVAL)),
        }
    }

    /// The mount that the parent has copied for a step, if it is one of those.
    fn take_copy(&mut self, source: &MountSource) -> Result<Option<MountSource>, sys::Error> {
        if !matches!(source, MountSource::Copied) {
            return Ok(None);
        }
        let copy = self.copies.next();
        let copy =
            copy.ok_or_else(|| sys::Error::new("open_tree", "a copy that did not come", Errno::BADF))?;
        Detached::of(copy).map(|detached| Some(MountSource::Detached(detached)))
    }

    /// What a step before `number` has mounted at `target`, wherever that path leads to now: a later one
    /// may have hidden it.
    fn mounted(&self, number: usize, target: &str) -> Option<BorrowedFd<'_>> {
        let steps = self.opened.plan.steps.iter().zip(&self.opened.ready).enumerate().take(number);
        let (number, source) =
            steps.rev().find_map(|(number, (step, ready))| match (&step.action, ready) {
                (Action::Mount(plan), Ready::Mount(source)) if plan.target == target => {
                    Some((number, source))
                }
                _ => None,
            })?;
        let detached = source.detached().map(|detached| detached.mount.as_fd());
        detached.or_else(|| self.made.get(&number).map(AsFd::as_fd))
    }

    fn root(&self) -> Result<&Root, sys::Error> {
        self.root
            .as_ref()
            .ok_or_else(|| sys::Error::new("open", "the root before it is mounted", Errno::NOENT))
    }

    /// What the root file system is attached over: its own path, where hooks look for it, else `/`.
    fn root_place<'p>(&self, root: &'p MountPlan) -> &'p Path {
        let kinds = [HookKind::Prestart, HookKind::CreateRuntime, HookKind::CreateContainer];
        let has_hooks = kinds.iter().any(|kind| !self.opened.plan.hooks(*kind).is_empty());
        match &root.source {
            Source::Bind { path, .. } if has_hooks => path,
            _ => Path::new("/"),
        }
    }

    fn enter(
        &mut self,
        new: &[NamespaceType],
        join: &[(Kinds, OwnedFd)],
        clocks: &BTreeMap<String, TimeOffset>,
    ) -> Result<(), sys::Error> {
        let process = self.opened.plan.process();
        if let Some(plan) = process {
            self.label = begin(self.stdio, plan, self.by_parent())?;
        }
        if let Some(guard) = &self.opened.cgroup {
            guard.opened.join()?;
        }
        process.map_or(Ok(()), |plan| program::schedule(plan, self.by_parent()))?;
        if !self.opened.needs_go_between() {
            join.iter().try_for_each(|(kinds, fd)| namespace::join(fd.as_fd(), *kinds))?;
        }
        if new.contains(&NamespaceType::Time) {
            // Its clocks can be set until somebody is in it.
            namespace::unshare(Kinds::TIME)?;
            for (clock, TimeOffset { secs, nanosecs }) in clocks {
                sys::user_namespace::set_clock(clock, *secs, *nanosecs)?;
            }
            // Without this, execve would enter it from Linux 6.2 on, and before that only a fork.
            namespace::join(namespace::own("time_for_children")?.as_fd(), Kinds::TIME)?;
        }
        if let Some(go) = self.go {
            self.copies = go.wait()?.into_iter();
        }
        if self.opened.plan.in_user_namespace() {
            become_root(self.opened.ids.as_ref().map_or((0, 0), |ids| ids.root))?;
        }
        if new.contains(&NamespaceType::Cgroup) {
            namespace::unshare(Kinds::CONTROL_GROUP)?;
        }
        // What is mounted or unmounted here must not reach the host.
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).map_err(sys::Error::of("make a slave", "/"))
    }

    /// Makes the root file system the root, and lets the host's go (pivot_root(2), "pivot_root(".",
    /// ".")"). The working directory is made while everything can still be written to.
    fn pivot(&self) -> Result<(), sys::Error> {
        self.enter_root()?;
        rustix::process::pivot_root(".", ".").map_err(sys::Error::of("pivot_root", "the new root"))?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(sys::Error::of("umount2", "the old root"))
    }

    /// Makes the root file system, which lies over the host's, the root, where the host's cannot be
    /// taken away. Where the kernel shows itself there goes first: who can mount procfs anew must not
    /// find one without masks.
    fn move_root(&self, targets: &[CString]) -> Result<(), sys::Error> {
        for target in targets {
            match rustix::mount::unmount(target, UnmountFlags::DETACH) {
                Ok(()) => {}
                // Locked, as it came from a more privileged namespace.
                Err(Errno::INVAL | Errno::PERM) => {
                    rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::RDONLY, None)
                        .map_err(sys::Error::of("cover", target.to_string_lossy()))?;
                }
                Err(errno) => return Err(sys::Error::new("umount2", target.to_string_lossy(), errno)),
            }
        }
        self.enter_root()?;
        rustix::process::chroot(".").map_err(sys::Error::of("chroot", "the new root"))
    }

    fn enter_root(&self) -> Result<(), sys::Error> {
        let root = self.root()?;
        if let Some(process) = self.opened.plan.process() {
            make_working_directory(root, &process.cwd)?;
        }
        rustix::process::fchdir(root.as_fd()).map_err(sys::Error::of("fchdir", "the new root"))
    }
}

const ELSEWHERE: [Errno; 6] =
    [Errno::ROFS, Errno::NOENT, Errno::NOTDIR, Errno::EXIST, Errno::LOOP, Errno::ACCESS];

fn make_working_directory(root: &Root, path: &str) -> Result<(), sys::Error> {
    match root.mkdir_all(path, 0o755) {
        // A root that cannot be written to, and a path that is no directory or leads through a magic
        // link, show at chdir.
        Err(error) if is_any(&error, &ELSEWHERE) => Ok(()),
        other => other.map(drop),
    }
}

fn set_names(hostname: &str, domainname: &str) -> Result<(), sys::Error> {
    if !hostname.is_empty() {
        rustix::system::sethostname(hostname.as_bytes()).map_err(sys::Error::of("sethostname", hostname))?;
    }
    if !domainname.is_empty() {
        rustix::system::setdomainname(domainname.as_bytes())
            .map_err(sys::Error::of("setdomainname", domainname))?;
    }
    Ok(())
}

/// Writes a kernel parameter, through the container's procfs and only if it is one: nothing that is
/// mounted or linked there is followed.
fn set_sysctl(root: &Root, name: &str, value: &str) -> Result<(), sys::Error> {
    const PROC_MAGIC: i64 = 0x9fa0;
    const PROC_ROOT_INO: u64 = 1;
    let failed = |errno| sys::Error::new(format!("write {value:?} to sysctl"), name, errno);
    let proc = root.open_path("proc", OFlags::PATH | OFlags::DIRECTORY)?;
    let of = rustix::fs::fstatfs(&proc).map_err(failed)?;
    if of.f_type as i64 != PROC_MAGIC || rustix::fs::fstat(&proc).map_err(failed)?.st_ino != PROC_ROOT_INO {
        return Err(failed(Errno::XDEV));
    }
    let file = Root::from_fd(proc).open_own(format!("sys/{}", sysctl_path(name)), OFlags::WRONLY)?;
    rustix::io::write(&file, value.as_bytes()).map(drop).map_err(failed)
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/forwarding`: the first separator says which way
/// dots and slashes are meant (sysctl.d(5)).
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('.') => name
            .chars()
            .map(|character| match character {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_of_a_sysctl_decides() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
