//! One container after a restart of the daemon.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use jiff::Timestamp;
use ponton_runtime::shim::protocol::{Exit, FdRole, Reply, Request, Status};

use super::task::Run;
use super::{Task, start};
use crate::error::{Error, Result};
use crate::lifecycle::Event;
use crate::shim::Shim;

impl Task {
    pub(crate) fn is_running(&self) -> bool {
        self.view.life.is_running()
    }

    /// A shim has it, running: its descriptors are taken again.
    pub(crate) async fn take_running(&mut self, shim: Arc<Shim>, status: &Status) -> Result<()> {
        let request = Request::Inspect { container: self.id().to_owned() };
        let fds = match shim.call(&request, &[]).await {
            Ok((Reply::Status(_), fds)) => fds,
            Ok(_) => return Err(Error::internal("unexpected answer to inspect")),
            Err(failure) => {
                return Err(Error::failed(format!("inspect container {}", self.id()), failure));
            }
        };
        let (pidfd, stdio) = start::split(fds, self.id())?;
        self.run = Some(Run { shim, pidfd, stdio, root: None });
        let pid = status.pid as i32;
        if self.view.life.pid() != Some(pid) {
            // Killed between the start and its record.
            let at = super::exit::time(status.started_at_ns);
            self.apply(Event::Started { pid, at }).await?;
        }
        Ok(())
    }

    /// It has ended, as a shim or its record says.
    pub(crate) async fn take_ended(&mut self, exit: Option<Exit>, status: &Status) -> Result<()> {
        let Some(exit) = exit else { return Ok(()) };
        let at = super::exit::time(status.started_at_ns);
        if self.view.life.pid() != Some(exit.pid as i32) {
            if self.view.life.last.started_at == Some(at) {
                // Recorded already.
                self.drop_endpoint().await;
                return Ok(());
            }
            self.apply(Event::Started { pid: exit.pid as i32, at }).await?;
        }
        self.exited(exit).await;
        Ok(())
    }

    /// Its shim is gone; before that it has ended.
    pub(crate) async fn take_lost(&mut self, exit: Option<Exit>) -> Result<()> {
        let status = self.shim_status();
        self.take_ended(exit, &status).await?;
        self.remove_shim_records();
        Ok(())
    }

    /// Its shim is gone; it may run.
    pub(crate) async fn take_without_shim(&mut self) -> Result<()> {
        let status = self.shim_status();
        if let Some((pidfd, stdio)) = find_process(&status, self.id()) {
            let shim = self.engine.shims.acquire().await?;
            shim.give_place();
            match self.adopt(Run { shim, pidfd, stdio, root: None }).await {
                Ok(run) => {
                    self.run = Some(run);
                    return Ok(());
                }
                Err(error) => tracing::error!(%error, container = self.id(), "adopt container"),
            }
            return Ok(());
        }
        let exited_at_ns = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        let exit = Exit { pid: status.pid, exit_code: None, exited_at_ns, oom_killed: false };
        self.take_ended(Some(exit), &status).await?;
        self.remove_shim_records();
        Ok(())
    }

    /// The endpoint of a start that did not happen.
    pub(crate) async fn drop_endpoint(&mut self) {
        if self.view.endpoint.is_some() {
            self.release().await;
            if let Err(error) = self.save() {
                tracing::error!(%error, container = self.id(), "save state");
            }
        }
    }

    /// What its settings want of it at the start of the daemon.
    pub(crate) async fn recovered(&mut self) -> Result<()> {
        if self.is_running() { Ok(()) } else { self.apply(Event::Recovered).await }
    }

    /// The number of the shim that holds it.
    pub(crate) fn shim_number(&self) -> Option<u32> {
        self.run.as_ref().map(|run| run.shim.number())
    }

    fn remove_shim_records(&self) {
        let directory = self.engine.shims.state_directory().join(self.id());
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %directory.display(), "remove");
        }
    }
}

/// The container's first process, if the one with its process id is that still, and what it has for
/// standard streams: the other ends of its pipes can be opened anew.
fn find_process(status: &Status, id: &str) -> Option<(OwnedFd, Vec<(FdRole, OwnedFd)>)> {
    let pidfd = ponton_sys::pidfd::open(status.pid).ok()?;
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", status.pid)).ok()?;
    if !groups.contains(id) {
        return None;
    }
    let alive = rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN);
    let immediately = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut [alive], Some(&immediately)).ok()? != 0 {
        return None;
    }
    if status.stdio.terminal {
        // The master side of a terminal cannot be opened anew: its output is lost.
        return Some((pidfd, Vec::new()));
    }
    let open = |number: u32, write: bool| {
        let path = format!("/proc/{}/fd/{number}", status.pid);
        std::fs::OpenOptions::new().read(!write).write(write).open(path).ok().map(OwnedFd::from)
    };
    let mut stdio = Vec::new();
    if status.stdio.stdin {
        stdio.extend(open(0, true).map(|fd| (FdRole::Stdin, fd)));
    }
    stdio.extend(open(1, false).map(|fd| (FdRole::Stdout, fd)));
    stdio.extend(open(2, false).map(|fd| (FdRole::Stderr, fd)));
    Some((pidfd, stdio))
}
