//! Processes by descriptor (pidfd_open(2)).
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;

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

/// How the process `pid` ended that is not our child: as the kernel keeps it once somebody else has reaped it (from
/// Linux 6.15 on), or as it waits for that. `None` when it has not ended, or it cannot be known.
pub fn exit_info(pidfd: BorrowedFd<'_>, pid: u32) -> Result<Option<Exit>> {
    match kept(pidfd)?.or_else(|| unreaped(pidfd, pid)) {
        // It may have been reaped in between.
        None => kept(pidfd),
        known => Ok(known),
    }
}

/// What proc_pid_stat(5) says of a process that has ended and was not reaped.
fn unreaped(pidfd: BorrowedFd<'_>, pid: u32) -> Option<Exit> {
    // Who may not trace it is told that it ended with 0. With the capability one may, in all user namespaces below.
    let rights = rustix::thread::capabilities(None).ok()?;
    // Its first thread may have ended before the others; the descriptor is readable when all have.
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let has_ended = rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0);
    if !has_ended || !rights.effective.contains(CapabilitySet::SYS_PTRACE) {
        return None;
    }
    let stat = crate::file::read_text(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; the state is field 3, and the exit code 52.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    let status: i32 = fields.nth(48)?.parse().ok()?;
    // As long as it can be asked for, nobody else has got its number.
    (is_zombie && send_signal(pidfd, 0).is_ok()).then(|| decoded(status))
}

/// A status as wait(2) gives it.
fn decoded(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

fn kept(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
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
    Ok(Some(decoded(info.exit_code)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_end_is_known_before_and_after_it_is_reaped() {
        for (script, expected) in [("exit 7", Exit::Code(7)), ("kill -9 $$", Exit::Signal(9))] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("read line; {script}")]).stdin(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let process = open(child.id()).unwrap();
            assert_eq!(exit_info(process.as_fd(), child.id()).unwrap(), None, "it runs");
            drop(child.stdin.take());
            let mut fds = [PollFd::new(&process, PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
            assert_eq!(exit_info(process.as_fd(), child.id()).unwrap(), Some(expected), "not reaped");
            child.wait().unwrap();
            // Before Linux 6.15 nobody keeps it.
            let kept = exit_info(process.as_fd(), child.id()).unwrap();
            assert!(kept.is_none() || kept == Some(expected), "{kept:?}");
        }
    }
}
