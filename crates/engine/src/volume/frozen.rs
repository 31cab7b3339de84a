//! Containers that stand still while a volume of theirs is read, or while they are saved.
//!
//! Each has a mark in `<exec-root>/frozen` from before it is frozen until it is thawed: the daemon may be
//! killed meanwhile, and the next one thaws what is marked. The mark of one that is being saved names the
//! directory that its checkpoint is made in.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;

use crate::container::{Container, volumes};
use crate::engine::Engine;
use crate::error::{Error, Result, chain};
use crate::lifecycle::Event;

/// The containers that were frozen; thawed when this is dropped.
pub(crate) struct Frozen {
    engine: Arc<Engine>,
    containers: Vec<Arc<Container>>,
}

impl Frozen {
    /// Nobody is frozen.
    pub(super) fn none(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::clone(engine), containers: Vec::new() }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for container in &self.containers {
            self.engine.thaw(container);
        }
    }
}

impl Engine {
    /// Freezes the running containers that may write to a volume.
    pub(super) async fn freeze_users(self: &Arc<Self>, name: &str) -> Frozen {
        let mut frozen = Frozen::none(self);
        for container in self.all() {
            let view = container.view();
            let writes = volumes(&view.settings).any(|point| point.shown.name == name && point.shown.rw);
            if !writes || !view.life.is_running() || view.life.is_paused() {
                continue;
            }
            let marked = self.mark_frozen(&container.id, None);
            let paused = match marked {
                Ok(()) => container.change(|task| task.apply(Event::Pause)).await,
                Err(error) => Err(error),
            };
            match paused {
                Ok(()) => frozen.containers.push(container),
                Err(error) => {
                    self.unmark_frozen(&container.id);
                    // It may have ended by itself, or a user was faster.
                    tracing::debug!(error = chain(&error), container = container.id, "freeze");
                }
            }
        }
        frozen
    }

    /// Thaws what a daemon that was killed had frozen.
    pub(crate) fn thaw_marked(self: &Arc<Self>) {
        let Ok(entries) = fs::read_dir(self.frozen_directory()) else { return };
        for entry in entries.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let checkpoint = fs::read_to_string(entry.path()).unwrap_or_default();
            match self.by_id(&id) {
                Some(container) if checkpoint.is_empty() => self.thaw(&container),
                Some(container) => {
                    let engine = Arc::clone(self);
                    tokio::spawn(async move {
                        crate::container::drop_half_made(checkpoint.into()).await;
                        engine.thaw(&container);
                    });
                }
                None => self.unmark_frozen(&id),
            }
        }
    }

    fn thaw(self: &Arc<Self>, container: &Container) {
        let (engine, id) = (Arc::clone(self), container.id.clone());
        container.tell(move |task| {
            async move {
                // A user may have thawed it, or it was killed.
                if let Err(error) = task.apply(Event::Unpause).await {
                    tracing::debug!(error = chain(&error), container = id, "thaw");
                }
                engine.unmark_frozen(&id);
            }
            .boxed()
        });
    }

    fn frozen_directory(&self) -> PathBuf {
        self.config().exec_root.join("frozen")
    }

    /// `checkpoint` is the directory that a checkpoint of it is made in.
    pub(crate) fn mark_frozen(&self, id: &str, checkpoint: Option<&Path>) -> Result<()> {
        let directory = self.frozen_directory();
        crate::shim::make_private(&directory)?;
        let path = directory.join(id);
        let content = checkpoint.map_or(&b""[..], |checkpoint| checkpoint.as_os_str().as_bytes());
        fs::write(&path, content).map_err(|error| Error::failed(format!("write {}", path.display()), error))
    }

    pub(crate) fn unmark_frozen(&self, id: &str) {
        match fs::remove_file(self.frozen_directory().join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, container = id, "remove the mark of a frozen container");
            }
            _ => {}
        }
    }
}
