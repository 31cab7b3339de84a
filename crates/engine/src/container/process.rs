//! What is done to a running container's processes.

use std::os::fd::AsFd;
use std::sync::Arc;

use ponton_cgroup::Cgroup;
use ponton_runtime::shim::protocol::{FailureKind, Request, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::Task;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// How long a process that is being taken apart may take until the kernel says that it has ended.
const ENDING: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Engine {
    /// Sets the size of the container's terminal.
    pub async fn resize(self: &Arc<Self>, name: &str, rows: u16, cols: u16) -> Result<()> {
        let container = self.find(name)?;
        container
            .change(move |task| {
                Box::pin(async move {
                    let Some(run) = &task.run else { return Err(Error::not_running(task.id())) };
                    resize(&run.shim, task.id(), None, rows, cols).await?;
                    let (height, width) = (rows.to_string(), cols.to_string());
                    task.emit("resize", &[("height", &height), ("width", &width)]);
                    Ok(())
                })
            })
            .await
    }
}

/// Has a shim set the size of a terminal.
pub(crate) async fn resize(
    shim: &crate::shim::Shim,
    container: &str,
    exec: Option<String>,
    rows: u16,
    cols: u16,
) -> Result<()> {
    let size = Size { rows, cols };
    let request = Request::Resize { container: container.to_owned(), exec, size };
    match shim.call(&request, &[]).await {
        Ok(_) => Ok(()),
        // It has just ended.
        Err(failure) if failure.kind == FailureKind::Invalid => Err(Error::not_running(container)),
        Err(failure) => Err(Error::failed(format!("resize terminal of container {container}"), failure)),
    }
}

impl Task {
    /// Sends a signal to the first process. One that has just ended needs none.
    pub(super) fn signal(&mut self, signal: i32) -> Result<()> {
        let Some(run) = &self.run else { return Err(Error::not_running(self.id())) };
        self.is_killed |= signal == Signal::KILL.as_raw();
        match ponton_sys::pidfd::send_signal(run.pidfd.as_fd(), signal) {
            Ok(()) => Ok(()),
            Err(error) if error.errno() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
            Err(error) => Err(Error::failed(format!("send signal to container {}", self.id()), error)),
        }
    }

    pub(super) async fn freeze(&self, freeze: bool) -> Result<()> {
        if freeze && self.is_killed {
            return Err(Error::not_running(self.id()));
        }
        let cgroup = self.control_group()?;
        let done = blocking(move || {
            let done = if freeze { cgroup.freeze() } else { cgroup.thaw() };
            Ok(done?)
        });
        match done.await {
            Err(error) => Err(self.or_not_running(error).await),
            done => done,
        }
    }

    /// What an error is for the client: where the end of the container was its cause, that it does not run.
    pub(crate) async fn or_not_running(&self, error: Error) -> Error {
        if self.is_ending().await { Error::not_running(self.id()) } else { error }
    }

    /// Whether the first process has ended, or is about to, whoever was told.
    pub(crate) async fn is_ending(&self) -> bool {
        let Some(Ok(pidfd)) = self.run.as_ref().map(|run| run.pidfd.try_clone()) else { return true };
        let pid = self.view.life.pid();
        let has_ended = blocking(move || {
            let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&ENDING));
            Ok(ready.is_ok_and(|ready| ready > 0) || pid.is_some_and(is_exiting))
        });
        has_ended.await.unwrap_or(false)
    }

    /// The control group of the present run.
    pub(crate) fn control_group(&self) -> Result<Cgroup> {
        let Some(path) = &self.view.cgroup else { return Err(Error::not_running(self.id())) };
        self.engine.control_group(path)
    }
}

/// Whether a process is being taken apart, or is gone. Where there is much to do it takes a while from there until
/// the kernel says that it has ended.
fn is_exiting(pid: i32) -> bool {
    /// Of linux/sched.h; proc_pid_stat(5) has the flags in field 9, the sixth behind the state.
    const PF_EXITING: u64 = 0x4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let flags = behind_name.split(' ').nth(6).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_told_from_what_runs() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(!is_exiting(pid));
        child.kill().unwrap();
        let pidfd = ponton_sys::pidfd::open(child.id()).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        // It is not waited for: the kernel has no more of it than its name and how it ended.
        assert!(is_exiting(pid));
        child.wait().unwrap();
        assert!(is_exiting(pid));
    }
}
