//! The health of a container as a pure function: [`next`] holds every rule of Docker's health checks.
//! Like [`crate::lifecycle`] it does nothing itself: it answers with the next health and with what the
//! container's task has to do.
//!
//! ```text
//!                    Begin, Resume              Wake: Probe
//!   Monitor:  Off ───────────────► Waiting ◄──────────────────► Probing ──► Killing
//!              ▲                      │           Probed           │ Wake: Kill │
//!              └──────────────────────┴────────── Halt ────────────┴────────────┘
//!
//!   Status:   Starting ──► Healthy ◄──► Unhealthy         (Halt makes Unhealthy, as in Docker)
//! ```
//!
//! One timer is enough: it means the next probe while the monitor waits, and the end of the probe's
//! patience while one runs.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ponton_api::container::Config;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many results are kept.
const RESULTS_KEPT: usize = 5;
/// How many bytes of a probe's output are kept.
pub const OUTPUT_MAX: usize = 4096;
/// The exit code of a probe that could not be started, or took too long.
pub const NOT_RUN: i32 = -1;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
/// No time of a check is shorter, in nanoseconds; 0 stands for the default.
const SHORTEST_NS: i64 = 1_000_000;

/// How a container's health is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// From the end of a probe to the next one.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// How long after the start failures do not count.
    pub start_period: Duration,
    /// The interval within the start period, until the first success.
    pub start_interval: Duration,
    /// This many failures in a row make a container unhealthy.
    pub retries: u32,
}

impl Check {
    /// The check of a container with this configuration, if it has one.
    pub fn of(config: &Config) -> Option<Self> {
        let check = config.healthcheck.as_ref()?;
        let (kind, words) = check.test.as_deref()?.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let shell = config.shell.as_ref().filter(|shell| !shell.is_empty());
                let shell = shell.cloned().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                shell.into_iter().chain(words.iter().cloned()).collect()
            }
            // `NONE`; what Docker does not know is not run either.
            _ => return None,
        };
        let time = |nanoseconds: i64, default| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => default,
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Some(Self {
            command,
            interval: time(check.interval, DEFAULT_INTERVAL),
            timeout: time(check.timeout, DEFAULT_TIMEOUT),
            start_period: time(check.start_period, Duration::ZERO),
            start_interval: time(check.start_interval, DEFAULT_START_INTERVAL),
            retries: match u32::try_from(check.retries) {
                Ok(0) | Err(_) => DEFAULT_RETRIES,
                Ok(retries) => retries,
            },
        })
    }
}

/// Refuses a configuration with times or numbers that no check can have, in Docker's words.
pub(crate) fn check(config: &Config) -> Result<()> {
    let Some(check) = &config.healthcheck else { return Ok(()) };
    for (name, time) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if time != 0 && time < SHORTEST_NS {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

/// Docker's words for how a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No probe has succeeded, and too few have failed.
    #[default]
    Starting,
    /// The last probe succeeded, or too few have failed since one did.
    Healthy,
    /// Too many probes have failed; or nobody probes, as the container does not run.
    Unhealthy,
}

impl Status {
    /// As the API says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// As `ps` says it.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Starting => "health: starting",
            Self::Healthy | Self::Unhealthy => self.name(),
        }
    }
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// When it was begun.
    pub start: Timestamp,
    /// When its result came.
    pub end: Timestamp,
    /// 0 for healthy; [`NOT_RUN`] when there is none.
    pub exit_code: i32,
    /// What it wrote, or why it did not run.
    pub output: String,
}

/// What is being done about a container's health. It is not saved: a new daemon resumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Monitor {
    /// Nothing: the container does not run, is frozen, or is being stopped.
    #[default]
    Off,
    /// The next probe is waited for.
    Waiting,
    /// A probe runs.
    Probing {
        /// Since when.
        since: Timestamp,
    },
    /// A probe took too long, and its end is waited for.
    Killing {
        /// When it was begun.
        since: Timestamp,
    },
}

/// All that [`next`] looks at and changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// How the container is.
    pub status: Status,
    /// How many probes have failed in a row.
    pub failing_streak: u32,
    /// The last results, the newest last; also those of runs before.
    pub log: VecDeque<Probed>,
    /// A probe of this run has succeeded.
    pub was_healthy: bool,
    /// What is being done.
    #[serde(skip)]
    pub monitor: Monitor,
}

/// What happens to a container, as far as its health is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A run begins.
    Begin,
    /// It can be probed again: it was thawed, or the daemon has started again.
    Resume,
    /// It can't be probed any more: it has ended, is being stopped, or was frozen.
    Halt,
    /// The timer is over.
    Wake,
    /// The probe has ended.
    Probed {
        /// Its exit code, or [`NOT_RUN`].
        exit_code: i32,
        /// What it wrote, at most about [`OUTPUT_MAX`] bytes; or why it was not run.
        output: String,
    },
}

/// What the container's task has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Come back with [`Event::Wake`] after this time, and not before; it replaces what was set.
    WakeAfter(Duration),
    /// Do not come back.
    Sleep,
    /// Run a probe, then answer with [`Event::Probed`].
    Probe,
    /// Kill the probe; its end is still waited for.
    Kill,
    /// Kill the probe, and forget it.
    Abandon,
    /// Save the health, before anybody is told.
    Save,
    /// Tell the event stream of the new status.
    Emit(Status),
    /// Tell the container's life that a probe found it unhealthy.
    Unhealthy,
}

/// What follows when `event` happens at `now` to a container that runs since `started_at`.
pub fn next(
    health: &Health,
    check: &Check,
    started_at: Timestamp,
    event: &Event,
    now: Timestamp,
) -> (Health, Vec<Effect>) {
    let mut health = health.clone();
    let effects = match event {
        Event::Begin => {
            let mut effects = halt(&mut health);
            health.status = Status::Starting;
            health.failing_streak = 0;
            health.was_healthy = false;
            effects.extend(wait(&mut health, check, started_at, now));
            effects
        }
        Event::Resume if health.monitor == Monitor::Off => wait(&mut health, check, started_at, now),
        Event::Resume => Vec::new(),
        Event::Halt => halt(&mut health),
        Event::Wake => match health.monitor {
            Monitor::Waiting => {
                health.monitor = Monitor::Probing { since: now };
                vec![Effect::WakeAfter(check.timeout), Effect::Probe]
            }
            Monitor::Probing { since } => {
                health.monitor = Monitor::Killing { since };
                vec![Effect::Sleep, Effect::Kill]
            }
            Monitor::Off | Monitor::Killing { .. } => vec![Effect::Sleep],
        },
        Event::Probed { exit_code, output } => match health.monitor {
            Monitor::Probing { since } => {
                let result = Probed { start: since, end: now, exit_code: *exit_code, output: output.clone() };
                probed(&mut health, check, started_at, result)
            }
            Monitor::Killing { since } => {
                let told = if output.is_empty() { String::new() } else { format!(": {output}") };
                let patience = ponton_api::unit::go_duration(check.timeout);
                let output = format!("Health check exceeded timeout ({patience}){told}");
                let result = Probed { start: since, end: now, exit_code: NOT_RUN, output };
                probed(&mut health, check, started_at, result)
            }
            Monitor::Off | Monitor::Waiting => Vec::new(),
        },
    };
    (health, effects)
}

fn halt(health: &mut Health) -> Vec<Effect> {
    let before = std::mem::take(&mut health.monitor);
    health.status = Status::Unhealthy;
    match before {
        Monitor::Off => Vec::new(),
        Monitor::Waiting => vec![Effect::Sleep],
        Monitor::Probing { .. } | Monitor::Killing { .. } => vec![Effect::Sleep, Effect::Abandon],
    }
}

fn wait(health: &mut Health, check: &Check, started_at: Timestamp, now: Timestamp) -> Vec<Effect> {
    health.monitor = Monitor::Waiting;
    let is_starting = health.status == Status::Starting && is_in_start_period(check, started_at, now);
    vec![Effect::WakeAfter(if is_starting { check.start_interval } else { check.interval })]
}

fn is_in_start_period(check: &Check, started_at: Timestamp, now: Timestamp) -> bool {
    let period = SignedDuration::try_from(check.start_period).unwrap_or(SignedDuration::MAX);
    now.duration_since(started_at) < period
}

fn probed(health: &mut Health, check: &Check, started_at: Timestamp, result: Probed) -> Vec<Effect> {
    let before = health.status;
    let (start, end) = (result.start, result.end);
    if result.exit_code == 0 {
        health.status = Status::Healthy;
        health.failing_streak = 0;
        health.was_healthy = true;
    } else if before != Status::Starting || !is_in_start_period(check, started_at, start) {
        health.failing_streak += 1;
        if health.failing_streak >= check.retries {
            health.status = Status::Unhealthy;
        }
    }
    while health.log.len() >= RESULTS_KEPT {
        health.log.pop_front();
    }
    let failed = result.exit_code != 0;
    health.log.push_back(result);
    let mut effects = wait(health, check, started_at, end);
    effects.push(Effect::Save);
    if health.status != before {
        effects.push(Effect::Emit(health.status));
    }
    if failed && health.status == Status::Unhealthy {
        effects.push(Effect::Unhealthy);
    }
    effects
}

/// What a probe wrote, as text of bounded length.
pub(crate) struct Output {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), truncated: false }
    }

    /// Keeps what there is place for.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(OUTPUT_MAX - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.truncated |= kept < bytes.len();
    }

    /// The text; a character that was cut in two is left out.
    pub(crate) fn into_text(self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.truncated {
            if text.ends_with(char::REPLACEMENT_CHARACTER) {
                text.pop();
            }
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests;
