//! Subvolumes of btrfs (btrfs-ioctl(3)).
#![allow(unsafe_code, reason = "ioctls that no crate wraps")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::{Error, Result};

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Arguments {
    fd: i64,
    /// Ends with a null byte.
    name: [u8; 4088],
}

/// `_IOW(0x94, number, struct btrfs_ioctl_vol_args)`.
const fn request(number: u32) -> u32 {
    1 << 30 | (size_of::<Arguments>() as u32) << 16 | 0x94 << 8 | number
}

/// Makes an empty subvolume `name` in a directory.
pub fn create(directory: impl AsFd, name: &str) -> Result<()> {
    call("create subvolume", 14, directory, name, 0)
}

/// Makes a subvolume `name` in a directory, that holds what `source` holds now.
pub fn snapshot(source: impl AsFd, directory: impl AsFd, name: &str) -> Result<()> {
    call("create snapshot", 1, directory, name, source.as_fd().as_raw_fd())
}

/// Removes the subvolume `name` of a directory, with all that is in it. Fails, and does nothing,
/// where it is none.
pub fn destroy(directory: impl AsFd, name: &str) -> Result<()> {
    call("destroy subvolume", 15, directory, name, 0)
}

fn call(operation: &'static str, number: u32, directory: impl AsFd, name: &str, fd: i32) -> Result<()> {
    let mut arguments = Arguments { fd: fd.into(), name: [0; 4088] };
    if name.len() >= arguments.name.len() || name.contains('/') {
        return Err(Error::new(operation, name, Errno::INVAL));
    }
    arguments.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request takes a pointer to this structure, which lives during the call; the kernel
    // only reads it.
    let result = unsafe {
        libc::ioctl(
            directory.as_fd().as_raw_fd(),
            libc::c_ulong::from(request(number)) as _,
            std::ptr::from_ref(&arguments),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new(operation, name, std::io::Error::last_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_kernels() {
        assert_eq!(size_of::<Arguments>(), 4096);
        assert_eq!([request(14), request(1), request(15)], [0x5000_940e, 0x5000_9401, 0x5000_940f]);
    }

    #[test]
    fn a_plain_directory_is_no_subvolume() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        let parent = std::fs::File::open(directory.path()).unwrap();
        assert!(destroy(&parent, "root").is_err());
        assert!(destroy(&parent, "../x").is_err());
        assert!(directory.path().join("root").exists());
    }
}
