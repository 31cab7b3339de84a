//! What an image has below a tmpfs is copied into it (`tmpcopyup`).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use ponton_sys as sys;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Directories in directories, at most: each holds descriptors.
const DEPTH_MAX: u32 = 200;

/// Copies what is in the directory `from` to the directory `to`, with owners, modes, times and extended
/// attributes. No link is followed.
pub(super) fn copy_up(from: &OwnedFd, to: &OwnedFd) -> Result<(), sys::Error> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<(), sys::Error> {
    if depth > DEPTH_MAX {
        return Err(sys::Error::new("copy up", "directories", Errno::NAMETOOLONG));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(from, ".", flags, Mode::empty())
        .and_then(Dir::new)
        .map_err(sys::Error::of("open", "a directory to copy up"))?;
    for entry in listed {
        let entry = entry.map_err(sys::Error::of("read", "a directory to copy up"))?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            copy_entry(from, to, entry.file_name(), depth)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> Result<(), sys::Error> {
    let failed = |errno: Errno| sys::Error::new("copy up", name.to_string_lossy(), errno);
    let source =
        rustix::fs::openat(from, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
    let status = rustix::fs::fstat(&source).map_err(failed)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(failed)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let made = rustix::fs::openat(to, name, flags, Mode::empty()).map_err(failed)?;
            copy_directory(&source, &made, depth + 1)?;
        }
        FileType::RegularFile => copy_file(&source, to, name).map_err(failed)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&source, c"", Vec::new()).map_err(failed)?;
            rustix::fs::symlinkat(target, to, name).map_err(failed)?;
        }
        kind => rustix::fs::mknodat(to, name, kind, Mode::empty(), status.st_rdev).map_err(failed)?,
    }
    let copied =
        rustix::fs::openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
    chown(to, name, &status).map_err(failed)?;
    // Changing the owner takes capabilities away.
    copy_attributes(&source, &copied).map_err(failed)?;
    copy_status(to, name, &status).map_err(failed)
}

/// The name of a file that is open as a place only: what works on paths alone works on it so.
fn place(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Copies the extended attributes, but for those that the file system or our rights do not allow.
fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let (from, to) = (place(from), place(to));
    // What the kernel has for names and for a value, at most (xattr(7)).
    let mut names = vec![0; 65_536];
    let length = match rustix::fs::listxattr(&from, &mut names) {
        Err(Errno::NOTSUP) => 0,
        listed => listed?,
    };
    let mut value = if length > 0 { vec![0; 65_536] } else { Vec::new() };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = match rustix::fs::getxattr(&from, name, &mut value) {
            // Not for us to see, or gone.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => continue,
            got => got?,
        };
        match rustix::fs::setxattr(&to, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::NOTSUP | Errno::PERM) => {}
            set => set?,
        }
    }
    Ok(())
}

fn chown(to: &OwnedFd, name: &CStr, status: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_file(source: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let readable = sys::path::reopen(source, OFlags::RDONLY)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(to, name, flags, Mode::RUSR)?;
    while rustix::fs::sendfile(&made, &readable, None, 1 << 20)? > 0 {}
    Ok(())
}

fn copy_status(to: &OwnedFd, name: &CStr, status: &Stat) -> Result<(), Errno> {
    if FileType::from_raw_mode(status.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(status.st_mode & 0o7777), AtFlags::empty())?;
    }
    let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    let times = Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    };
    rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
