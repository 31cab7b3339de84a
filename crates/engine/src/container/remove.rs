//! Removing containers.

use std::sync::Arc;

use futures_util::FutureExt;
use ponton_api::container::PruneResponse;
use ponton_api::filters::Filters;

use super::{Container, Task};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::lifecycle::{Event, State};
use crate::request::RemoveOptions;

impl Engine {
    /// Removes a container.
    pub async fn remove(self: &Arc<Self>, name: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(name).await;
        }
        let container = self.find(name)?;
        self.remove_container(&container, options).await
    }

    async fn remove_container(&self, container: &Container, options: RemoveOptions) -> Result<()> {
        let attempt = || container.change(move |task| task.remove(options).boxed());
        let mut before = container.view().exits;
        attempt().await?;
        while !container.view().removed {
            // It was killed, and is removed when it has ended; with --rm it removes itself. Somebody may have started it
            // again meanwhile.
            container.wait_until(|view| view.exits > before || view.removed).await;
            before = container.view().exits;
            match attempt().await {
                Err(error) if error.kind == ErrorKind::NotFound || container.view().removed => break,
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes the containers that do not run.
    pub async fn prune(self: &Arc<Self>, filters: Filters) -> Result<PruneResponse> {
        filters
            .check_known(&["label", "label!", "until"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let until = match filters.get("until").next() {
            Some(text) => Some(crate::filter::time(text, jiff::Timestamp::now())?),
            None => None,
        };
        let mut deleted = Vec::new();
        let mut space_reclaimed = 0;
        for container in self.all() {
            let view = container.view();
            let labels = view.settings.config.labels.clone().unwrap_or_default();
            let unwanted = filters.contains("label!") && filters.matches_labels("label!", &labels);
            if !matches!(view.life.state, State::Created | State::Exited | State::Dead { .. })
                || !filters.matches_labels("label", &labels)
                || unwanted
                || until.is_some_and(|until| view.settings.created > until)
            {
                continue;
            }
            let size = self.size_of(&container.id).await;
            match self.remove_container(&container, RemoveOptions::default()).await {
                Ok(()) => {
                    space_reclaimed += size;
                    deleted.push(container.id.clone());
                }
                Err(error) => tracing::warn!(%error, container = container.id, "prune"),
            }
        }
        self.tell_pruned("container", space_reclaimed);
        let containers_deleted = (!deleted.is_empty()).then_some(deleted);
        Ok(PruneResponse { containers_deleted, space_reclaimed })
    }
}

impl Task {
    async fn remove(&mut self, options: RemoveOptions) -> Result<()> {
        self.remove_volumes |= options.volumes;
        self.apply(Event::Remove { force: options.force }).await
    }

    /// Takes the container away. Its record goes first: what a kill of the daemon leaves behind
    /// belongs to nobody then, and is removed at the next start.
    pub(super) async fn erase(&mut self) -> Result<()> {
        let begun = std::time::Instant::now();
        let id = self.id().to_owned();
        self.remove_volumes |= self.settings().host_config.auto_remove;
        if self.remove_volumes && super::mounts::volumes(self.settings()).next().is_some() {
            // If the daemon dies half-way, the next one must know that the volumes go too.
            self.save()?;
            self.remove_anonymous_volumes();
        }
        if let Err(error) = self.engine.store.containers().remove(&id) {
            let cause = error.to_string();
            self.apply(Event::RemoveFailed { cause }).await?;
            return Err(error.into());
        }
        if let Some(run) = self.unsaved.take() {
            self.forget(run.shim, run.root);
        }
        self.attaches.clear();
        self.engine.forget(&id, &self.view.name);
        self.engine.drop_shm(&id);
        self.engine.clear_bundle(self.settings());
        if let Err(error) = self.engine.snapshotter.remove(&id) {
            tracing::error!(error = chain(&error), container = id, "remove snapshot");
        }
        self.release_image();
        self.engine.discard(&self.engine.container_directory(&id));
        self.emit("destroy", &[]);
        self.engine.counts.delete.since(begun);
        self.view.removed = true;
        self.show();
        self.ended = true;
        Ok(())
    }

    /// An image that was removed by force leaves its layers to its containers; the last one takes them
    /// with it.
    fn release_image(&self) {
        let image = self.settings().image.parse();
        let is_there = |id| !matches!(self.engine.store.images().get(&id), Ok(None));
        if image.is_ok_and(is_there) {
            return;
        }
        let images = self.engine.images.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = images.collect() {
                tracing::warn!(error = chain(&error), "remove layers of no image");
            }
        });
    }

    fn remove_anonymous_volumes(&self) {
        for point in super::mounts::volumes(self.settings()) {
            let name = &point.shown.name;
            if let Err(error) = self.engine.remove_volume_if_anonymous(name, self.id()) {
                tracing::warn!(error = chain(&error), volume = name, "remove anonymous volume");
            }
        }
    }
}
