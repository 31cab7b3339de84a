//! What is done to a running container's processes.

use std::os::fd::AsFd;
use std::sync::Arc;

use ponton_cgroup::Cgroup;
use ponton_runtime::shim::protocol::{Request, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
        Err(failure) => Err(Error::failed(format!("resize terminal of container {container}"), failure)),
    }
}

impl Task {
    /// Sends a signal to the first process. One that has just ended needs none.
    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        let Some(run) = &self.run else { return Err(Error::not_running(self.id())) };
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
        let Some(Ok(pidfd)) = self.run.as_ref().map(|run| run.pidfd.try_clone()) else {
            return Error::not_running(self.id());
        };
        let has_ended = blocking(move || {
            Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&ENDING)).is_ok_and(|ready| ready > 0))
        });
        if has_ended.await.unwrap_or(false) { Error::not_running(self.id()) } else { error }
    }

    /// The control group of the present run.
    pub(crate) fn control_group(&self) -> Result<Cgroup> {
        let Some(path) = &self.view.cgroup else { return Err(Error::not_running(self.id())) };
        self.engine.control_group(path)
    }
}
