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
mod layout;
mod volume;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use container::{ContainerRecord, Containers};
pub use content::{Content, Ingest, Sealed};
pub use error::{Error, Result};
pub use image::{ImageRecord, Images, LayerRecord, RemovedImage};
pub use volume::{VolumeRecord, Volumes};

use ballast::Ballast;
use database::Database;
use layout::Lock;

/// The number of the layout on disk that this version reads and writes.
pub const LAYOUT_VERSION: u32 = 1;

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
    leases: Arc<Mutex<usize>>,
    // Last, so that the lock is given up after the database is closed.
    _lock: Lock,
}

/// While it lives, no blob is collected: taken by whoever writes blobs whose record comes later.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Mutex<usize>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        *leases = leases.saturating_sub(1);
    }
}

impl Store {
    /// Opens a data root, and makes it where it is missing.
    ///
    /// # Errors
    /// [`Error::Locked`] if another daemon uses it, [`Error::Version`] if a newer one made it.
    pub fn open(data_root: &Path) -> Result<Self> {
        layout::make_private_directory(data_root)?;
        let lock = Lock::take(&data_root.join("ponton.lock"))?;
        layout::check_version(&data_root.join("version"))?;
        layout::make_private_directory(&data_root.join("tmp"))?;
        let content = Content::open(data_root.join("content"))?;
        let database = Database::open(&data_root.join("meta.db"), Ballast::new(data_root.join("ballast")))?;
        let leases = Arc::new(Mutex::new(0));
        let root = data_root.to_owned();
        Ok(Self { inner: Arc::new(Inner { root, content, database, leases, _lock: lock }) })
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

    /// Keeps all blobs from being collected as long as the lease lives. Waits for a collection.
    pub fn lease(&self) -> Lease {
        let leases = Arc::clone(&self.inner.leases);
        *leases.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Lease { leases }
    }

    /// Removes the blobs that no record names, and says how many bytes that freed.
    ///
    /// Does nothing, and says `None`, while a [`Lease`] lives. Blocks, for as long as the files'
    /// removal takes.
    pub fn collect_garbage(&self) -> Result<Option<u64>> {
        let leases = self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if *leases > 0 {
            return Ok(None);
        }
        let named = self.images().blobs()?;
        let mut freed = 0;
        for (digest, size) in self.content().list()? {
            if !named.contains(&digest) {
                self.content().remove(&digest)?;
                freed += size;
            }
        }
        Ok(Some(freed))
    }
}
