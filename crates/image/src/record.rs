//! An image becomes a record, after all that the record names.

use ponton_oci::digest::{Digest, ImageId, ManifestDigest};
use ponton_oci::image_config::ImageConfig;
use ponton_oci::reference::Reference;
use ponton_store::{ImageRecord, LayerBlob, Lease, Sealed};

use crate::layer::Stack;
use crate::list::parse_config;
use crate::{Images, Result};

/// An image that is put together.
pub(crate) struct NewImage<'a> {
    /// The configuration's bytes.
    pub(crate) raw: &'a [u8],
    pub(crate) stack: Stack,
    /// When it was made, nanoseconds since the epoch.
    pub(crate) created_at: i64,
    /// The manifest that it came with.
    pub(crate) manifest: Option<ManifestDigest>,
    /// The forms in which its layers came.
    pub(crate) blobs: Vec<LayerBlob>,
    /// Blobs to keep.
    pub(crate) sealed: Vec<Sealed>,
    /// Names that it gets.
    pub(crate) references: &'a [Reference],
    /// Now, nanoseconds since the epoch.
    pub(crate) now: i64,
}

impl Images {
    /// Makes an image durable that was made here.
    pub(crate) fn commit(
        &self,
        stack: Stack,
        raw: &[u8],
        created_at: i64,
        references: &[Reference],
        now: i64,
    ) -> Result<ImageId> {
        let new = NewImage {
            raw,
            stack,
            created_at,
            manifest: None,
            blobs: Vec::new(),
            sealed: Vec::new(),
            references,
            now,
        };
        self.commit_image(&self.store.lease(), new)
    }

    /// Makes layers, blobs, configuration and record durable, in this order: a kill in between leaves
    /// nothing that is named but not there. The caller holds [`Images::exclusive`] since it looked
    /// which layers are there; the lease holds what it sealed.
    pub(crate) fn commit_image(&self, lease: &Lease, new: NewImage<'_>) -> Result<ImageId> {
        let id = ImageId::from(Digest::sha256_of(new.raw));
        let config: ImageConfig = parse_config(&id, new.raw)?;
        lease.hold(id.digest());
        self.snapshotter.commit_layers(new.stack.filled)?;
        let mut sealed = new.sealed;
        sealed.push(self.store.content().seal(new.raw)?);
        self.store.content().commit(sealed)?;
        let record = ImageRecord {
            manifest: new.manifest,
            size: new.stack.records.iter().map(|layer| layer.size).sum(),
            layers: new.stack.records,
            ..ImageRecord::new(id.clone(), &config, new.created_at, new.now)
        };
        self.store.images().put(&record, &new.blobs, new.references, new.now)?;
        Ok(id)
    }
}
