//! Ending containers, and freezing them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustix::process::Signal;

use super::{Container, Task, View};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::lifecycle::{Event, State};
use crate::request::StopOptions;
use crate::signal;

/// How long a container has to stop when nobody says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long the kernel may take to end a killed process before the client is told so.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container; NotModified when it does not run.
    pub async fn stop(self: &Arc<Self>, name: &str, options: StopOptions) -> Result<()> {
        let container = self.find(name)?;
        if !is_alive(&container.view()) {
            return Err(Error::not_modified());
        }
        stop(&container, &options, Why::User).await?;
        container.tell(|task| async move { task.emit("stop", &[]) }.boxed());
        Ok(())
    }

    /// Sends a signal: a name with or without SIG, or a number; empty for SIGKILL.
    pub async fn kill(self: &Arc<Self>, name: &str, signal: &str) -> Result<()> {
        let signal = if signal.is_empty() { Signal::KILL.as_raw() } else { signal::parse(signal)? };
        let cannot = |mut error: Error| {
            if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) {
                error.message = format!("Cannot kill container: {name}: {}", error.message);
            }
            error
        };
        let container = self.find(name).map_err(cannot)?;
        let before = container.view().exits;
        container.change(move |task| task.kill(signal).boxed()).await.map_err(cannot)?;
        if signal == Signal::KILL.as_raw() {
            ended(&container, before, Some(KILL_TIMEOUT)).await;
        }
        Ok(())
    }

    /// Stops a container when it runs, and starts it.
    pub async fn restart(self: &Arc<Self>, name: &str, options: StopOptions) -> Result<()> {
        let container = self.find(name)?;
        container.change(|task| task.keep(true).boxed()).await?;
        let stopped = match is_alive(&container.view()) {
            true => stop(&container, &options, Why::User).await.map(|()| true),
            false => Ok(false),
        };
        container.change(|task| task.keep(false).boxed()).await?;
        if stopped? {
            container.tell(|task| async move { task.emit("stop", &[]) }.boxed());
        }
        container.change(|task| task.start().boxed()).await.or_else(|error| match error.kind {
            // Its policy, or another client, was faster.
            ErrorKind::NotModified => Ok(()),
            _ => Err(error),
        })?;
        container.tell(|task| async move { task.emit("restart", &[]) }.boxed());
        Ok(())
    }

    /// Freezes the processes.
    pub async fn pause(self: &Arc<Self>, name: &str) -> Result<()> {
        self.find(name)?.change(|task| task.apply(Event::Pause)).await
    }

    /// Thaws them.
    pub async fn unpause(self: &Arc<Self>, name: &str) -> Result<()> {
        self.find(name)?.change(|task| task.apply(Event::Unpause)).await
    }
}

/// Why a container is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody wants it not to run.
    User,
    /// Its policy wants it to run, but healthy.
    Unhealthy,
}

fn is_alive(view: &View) -> bool {
    view.life.is_running() || matches!(view.life.state, State::Restarting { .. })
}

/// Sends the stop signal, waits, and sends SIGKILL when that did not help.
async fn stop(container: &Container, options: &StopOptions, why: Why) -> Result<()> {
    let view = container.view();
    let config = &view.settings.config;
    let wanted = options.signal.as_deref().filter(|signal| !signal.is_empty());
    let signal = match wanted.unwrap_or(&config.stop_signal) {
        "" => Signal::TERM.as_raw(),
        name => signal::parse(name)?,
    };
    let seconds = options.timeout.or(config.stop_timeout).unwrap_or(STOP_TIMEOUT);
    let before = view.exits;
    match container.change(move |task| task.stop_with(signal, why).boxed()).await {
        // It ended by itself just now.
        Err(error) if error.kind == ErrorKind::Conflict => return Ok(()),
        other => other?,
    }
    let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
    if ended(container, before, patience).await {
        return Ok(());
    }
    let killed = container.change(move |task| task.stop_with(Signal::KILL.as_raw(), why).boxed()).await;
    if ended(container, before, Some(KILL_TIMEOUT)).await {
        return Ok(());
    }
    killed?;
    Err(Error::internal(format!(
        "cannot stop container {}: it did not end after SIGKILL within {} s",
        container.id,
        KILL_TIMEOUT.as_secs()
    )))
}

/// Waits until a run has ended since `before`; false when `patience` is over.
pub(super) async fn ended(container: &Container, before: u64, patience: Option<Duration>) -> bool {
    let ended = container.wait_until(|view| view.exits > before || view.removed || !is_alive(view));
    match patience {
        Some(patience) => tokio::time::timeout(patience, ended).await.is_ok(),
        None => {
            ended.await;
            true
        }
    }
}

impl Task {
    /// Whether an end leaves the container in place that would be removed otherwise.
    pub(super) async fn keep(&mut self, keep: bool) -> Result<()> {
        self.keep = keep;
        Ok(())
    }

    /// Sends a signal that shall end it, from now on without probes of its health.
    async fn stop_with(&mut self, signal: i32, why: Why) -> Result<()> {
        self.stopping = self.view.life.is_running();
        match why {
            Why::User => self.end_with(signal).await,
            // It has ended by itself, or was stopped.
            Why::Unhealthy if self.view.life.unhealthy.is_none() => Err(Error::not_running(self.id())),
            Why::Unhealthy => self.deliver(signal, &[("reason", "unhealthy")]).await,
        }
    }

    /// Stops it, so that its policy starts it again.
    pub(crate) fn end_unhealthy(&self) {
        let container = Arc::clone(&self.container);
        tokio::spawn(async move {
            if let Err(error) = stop(&container, &StopOptions::default(), Why::Unhealthy).await {
                tracing::error!(error = chain(&error), container = container.id, "end unhealthy container");
            }
        });
    }

    /// Sends a signal that means the end, and keeps the policy from starting it again.
    async fn end_with(&mut self, signal: i32) -> Result<()> {
        self.apply(Event::Stop).await?;
        if self.view.life.is_running() {
            self.deliver(signal, &[]).await?;
        }
        Ok(())
    }

    /// Sends a signal as a user wants it.
    async fn kill(&mut self, signal: i32) -> Result<()> {
        if !is_alive(&self.view) {
            return Err(Error::not_running(self.id()));
        }
        let stop_signal = &self.settings().config.stop_signal;
        let is_end = stop_signal.is_empty()
            || signal == Signal::KILL.as_raw()
            || signal::parse(stop_signal).is_ok_and(|stop| stop == signal);
        if is_end {
            return self.end_with(signal).await;
        }
        self.deliver(signal, &[]).await
    }

    /// Sends a signal to the first process, thawed so that it hears it.
    async fn deliver(&mut self, signal: i32, more: &[(&str, &str)]) -> Result<()> {
        self.signal(signal)?;
        let number = signal.to_string();
        let attributes: Vec<_> = [("signal", number.as_str())].iter().chain(more).copied().collect();
        self.emit("kill", &attributes);
        if self.view.life.is_paused() {
            self.apply(Event::Unpause).await?;
        }
        Ok(())
    }
}
