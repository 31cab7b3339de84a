//! The disk space that images may take, and what goes when they take more.

use std::sync::PoisonError;
use std::time::Duration;

use ponton_oci::digest::ImageId;
use ponton_oci::reference::Reference;

use crate::{Error, Images, Removed, Result, User};

/// How much disk space images may take. When they take more, images go that no container is made
/// from, those first that were not used for longest; but only what a registry can give again, and
/// what has no name. An image with a name of its own, that no registry gave or got, is never removed.
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
    /// What is still not as the budget wants it, because the rest is in use.
    pub exceeded: Exceeded,
}

/// By how many bytes a budget is exceeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exceeded {
    /// What images take over their most.
    pub images: u64,
    /// What the disk has too little free, whoever fills it.
    pub disk: u64,
}

impl Exceeded {
    /// Bytes that would have to come free for the budget to hold.
    pub fn bytes(self) -> u64 {
        self.images.max(self.disk)
    }

    fn without(self, freed: u64) -> Self {
        Self { images: self.images.saturating_sub(freed), disk: self.disk.saturating_sub(freed) }
    }
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
        self.write_uses()?;
        self.collect()?;
        let mut collected = Collected { freed: self.store.collect_garbage()?, ..Collected::default() };
        let mut exceeded = self.exceeded(budget)?;
        if exceeded.bytes() == 0 {
            return Ok(collected);
        }
        let unused_since =
            now.saturating_sub(i64::try_from(budget.unused_min.as_nanos()).unwrap_or(i64::MAX));
        let mut candidates = self.summaries()?;
        candidates.retain(|image| image.used_at <= unused_since && can_be_had_again(&image.references));
        candidates.sort_by_key(|image| image.used_at);
        for image in candidates {
            if exceeded.bytes() == 0 {
                break;
            }
            let Some((removed, freed)) = self.remove_unused(&image.id, users)? else { continue };
            tracing::info!(
                image = %image.references.first().map_or_else(|| image.id.to_string(), Reference::familiar),
                bytes = freed,
                "removed an unused image, for the disk budget"
            );
            exceeded = exceeded.without(freed);
            collected.freed += freed;
            collected.removed.push((image.id, removed));
        }
        collected.exceeded = exceeded;
        Ok(collected)
    }

    fn exceeded(&self, budget: &Budget) -> Result<Exceeded> {
        let layers: u64 = self.store.images().layers()?.iter().map(|layer| layer.size).sum();
        let blobs: u64 = self.store.content().list()?.into_iter().map(|(_, size)| size).sum();
        let root = self.store.root();
        let disk = rustix::fs::statvfs(root).map_err(|errno| {
            Error::io(format!("ask for the free space of {}", root.display()))(errno.into())
        })?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(Exceeded {
            images: (layers + blobs).saturating_sub(budget.images_max),
            disk: budget.free_min.saturating_sub(free),
        })
    }

    /// Notes that an image is used, so that the budget's collection takes others first. It is kept in
    /// memory until then: a kill forgets the uses of some minutes, and this costs next to nothing.
    pub fn used(&self, id: &ImageId, now: i64) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.insert(id.clone(), now);
    }

    fn write_uses(&self) -> Result<()> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let uses: Vec<(ImageId, i64)> = uses.into_iter().collect();
        if uses.is_empty() {
            return Ok(());
        }
        Ok(self.store.images().touch(&uses)?)
    }
}

/// Whether all tags are of repositories that gave or got the image.
fn can_be_had_again(references: &[Reference]) -> bool {
    references
        .iter()
        .filter(|name| name.digest().is_none())
        .all(|tag| references.iter().any(|other| other.digest().is_some() && other.name() == tag.name()))
}
