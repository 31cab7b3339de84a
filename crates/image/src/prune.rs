//! Removing what nobody uses, when asked to; and what images take up.

use std::collections::{HashMap, HashSet};

use ponton_oci::digest::{ChainId, ImageId};
use ponton_store::ImageRecord;

use crate::{ImageSummary, Images, Removed, Result, User};

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names, images and layers that are gone, by image.
    pub removed: Vec<(ImageId, Vec<Removed>)>,
    /// Bytes that came free.
    pub freed: u64,
}

/// What all images take up on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Each image.
    pub images: Vec<ImageUsage>,
    /// Bytes of the files of all layers, each counted once.
    pub layers: u64,
    /// Bytes of all blobs: compressed layers as registries have them, configurations, manifests.
    pub blobs: u64,
    /// Bytes that would come free if the images without containers went.
    pub reclaimable: u64,
}

/// What one image takes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub summary: ImageSummary,
    /// Bytes of its layers that other images have, too.
    pub shared: u64,
    /// How many containers are made from it.
    pub containers: usize,
}

impl Images {
    /// Removes the images that `filter` wants gone and that no container uses, with all their names.
    pub fn prune(
        &self,
        filter: &dyn Fn(&ImageSummary) -> bool,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for image in self.summaries()?.into_iter().filter(filter) {
            if let Some((removed, freed)) = self.remove_unused(&image.id, users)? {
                pruned.removed.push((image.id, removed));
                pruned.freed += freed;
            }
        }
        Ok(pruned)
    }

    /// Removes an image with all its names, unless a container uses it or it is gone already; says
    /// what that freed.
    pub(crate) fn remove_unused(
        &self,
        id: &ImageId,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<Option<(Vec<Removed>, u64)>> {
        let _guard = self.exclusive();
        if !users(id).is_empty() || self.store.images().get(id)?.is_none() {
            return Ok(None);
        }
        let mut removed = Vec::new();
        self.untag(&self.store.images().references_of(id)?, &mut removed)?;
        let freed = self.delete(id, &mut removed)?;
        Ok(Some((removed, freed)))
    }

    /// What all images take up.
    pub fn disk_usage(&self, users: &dyn Fn(&ImageId) -> Vec<User>) -> Result<DiskUsage> {
        let records = self.store.images().list()?;
        let containers: Vec<usize> = records.iter().map(|image| users(&image.id).len()).collect();
        let mut counts: HashMap<&ChainId, usize> = HashMap::new();
        let (mut layers_used, mut contents_used) = (HashSet::new(), HashSet::new());
        for (image, containers) in records.iter().zip(&containers) {
            for layer in &image.layers {
                *counts.entry(&layer.chain_id).or_default() += 1;
                if *containers > 0 {
                    layers_used.insert(&layer.chain_id);
                    contents_used.insert(&layer.diff_id);
                }
            }
        }
        let (mut layers, mut reclaimable) = (0, 0);
        let all_layers = self.store.images().layers()?;
        for layer in &all_layers {
            layers += layer.size;
            if !layers_used.contains(&layer.chain_id) {
                reclaimable += layer.size;
            }
        }
        for blob in self.store.images().layer_blobs()? {
            if blob.kept && !contents_used.contains(&blob.diff_id) {
                reclaimable += blob.size;
            }
        }
        let shared = |image: &ImageRecord| {
            let shared = image.layers.iter().filter(|layer| counts[&layer.chain_id] > 1);
            shared.map(|layer| layer.size).sum()
        };
        let shared: HashMap<ImageId, u64> =
            records.iter().map(|image| (image.id.clone(), shared(image))).collect();
        let containers: HashMap<ImageId, usize> =
            records.iter().map(|image| image.id.clone()).zip(containers).collect();
        let usage = |summary: ImageSummary| ImageUsage {
            shared: shared.get(&summary.id).copied().unwrap_or(0),
            containers: containers.get(&summary.id).copied().unwrap_or(0),
            summary,
        };
        let images = self.summaries()?.into_iter().map(usage).collect();
        let blobs = self.store.content().list()?.into_iter().map(|(_, size)| size).sum();
        Ok(DiskUsage { images, layers, blobs, reclaimable })
    }
}
