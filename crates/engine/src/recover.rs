//! Taking up where the last daemon stopped, or was killed: what runs is found again, what ended
//! meanwhile is told, and what belongs to nobody is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use jiff::Timestamp;
use ponton_runtime::shim::protocol::{Exit, Reply, Request, Status};

use crate::container::{Container, Saved, Settings, Task};
use crate::engine::{Engine, blocking};
use crate::error::{Result, chain};
use crate::lifecycle::{self, Event};
use crate::shim::Shim;

/// Where a container was found.
type Found = (Arc<Shim>, Status);

impl Engine {
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let records = self.store.containers().list()?;
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for (shim, containers) in self.shims.reconnect().await? {
            for status in containers {
                found.insert(status.container.clone(), (Arc::clone(&shim), status));
            }
        }
        let mut known = BTreeSet::new();
        let mut containers = Vec::new();
        for record in records {
            let settings: Settings = match serde_json::from_str(&record.config) {
                Ok(settings) => settings,
                Err(error) => {
                    tracing::error!(%error, container = record.id, "read settings: the container is left out");
                    known.insert(record.id);
                    continue;
                }
            };
            let saved: Saved = serde_json::from_str(&record.state).unwrap_or_else(|error| {
                tracing::error!(%error, container = record.id, "read state");
                Saved::default()
            });
            known.insert(record.id.clone());
            self.reserve(&record.name, &record.id)?;
            let container = Task::spawn(self, record.name, Arc::new(settings), saved);
            self.enter(Arc::clone(&container));
            containers.push(container);
        }
        let traces = self.traces();
        let taken_up = containers
            .iter()
            .map(|container| (container, found.remove(&container.id)))
            .filter(|(container, found)| found.is_some() || !is_at_rest(container, &traces))
            .map(|(container, found)| self.take_up(container, found));
        futures_util::future::join_all(taken_up).await;
        // Shims may hold containers whose record is gone: nobody will ask for them again.
        for (id, (shim, status)) in found {
            self.end_orphan(&id, &shim, &status).await;
        }
        // Before anything is started again: addresses, ports and rules are those of the living.
        self.recover_networks(&containers).await;
        let engine = Arc::clone(self);
        // Nothing is being made yet: what belongs to none of `known` belongs to nobody.
        blocking(move || {
            engine.remove_orphans(&known);
            engine.sweep_shm();
            Ok(())
        })
        .await?;
        self.thaw_marked();
        for container in containers.iter().filter(|container| wants_something(container)) {
            let wanted = container.change(|task| async move { task.recovered().await }.boxed()).await;
            // A container that was being removed has no task any more when it is done.
            if let Err(error) = wanted
                && !container.view().removed
            {
                tracing::error!(error = chain(&error), container = container.id, "recover container");
            }
        }
        Ok(())
    }

    /// The containers of which a shim wrote something down and nobody removed it.
    fn traces(&self) -> BTreeSet<String> {
        let Ok(entries) = std::fs::read_dir(self.shims.state_directory()) else { return BTreeSet::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Brings one container's state up to date.
    async fn take_up(self: &Arc<Self>, container: &Arc<Container>, found: Option<Found>) {
        let taken = container.change(move |task| async move { task.take_up(found).await }.boxed()).await;
        if let Err(error) = taken {
            tracing::error!(error = chain(&error), container = container.id, "recover container");
        }
    }

    async fn recover_networks(self: &Arc<Self>, containers: &[Arc<Container>]) {
        let living: Vec<_> =
            containers.iter().filter_map(|container| container.view().endpoint.clone()).collect();
        if living.is_empty() && !self.network_is_set_up() {
            return;
        }
        let network = Arc::clone(&self.network);
        if let Err(error) = blocking(move || Ok(network.recover(&living)?)).await {
            tracing::error!(error = chain(&error), "recover networks");
        }
    }

    /// Whether an earlier daemon left something of the network on this host.
    fn network_is_set_up(&self) -> bool {
        std::path::Path::new("/sys/class/net").join(&self.config().bridge).exists()
    }

    async fn end_orphan(&self, id: &str, shim: &Shim, status: &Status) {
        tracing::warn!(container = id, "a shim holds a container without a record: it is ended");
        if status.exited.is_none()
            && let Ok((Reply::Status(_), fds)) =
                shim.call(&Request::Inspect { container: id.to_owned() }, &[]).await
            && let Ok((pidfd, _)) = crate::container::split(fds, id)
        {
            use std::os::fd::AsFd;
            if let Err(error) = ponton_sys::pidfd::send_signal(pidfd.as_fd(), 9) {
                tracing::warn!(error = chain(&error), container = id, "kill orphan");
            }
            let ended = crate::poll::register(pidfd, tokio::io::Interest::READABLE);
            if let Ok(ended) = ended {
                let patience = std::time::Duration::from_secs(5);
                let _ = tokio::time::timeout(patience, ended.readable()).await;
            }
        }
        let request = Request::Forget { container: id.to_owned(), exec: None };
        if let Err(error) = shim.call(&request, &[]).await {
            tracing::warn!(%error, container = id, "forget orphan");
        }
    }

    /// Removes the control group that a shim noted in this directory of its records, if it did: it was killed before
    /// it could remove that itself.
    fn remove_group_of(&self, records: &Path) {
        let status = std::fs::read(records.join("shim.json")).unwrap_or_default();
        let Ok(Status { cgroup: Some(path), .. }) = serde_json::from_slice(&status) else { return };
        let removed = self.control_group(&path).and_then(|group| crate::container::remove_group(&group));
        if let Err(error) = removed {
            tracing::warn!(error = chain(&error), path, "remove orphaned control group");
        }
    }

    /// Removes what half-made and half-removed containers left, and finishes volumes.
    fn remove_orphans(&self, known: &BTreeSet<String>) {
        if let Err(error) = self.snapshotter.recover() {
            tracing::error!(error = chain(&error), "recover snapshots");
        }
        for key in self.snapshotter.snapshots() {
            if is_container(&key)
                && self.by_id(&key).is_none()
                && !known.contains(&key)
                && let Err(error) = self.snapshotter.remove(&key)
            {
                tracing::warn!(error = chain(&error), key, "remove orphaned snapshot");
            }
        }
        // Pulls, loads and removals that a kill cut short.
        if let Err(error) = self.images.collect() {
            tracing::error!(error = chain(&error), "remove layers of no image");
        }
        if let Err(error) = self.store.collect_garbage() {
            tracing::error!(error = chain(&error), "remove blobs of no image");
        }
        for directory in [self.config().data_root.join("containers"), self.shims.state_directory().to_owned()]
        {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                if !is_container(&name) || self.by_id(&name).is_some() || known.contains(&name) {
                    continue;
                }
                self.remove_group_of(&entry.path());
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!(%error, path = %entry.path().display(), "remove orphan");
                }
            }
        }
        if let Err(error) = self.recover_volumes() {
            tracing::error!(error = chain(&error), "recover volumes");
        }
    }
}

/// Whether a container did not run when the last daemon ended, and was not being started either: nothing
/// can have become of it. Most are so, and asking each would take a daemon's start long.
fn is_at_rest(container: &Container, traces: &BTreeSet<String>) -> bool {
    let view = container.view();
    // One that joins another's network has no endpoint that would tell of a start.
    let may_have_started = view.endpoint.is_some() || view.settings.network().starts_with("container:");
    !view.life.is_running() && !may_have_started && !traces.contains(&container.id)
}

/// Whether a container's settings or its half-done removal want something of the daemon's start.
fn wants_something(container: &Container) -> bool {
    let view = container.view();
    let next = lifecycle::next(&view.life, view.settings.policy(), &Event::Recovered, Timestamp::now());
    !matches!(next, Ok((life, effects)) if effects.is_empty() && life == view.life)
}

fn is_container(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Task {
    /// Finds out what became of the container while no daemon looked.
    async fn take_up(&mut self, found: Option<Found>) -> Result<()> {
        let recorded: Option<Exit> = self.exit_record();
        match found {
            Some((shim, status)) if status.exited.is_none() => self.take_running(shim).await?,
            Some((shim, status)) => {
                self.find_execs(&status);
                let exit = status.exited.or(recorded);
                self.take_ended(exit, &status).await?;
                self.forget(shim, None);
            }
            None => {
                if let Some(exit) = recorded {
                    self.take_lost(Some(exit)).await?;
                } else if self.is_running() {
                    self.take_without_shim().await?;
                } else {
                    // It may have been about to start, and nobody can tell how far it came.
                    self.clear_after_shim().await;
                    self.drop_endpoint().await;
                }
            }
        }
        self.follow_life(None);
        if self.is_running() && self.view.life.unhealthy.is_some() {
            // The last daemon was about to stop it.
            self.end_unhealthy();
        }
        Ok(())
    }
}
