//! The task that makes all changes of one container, one after another.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use ponton_runtime::criu;
use ponton_runtime::shim::protocol::{AttachSpec, FdRole};
use tokio::sync::{mpsc, watch};

use super::health::Probe;
use super::unmount::Leaving;
use super::{Container, Job, Saved, Settings, View};
use crate::engine::Engine;
use crate::error::{Error, Result, chain};
use crate::exec::Execs;
use crate::health::Check;
use crate::lifecycle::{self, Effect, Event};
use crate::shim::Shim;
use crate::volume::Using;

/// What is held while the container runs.
pub(crate) struct Run {
    pub(crate) shim: Arc<Shim>,
    /// The first process.
    pub(crate) pidfd: OwnedFd,
    /// Dups of its pipes or terminal: they outlive the shim.
    pub(crate) stdio: Vec<(FdRole, OwnedFd)>,
    /// The mount of its root, so that its end does not wait for the unmount. A daemon that was
    /// started meanwhile has none.
    pub(crate) root: Option<OwnedFd>,
}

impl Run {
    /// Whether the first process has ended, told or not.
    pub(crate) fn has_ended(&self) -> bool {
        crate::poll::has_ended(&self.pidfd)
    }
}

/// All that belongs to one container while the engine runs.
pub(crate) struct Task {
    pub(crate) engine: Arc<Engine>,
    pub(crate) container: Arc<Container>,
    pub(crate) view: View,
    pub(crate) run: Option<Run>,
    /// The endpoint that was given back, and of which the event stream was not told.
    pub(crate) released: Option<ponton_network::EndpointRecord>,
    /// The volumes of the present run.
    pub(crate) volumes: Vec<Using>,
    /// The run had volumes that were given back, and of which the event stream was not told.
    pub(crate) volumes_released: bool,
    /// Clients that came before the start.
    pub(crate) attaches: Vec<(AttachSpec, OwnedFd)>,
    /// Where the next launch finds the processes as they were saved.
    pub(crate) restore: Option<criu::Options>,
    /// The last shim is dropping its record of the last run.
    pub(crate) forgetting: Option<tokio::task::JoinHandle<()>>,
    /// The root of the last run, which cannot be mounted twice.
    pub(crate) leaving: Option<Leaving>,
    /// The database has what is shown.
    pub(crate) saved: bool,
    /// The run whose end the database could not take yet; its shim keeps the record of it.
    pub(crate) unsaved: Option<Run>,
    /// An end leaves the container in place, whatever its settings say.
    pub(crate) keep: bool,
    /// SIGKILL is on its way: frozen by cgroup v1 now, the process would never take it.
    pub(crate) is_killed: bool,
    /// Somebody stops it: its health is tested no more.
    pub(crate) stopping: bool,
    /// How its health is tested.
    pub(crate) check: Option<Box<Check>>,
    /// When there is something to do for its health.
    pub(crate) wake: Option<tokio::time::Instant>,
    pub(crate) probe: Option<Probe>,
    /// Anonymous volumes go with the container.
    pub(crate) remove_volumes: bool,
    publish: watch::Sender<Arc<View>>,
    /// The task ends after the present job.
    pub(crate) ended: bool,
}

impl Task {
    /// Makes a container and its task; nothing is saved.
    pub(crate) fn spawn(
        engine: &Arc<Engine>,
        name: String,
        settings: Arc<Settings>,
        saved: Saved,
    ) -> Arc<Container> {
        let id = settings.id.clone();
        let Saved { life, health, endpoint, cgroup, remove_volumes } = saved;
        let check = Check::of(&settings.config).map(Box::new);
        let health = health.map(Arc::new);
        let view = View { name, settings, life, health, endpoint, cgroup, exits: 0, removed: false };
        let (publish, watch) = watch::channel(Arc::new(view.clone()));
        let (queue, jobs) = mpsc::unbounded_channel();
        let container = Arc::new(Container { id, queue, view: watch, execs: Execs::default() });
        let task = Self {
            engine: Arc::clone(engine),
            container: Arc::clone(&container),
            view,
            run: None,
            released: None,
            volumes: Vec::new(),
            volumes_released: false,
            attaches: Vec::new(),
            restore: None,
            forgetting: None,
            leaving: None,
            saved: true,
            unsaved: None,
            keep: false,
            is_killed: false,
            stopping: false,
            check,
            wake: None,
            probe: None,
            remove_volumes,
            publish,
            ended: false,
        };
        tokio::spawn(task.work(jobs));
        container
    }

    async fn work(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while !self.ended {
            let wake = self.wake;
            let due = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                job = jobs.recv() => match job {
                    Some(job) => job(&mut self).await,
                    None => break,
                },
                () = due => self.health_due().await,
            }
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.container.id
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.view.settings
    }

    /// Ends the task without a change: the engine is closed.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Lets an event happen, and carries out what follows. Boxed: starting is one of the effects,
    /// and has an event for its outcome.
    pub(crate) fn apply(&mut self, event: Event) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut policy = self.settings().policy();
            policy.auto_remove &= !self.keep;
            let (life, effects) = lifecycle::next(&self.view.life, policy, &event, Timestamp::now())
                .map_err(|refusal| refusal.into_error(self.id()))?;
            let before = std::mem::replace(&mut self.view.life, life);
            self.follow_life(Some(&event));
            for effect in effects {
                if let Err(error) = self.carry_out(&effect).await {
                    // What has happened is shown and followed up, whether it can be saved or not.
                    if matches!(
                        (&event, &effect),
                        (Event::Exited { .. } | Event::RemoveFailed { .. }, Effect::Save)
                    ) {
                        tracing::error!(error = chain(&error), container = self.id(), "save the state");
                        self.saved = false;
                        self.show();
                        continue;
                    }
                    // What could not be frozen is not frozen.
                    if matches!(effect, Effect::Freeze | Effect::Thaw) {
                        self.view.life = before;
                        self.follow_life(None);
                    }
                    return Err(error);
                }
            }
            Ok(())
        }
        .boxed()
    }

    async fn carry_out(&mut self, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Launch => self.launch().await,
            Effect::Save => self.save(),
            Effect::Show => {
                self.saved = false;
                self.show();
                Ok(())
            }
            Effect::Emit("die") => {
                let code = self.view.life.last.exit_code.to_string();
                self.emit("die", &[("exitCode", &code)]);
                Ok(())
            }
            Effect::Emit(action) => {
                self.emit(action, &[]);
                Ok(())
            }
            Effect::EmitRestart => {
                self.emit("restart", &[("reason", "unhealthy")]);
                Ok(())
            }
            Effect::EndUnhealthy => {
                self.end_unhealthy();
                Ok(())
            }
            Effect::Release => {
                self.release().await;
                Ok(())
            }
            Effect::EmitReleased => {
                self.emit_released();
                Ok(())
            }
            Effect::RestartAfter(delay) => {
                self.restart_after(*delay);
                Ok(())
            }
            Effect::KillAndRemove => {
                let signal = rustix::process::Signal::KILL.as_raw();
                self.signal(signal)?;
                self.emit("kill", &[("signal", &signal.to_string())]);
                Ok(())
            }
            Effect::Remove => self.erase().await,
            Effect::Freeze => self.freeze(true).await,
            Effect::Thaw => match self.freeze(false).await {
                // What has been killed meanwhile needs it no more.
                Err(_) if self.run.as_ref().is_some_and(Run::has_ended) => Ok(()),
                thawed => thawed,
            },
        }
    }

    /// Writes the state to the database, then shows it.
    pub(crate) fn save(&mut self) -> Result<()> {
        let saved = Saved {
            life: self.view.life.clone(),
            health: self.view.health.as_deref().cloned(),
            endpoint: self.view.endpoint.clone(),
            cgroup: self.view.cgroup.clone(),
            remove_volumes: self.remove_volumes,
        };
        let state = serde_json::to_string(&saved)
            .map_err(|error| Error::failed("print a container's state", error))?;
        self.engine.store.containers().update_state(self.id(), &state)?;
        self.saved = true;
        self.show();
        Ok(())
    }

    /// Shows the state to others.
    pub(crate) fn show(&self) {
        self.publish.send_replace(Arc::new(self.view.clone()));
    }

    /// Tells the event stream.
    pub(crate) fn emit(&self, action: &str, more: &[(&str, &str)]) {
        emit(&self.engine, &self.container.id, &self.view, action, more);
    }

    fn restart_after(&self, delay: Duration) {
        let container: Weak<Container> = Arc::downgrade(&self.container);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let Some(container) = container.upgrade() else { return };
            container.tell(|task| {
                async move {
                    if let Err(error) = task.apply(Event::RestartDue).await {
                        tracing::error!(error = chain(&error), container = task.id(), "restart");
                    }
                }
                .boxed()
            });
        });
    }
}

/// Tells the event stream that something happened to a container.
pub(crate) fn emit(engine: &Engine, id: &str, view: &View, action: &str, more: &[(&str, &str)]) {
    let mut attributes: BTreeMap<_, _> = view.settings.config.labels.clone().unwrap_or_default();
    attributes.insert("image".into(), view.settings.config.image.clone());
    attributes.insert("name".into(), view.name.clone());
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    engine.events.emit("container", action, id, attributes, Timestamp::now());
}
