//! Files that the file system checks at each read, and lets nobody change (fs-verity).
//! <https://docs.kernel.org/filesystems/fsverity.html>
#![allow(unsafe_code, reason = "ioctls that no crate wraps")]

use std::os::fd::{AsFd, AsRawFd};

use crate::{Error, Result};

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u32 = 1;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct Enable {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    further: [u64; 11],
}

/// `struct fsverity_digest`, with room for a digest.
#[repr(C)]
struct Digest {
    algorithm: u16,
    size: u16,
    bytes: [u8; 32],
}

/// `_IOW('f', 133, struct fsverity_enable_arg)`.
const ENABLE: u32 = 1 << 30 | (size_of::<Enable>() as u32) << 16 | (b'f' as u32) << 8 | 0x85;
/// `_IOWR('f', 134, struct fsverity_digest)`, which is counted without the digest.
const MEASURE: u32 = 3 << 30 | 4 << 16 | (b'f' as u32) << 8 | 0x86;

/// Has the file system hash a file, which is open for reading, and by nobody for writing. Takes as
/// long as reading it. Most file systems cannot, or were not made to.
pub fn enable(file: impl AsFd) -> Result<()> {
    let arguments = Enable {
        version: 1,
        hash_algorithm: SHA256,
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved: 0,
        signature: 0,
        further: [0; 11],
    };
    // SAFETY: the request takes a pointer to this structure, which lives during the call and points to
    // nothing else; the kernel only reads it.
    let result = unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            libc::c_ulong::from(ENABLE) as _,
            std::ptr::from_ref(&arguments),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new("enable fs-verity", "a file", std::io::Error::last_os_error()))
}

/// The digest by which the file system checks a file.
pub fn measure(file: impl AsFd) -> Result<[u8; 32]> {
    let mut digest = Digest { algorithm: 0, size: 32, bytes: [0; 32] };
    // SAFETY: the request takes a pointer to this structure, which lives during the call; the kernel
    // writes no more of the digest than `size` says, for which there is room.
    let result = unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            libc::c_ulong::from(MEASURE) as _,
            std::ptr::from_mut(&mut digest),
        )
    };
    if result == 0 && u32::from(digest.algorithm) == SHA256 {
        return Ok(digest.bytes);
    }
    Err(Error::new("measure fs-verity", "a file", std::io::Error::last_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_kernels() {
        assert_eq!((ENABLE, MEASURE), (0x4080_6685, 0xc004_6686));
    }

    #[test]
    fn a_file_is_measured_once_it_is_enabled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "contents").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        assert!(measure(&file).is_err());
        match enable(&file) {
            Ok(()) => {
                assert_eq!(measure(&file).unwrap(), measure(&file).unwrap());
                assert!(std::fs::write(&path, "other").is_err());
            }
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
