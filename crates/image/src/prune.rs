//! Removing what nobody uses, when asked to; and what images take up.

use ponton_oci::digest::ImageId;

use crate::{Error, ImageSummary, Images, Removed, Result, User};

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
    /// Bytes that images may take before the budget's collection begins, if there is a budget.
    pub budget: Option<u64>,
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
        let _ = (filter, users);
        Err(Error::NotImplemented("image prune"))
    }

    /// What all images take up.
    pub fn disk_usage(&self, users: &dyn Fn(&ImageId) -> Vec<User>) -> Result<DiskUsage> {
        let _ = users;
        Err(Error::NotImplemented("disk usage of images"))
    }
}
