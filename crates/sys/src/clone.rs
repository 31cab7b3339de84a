//! clone3(2).
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{Error, Result};

/// Which side of the clone runs.
#[derive(Debug)]
pub enum Clone {
    /// The caller; here is its child.
    Parent {
        /// The child's process id, in the caller's pid namespace.
        pid: u32,
        /// The child.
        pidfd: OwnedFd,
    },
    /// The child.
    Child,
}

/// Makes a child process with a copy of the memory, as fork(2), in the new namespaces that `flags`
/// (`CLONE_NEW*`) name and in the cgroup v2 directory `cgroup` (`CLONE_INTO_CGROUP`). The child
/// signals its end with `SIGCHLD`. With [`SIBLING`] among the flags it is the child of the caller's
/// parent, who has to reap it.
///
/// The caller must have one thread only: a lock that another thread holds (the allocator's, say)
/// stays locked for ever in the child. The child must end by `execve` or `_exit`
/// ([`process::exit_now`](crate::process::exit_now)), and never return to its caller's caller.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all fields of clone_args are integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // A sibling has the caller's exit signal.
    args.exit_signal = if flags & SIBLING == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of the memory and goes on on a copy of this
    // stack; `args` and `pidfd` live until the call returns; the size is that of the structure.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<libc::clone_args>())
    };
    match pid {
        0 => Ok(Clone::Child),
        -1 => Err(Error::new("clone3", format_args!("flags {flags:#x}"), std::io::Error::last_os_error())),
        // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD).
        pid => Ok(Clone::Parent { pid: pid as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// fork(2): the child's process id for the caller, none for the child. For those who run under a
/// system call filter that forbids clone3(2), as that of containers does. What the caller and the
/// child must keep to is as with [`clone3`].
pub fn fork() -> Result<Option<u32>> {
    // SAFETY: the child has its own copy of the memory and goes on on a copy of this stack; the
    // caller has one thread, so no lock is held by another.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        -1 => Err(Error::new("fork", "process", std::io::Error::last_os_error())),
        pid => Ok(Some(pid as u32)),
    }
}

/// The child is its caller's sibling.
pub const SIBLING: u64 = libc::CLONE_PARENT as u64;

/// linux/sched.h; kernel 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{pidfd, process};

    #[test]
    fn child_exit_code_is_seen_through_the_pidfd() {
        match clone3(0, None).unwrap() {
            Clone::Child => process::exit_now(7),
            Clone::Parent { pidfd, .. } => {
                assert_eq!(pidfd::wait(pidfd.as_fd()).unwrap(), pidfd::Exit::Code(7));
            }
        }
    }
}
