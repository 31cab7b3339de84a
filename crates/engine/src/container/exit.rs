//! What follows when a container's first process has ended, or its shim.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use ponton_runtime::shim::protocol::{Adopt, Exit, FdRole, Reply, Request, Status, Stdio};
use ponton_sys::pidfd;

use super::task::Run;
use super::unmount::Leaving;
use super::{Container, Task};
use crate::error::chain;
use crate::lifecycle::Event;
use crate::shim::Shim;

/// So often an end is offered to a database that could not take it.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// So long after a successor was not found another one is looked for.
const ADOPT_INTERVAL: Duration = Duration::from_millis(100);

impl Task {
    /// The shim says that the first process has ended.
    pub(crate) async fn exited(&mut self, exit: Exit) {
        if self.view.life.pid() != i32::try_from(exit.pid).ok() {
            return;
        }
        let exit_code = exit.exit_code.or_else(|| self.run.as_ref().and_then(|run| reap(run, exit.pid)));
        self.container.execs.container_ended();
        self.view.exits += 1;
        let event = Event::Exited { exit_code, at: time(exit.exited_at_ns), oom_killed: exit.oom_killed };
        let run = self.run.take();
        let applied = self.apply(event).await;
        if let Err(error) = &applied {
            tracing::error!(error = chain(error), container = self.id(), "end of container");
        }
        if let Some(run) = run {
            // Until it is saved the shim keeps its record: the next daemon finds the end there.
            if self.view.removed || (applied.is_ok() && self.saved) {
                self.forget(run.shim, run.root);
            } else {
                self.unsaved = Some(run);
                self.save_later();
            }
        }
    }

    /// Tries again to save an end, until the database takes it: its disk was full.
    fn save_later(&self) {
        let container = Arc::downgrade(&self.container);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SAVE_INTERVAL).await;
                let Some(container) = container.upgrade() else { return };
                let saved = container.change(|task| async { task.save_end() }.boxed()).await;
                // An error may also say that the container is gone.
                if saved.is_ok() || container.view().removed {
                    return;
                }
            }
        });
    }

    /// Saves an end that could not be saved when it came, if there is one.
    pub(super) fn save_end(&mut self) -> crate::error::Result<()> {
        if self.unsaved.is_none() {
            return Ok(());
        }
        self.save()?;
        if let Some(run) = self.unsaved.take() {
            self.forget(run.shim, run.root);
        }
        Ok(())
    }

    /// Has the shim drop its record, now that the database has it, and lets the root go. The next
    /// start waits for both.
    pub(crate) fn forget(&mut self, shim: Arc<Shim>, root: Option<OwnedFd>) {
        self.leaving = root.map(|root| Leaving::begin(&self.engine, root));
        let (engine, id, cgroup) = (Arc::clone(&self.engine), self.id().to_owned(), self.view.cgroup.clone());
        let request = Request::Forget { container: id.clone(), exec: None };
        self.forgetting = Some(tokio::spawn(async move {
            match shim.call(&request, &[]).await {
                Ok(_) => {}
                Err(_) if shim.is_lost() => super::recover::clear_after_shim(&engine, id, cgroup).await,
                Err(error) => tracing::warn!(%error, shim = shim.number(), "forget container"),
            }
            shim.give_place();
        }));
    }

    /// Gives back what only a run needs.
    pub(super) async fn release(&mut self) {
        self.release_volumes().await;
        self.engine.drop_shm(self.id());
        let Some(record) = self.view.endpoint.take() else { return };
        self.released = Some(record.clone());
        let network = Arc::clone(&self.engine.network);
        let detached = crate::engine::blocking(move || Ok(network.detach(&record)?)).await;
        if let Err(error) = detached {
            tracing::error!(error = chain(&error), container = self.id(), "detach from network");
        }
    }

    /// Tells the event stream that the container is not on its network any more.
    pub(super) fn emit_released(&mut self) {
        if let Some(record) = self.released.take() {
            self.emit_network("disconnect", &record);
        }
        self.emit_volumes_released();
    }

    /// The shim with this number is gone: a successor takes over.
    pub(crate) async fn shim_lost(&mut self, number: u32) {
        if self.run.as_ref().is_none_or(|run| run.shim.number() != number) {
            return;
        }
        // The shim may have died between writing down the end and telling it.
        if let Some(exit) = self.exit_record() {
            self.exited(exit).await;
            return;
        }
        self.follow_execs();
        if let Some(run) = self.run.take() {
            self.find_successor(run).await;
        }
    }

    /// Gives a run whose shim is gone to another shim, now or, where that one goes as well, a little later.
    pub(super) async fn find_successor(&mut self, run: Run) {
        let number = run.shim.number();
        match self.adopt(&run).await {
            Ok(shim) => self.run = Some(Run { shim, ..run }),
            Err(error) => {
                let (error, container) = (chain(&error), self.id());
                tracing::warn!(error, container, "find a successor for a lost shim");
                self.run = Some(run);
                self.tell_lost_again(number);
            }
        }
    }

    fn tell_lost_again(&self, number: u32) {
        let container = Arc::downgrade(&self.container);
        tokio::spawn(async move {
            tokio::time::sleep(ADOPT_INTERVAL).await;
            if let Some(container) = container.upgrade() {
                tell_lost(&container, number);
            }
        });
    }

    /// Gives a run to another shim: this one.
    async fn adopt(&self, run: &Run) -> crate::error::Result<Arc<Shim>> {
        let shim = self.engine.shims.acquire().await?;
        let status = self.shim_status();
        let adopt = Adopt { stdio: self.stdio(), log: status.log.clone(), status };
        let mut fds = vec![(FdRole::Pidfd, run.pidfd.as_fd())];
        fds.extend(run.stdio.iter().map(|(role, fd)| (*role, fd.as_fd())));
        match shim.call(&Request::Adopt(Box::new(adopt)), &fds).await {
            Ok((Reply::Adopted, _)) => {
                reap_when_ended(&run.pidfd);
                Ok(shim)
            }
            Ok(_) => Err(crate::error::Error::internal("unexpected answer to adopt")),
            Err(failure) => {
                shim.give_place();
                Err(crate::error::Error::failed(format!("adopt container {}", self.id()), failure))
            }
        }
    }

    /// The end of the present run, where a shim has written it down.
    pub(crate) fn exit_record(&self) -> Option<Exit> {
        let path = self.engine.shims.state_directory().join(self.id()).join("exit.json");
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// What the dead shim knew: from its file, else from what is known here.
    pub(super) fn shim_status(&self) -> Status {
        let path = self.engine.shims.state_directory().join(self.id()).join("shim.json");
        let known = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        known.unwrap_or_else(|| Status {
            container: self.id().to_owned(),
            pid: self.view.life.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            started_at_ns: self.view.life.last.started_at.map_or(0, nanoseconds),
            stdio: self.stdio(),
            log: crate::log::local(
                self.settings(),
                &self.view.name,
                &self.engine.container_directory(self.id()),
            ),
            cgroup: self.view.cgroup.clone(),
            own_pid_namespace: !matches!(self.settings().host_config.pid_mode.as_str(), "host"),
            foreign: self.engine.foreign(self.settings()).ok().flatten(),
            exited: None,
            execs: Vec::new(),
        })
    }

    /// How the container's standard streams are set up.
    pub(super) fn stdio(&self) -> Stdio {
        let config = &self.settings().config;
        Stdio {
            terminal: config.tty,
            size: super::start::size(self.settings().host_config.console_size),
            stdin: config.open_stdin,
            stdin_once: config.stdin_once,
        }
    }
}

/// Waits for a process that became the daemon's own child when its shim died: the kernel tells its
/// exit code to the successor only when it was waited for. Of another's child this does nothing.
fn reap_when_ended(pidfd: &OwnedFd) {
    let registered =
        pidfd.try_clone().and_then(|fd| crate::poll::register(fd, tokio::io::Interest::READABLE));
    let Ok(pidfd) = registered else { return };
    tokio::spawn(async move {
        if pidfd.readable().await.is_ok()
            && let Err(error) = pidfd::try_wait(pidfd.get_ref().as_fd())
        {
            tracing::debug!(error = chain(&error), "the adopted process was another's child");
        }
    });
}

/// The exit code of a process that became the daemon's own child when its shim died, or whose
/// end the kernel still knows.
fn reap(run: &Run, pid: u32) -> Option<i32> {
    let waited = pidfd::try_wait(run.pidfd.as_fd()).ok().flatten();
    waited.or_else(|| pidfd::exit_info(run.pidfd.as_fd(), pid).ok().flatten()).map(pidfd::Exit::code)
}

/// A shim's time.
pub(crate) fn time(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

fn tell_lost(container: &Container, number: u32) {
    container.tell(move |task| task.shim_lost(number).boxed());
}

/// Routes what a shim tells to the container that it is about.
pub(crate) fn route(engine: &Arc<crate::engine::Engine>, notice: crate::shim::Notice) {
    use ponton_runtime::shim::protocol::Event as Told;

    use crate::shim::Notice;
    match notice {
        Notice::Event(Told::Exited { container, exec: None, exit }) => {
            if let Some(container) = engine.by_id(&container) {
                container.tell(move |task| task.exited(exit).boxed());
            }
        }
        Notice::Event(Told::Exited { container, exec: Some(exec), exit }) => {
            if let Some(container) = engine.by_id(&container) {
                container.tell(move |task| task.exec_exited(exec, exit).boxed());
            }
        }
        Notice::Event(Told::Detached { container, exec }) => {
            if let Some(container) = engine.by_id(&container) {
                container.tell(move |task| {
                    async move {
                        match exec {
                            Some(exec) => task.emit("exec_detach", &[("execID", &exec)]),
                            None => task.emit("detach", &[]),
                        }
                    }
                    .boxed()
                });
            }
        }
        Notice::Event(Told::Oom { .. }) => {}
        Notice::Lost(number) => {
            engine.shims.remove(number);
            for container in engine.all() {
                tell_lost(&container, number);
            }
        }
    }
}
