//! The life of a container as a pure function: [`next`] holds every rule of starting, stopping,
//! restarting and removing. It does nothing itself: it answers with the next state and with the
//! effects that the container's task has to carry out, in order.
//!
//! ```text
//!            Start/Started             Paused
//!  Created ───────────────► Running ◄────────► Running(paused)
//!     │                      │   ▲ Unpaused
//!     │ Remove         Exited│   │Started
//!     ▼                      ▼   │
//!  Removing ◄──────────── Exited, or Restarting(next_at) when the policy wants it
//!     │ RemoveFailed
//!     ▼
//!    Dead
//! ```

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Docker waits this long before the first restart, and doubles it each time.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// … up to this.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A container that ran this long begins again with the first delay.
const STEADY: Duration = Duration::from_secs(10);

/// Where a container is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// Made, and not started yet.
    #[default]
    Created,
    /// Its first process runs.
    Running {
        /// Process id as the daemon sees it.
        pid: i32,
        /// When the process was started.
        started_at: Timestamp,
        /// Frozen by `pause`.
        paused: bool,
    },
    /// Ended, and will be started again by its restart policy.
    Restarting {
        /// When.
        next_at: Timestamp,
    },
    /// Ended.
    Exited,
    /// Being removed.
    Removing,
    /// Its removal failed half-way.
    Dead {
        /// Why.
        cause: String,
    },
}

/// How the last run ended (or failed to begin).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// When the last run began.
    pub started_at: Option<Timestamp>,
    /// When the last run ended.
    pub finished_at: Option<Timestamp>,
    /// Its exit code; 128 + n for a signal; 125 to 127 when it could not be started.
    pub exit_code: i32,
    /// Whether the kernel killed a process of it for lack of memory.
    pub oom_killed: bool,
    /// Why it could not be started, or why the exit code is not known.
    pub error: String,
}

/// What to do when a container ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// Start it again when its exit code is not 0, at most `max` times (0: without limit).
    OnFailure {
        /// Most restarts in a row.
        max: u32,
    },
    /// Start it again, also at the start of the daemon.
    Always,
    /// As Always, but not when a user has stopped it.
    UnlessStopped,
}

/// All that [`next`] looks at and changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// How the last run went.
    pub last: Outcome,
    /// How often its policy has started it again since a user did.
    pub restarts: u32,
    /// The last delay before a restart, in milliseconds.
    pub delay_ms: u64,
    /// Set by stop and kill, cleared by start.
    pub manually_stopped: bool,
    /// Its policy ends it, or has ended it, for its health; until it runs again.
    pub unhealthy: Option<Unhealthy>,
}

/// A run that is ended for its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unhealthy {
    /// It was healthy once: the delays begin anew.
    pub was_healthy: bool,
}

/// What a container's settings say about its life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// The restart policy.
    pub restart: Restart,
    /// End it when it is unhealthy, and start it again.
    pub on_unhealthy: bool,
    /// Remove it when it ends (`--rm`).
    pub auto_remove: bool,
}

/// What happens to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user wants it to run.
    Start,
    /// The delay of a restart is over.
    RestartDue,
    /// Its process runs.
    Started {
        /// Process id.
        pid: i32,
        /// When.
        at: Timestamp,
    },
    /// Its process could not be started.
    StartFailed {
        /// What the container's exit code becomes.
        exit_code: i32,
        /// Why.
        error: String,
    },
    /// A user sends a signal that is meant to end it.
    Stop,
    /// Its process has ended.
    Exited {
        /// The exit code; `None` when the kernel could not tell.
        exit_code: Option<i32>,
        /// When.
        at: Timestamp,
        /// Whether a process was killed for lack of memory.
        oom_killed: bool,
    },
    /// A probe has found it unhealthy.
    Unhealthy {
        /// It was healthy before, in this run.
        was_healthy: bool,
    },
    /// A user freezes it.
    Pause,
    /// A user thaws it.
    Unpause,
    /// Somebody removes it.
    Remove {
        /// Also when it runs.
        force: bool,
    },
    /// The removal failed.
    RemoveFailed {
        /// Why.
        cause: String,
    },
    /// The daemon has started again.
    Recovered,
}

/// What the container's task has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the process, then answer with Started or StartFailed.
    Launch,
    /// Save the state, before anybody is told.
    Save,
    /// Show the state without saving it: a removal follows, which is the record of it.
    Show,
    /// Tell the event stream.
    Emit(&'static str),
    /// Give back network, snapshot mounts and other things that only a run needs.
    Release,
    /// Tell the event stream what was given back.
    EmitReleased,
    /// Tell the event stream that the policy has started it again for its health.
    EmitRestart,
    /// End its process by the stop signal, or else by SIGKILL, without keeping it from a restart.
    EndUnhealthy,
    /// Come back with `RestartDue` after this time.
    RestartAfter(Duration),
    /// Send SIGKILL and wait for the exit, then remove.
    KillAndRemove,
    /// Remove the container.
    Remove,
    /// Freeze its processes.
    Freeze,
    /// Thaw its processes.
    Thaw,
}

/// Why an event does not fit the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is started already.
    AlreadyStarted,
    /// A paused container cannot be started.
    StartPaused,
    /// It is being removed, or its removal failed.
    MarkedForRemoval,
    /// It does not run.
    NotRunning,
    /// It is not paused.
    NotPaused,
    /// It is paused already.
    AlreadyPaused,
    /// It is between two runs.
    Restarting,
    /// A running container is removed only with force.
    RemoveRunning,
    /// A paused container is removed only with force.
    RemovePaused,
    /// A container between two runs is removed only with force.
    RemoveRestarting,
    /// Somebody else removes it.
    RemovalInProgress,
}

impl Refusal {
    /// Docker's words for it.
    pub fn into_error(self, id: &str) -> Error {
        const FORCE: &str = "before attempting removal or force remove";
        match self {
            Self::AlreadyStarted => Error::not_modified(),
            Self::StartPaused => Error::conflict("cannot start a paused container, try unpause instead"),
            Self::MarkedForRemoval => {
                Error::conflict("container is marked for removal and cannot be started")
            }
            Self::NotRunning => Error::not_running(id),
            Self::NotPaused => Error::conflict(format!("Container {id} is not paused")),
            Self::AlreadyPaused => Error::conflict(format!("Container {id} is already paused")),
            Self::Restarting => {
                Error::conflict(format!("Container {id} is restarting, wait until the container is running"))
            }
            Self::RemoveRunning => Error::conflict(format!(
                "You cannot remove a running container {id}. Stop the container {FORCE}"
            )),
            Self::RemovePaused => Error::conflict(format!(
                "You cannot remove a paused container {id}. Unpause and then stop the container {FORCE}"
            )),
            Self::RemoveRestarting => Error::conflict(format!(
                "You cannot remove a restarting container {id}. Stop the container {FORCE}"
            )),
            Self::RemovalInProgress => {
                Error::conflict(format!("removal of container {id} is already in progress"))
            }
        }
    }
}

impl Life {
    /// Whether a process of it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether it runs, frozen.
    pub fn is_paused(&self) -> bool {
        matches!(self.state, State::Running { paused: true, .. })
    }

    /// The process id of the first process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// Docker's word for the state.
    pub fn status(&self) -> &'static str {
        match self.state {
            State::Created => "created",
            State::Running { paused: true, .. } => "paused",
            State::Running { .. } => "running",
            State::Restarting { .. } => "restarting",
            State::Exited => "exited",
            State::Removing => "removing",
            State::Dead { .. } => "dead",
        }
    }
}

/// What follows when `event` happens at `now` to a container in `life`.
pub fn next(
    life: &Life,
    policy: Policy,
    event: &Event,
    now: Timestamp,
) -> Result<(Life, Vec<Effect>), Refusal> {
    let mut life = life.clone();
    let effects = match event {
        Event::Start => start(&mut life)?,
        Event::RestartDue => match life.state {
            State::Restarting { .. } => vec![Effect::Launch],
            _ => Vec::new(),
        },
        Event::Started { pid, at } => {
            life.state = State::Running { pid: *pid, started_at: *at, paused: false };
            life.last =
                Outcome { started_at: Some(*at), finished_at: life.last.finished_at, ..Outcome::default() };
            let mut effects = vec![Effect::Save, Effect::Emit("start")];
            if life.unhealthy.take().is_some() {
                effects.push(Effect::EmitRestart);
            }
            effects
        }
        Event::StartFailed { exit_code, error } => start_failed(&mut life, policy, *exit_code, error),
        Event::Stop => stop(&mut life, now)?,
        Event::Exited { exit_code, at, oom_killed } => {
            exited(&mut life, policy, *exit_code, *at, *oom_killed)
        }
        Event::Unhealthy { was_healthy } => unhealthy(&mut life, policy, *was_healthy),
        Event::Pause => pause(&mut life)?,
        Event::Unpause => unpause(&mut life)?,
        Event::Remove { force } => remove(&mut life, *force)?,
        Event::RemoveFailed { cause } => {
            life.state = State::Dead { cause: cause.clone() };
            vec![Effect::Save]
        }
        Event::Recovered => recovered(&mut life, policy, now),
    };
    Ok((life, effects))
}

fn start(life: &mut Life) -> Result<Vec<Effect>, Refusal> {
    match life.state {
        State::Created | State::Exited | State::Restarting { .. } => {
            life.manually_stopped = false;
            life.unhealthy = None;
            life.restarts = 0;
            life.delay_ms = 0;
            Ok(vec![Effect::Launch])
        }
        State::Running { paused: true, .. } => Err(Refusal::StartPaused),
        State::Running { .. } => Err(Refusal::AlreadyStarted),
        State::Removing | State::Dead { .. } => Err(Refusal::MarkedForRemoval),
    }
}

/// A container that never ran stays "created"; one that could not be started again has "exited".
fn start_failed(life: &mut Life, policy: Policy, exit_code: i32, error: &str) -> Vec<Effect> {
    if !matches!(life.state, State::Created) {
        life.state = State::Exited;
    }
    life.unhealthy = None;
    life.last.exit_code = exit_code;
    error.clone_into(&mut life.last.error);
    life.last.oom_killed = false;
    let mut effects = vec![Effect::Release, Effect::Save, Effect::EmitReleased];
    if policy.auto_remove {
        effects.extend(begin_removal(life));
    }
    effects
}

fn stop(life: &mut Life, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
    match life.state {
        State::Running { .. } => {
            if life.manually_stopped {
                return Ok(Vec::new());
            }
            life.manually_stopped = true;
            Ok(vec![Effect::Save])
        }
        State::Restarting { .. } => {
            life.manually_stopped = true;
            life.unhealthy = None;
            life.state = State::Exited;
            life.last.finished_at.get_or_insert(now);
            Ok(vec![Effect::Save])
        }
        _ => Err(Refusal::NotRunning),
    }
}

fn exited(
    life: &mut Life,
    policy: Policy,
    exit_code: Option<i32>,
    at: Timestamp,
    oom_killed: bool,
) -> Vec<Effect> {
    let State::Running { started_at, .. } = life.state else { return Vec::new() };
    life.last.finished_at = Some(at);
    life.last.oom_killed = oom_killed;
    life.last.exit_code = exit_code.unwrap_or(UNKNOWN_EXIT_CODE);
    life.last.error = match exit_code {
        Some(_) => String::new(),
        None => "the exit code was lost: the container ended while nothing supervised it".into(),
    };
    let ran = Duration::try_from(at.duration_since(started_at)).unwrap_or_default();
    let mut effects = vec![Effect::Release, Effect::Save, Effect::Emit("die"), Effect::EmitReleased];
    if oom_killed {
        effects.insert(0, Effect::Emit("oom"));
    }
    if let Some(delay) = restart_delay(life, policy, ran) {
        life.restarts += 1;
        life.delay_ms = delay.as_millis() as u64;
        life.state = State::Restarting { next_at: at.saturating_add(delay).unwrap_or(at) };
        effects.push(Effect::RestartAfter(delay));
        return effects;
    }
    life.state = State::Exited;
    life.unhealthy = None;
    if policy.auto_remove {
        // One change of the database and not two: until the removal the shim has the record of the end.
        for effect in effects.iter_mut().filter(|effect| **effect == Effect::Save) {
            *effect = Effect::Show;
        }
        effects.extend(begin_removal(life));
    }
    effects
}

/// What stands for an exit code that the kernel could not tell.
pub const UNKNOWN_EXIT_CODE: i32 = 255;

fn restart_delay(life: &Life, policy: Policy, ran: Duration) -> Option<Duration> {
    let wanted = !life.manually_stopped
        && may_restart(life, policy)
        && match policy.restart {
            _ if life.unhealthy.is_some() => policy.on_unhealthy,
            Restart::No => false,
            Restart::OnFailure { .. } => life.last.exit_code != 0,
            Restart::Always | Restart::UnlessStopped => true,
        };
    // A run that never was healthy was not steady, however long it took to find that out.
    let is_steady = ran >= STEADY && life.unhealthy.is_none_or(|unhealthy| unhealthy.was_healthy);
    let last = if is_steady { Duration::ZERO } else { Duration::from_millis(life.delay_ms) };
    let delay = if last.is_zero() { FIRST_DELAY } else { (last * 2).min(LONGEST_DELAY) };
    wanted.then_some(delay)
}

/// Whether the policy has restarts left.
fn may_restart(life: &Life, policy: Policy) -> bool {
    !matches!(policy.restart, Restart::OnFailure { max } if max != 0 && life.restarts >= max)
}

/// A container without a restart left runs on as it is.
fn unhealthy(life: &mut Life, policy: Policy, was_healthy: bool) -> Vec<Effect> {
    let is_wanted = policy.on_unhealthy
        && matches!(life.state, State::Running { paused: false, .. })
        && !life.manually_stopped
        && life.unhealthy.is_none()
        && may_restart(life, policy);
    if !is_wanted {
        return Vec::new();
    }
    life.unhealthy = Some(Unhealthy { was_healthy });
    vec![Effect::Save, Effect::EndUnhealthy]
}

fn pause(life: &mut Life) -> Result<Vec<Effect>, Refusal> {
    match &mut life.state {
        State::Running { paused: true, .. } => Err(Refusal::AlreadyPaused),
        State::Running { paused, .. } => {
            *paused = true;
            Ok(vec![Effect::Freeze, Effect::Save, Effect::Emit("pause")])
        }
        State::Restarting { .. } => Err(Refusal::Restarting),
        _ => Err(Refusal::NotRunning),
    }
}

fn unpause(life: &mut Life) -> Result<Vec<Effect>, Refusal> {
    match &mut life.state {
        State::Running { paused, .. } if *paused => {
            *paused = false;
            Ok(vec![Effect::Thaw, Effect::Save, Effect::Emit("unpause")])
        }
        _ => Err(Refusal::NotPaused),
    }
}

fn remove(life: &mut Life, force: bool) -> Result<Vec<Effect>, Refusal> {
    match &mut life.state {
        State::Running { paused, .. } if force => {
            life.manually_stopped = true;
            let mut effects = vec![Effect::Save, Effect::KillAndRemove];
            // What is frozen does not even die.
            if std::mem::take(paused) {
                effects.extend([Effect::Thaw, Effect::Emit("unpause")]);
            }
            Ok(effects)
        }
        State::Running { paused: true, .. } => Err(Refusal::RemovePaused),
        State::Running { .. } => Err(Refusal::RemoveRunning),
        State::Restarting { .. } if !force => Err(Refusal::RemoveRestarting),
        State::Removing => Err(Refusal::RemovalInProgress),
        State::Created | State::Restarting { .. } | State::Exited | State::Dead { .. } => {
            Ok(begin_removal(life))
        }
    }
}

fn begin_removal(life: &mut Life) -> Vec<Effect> {
    life.state = State::Removing;
    vec![Effect::Remove]
}

/// What the daemon does at its start with a container that does not run (any more).
fn recovered(life: &mut Life, policy: Policy, now: Timestamp) -> Vec<Effect> {
    match life.state {
        State::Removing => vec![Effect::Remove],
        State::Restarting { next_at } => {
            let left = Duration::try_from(next_at.duration_since(now)).unwrap_or_default();
            vec![Effect::RestartAfter(left)]
        }
        State::Exited if policy.auto_remove => begin_removal(life),
        State::Exited => {
            let wanted = match policy.restart {
                Restart::Always => true,
                Restart::UnlessStopped => !life.manually_stopped,
                Restart::No | Restart::OnFailure { .. } => false,
            };
            if !wanted {
                return Vec::new();
            }
            life.state = State::Restarting { next_at: now };
            vec![Effect::RestartAfter(Duration::ZERO)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
