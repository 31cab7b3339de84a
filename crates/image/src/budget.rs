//! The disk space that images may take, and what goes when they take more.

use std::time::Duration;

use ponton_oci::digest::ImageId;

use crate::{Error, Images, Removed, Result, User};

/// How much disk space images may take. What a registry can give again goes first when they take
/// more: images that nothing uses, unused for longest. An image that was made here and has a name is
/// never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that images may take.
    pub images_max: u64,
    /// Bytes of the disk that shall stay free.
    pub free_min: u64,
    /// Images that were used in this time stay.
    pub unused_min: Duration,
}

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Names, images and layers that are gone, by image.
    pub removed: Vec<(ImageId, Vec<Removed>)>,
    /// Bytes that came free.
    pub freed: u64,
    /// Bytes by which the budget is still exceeded, because the rest is in use.
    pub exceeded: u64,
}

impl Images {
    /// Removes unused images until the budget holds, and leftovers of interrupted work in any case.
    /// Each removal is logged. `now` is in nanoseconds since the epoch.
    pub fn keep_budget(
        &self,
        budget: &Budget,
        users: &dyn Fn(&ImageId) -> Vec<User>,
        now: i64,
    ) -> Result<Collected> {
        let _ = (budget, users, now);
        Err(Error::NotImplemented("disk budget"))
    }

    /// Notes that an image is used, so that the budget's collection takes others first. Costs
    /// nothing worth mentioning.
    pub fn used(&self, id: &ImageId, now: i64) {
        let _ = (id, now);
    }
}
