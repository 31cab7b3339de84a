//! Processes by descriptor (pidfd_open(2)).
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use crate::{Error, Result};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The status as a shell gives it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// The process `pid`; it is close-on-exec.
pub fn open(pid: u32) -> Result<OwnedFd> {
    let id =
        Pid::from_raw(pid as i32).ok_or_else(|| Error::new("pidfd_open", pid, rustix::io::Errno::INVAL))?;
    rustix::process::pidfd_open(id, PidfdFlags::empty()).map_err(Error::of("pidfd_open", pid))
}

/// Sends `signal` by its number, real-time signals too. 0 only asks whether the process is there.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    send(pidfd, signal, 0)
}

fn send(pidfd: BorrowedFd<'_>, signal: i32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: no memory is passed; the descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            flags,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new("pidfd_send_signal", format_args!("signal {signal}"), std::io::Error::last_os_error()))
}

/// Kills the process and its process group, if it leads one; before Linux 6.9 the process alone.
pub fn kill_group(pidfd: BorrowedFd<'_>) -> Result<()> {
    const PROCESS_GROUP: libc::c_uint = 1 << 2;
    match send(pidfd, libc::SIGKILL, PROCESS_GROUP) {
        Err(error) if error.errno() == Some(libc::EINVAL) => send_signal(pidfd, libc::SIGKILL),
        done => done,
    }
}

/// Waits for the end of a child, and reaps it.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    loop {
        if let Some(exit) = wait_with(pidfd, WaitIdOptions::EXITED)? {
            return Ok(exit);
        }
    }
}

/// Reaps a child if it has ended.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    wait_with(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_with(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<Exit>> {
    let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), options))
        .map_err(Error::of("waitid", "pidfd"))?;
    Ok(status.and_then(|status| {
        status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
    }))
}

/// How a process ended that is not our child, or was reaped by somebody else. `None` when it has not
/// ended, or the kernel (older than 6.15) does not keep it.
pub fn exit_info(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    // SAFETY: all fields of pidfd_info are integers, for which zero is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the ioctl's number carries the size of the structure, which lives during the call.
    let result =
        unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO as _, std::ptr::from_mut(&mut info)) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ESRCH | libc::ENOTTY | libc::EINVAL) => Ok(None),
            _ => Err(Error::new("PIDFD_GET_INFO", "pidfd", error)),
        };
    }
    if info.mask & u64::from(libc::PIDFD_INFO_EXIT) == 0 {
        return Ok(None);
    }
    let status = info.exit_code;
    Ok(Some(if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }))
}
