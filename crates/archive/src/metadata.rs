//! Owner, mode, attributes and times of what an archive makes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::header::{Header, Kind, Time};
use crate::{Error, Result};

/// All of a regular file's metadata, to be set after its contents.
pub(crate) fn finish_file(file: &OwnedFd, header: &Header, owner: Option<(u32, u32)>) -> Result<()> {
    set_metadata(file.as_fd(), header, owner)?;
    let times = timestamps(header.mtime);
    rustix::fs::futimens(file, &times).map_err(Error::io("set times of", &header.path))
}

/// Owner before mode before attributes: changing the owner clears setuid bits and capabilities.
pub(crate) fn set_metadata(file: BorrowedFd<'_>, header: &Header, owner: Option<(u32, u32)>) -> Result<()> {
    let (uid, gid) = owner.unwrap_or((header.uid, header.gid));
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(file, "", owner.0, owner.1, AtFlags::EMPTY_PATH)
        .map_err(Error::io("change owner of", &header.path))?;
    let mode = Mode::from_raw_mode(header.mode);
    let changed = match header.kind {
        Kind::Symlink => Ok(()),
        Kind::Regular | Kind::Directory => rustix::fs::fchmod(file, mode),
        // A descriptor of a device that is not opened takes only its link in proc.
        _ => rustix::fs::chmodat(CWD, link_of(file), mode, AtFlags::empty()),
    };
    changed.map_err(Error::io("change mode of", &header.path))?;
    for (name, value) in &header.xattrs {
        // What is overlayfs's (and any other privileged program's) is not the archive's to set.
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match rustix::fs::setxattr(link_of(file), name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            // user.* is for files and directories alone.
            Err(Errno::PERM) if name.starts_with(b"user.") => {}
            Err(errno) => return Err(Error::io("set extended attribute of", &header.path)(errno)),
        }
    }
    Ok(())
}

/// Sets the times of what is open in any way.
pub(crate) fn set_times(file: BorrowedFd<'_>, time: Time) -> Result<(), Errno> {
    rustix::fs::utimensat(file, "", &timestamps(time), AtFlags::EMPTY_PATH)
}

fn link_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
