//! What a container's task does about its health: it follows the container's life, runs the probes, and
//! tells what they found. The rules are [`crate::health`]'s.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use ponton_api::container::{Health as ApiHealth, HealthSummary, HealthcheckResult};
use ponton_api::exec::ExecCreateRequest;
use ponton_runtime::shim::protocol::{AttachSpec, Stdio};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::{Task, View};
use crate::error::{Error, Result, chain};
use crate::exec::Launch;
use crate::health::{self, Effect, Event, Monitor, NOT_RUN, Output};
use crate::lifecycle::{self, State};

/// How long after a probe's end its last output may come.
const OUTPUT_TOLD: Duration = Duration::from_secs(1);

/// A probe that runs.
pub(crate) struct Probe {
    /// The exec's id.
    exec: String,
    /// Reads what it writes.
    output: JoinHandle<String>,
}

impl Task {
    /// Has the monitor follow the container's life, of which `event` is the last news.
    pub(crate) fn follow_life(&mut self, event: Option<&lifecycle::Event>) {
        if matches!(event, Some(lifecycle::Event::Started { .. } | lifecycle::Event::Exited { .. })) {
            self.stopping = false;
        }
        let life = &self.view.life;
        let may_probe = matches!(life.state, State::Running { paused: false, .. })
            && !self.stopping
            && life.unhealthy.is_none();
        let is_off = self.view.health.as_ref().is_none_or(|health| health.monitor == Monitor::Off);
        let event = match event {
            Some(lifecycle::Event::Started { .. }) => Event::Begin,
            _ if may_probe && is_off => Event::Resume,
            _ if !may_probe && !is_off => Event::Halt,
            _ => return,
        };
        for effect in self.next_health(&event) {
            match effect {
                Effect::WakeAfter(delay) => self.wake = Some(tokio::time::Instant::now() + delay),
                Effect::Sleep => self.wake = None,
                Effect::Abandon => self.abandon_probe(),
                // Nothing is probed, saved or told because a life goes on: what was saved says it.
                Effect::Probe | Effect::Kill | Effect::Save | Effect::Emit(_) | Effect::Unhealthy => {}
            }
        }
    }

    /// The timer of the monitor is over.
    pub(super) async fn health_due(&mut self) {
        self.wake = None;
        self.health_event(Event::Wake).await;
    }

    fn next_health(&mut self, event: &Event) -> Vec<Effect> {
        let Some(check) = &self.check else { return Vec::new() };
        let now = Timestamp::now();
        let started_at = match self.view.life.state {
            State::Running { started_at, .. } => started_at,
            _ => now,
        };
        let health = self.view.health.as_deref().cloned().unwrap_or_default();
        let (health, effects) = health::next(&health, check, started_at, event, now);
        self.view.health = Some(Arc::new(health));
        effects
    }

    /// Boxed: a probe that can't be run has an event for its outcome.
    fn health_event(&mut self, event: Event) -> BoxFuture<'_, ()> {
        async move {
            for effect in self.next_health(&event) {
                match effect {
                    Effect::WakeAfter(delay) => self.wake = Some(tokio::time::Instant::now() + delay),
                    Effect::Sleep => self.wake = None,
                    Effect::Probe => self.probe().await,
                    Effect::Kill => self.kill_probe(),
                    Effect::Abandon => self.abandon_probe(),
                    Effect::Save => {
                        // What was found is shown, whether it can be saved or not.
                        if let Err(error) = self.save() {
                            tracing::error!(error = chain(&error), container = self.id(), "save the health");
                            self.saved = false;
                            self.show();
                        }
                    }
                    Effect::Emit(status) => self.emit(&format!("health_status: {}", status.name()), &[]),
                    Effect::Unhealthy => self.found_unhealthy().await,
                }
            }
        }
        .boxed()
    }

    async fn found_unhealthy(&mut self) {
        let was_healthy = self.view.health.as_ref().is_some_and(|health| health.was_healthy);
        if let Err(error) = self.apply(lifecycle::Event::Unhealthy { was_healthy }).await {
            tracing::error!(error = chain(&error), container = self.id(), "end an unhealthy container");
        }
    }

    async fn probe(&mut self) {
        self.engine.counts.health_checks.add(1);
        if let Err(error) = self.start_probe().await {
            let output = error.message;
            self.engine.counts.health_checks_failed.add(1);
            self.health_event(Event::Probed { exit_code: NOT_RUN, output }).await;
        }
    }

    async fn start_probe(&mut self) -> Result<()> {
        let Some(check) = &self.check else { return Ok(()) };
        let request = ExecCreateRequest {
            cmd: Some(check.command.clone()),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecCreateRequest::default()
        };
        let exec = self.engine.register_exec(&self.container, request.clone(), true)?;
        let (output, theirs) = collect()?;
        let spec = AttachSpec { stdout: true, stderr: true, ..AttachSpec::default() };
        let launch =
            Launch { request, stdio: Stdio::default(), attach: Some((spec, theirs)), is_probe: true };
        // Its end waits in the queue behind this job.
        self.probe = Some(Probe { exec: exec.clone(), output });
        let launched = self.launch_exec(&exec, launch).await;
        if launched.is_err() {
            self.probe = None;
            self.container.execs.remove(&exec);
        }
        launched
    }

    /// An exec has ended; if it is the probe, the result is told.
    pub(crate) async fn exec_ended(&mut self, exec: &str, exit_code: i32) {
        let Some(probe) = self.probe.take_if(|probe| probe.exec == exec) else { return };
        let output = tokio::time::timeout(OUTPUT_TOLD, probe.output).await;
        // A probe that was killed with its container tells nothing.
        if self.run.as_ref().is_some_and(super::task::Run::has_ended) {
            return;
        }
        let output = output.ok().and_then(std::result::Result::ok).unwrap_or_default();
        self.health_event(Event::Probed { exit_code, output }).await;
    }

    fn kill_probe(&self) {
        if let Some(probe) = &self.probe {
            self.container.execs.kill(&probe.exec);
        }
    }

    fn abandon_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.container.execs.kill(&probe.exec);
            probe.output.abort();
        }
    }
}

/// Where a probe writes to, and what will be known of it.
fn collect() -> Result<(JoinHandle<String>, OwnedFd)> {
    let failed = |error: std::io::Error| Error::failed("make a socket for a health check", error);
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    // Nonblocking, as the shim expects it.
    let theirs = OwnedFd::from(theirs.into_std().map_err(failed)?);
    let output = tokio::spawn(async move {
        let mut output = Output::new();
        let mut buffer = Vec::with_capacity(health::OUTPUT_MAX);
        while let Ok(1..) = ours.read_buf(&mut buffer).await {
            output.push(&buffer);
            buffer.clear();
        }
        output.into_text()
    });
    Ok((output, theirs))
}

/// A container's health as `inspect` shows it.
pub(super) fn shown(view: &View) -> Option<ApiHealth> {
    let health = view.health.as_ref()?;
    let result = |probed: &health::Probed| HealthcheckResult {
        start: probed.start.to_string(),
        end: probed.end.to_string(),
        exit_code: i64::from(probed.exit_code),
        output: probed.output.clone(),
    };
    Some(ApiHealth {
        status: health.status.name().to_owned(),
        failing_streak: i64::from(health.failing_streak),
        log: Some(health.log.iter().map(result).collect()),
    })
}

/// The same, as a list shows it.
pub(super) fn summary(view: &View) -> Option<HealthSummary> {
    let health = view.health.as_ref()?;
    Some(HealthSummary {
        status: health.status.name().to_owned(),
        failing_streak: i64::from(health.failing_streak),
    })
}

/// The word by which a list is filtered.
pub(super) fn word(view: &View) -> &'static str {
    view.health.as_ref().map_or("none", |health| health.status.name())
}
