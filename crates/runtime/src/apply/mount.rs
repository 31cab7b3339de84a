//! Mounts, devices and masks in the child: descriptors onto descriptors.
//!
//! Every path of the container is resolved inside of its root ([`Root`]); an image whose `/proc`,
//! `/sys` or `/dev` is a link leads nowhere else.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ponton_oci::runtime::DeviceType;
use ponton_sys as sys;
use ponton_sys::mount::{Change, clone_tree};
use ponton_sys::path::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;

use super::Stdio;
use super::container::is_any;
use crate::open::{MountSource, make_filesystem};
use crate::plan::{Attributes, DeviceNode, MountPlan, Propagation, Source};

/// Attaches the root file system over the host's root, and gives a descriptor of it.
pub(super) fn attach_root(plan: &MountPlan, source: &MountSource) -> Result<OwnedFd, sys::Error> {
    let mount = match source {
        MountSource::Detached(detached) => detached.mount.try_clone(),
        MountSource::InChild => return Err(sys::Error::new("mount", &plan.target, Errno::OPNOTSUPP)),
    };
    let mount = mount.map_err(sys::Error::of("dup", "the root"))?;
    let over = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(sys::Error::of("open", "/"))?;
    sys::mount::attach(&mount, &over)?;
    Ok(mount)
}

/// Mounts onto a path of the container, which is made where it is missing.
pub(super) fn attach(root: &Root, plan: &MountPlan, source: &MountSource) -> Result<(), sys::Error> {
    let made;
    let (mount, is_directory) = match source {
        MountSource::Detached(detached) => (&detached.mount, detached.is_directory),
        MountSource::InChild => {
            made = make_filesystem(plan)?;
            (&made, true)
        }
    };
    let target = if is_of_kernel(plan) {
        directory_itself(root, &plan.target)?
    } else if is_directory {
        root.mkdir_all(&plan.target, 0o755)?
    } else {
        root.create_file_all(&plan.target, 0o644)?
    };
    sys::mount::attach(mount, &target)
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
    let mount = root.open_path(target, OFlags::PATH)?;
    let Attributes { set, clear, set_recursive, clear_recursive } = *attributes;
    if let Some(Propagation { flag, recursive }) = propagation {
        let change = Change { propagation: flag, ..Change::default() };
        sys::mount::change(mount.as_fd(), change, recursive)?;
    }
    let recursive = Change { set: set_recursive, clear: clear_recursive, propagation: 0 };
    sys::mount::change(mount.as_fd(), recursive, true)?;
    sys::mount::change(mount.as_fd(), Change { set, clear, propagation: 0 }, false)
}

/// Makes device files and links; what is there already as it should be stays.
pub(super) fn make_devices(
    root: &Root,
    nodes: &[DeviceNode],
    links: &[(String, String)],
) -> Result<(), sys::Error> {
    let mut parents = Parents { root, last: None };
    for node in nodes {
        make_device(parents.of(&node.path)?, node)?;
    }
    for (path, content) in links {
        let (directory, name) = parents.of(path)?;
        match rustix::fs::symlinkat(content, directory, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(sys::Error::new("symlink", path, errno)),
        }
    }
    Ok(())
}

/// The directory of one path after another; mostly it is the same.
struct Parents<'a> {
    root: &'a Root,
    last: Option<(String, OwnedFd)>,
}

impl Parents<'_> {
    fn of<'p>(&mut self, path: &'p str) -> Result<(&OwnedFd, &'p str), sys::Error> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let last = match self.last.take() {
            Some((known, fd)) if known == parent => (known, fd),
            _ => (parent.to_owned(), self.root.mkdir_all(Path::new("/").join(parent), 0o755)?),
        };
        Ok((&self.last.insert(last).1, name))
    }
}

fn make_device((directory, name): (&OwnedFd, &str), node: &DeviceNode) -> Result<(), sys::Error> {
    let failed = |errno| sys::Error::new("mknod", &node.path, errno);
    let kind = match node.r#type {
        DeviceType::B => FileType::BlockDevice,
        DeviceType::P => FileType::Fifo,
        DeviceType::A | DeviceType::C | DeviceType::U => FileType::CharacterDevice,
    };
    let device = if kind == FileType::Fifo { 0 } else { makedev(node.major, node.minor) };
    let mode = Mode::from_raw_mode(node.mode);
    match rustix::fs::mknodat(directory, name, kind, mode, device) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == device {
                return Ok(());
            }
            rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(failed)?;
            rustix::fs::mknodat(directory, name, kind, mode, device).map_err(failed)?;
        }
        Err(errno) => return Err(failed(errno)),
    }
    if node.uid == 0 && node.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(node.uid), rustix::fs::Gid::from_raw(node.gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
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
        // A terminal of the container's /dev/pts, which is attached here by now.
        None => sys::mount::attach(clone_tree(stdio.stdin, c"", false)?, &target),
    }
}

/// Hides paths behind `file` or `directory`.
pub(super) fn mask(
    root: &Root,
    paths: &[String],
    file: &OwnedFd,
    directory: &OwnedFd,
) -> Result<(), sys::Error> {
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
