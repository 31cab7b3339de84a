//! The disk budget of images, kept in the background: looked at when something came in, and now and
//! then.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ponton_image::Exceeded;
use ponton_oci::digest::ImageId;

use crate::engine::{Engine, blocking};
use crate::error::{Result, chain};

/// How long it may take until the budget is looked at although nothing came in: time alone makes
/// images old enough to go, and others fill the disk, too.
const INTERVAL: Duration = Duration::from_secs(600);

/// Looks after the budget until the engine is gone.
pub(crate) async fn keep(engine: Weak<Engine>) {
    loop {
        let Some(now) = engine.upgrade() else { return };
        let came_in = Arc::clone(&now.came_in);
        if let Err(error) = now.keep_budget().await {
            tracing::warn!(error = chain(&error), "keep the disk budget of images");
        }
        drop(now);
        // Nothing is wrong when the time is over.
        let _ = tokio::time::timeout(INTERVAL, came_in.notified()).await;
    }
}

impl Engine {
    async fn keep_budget(self: &Arc<Self>) -> Result<()> {
        let Some(budget) = self.config().budget else { return Ok(()) };
        let engine = Arc::clone(self);
        blocking(move || {
            let users = |id: &ImageId| engine.image_users(id);
            let collected = engine.images.keep_budget(&budget, &users, crate::image::now())?;
            for (id, removed) in collected.removed {
                engine.tell_removed(&id.to_string(), &BTreeMap::new(), removed);
            }
            if collected.freed > 0 {
                engine.tell_pruned("image", collected.freed);
            }
            let Exceeded { images, disk } = collected.exceeded;
            if images > 0 {
                tracing::warn!(
                    bytes = images,
                    "images take more than the disk budget allows, and what is left is in use: remove \
                     containers or images, or raise disk-budget"
                );
            }
            if disk > 0 {
                tracing::warn!(
                    bytes = disk,
                    "the disk has less free than the disk budget keeps, and no unused image is left to remove: \
                     make room, or change disk-budget"
                );
            }
            Ok(())
        })
        .await
    }

    /// Something came in, which may be more than the budget allows.
    pub(crate) fn look_at_budget(&self) {
        self.came_in.notify_one();
    }

    /// Notes that an image is used.
    pub(crate) fn image_used(&self, id: &ImageId) {
        self.images.used(id, crate::image::now());
    }
}
