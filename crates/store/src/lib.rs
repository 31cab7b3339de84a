//! What the daemon keeps: content-addressed blobs, and records in one SQLite database.
//!
//! ```text
//! <data-root>/            0700
//!   ponton.lock           held by the daemon that uses this data root; has its process id
//!   version               number of this layout
//!   meta.db               the database (WAL); its schema is drawn in `database`
//!   ballast               takes up 1 MiB, which is given up when the disk is full
//!   content/blobs/<algorithm>/<hex>
//!   content/ingest/       blobs that are being written
//!   tmp/                  things on their way out; what is in it may be removed at any time
//! ```
//!
//! *Invariant*: a blob is there whole and durable, or not at all; a record is changed whole, or not
//! at all, whenever the process is killed. A record may only name blobs that are there already, so
//! what a kill can leave behind is a blob without a record, and [`Store::collect_garbage`] finds it.
//!
//! Not for policy: what may be removed, and when, is decided by those who call.

mod ballast;
mod container;
mod content;
mod database;
mod error;
mod image;
mod layer;
mod layout;
mod lease;
mod row;
mod volume;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use container::{ContainerRecord, Containers};
pub use content::{Content, Ingest, Sealed};
pub use error::{Error, Result};
pub use image::{ImageRecord, Images, RemovedImage};
pub use layer::{LayerBlob, LayerRecord};
pub use lease::Lease;
pub use volume::{VolumeRecord, Volumes};

use ballast::Ballast;
use database::Database;
use layout::Lock;
use lease::Leases;
use ponton_oci::Digest;

/// The number of the layout on disk that this version writes. Layout 1 is brought up to it when it
/// is opened.
pub const LAYOUT_VERSION: u32 = 2;

/// One data root, open. Clones share it; the last one to go gives up the lock.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    content: Content,
    database: Database,
    leases: Arc<Leases>,
    // Last, so that the lock is given up after the database is closed.
    _lock: Lock,
}

impl Store {
    /// Opens a data root, and makes it where it is missing.
    ///
    /// # Errors
    /// [`Error::Locked`] if another daemon uses it, [`Error::Version`] if a newer one made it.
    pub fn open(data_root: &Path) -> Result<Self> {
        layout::make_private_directory(data_root)?;
        let lock = Lock::take(&data_root.join("ponton.lock"))?;
        let version = data_root.join("version");
        layout::check_version(&version)?;
        layout::make_private_directory(&data_root.join("tmp"))?;
        let content = Content::open(data_root.join("content"))?;
        let database = Database::open(&data_root.join("meta.db"), Ballast::new(data_root.join("ballast")))?;
        let root = data_root.to_owned();
        let leases = Arc::default();
        let store = Self { inner: Arc::new(Inner { root, content, database, leases, _lock: lock }) };
        store.describe_images()?;
        layout::write_version(&version)?;
        Ok(store)
    }

    /// Fills in what the records of layout 1 did not have.
    fn describe_images(&self) -> Result<()> {
        for image in self.images().list_without_layers()? {
            if !image.platform.os.is_empty() {
                continue;
            }
            let config = self.content().read(image.id.digest()).ok();
            // One that cannot be read is listed all the same; a check names it.
            if let Some(config) = config.and_then(|config| serde_json::from_slice(&config).ok()) {
                self.images().describe(&image.id, &config)?;
            }
        }
        Ok(())
    }

    /// The data root.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// A directory on the same file system for what is on its way out. Who puts things into it
    /// removes them, and those of a daemon that was killed.
    pub fn temporary(&self) -> PathBuf {
        self.inner.root.join("tmp")
    }

    /// The blobs.
    pub fn content(&self) -> &Content {
        &self.inner.content
    }

    /// The containers' records.
    pub fn containers(&self) -> Containers<'_> {
        Containers { database: &self.inner.database }
    }

    /// The images' records, with their names and layers.
    pub fn images(&self) -> Images<'_> {
        Images { database: &self.inner.database }
    }

    /// The volumes' records.
    pub fn volumes(&self) -> Volumes<'_> {
        Volumes { database: &self.inner.database }
    }

    /// A lease that holds nothing yet.
    pub fn lease(&self) -> Lease {
        Lease::new(Arc::clone(&self.inner.leases))
    }

    /// Whether a [`Lease`] holds this.
    pub fn is_held(&self, digest: &Digest) -> bool {
        self.inner.leases.lock().contains_key(digest)
    }

    /// Removes the blobs that no record names and no [`Lease`] holds, and says how many bytes that
    /// freed. Blocks, for as long as the files' removal takes.
    pub fn collect_garbage(&self) -> Result<u64> {
        let held = self.inner.leases.lock();
        let named = self.images().blobs()?;
        let mut freed = 0;
        for (digest, size) in self.content().list()? {
            if !named.contains(&digest) && !held.contains_key(&digest) {
                self.content().remove(&digest)?;
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Removes those of these blobs that no record names and no [`Lease`] holds, and says how many
    /// bytes that freed.
    pub fn remove_unnamed(&self, blobs: &[Digest]) -> Result<u64> {
        let held = self.inner.leases.lock();
        let mut freed = 0;
        for digest in blobs {
            if !held.contains_key(digest) && !self.images().is_blob_named(digest)? {
                freed += self.content().size(digest).unwrap_or(0);
                self.content().remove(digest)?;
            }
        }
        Ok(freed)
    }

    /// What is wrong with the database itself, one sentence each.
    pub fn check_database(&self) -> Result<Vec<String>> {
        self.inner.database.check()
    }
}
