//! One container after a restart of the daemon.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ponton_cgroup::Cgroup;
use ponton_runtime::shim::protocol::{Exit, FdRole, Reply, Request, Status};

use super::task::Run;
use super::{Task, start};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};
use crate::lifecycle::{Event, State};
use crate::shim::Shim;

/// How often, and how long apart, the removal of a control group is tried.
const GROUP_ATTEMPTS: u32 = 100;
const GROUP_PAUSE: Duration = Duration::from_millis(10);

impl Task {
    pub(crate) fn is_running(&self) -> bool {
        self.view.life.is_running()
    }

    /// A shim has it, running: its descriptors are taken again.
    pub(crate) async fn take_running(&mut self, shim: Arc<Shim>) -> Result<()> {
        let request = Request::Inspect { container: self.id().to_owned() };
        let (status, fds) = match shim.call(&request, &[]).await {
            Ok((Reply::Status(now), fds)) => (now, fds),
            Ok(_) => return Err(Error::internal("unexpected answer to inspect")),
            Err(failure) => {
                return Err(Error::failed(format!("inspect container {}", self.id()), failure));
            }
        };
        self.find_execs(&status);
        if status.exited.is_some() {
            // It has ended since the shim was asked for its containers.
            self.take_ended(status.exited, &status).await?;
            self.forget(shim, None);
            return Ok(());
        }
        let (pidfd, stdio) = start::split(fds, self.id())?;
        self.run = Some(Run { shim, pidfd, stdio, root: None });
        self.keep_volumes();
        let pid = status.pid as i32;
        if self.view.life.pid() != Some(pid) {
            // Killed between the start and its record.
            let at = super::exit::time(status.started_at_ns);
            self.apply(Event::Started { pid, at }).await?;
        }
        self.see_frozen()
    }

    /// Killed between freezing or thawing it and the record of that: the kernel knows.
    fn see_frozen(&mut self) -> Result<()> {
        let Some(path) = &self.view.cgroup else { return Ok(()) };
        let frozen = self.engine.control_group(path)?.is_frozen().unwrap_or(false);
        if let State::Running { paused, .. } = &mut self.view.life.state
            && *paused != frozen
        {
            *paused = frozen;
            self.save()?;
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
        self.clear_after_shim().await;
        Ok(())
    }

    /// Its shim is gone; it may run.
    pub(crate) async fn take_without_shim(&mut self) -> Result<()> {
        let status = self.shim_status();
        if let Some((pidfd, stdio)) = find_process(&status, self.id()) {
            let shim = self.engine.shims.acquire().await?;
            shim.give_place();
            self.find_successor(Run { shim, pidfd, stdio, root: None }).await;
            self.keep_volumes();
            return Ok(());
        }
        let exited_at_ns = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        let exit = Exit { pid: status.pid, exit_code: None, exited_at_ns, oom_killed: false };
        self.take_ended(Some(exit), &status).await?;
        self.clear_after_shim().await;
        Ok(())
    }

    /// The endpoint of a start that did not happen.
    pub(crate) async fn drop_endpoint(&mut self) {
        if self.view.endpoint.is_some() {
            self.release().await;
            self.emit_released();
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

    /// What a dead shim can no longer do for a container that has ended.
    pub(crate) async fn clear_after_shim(&self) {
        clear_after_shim(&self.engine, self.id().to_owned(), self.view.cgroup.clone()).await;
    }
}

/// Ends what is left of a container, and removes its control group and the shim's records of it.
pub(super) async fn clear_after_shim(engine: &Arc<Engine>, id: String, cgroup: Option<String>) {
    let engine = Arc::clone(engine);
    let cleared = blocking(move || {
        if let Some(path) = cgroup {
            remove_group(&engine.control_group(&path)?)?;
        }
        let directory = engine.shims.state_directory().join(&id);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::failed(format!("remove {}", directory.display()), error))
            }
            _ => Ok(()),
        }
    });
    if let Err(error) = cleared.await {
        tracing::warn!(error = chain(&error), "clear up after a lost shim");
    }
}

/// Ends what is in a control group, and removes it. The kernel takes a moment to take killed processes down; the group
/// is busy until then.
pub(crate) fn remove_group(group: &Cgroup) -> Result<()> {
    if !group.exists() {
        return Ok(());
    }
    group.kill_all()?;
    for _ in 0..GROUP_ATTEMPTS {
        match group.remove() {
            Ok(()) => return Ok(()),
            Err(_) => std::thread::sleep(GROUP_PAUSE),
        }
    }
    Ok(group.remove()?)
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
