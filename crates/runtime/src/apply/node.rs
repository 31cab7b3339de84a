//! Device files and links in the child: made, or bound from the host where none can be made.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ponton_oci::runtime::DeviceType;
use ponton_sys as sys;
use ponton_sys::path::Root;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, makedev};
use rustix::io::Errno;

use crate::open::clone_device;
use crate::plan::DeviceNode;

/// Makes device files; what is there already as it should be stays. `mounts` are the host's, for
/// those nodes that the parent could open.
pub(super) fn make(
    root: &Root,
    nodes: &[DeviceNode],
    mounts: &[Option<OwnedFd>],
    bound: bool,
) -> Result<(), sys::Error> {
    let mut parents = Parents { root, last: None };
    for (node, mount) in nodes.iter().zip(mounts) {
        if bound && node.r#type != DeviceType::P {
            bind_device(root, node, mount.as_ref())?;
        } else {
            make_device(parents.of(&node.path)?, node)?;
        }
    }
    Ok(())
}

/// Makes symbolic links; what is there already stays, except a `/dev/ptmx` that is a file: it would
/// open terminals of the host.
pub(super) fn link(root: &Root, links: &[(String, String)]) -> Result<(), sys::Error> {
    let mut parents = Parents { root, last: None };
    for (path, content) in links {
        let (directory, name) = parents.of(path)?;
        let failed = |errno| sys::Error::new("symlink", path, errno);
        match rustix::fs::symlinkat(content, directory, name) {
            Err(Errno::EXIST) if path == "/dev/ptmx" => {
                let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice {
                    rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(failed)?;
                    rustix::fs::symlinkat(content, directory, name).map_err(failed)?;
                }
            }
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
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

fn bind_device(root: &Root, node: &DeviceNode, mount: Option<&OwnedFd>) -> Result<(), sys::Error> {
    let target = root.create_file_all(&node.path, 0o644)?;
    match mount {
        Some(mount) => sys::mount::attach(mount, &target),
        None => sys::mount::attach(clone_device(&node.path, makedev(node.major, node.minor))?, &target),
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
    match rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(node.mode), device) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == device {
                return Ok(());
            }
            let message = format!("{}: there is another file already", node.path);
            return Err(sys::Error::new("mknod", message, Errno::EXIST));
        }
        Err(errno) => return Err(failed(errno)),
    }
    if node.uid == 0 && node.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    rustix::fs::chownat(directory.as_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed)
}
