//! Loading of seccomp filters (seccomp(2)).
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::os::fd::{FromRawFd, OwnedFd};

use crate::{Error, Result};

/// The most instructions of one filter.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// A filter: instructions of classic BPF over `struct seccomp_data`.
#[derive(Clone, Debug)]
pub struct Filter {
    instructions: Vec<libc::sock_filter>,
}

impl Filter {
    /// Reads instructions as the kernel has them in memory, 8 bytes each.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (chunks, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || chunks.is_empty() || chunks.len() > MAX_INSTRUCTIONS {
            let object = format!("{} bytes of filter", bytes.len());
            return Err(Error::new("seccomp", object, rustix::io::Errno::INVAL));
        }
        let instructions = chunks
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Ok(Self { instructions })
    }

    /// Puts the filter on the calling thread, for good; `flags` are `SECCOMP_FILTER_FLAG_*`. It
    /// needs `CAP_SYS_ADMIN` or no_new_privs.
    pub fn load(&self, flags: u32) -> Result<()> {
        self.set_mode(flags).map(drop)
    }

    /// As [`load`](Self::load), and gives the descriptor on which the notified system calls are
    /// answered (seccomp_unotify(2)); it is close-on-exec.
    pub fn load_with_listener(&self, flags: u32) -> Result<OwnedFd> {
        const NEW_LISTENER: u32 = 1 << 3;
        let fd = self.set_mode(flags | NEW_LISTENER)?;
        // SAFETY: with this flag the result is a new descriptor, which is ours.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn set_mode(&self, flags: u32) -> Result<i32> {
        let program = libc::sock_fprog {
            len: self.instructions.len() as u16,
            filter: self.instructions.as_ptr().cast_mut(),
        };
        // SAFETY: `program` and the instructions it points to live during the call; the kernel
        // copies and checks them, and does not write to them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(&program),
            )
        };
        if result >= 0 {
            return Ok(result as i32);
        }
        Err(Error::new("seccomp", "filter", std::io::Error::last_os_error()))
    }
}
