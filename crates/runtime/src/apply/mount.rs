//! Mounts, devices and masks in the child: descriptors onto descriptors.
//!
//! Every path of the container is resolved inside of its root ([`Root`]); an image whose `/proc`,
//! `/sys` or `/dev` is a link leads nowhere else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ponton_sys as sys;
use ponton_sys::mount::{Change, Context, clone_tree};
use ponton_sys::path::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Stdio;
use super::container::is_any;
use super::copy_up::copy_up;
use crate::open::{Detached, Masks, MountSource, clone_source, make};
use crate::plan::{Attributes, MountPlan, Propagation, Source};

/// Attaches the root file system over a directory of the host, and gives a descriptor of it.
pub(super) fn attach_root(
    plan: &MountPlan,
    source: &MountSource,
    over: &Path,
) -> Result<OwnedFd, sys::Error> {
    let mount = match source {
        MountSource::Detached(detached) => {
            detached.mount.try_clone().map_err(sys::Error::of("dup", "the root"))?
        }
        MountSource::InChild => make(plan)?.mount,
        MountSource::Copied => return Err(not_copied(plan)),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let over =
        rustix::fs::open(over, flags, Mode::empty()).map_err(sys::Error::of("open", over.display()))?;
    sys::mount::attach(&mount, &over)?;
    Ok(mount)
}

/// Mounts onto a path of the container, which is made where it is missing. Gives what it has made
/// itself for that.
pub(super) fn attach(
    root: &Root,
    plan: &MountPlan,
    source: &MountSource,
) -> Result<Option<OwnedFd>, sys::Error> {
    if let Source::Remount { options } = &plan.source {
        return remount(root, plan, options).map(|()| None);
    }
    match source {
        MountSource::Detached(detached) => attach_at(root, plan, detached).map(|()| None),
        MountSource::InChild => {
            let made = make_here(plan)?;
            attach_at(root, plan, &made)?;
            Ok(Some(made.mount))
        }
        MountSource::Copied => Err(not_copied(plan)),
    }
}

fn attach_at(root: &Root, plan: &MountPlan, detached: &Detached) -> Result<(), sys::Error> {
    let Detached { mount, is_directory } = detached;
    if !is_directory {
        return sys::mount::attach(mount, root.create_file_all(&plan.target, 0o644)?);
    }
    let mode = mode_below(root, plan);
    let target = if is_of_kernel(plan) {
        directory_itself(root, &plan.target)?
    } else {
        root.mkdir_all(&plan.target, 0o755)?
    };
    if let Some(mode) = mode {
        rustix::fs::chmodat(mount, ".", mode, AtFlags::empty())
            .map_err(sys::Error::of("chmod", &plan.target))?;
    }
    if plan.copy_up {
        copy_up(&target, mount)?;
    }
    sys::mount::attach(mount, &target)
}

fn not_copied(plan: &MountPlan) -> sys::Error {
    sys::Error::new("mount", format!("{}: it was not copied", plan.target), Errno::BADF)
}

/// A tmpfs has the mode of the directory that it covers, unless it is given one.
fn mode_below(root: &Root, plan: &MountPlan) -> Option<Mode> {
    match &plan.source {
        Source::FileSystem { r#type, options, .. }
            if r#type == "tmpfs" && !options.iter().any(|option| option.starts_with("mode=")) =>
        {
            root.stat(&plan.target).ok().map(|status| Mode::from_raw_mode(status.st_mode & 0o7777))
        }
        _ => None,
    }
}

/// Makes a mount with the rights of the child. Where its namespaces don't own what a file system
/// shows (sysfs is the network's, say), it is the host's that is shown.
fn make_here(plan: &MountPlan) -> Result<Detached, sys::Error> {
    let Source::FileSystem { r#type, .. } = &plan.source else { return make(plan) };
    let of_host = match r#type.as_str() {
        "sysfs" => "/sys",
        "mqueue" => "/dev/mqueue",
        "cgroup2" => "/sys/fs/cgroup",
        _ => return make(plan),
    };
    make(plan).or_else(|error| {
        if !is_any(&error, &[Errno::PERM, Errno::BUSY]) {
            return Err(error);
        }
        let mut bind = plan.clone();
        // With all below it, which is locked to it.
        bind.attributes.set_recursive |= bind.attributes.set;
        clone_source(&bind, Path::new(of_host), true).map_err(|_| error)
    })
}

/// Gives what is mounted already its new options and attributes.
fn remount(root: &Root, plan: &MountPlan, options: &[String]) -> Result<(), sys::Error> {
    if !options.is_empty() {
        let context = Context::of(root.open_path(&plan.target, OFlags::PATH)?)?;
        options.iter().try_for_each(|option| context.set_option(option))?;
        context.reconfigure()?;
    }
    change(root, &plan.target, &plan.attributes, plan.propagation)
}

/// What the masks and kernel parameters lie on must be where its name says, for good.
fn is_of_kernel(plan: &MountPlan) -> bool {
    matches!(&plan.source, Source::FileSystem { r#type, .. } if r#type == "proc" || r#type == "sysfs")
}

/// Opens a directory that is no link, and makes it where it is missing.
fn directory_itself(root: &Root, path: &str) -> Result<OwnedFd, sys::Error> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = root.mkdir_all(Path::new("/").join(parent), 0o755)?;
    let made = rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755));
    if let Err(errno) = made
        && !matches!(errno, Errno::EXIST | Errno::ROFS)
    {
        return Err(sys::Error::new("mkdir", path, errno));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::empty())
        .map_err(|errno| sys::Error::new("mount", format!("{path} is not a directory of the image"), errno))
}

/// Changes what is mounted at a path of the container.
pub(super) fn change(
    root: &Root,
    target: &str,
    attributes: &Attributes,
    propagation: Option<Propagation>,
) -> Result<(), sys::Error> {
    change_mount(root.open_path(target, OFlags::PATH)?.as_fd(), attributes, propagation)
}

/// Changes a mount.
pub(super) fn change_mount(
    mount: BorrowedFd<'_>,
    attributes: &Attributes,
    propagation: Option<Propagation>,
) -> Result<(), sys::Error> {
    let Attributes { set, clear, set_recursive, clear_recursive } = *attributes;
    if let Some(Propagation { flag, recursive }) = propagation {
        let change = Change { propagation: flag, ..Change::default() };
        sys::mount::change(mount, change, recursive)?;
    }
    let recursive = Change { set: set_recursive, clear: clear_recursive, propagation: 0 };
    sys::mount::change(mount, recursive, true)?;
    sys::mount::change(mount, Change { set, clear, propagation: 0 }, false)
}

/// Shows the terminal as `/dev/console`.
pub(super) fn attach_console(
    root: &Root,
    stdio: &Stdio<'_>,
    console: Option<&OwnedFd>,
) -> Result<(), sys::Error> {
    let target = root.create_file_all("/dev/console", 0o600)?;
    match console {
        Some(mount) => sys::mount::attach(mount, &target),
        // A terminal of the container's /dev/pts, which is attached here by now; or one of the host's
        // that only we may copy.
        None => {
            let mount = clone_tree(stdio.stdin, c"", false).or_else(|_| clone_by_name(stdio))?;
            sys::mount::attach(mount, &target)
        }
    }
}

/// The terminal as our own mount namespace shows it.
fn clone_by_name(stdio: &Stdio<'_>) -> Result<OwnedFd, sys::Error> {
    let failed = |errno| sys::Error::new("open", "the terminal", errno);
    let name = rustix::termios::ttyname(stdio.stdin, Vec::new()).map_err(failed)?;
    let mount = clone_tree(rustix::fs::CWD, &name, false)?;
    let is_same = sys::path::is_same_file(&mount, stdio.stdin).map_err(sys::Error::of("stat", "terminal"))?;
    if is_same { Ok(mount) } else { Err(failed(Errno::NODEV)) }
}

/// Hides paths behind `masks`.
pub(super) fn mask(root: &Root, paths: &[String], masks: Option<&Masks>) -> Result<(), sys::Error> {
    let made;
    let Masks { file, directory } = match masks {
        Some(masks) => masks,
        None => {
            made = Masks::make()?;
            &made
        }
    };
    let mut files = Stamp { mount: file, is_attached: false };
    let mut directories = Stamp { mount: directory, is_attached: false };
    for path in paths {
        let Some(target) = find(root, path)? else { continue };
        let status = rustix::fs::fstat(&target).map_err(sys::Error::of("fstat", path))?;
        let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        let stamp = if is_directory { &mut directories } else { &mut files };
        stamp.attach(&target)?;
    }
    Ok(())
}

/// One detached mount that is shown at many places: itself first, then copies of it.
struct Stamp<'a> {
    mount: &'a OwnedFd,
    is_attached: bool,
}

impl Stamp<'_> {
    fn attach(&mut self, target: &OwnedFd) -> Result<(), sys::Error> {
        if self.is_attached {
            return sys::mount::attach(clone_tree(self.mount, c"", false)?, target);
        }
        self.is_attached = true;
        sys::mount::attach(self.mount, target)
    }
}

/// Makes paths read-only, by a read-only copy of each over itself.
pub(super) fn make_read_only(root: &Root, paths: &[String]) -> Result<(), sys::Error> {
    for path in paths {
        let Some(target) = find(root, path)? else { continue };
        let copy = clone_tree(&target, c"", true)?;
        let read_only = Change { set: Attributes::READ_ONLY.set, ..Change::default() };
        sys::mount::change(copy.as_fd(), read_only, true)?;
        sys::mount::attach(&copy, &target)?;
    }
    Ok(())
}

/// A path that is there.
fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>, sys::Error> {
    match root.open_path(path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if is_any(&error, &[Errno::NOENT, Errno::NOTDIR]) => Ok(None),
        Err(error) => Err(error),
    }
}
