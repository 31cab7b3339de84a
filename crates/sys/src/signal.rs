//! Waiting for signals one by one (sigwaitinfo(2)). Counterpart:
//! [`process::reset_signals`](crate::process::reset_signals).
#![allow(unsafe_code, reason = "signal sets are only in libc")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Signals that the process's own faults raise: blocking them would hide the fault.
const FAULTS: [i32; 7] =
    [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

/// All signals but faults, blocked in the calling thread: they wait to be taken.
#[derive(Debug)]
pub struct Blocked {
    set: libc::sigset_t,
}

/// Blocks them; children inherit that.
pub fn block() -> io::Result<Blocked> {
    // SAFETY: sigset_t is plain data, filled by sigfillset before it is used; the pointers live
    // during the calls.
    let (set, result) = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        for signal in FAULTS {
            libc::sigdelset(&raw mut set, signal);
        }
        let result = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        (set, result)
    };
    if result == 0 { Ok(Blocked { set }) } else { Err(io::Error::from_raw_os_error(result)) }
}

impl Blocked {
    /// Waits for a signal and takes it; its number.
    pub fn wait(&self) -> i32 {
        loop {
            // SAFETY: the set is initialised and lives during the call; no details are asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.set, std::ptr::null_mut()) };
            // It fails only when a stop and continue interrupts it.
            if signal > 0 {
                return signal;
            }
        }
    }
}

/// Blocked signals as a descriptor: readable while one waits (signalfd(2)).
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
}

impl Blocked {
    /// The signals as a descriptor, close-on-exec.
    pub fn queue(&self) -> io::Result<Queue> {
        // SAFETY: the set is initialised and lives during the call; a new descriptor is asked for.
        let fd = unsafe { libc::signalfd(-1, &raw const self.set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Queue { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}

impl Queue {
    /// Takes a signal that waits; its number.
    pub fn take(&self) -> Option<i32> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut record) {
            // The number is the first field.
            Ok(length) if length == record.len() => {
                let [a, b, c, d, ..] = record;
                Some(i32::from_ne_bytes([a, b, c, d]))
            }
            _ => None,
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends a signal by its number, real-time signals too (kill(2)).
pub fn send(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no memory is passed.
    let result = unsafe { libc::kill(pid, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
