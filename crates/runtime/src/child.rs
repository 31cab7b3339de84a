//! Programs of the host that are run to their end, by a process that must have one thread.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ponton_sys::{clone, pidfd, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Runs a child, which executes its program in `execute`, to its end; 127 is its exit code if that returns. The
/// answer: its exit code, none where it was not done in time and was killed.
pub(crate) fn run(patience: Duration, execute: impl FnOnce()) -> io::Result<Option<i32>> {
    let Some(pid) = clone::fork().map_err(io::Error::other)? else {
        execute();
        process::exit_now(127)
    };
    let process = pidfd::open(pid).map_err(io::Error::other)?;
    let deadline = Instant::now() + patience;
    loop {
        if let Some(exit) = pidfd::try_wait(process.as_fd()).map_err(io::Error::other)? {
            return Ok(Some(exit.code()));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = pidfd::send_signal(process.as_fd(), rustix::process::Signal::KILL.as_raw());
            pidfd::wait(process.as_fd()).map_err(io::Error::other)?;
            return Ok(None);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
