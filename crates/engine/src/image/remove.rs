//! Names given and taken, and images removed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::filters::Filters;
use ponton_api::image::{DeleteResponseItem, PruneResponse};
use ponton_image::{ImageSummary, Removed};
use ponton_oci::digest::ImageId;

use super::{created, is_dangling, now, parse_reference, until};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

impl Engine {
    /// Gives an image another name.
    pub async fn image_tag(self: &Arc<Self>, name: &str, repository: &str, tag: &str) -> Result<()> {
        let target = match tag {
            "" => parse_reference(repository)?,
            tag => parse_reference(&format!("{repository}:{tag}"))?,
        };
        let (images, name) = (self.images.clone(), name.to_owned());
        let familiar = target.familiar();
        let id = blocking(move || {
            // The name may be the one that is moved.
            let id = images.get(&name)?.id;
            images.tag(&name, &target, now())?;
            Ok(id)
        })
        .await?;
        self.image_event("tag", &id.to_string(), &familiar);
        Ok(())
    }

    /// Removes a name, and the image with its last name.
    pub async fn image_remove(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        _no_prune: bool,
    ) -> Result<Vec<DeleteResponseItem>> {
        let (engine, name) = (Arc::clone(self), name.to_owned());
        blocking(move || {
            let image = engine.images.get(&name)?;
            let in_use = |id: &ImageId| engine.image_users(id);
            let removed = engine.images.remove(&name, force, &in_use)?;
            Ok(engine.tell_removed(&image.id.to_string(), &image.config.config.labels, removed))
        })
        .await
    }

    /// Removes images that nothing uses: those without a name, or with `dangling=false` all.
    pub async fn image_prune(self: &Arc<Self>, filters: Filters) -> Result<PruneResponse> {
        filters
            .check_known(&["dangling", "label", "label!", "until"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let dangling =
            filters.boolean("dangling", true).map_err(|error| Error::invalid(error.to_string()))?;
        let until = until(&filters)?;
        let engine = Arc::clone(self);
        blocking(move || {
            let wanted = |image: &ImageSummary| {
                (!dangling || is_dangling(image))
                    && until.is_none_or(|until| created(image) <= until)
                    && has_labels(&filters, &image.labels)
            };
            let labels = engine.images.summaries()?.into_iter();
            let labels: HashMap<_, _> = labels.map(|image| (image.id, image.labels)).collect();
            let pruned = engine.images.prune(&wanted, &|id| engine.image_users(id))?;
            let none = BTreeMap::new();
            let removed = pruned.removed.into_iter().flat_map(|(id, removed)| {
                engine.tell_removed(&id.to_string(), labels.get(&id).unwrap_or(&none), removed)
            });
            let deleted: Vec<_> = removed.collect();
            engine.tell_pruned("image", pruned.freed);
            let images_deleted = (!deleted.is_empty()).then_some(deleted);
            Ok(PruneResponse { images_deleted, space_reclaimed: pruned.freed })
        })
        .await
    }

    /// Tells the event stream what a removal did, and the client.
    pub(crate) fn tell_removed(
        &self,
        id: &str,
        labels: &BTreeMap<String, String>,
        removed: Vec<Removed>,
    ) -> Vec<DeleteResponseItem> {
        removed
            .into_iter()
            .map(|removed| match removed {
                Removed::Untagged(name) => {
                    self.labelled_image_event("untag", id, id, labels.clone());
                    DeleteResponseItem { untagged: Some(name), deleted: None }
                }
                Removed::Deleted(digest) => {
                    if digest == id {
                        self.labelled_image_event("delete", id, id, BTreeMap::new());
                    }
                    DeleteResponseItem { untagged: None, deleted: Some(digest) }
                }
            })
            .collect()
    }

    /// Tells the event stream that things of a kind were pruned.
    pub(crate) fn tell_pruned(&self, kind: &str, reclaimed: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
        self.events.emit(kind, "prune", "", attributes, Timestamp::now());
    }
}

fn has_labels(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    filters.matches_labels("label", labels)
        && !(filters.contains("label!") && filters.matches_labels("label!", labels))
}
