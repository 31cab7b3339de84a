//! The mount API by descriptors: detached mounts are made, changed, and attached.
//!
//! A detached mount is seen by nobody, and goes away with its last descriptor.
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree,
};

use crate::{Error, Result};

pub use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
};

/// A change of a mount's attributes (mount_setattr(2)); the default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
}

/// A configured file system that is not made yet (fsopen(2)).
#[derive(Debug)]
pub struct Context {
    fd: OwnedFd,
    r#type: String,
}

impl Context {
    /// Begins a file system of this type.
    pub fn new(r#type: &str) -> Result<Self> {
        let fd = fsopen(r#type, FsOpenFlags::FSOPEN_CLOEXEC).map_err(Error::of("fsopen", r#type))?;
        Ok(Self { fd, r#type: r#type.to_owned() })
    }

    /// The file system that is mounted at `target`, to be configured anew (fspick(2)).
    pub fn of(target: impl AsFd) -> Result<Self> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let fd = fspick(target, c"", flags).map_err(Error::of("fspick", "its target"))?;
        Ok(Self { fd, r#type: "remount".to_owned() })
    }

    /// Gives a file system that is mounted already its new options.
    pub fn reconfigure(self) -> Result<()> {
        fsconfig_reconfigure(self.fd.as_fd()).map_err(|errno| self.error("reconfigure", errno))
    }

    /// Sets a parameter with a value.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        fsconfig_set_string(self.fd.as_fd(), key, value)
            .map_err(|errno| self.error(format_args!("{key}={value}"), errno))
    }

    /// Sets a parameter without a value.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        fsconfig_set_flag(self.fd.as_fd(), key).map_err(|errno| self.error(key, errno))
    }

    /// Sets an option in words: `key=value` or `key`.
    pub fn set_option(&self, option: &str) -> Result<()> {
        match option.split_once('=') {
            Some((key, value)) => self.set(key, value),
            None => self.set_flag(option),
        }
    }

    /// Makes the file system, and a detached mount of it with these `MOUNT_ATTR_*` bits.
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        fsconfig_create(self.fd.as_fd()).map_err(|errno| self.error("create", errno))?;
        fsmount(
            self.fd.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(attributes as u32),
        )
        .map_err(|errno| self.error("fsmount", errno))
    }

    /// The error with what the file system itself said about it.
    fn error(&self, attempted: impl std::fmt::Display, errno: rustix::io::Errno) -> Error {
        let mut said = String::new();
        let mut buffer = [0; 512];
        while let Ok(length) = rustix::io::read(self.fd.as_fd(), &mut buffer)
            && length > 0
        {
            said.push_str(" (");
            said.push_str(String::from_utf8_lossy(&buffer[..length]).trim());
            said.push(')');
        }
        Error::new("mount", format_args!("{} {attempted}{said}", self.r#type), errno)
    }
}

/// A detached copy of what is mounted at `path` (and below it, when `recursive`). An empty path
/// stands for `dir` itself, which may be a file. A last symbolic link is followed.
pub fn clone_tree(dir: impl AsFd, path: &std::ffi::CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, path, flags).map_err(|errno| Error::new("open_tree", path.to_string_lossy(), errno))
}

/// Attaches the detached mount `mount` onto `target`; both are descriptors, no path is walked. One of them alone being
/// a directory is `ENOTDIR`, as with mount(2).
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, c"", &target, c"", flags).map_err(|errno| {
        // EINVAL has many other meanings here.
        let is_unlike = errno == Errno::INVAL && is_directory(&mount) != is_directory(&target);
        Error::new("move_mount", "onto its target", if is_unlike { Errno::NOTDIR } else { errno })
    })
}

fn is_directory(file: impl AsFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Changes a mount, and all below it when `recursive`.
pub fn change(mount: BorrowedFd<'_>, change: Change, recursive: bool) -> Result<()> {
    if change == Change::default() {
        return Ok(());
    }
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    set_attributes(mount, &attributes, recursive, format_args!("{change:?}"))
}

/// Maps the ids of the files of a detached mount, and of all below it when `recursive`, by the maps
/// of a user namespace. It can be done once.
pub fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    set_attributes(mount, &attributes, recursive, format_args!("idmap"))
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &libc::mount_attr,
    recursive: bool,
    shown: std::fmt::Arguments<'_>,
) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attributes` lives during the call and its size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new("mount_setattr", shown, std::io::Error::last_os_error()))
}
