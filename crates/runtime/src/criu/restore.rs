//! Starting again: what of the container is the host's is told by its plan.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use ponton_cgroup::Cgroup;
use ponton_oci::runtime::NamespaceType;
use ponton_sys::namespace::{self, Kinds};
use ponton_sys::path::Root;
use ponton_sys::{mount, pidfd, process};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::mount::MountPropagationFlags;

use super::{Criu, DESCRIPTORS, Error, Options, external_namespace, refuse};
use crate::apply::{Started, Stdio};
use crate::child;
use crate::host::Host;
use crate::open::{Opened, Ready};
use crate::plan::{Action, MountPlan, Plan, Source};

/// How long a restore may take.
const RESTORE_MAX: Duration = Duration::from_secs(300);

/// What the restored processes and mounts are labelled with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    /// The processes: `TYPE:NAME`.
    pub process: Option<&'a str>,
    /// The mounts.
    pub mount: Option<&'a str>,
}

/// Starts a container from its images: in the control group, on the root file system and in the joined
/// namespaces that were opened for it, and with these standard streams in the place of what it had. It is a
/// child of the calling process, which must have one thread. `directory` is used for a moment.
pub fn restore(
    options: &Options,
    labels: Labels<'_>,
    mut opened: Opened,
    stdio: &Stdio<'_>,
    host: &Host,
    directory: &Path,
) -> Result<Started, Error> {
    refuse(&opened.plan)?;
    let restored = try_restore(options, labels, &opened, stdio, host, directory);
    if let Some(guard) = &mut opened.cgroup {
        match &restored {
            Ok(_) => guard.keep = true,
            // CRIU takes back what it has made; one that was killed could not.
            Err(_) => drop(guard.opened.cgroup().kill_all()),
        }
    }
    restored
}

fn try_restore(
    options: &Options,
    labels: Labels<'_>,
    opened: &Opened,
    stdio: &Stdio<'_>,
    host: &Host,
    directory: &Path,
) -> Result<Started, Error> {
    let Some(root) = opened.root() else {
        return Err(Error::Unsupported("restore: a root that the container mounts itself".to_owned()));
    };
    let mut criu = options.begin("restore")?;
    if let Some(group) = &opened.cgroup {
        tell_cgroup(&mut criu, group.opened.cgroup(), host);
    }
    tell_mounts(&mut criu, &opened.plan, root)?;
    let namespaces = tell_descriptors(&mut criu, opened)?;
    let place = directory.join("root");
    fs::create_dir_all(&place).map_err(Error::io("make directory", &place))?;
    let pid_file = directory.join("restored.pid");
    let _ = fs::remove_file(&pid_file);
    criu.command.arg("--root").arg(&place);
    // It is our child then, as one that we start ourselves.
    criu.command.args(["--restore-detached", "--restore-sibling", "--pidfile"]).arg(&pid_file);
    for (option, value) in [("--lsm-profile", labels.process), ("--lsm-mount-context", labels.mount)] {
        criu.command.args(value.iter().flat_map(|value| [option, value]));
    }
    let ran = run(&mut criu, stdio, &namespaces, root, &place);
    let started = ran.and_then(|()| {
        let text = fs::read_to_string(&pid_file).map_err(Error::io("read", &pid_file))?;
        let none =
            |_| Error::io("read", &pid_file)(io::Error::new(io::ErrorKind::InvalidData, "no process id"));
        let pid = text.trim().parse().map_err(none)?;
        Ok(Started { pid, pidfd: pidfd::open(pid)? })
    });
    // It was mounted on in a namespace that is gone; what stays is in nobody's way.
    let _ = fs::remove_dir(&place);
    let _ = fs::remove_file(&pid_file);
    started
}

/// Runs CRIU to its end, in a mount namespace where the root is attached.
fn run(
    criu: &mut Criu,
    stdio: &Stdio<'_>,
    namespaces: &[OwnedFd],
    root: BorrowedFd<'_>,
    place: &Path,
) -> Result<(), Error> {
    let log = criu.log.clone();
    let command = &mut criu.command;
    let code = child::run(RESTORE_MAX, || {
        let failed = match prepare(stdio, namespaces, root, place) {
            Ok(()) => command.exec().to_string(),
            Err(error) => error.to_string(),
        };
        // Where CRIU would tell it.
        let _ = fs::write(log, format!("Error: {failed}\n"));
    });
    let program = Path::new(criu.command.get_program());
    match code.map_err(Error::io("run", program))? {
        Some(0) => Ok(()),
        Some(_) => Err(criu.failure(b"")),
        None => {
            let late = format!("not done within {} s", RESTORE_MAX.as_secs());
            Err(Error::io("run", program)(io::Error::new(io::ErrorKind::TimedOut, late)))
        }
    }
}

/// Makes the child what CRIU is to begin with. The root file system is a mount there, which CRIU asks for,
/// and nobody else sees it.
fn prepare(
    stdio: &Stdio<'_>,
    namespaces: &[OwnedFd],
    root: BorrowedFd<'_>,
    place: &Path,
) -> Result<(), ponton_sys::Error> {
    namespace::unshare(Kinds::MOUNT)?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).map_err(ponton_sys::Error::of("make a slave", "/"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(place, flags, Mode::empty())
        .map_err(ponton_sys::Error::of("open", place.display()))?;
    mount::attach(root, &target)?;
    // Else it would be closed twice.
    drop(target);
    process::set_stdio([stdio.stdin, stdio.stdout, stdio.stderr])?;
    process::reset_signals()?;
    let kept: Vec<_> = namespaces.iter().map(AsFd::as_fd).collect();
    process::close_all_but(3, &kept)?;
    for namespace in kept {
        rustix::io::fcntl_setfd(namespace, FdFlags::empty())
            .map_err(ponton_sys::Error::of("fcntl", "a namespace"))?;
    }
    Ok(())
}

/// The processes go to the container's own control group, wherever they were.
fn tell_cgroup(criu: &mut Criu, cgroup: &Cgroup, host: &Host) {
    let path = cgroup.path().trim_start_matches('/');
    if host.cgroup.is_v2() {
        criu.command.arg("--cgroup-root").arg(format!("/{path}"));
    }
    let controllers = host.cgroup.hierarchies.iter().filter(|_| !host.cgroup.is_v2());
    for controller in controllers.flat_map(|hierarchy| &hierarchy.controllers) {
        criu.command.arg("--cgroup-root").arg(format!("{controller}:/{path}"));
    }
}

/// Makes all places to mount on, and tells where the host's files are that are mounted there.
fn tell_mounts(criu: &mut Criu, plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Error> {
    let dup = root.try_clone_to_owned().map_err(Error::io("dup", Path::new("/")))?;
    let inside = Root::from_fd(dup);
    let mut external = |target: &str, source: &Path| {
        criu.command.arg("--external").arg(format!("mnt[{target}]:{}", source.display()));
    };
    let mut above: Vec<&str> = Vec::new();
    for step in &plan.steps {
        match &step.action {
            Action::Mount(MountPlan { target, source, .. }) => {
                let bound = if let Source::Bind { path, .. } = source { Some(path) } else { None };
                // What is mounted on another mount comes with that.
                let is_below = above.iter().any(|above| Path::new(target).starts_with(above));
                match bound {
                    _ if is_below => {}
                    Some(path) if !path.is_dir() => drop(inside.create_file_all(target, 0o644)?),
                    _ => drop(inside.mkdir_all(target, 0o755)?),
                }
                above.push(target);
                if let Some(path) = bound {
                    external(target, path);
                }
            }
            Action::Devices { nodes, bound: true, .. } => {
                for node in nodes {
                    external(&node.path, Path::new(&node.path));
                }
            }
            Action::Mask { paths } => {
                for path in paths {
                    external(path, Path::new("/dev/null"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives CRIU what the standard streams and the joined namespaces are now. The latter are to be open under
/// the same numbers when it runs.
fn tell_descriptors(criu: &mut Criu, opened: &Opened) -> Result<Vec<OwnedFd>, Error> {
    let path = criu.images.join(DESCRIPTORS);
    let json = fs::read(&path).map_err(Error::io("read", &path))?;
    let names: Vec<String> =
        serde_json::from_slice(&json).map_err(|error| Error::io("read", &path)(error.into()))?;
    for (fd, name) in names.iter().enumerate().take(3) {
        // Others are of the container, which has them in its images.
        if name.starts_with("pipe:[") || name.starts_with("file[") {
            criu.command.arg("--inherit-fd").arg(format!("fd[{fd}]:{name}"));
        }
    }
    let mut joined = Vec::new();
    for ready in &opened.ready {
        let Ready::Clone { join, pid } = ready else { continue };
        let others = join.iter().filter(|(kind, _)| *kind == Kinds::NETWORK);
        joined.extend(others.map(|(_, fd)| (fd, NamespaceType::Network)));
        joined.extend(pid.iter().map(|fd| (fd, NamespaceType::Pid)));
    }
    let mut kept = Vec::new();
    for (fd, kind) in joined {
        let name = external_namespace(kind)?;
        // A number of its own, which is none of the standard streams'.
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3)
            .map_err(|errno| Error::io("dup", Path::new(name))(errno.into()))?;
        criu.command.arg("--inherit-fd").arg(format!("fd[{}]:{name}", fd.as_raw_fd()));
        kept.push(fd);
    }
    Ok(kept)
}
