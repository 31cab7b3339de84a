//! The calling process: its program, its descriptors, its end.
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Error, Result};

/// A list of C strings as execve wants it, made before the clone.
#[derive(Debug)]
pub struct CStrings {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    /// A list of these strings.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Executes a program; returns only when it failed.
pub fn execve(path: &CStr, args: &CStrings, env: &CStrings) -> rustix::io::Errno {
    // SAFETY: both lists end with a null pointer and their strings live as long as they do.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// Executes the program that a descriptor stands for (execveat(2)), with the environment of the
/// calling process; returns only when it failed. The descriptor may be close-on-exec.
pub fn execute_descriptor(program: BorrowedFd<'_>, args: &CStrings) -> rustix::io::Errno {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the path is a C string, `args` ends with a null pointer and its strings live as long as
    // it does; `environ` is the C library's, and nobody changes it meanwhile: there is one thread.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            environ,
            libc::AT_EMPTY_PATH,
        )
    };
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// Makes `fds` the standard input, output and error.
pub fn set_stdio(fds: [BorrowedFd<'_>; 3]) -> Result<()> {
    for (number, fd) in (0..).zip(fds) {
        let failed = if fd.as_raw_fd() == number {
            // SAFETY: no memory is passed; dup2 of a descriptor to itself would leave close-on-exec.
            unsafe { libc::fcntl(number, libc::F_SETFD, 0) < 0 }
        } else {
            // SAFETY: no memory is passed; 0, 1 and 2 are not owned by any OwnedFd.
            unsafe { libc::dup2(fd.as_raw_fd(), number) < 0 }
        };
        if failed {
            return Err(Error::new("dup2", number, std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on but those of `keep`, which become close-on-exec. Whoever
/// owned one that is closed must not use or drop it any more: for a child that is about to execute
/// its program, or to end.
pub fn close_all_but(first: u32, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut next = first;
    let last = keep.len();
    // The lowest that is left, each time: there are two or three.
    for _ in 0..=last {
        let kept = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|fd| *fd >= next).min();
        let end = kept.unwrap_or(u32::MAX);
        if end > next {
            close_range(next, if kept.is_some() { end - 1 } else { end }, 0)?;
        }
        let Some(kept) = kept else { break };
        close_range(kept, kept, libc::CLOSE_RANGE_CLOEXEC)?;
        next = kept + 1;
    }
    Ok(())
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: no memory is passed; what the closed descriptors were for is said by `close_all_but`.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new("close_range", format_args!("{first} to {last}"), std::io::Error::last_os_error()))
}

/// Gives the process a new session keyring, so that it does not share its parent's (keyctl(2),
/// `KEYCTL_JOIN_SESSION_KEYRING`). It has no name: by one the kernel would look for a keyring to join, and whoever has
/// that of another container could lie in wait there.
pub fn new_session_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: without a name nothing is read.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    if result >= 0 {
        return Ok(());
    }
    Err(Error::new("keyctl", "a new session keyring", std::io::Error::last_os_error()))
}

/// Sets a resource limit of a process by its number (prlimit(2)); 0 is the calling process.
pub fn set_rlimit(pid: u32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives during the call; no old limit is asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            std::ptr::from_ref(&limit),
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new("prlimit64", resource, std::io::Error::last_os_error()))
}

/// Resets the classic signals to their default, and blocks none: what an execve keeps of a daemon's habits.
pub fn reset_signals() -> Result<()> {
    // SAFETY: sigset_t and sigaction are plain data; SIG_DFL needs no handler; the set lives during
    // the call. KILL and STOP cannot be changed, and are passed over.
    unsafe {
        for signal in 1..=31 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) != 0 {
            return Err(Error::new("sigprocmask", "none", std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Ends the process at once: no destructors, no buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::clone::{Clone, clone3};
    use crate::pidfd;

    #[test]
    fn all_but_the_kept_descriptors_are_closed() {
        let files: Vec<_> = (0..6).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        match clone3(0, None).unwrap() {
            Clone::Child => {
                let closed = close_all_but(3, &[files[4].as_fd(), files[1].as_fd()]).is_ok();
                let is_open = |file: &std::fs::File| rustix::io::fcntl_getfd(file).is_ok();
                let open: Vec<_> = files.iter().map(is_open).collect();
                exit_now(i32::from(!closed || open != [false, true, false, false, true, false]));
            }
            Clone::Parent { pidfd, .. } => {
                assert_eq!(pidfd::wait(pidfd.as_fd()).unwrap(), pidfd::Exit::Code(0));
            }
        }
    }
}
