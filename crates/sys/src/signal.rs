//! Waiting for signals one by one (sigwaitinfo(2)). Counterpart:
//! [`process::reset_signals`](crate::process::reset_signals).
#![allow(unsafe_code, reason = "signal sets are only in libc")]

use std::io;

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

/// Sends a signal by its number, real-time signals too (kill(2)).
pub fn send(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no memory is passed.
    let result = unsafe { libc::kill(pid, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
