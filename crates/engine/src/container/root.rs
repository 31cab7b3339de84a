//! The file system of a container that does not run: its snapshot, volumes and binds as one mount
//! that is nowhere attached, and is gone with its descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ponton_snapshot::Mount;
use ponton_sys::path::Root;
use ponton_sys::{mount, overlay};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::spec::Sources;
use crate::spec::point::Point;

/// Mounts a snapshot, for what only looks at its files or makes some: nobody opens its devices.
pub(crate) fn mount_snapshot(mounts: &[Mount]) -> Result<OwnedFd> {
    let [root] = mounts else {
        return Err(Error::not_implemented("a root file system of several mounts is not implemented"));
    };
    if root.r#type == "bind" {
        let root = mount::clone_tree(rustix::fs::CWD, &c_path(Path::new(&root.source))?, true)?;
        return Ok(without_devices(root)?);
    }
    Ok(overlay::mount(&root.source, &root.options, mount::MOUNT_ATTR_NODEV)?)
}

/// A detached mount on which devices can't be opened.
pub(super) fn without_devices(root: OwnedFd) -> ponton_sys::Result<OwnedFd> {
    let change = mount::Change { set: mount::MOUNT_ATTR_NODEV, ..mount::Change::default() };
    mount::change(root.as_fd(), change, false)?;
    Ok(root)
}

/// Attaches volumes and binds inside a detached root; the kernel can do that from 6.15 on.
pub(super) fn attach_points(root: &Root, points: &[Point], sources: &Sources) -> Result<()> {
    for point in points.iter().filter(|point| point.shown.r#type != "tmpfs") {
        let found = sources.get(&point.shown.destination);
        if let Some(options) = found.and_then(|found| found.overlay.as_ref()) {
            let target = root.mkdir_all(&point.shown.destination, 0o755).map_err(unfit)?;
            mount::attach(overlay::mount("overlay", options, mount::MOUNT_ATTR_RDONLY)?, target)?;
            continue;
        }
        let path = found.map(|found| &found.path).filter(|path| !path.is_empty());
        let source = Path::new(path.unwrap_or(&point.shown.source));
        let failed = |error: std::io::Error| Error::failed(format!("open {}", source.display()), error);
        let file = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        let status = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
        let target = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => root.mkdir_all(&point.shown.destination, 0o755).map_err(unfit)?,
            _ => root.create_file_all(&point.shown.destination, 0o644).map_err(unfit)?,
        };
        let mounted = mount::clone_tree(&file, c"", true)?;
        mount::attach(mounted, target).map_err(unfit)?;
    }
    Ok(())
}

/// A file where a directory is wanted, or the other way around, is the user's arrangement.
fn unfit(error: ponton_sys::Error) -> Error {
    let errno = error.errno().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::NOTDIR | Errno::ISDIR | Errno::EXIST | Errno::LOOP) => {
            Error::invalid(format!("cannot mount below the container's root: {error}"))
        }
        _ => error.into(),
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| Error::failed(format!("open {}", path.display()), error))
}
