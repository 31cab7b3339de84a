//! Copy-on-write root file systems.
//!
//! A *layer* is a tree of files named by its [`ChainId`]: made once by a [`LayerWriter`], never
//! changed afterwards, shared by every image and container above it. A *snapshot* is what one
//! container sees: named by a key (the container's id), on top of a layer, with a place of its own
//! for what is written ([`Snapshotter::prepare`]) or without one ([`Snapshotter::view`]).
//!
//! Nothing is mounted here. A snapshot is handed out as [`Mount`]s, which the runtime makes inside
//! the container's mount namespace.
//!
//! ```text
//! writer = begin_layer()  ->  writer.unpack(tar)  ->  commit_layers([{writer, chain, parent}])
//! prepare("4f1c…", chain) -> mounts ... mounts("4f1c…") ... remove("4f1c…")
//! ```
//!
//! This crate knows nothing of images: which layers may go is the caller's decision.

mod change;
mod copy;
mod driver;
mod index;
mod layer;
mod merged;
mod mounted;
mod snapshots;
#[cfg(test)]
mod tests;
mod trash;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ponton_archive::recipe::Outline;
use ponton_oci::digest::ChainId;
use serde::{Deserialize, Serialize};

pub use change::{Change, ChangeKind};
pub use copy::{copy_metadata, copy_tree};
pub use driver::Driver;
pub use layer::LayerWriter;
pub use snapshots::{DriverStatus, Snapshots};
pub use trash::Trash;

/// One mount that makes (part of) a root file system, as `mount(2)` names its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// File system type: `overlay`, or `bind`.
    pub r#type: String,
    /// Source; for a bind mount the directory on the host.
    pub source: String,
    /// Where below the root it goes; `None` is the root itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Options, one per element: `lowerdir=/a:/b`, `ro`, …
    #[serde(default)]
    pub options: Vec<String>,
}

/// Disk space that a snapshot holds alone, its layers not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Sum of the sizes of the files, each hard-linked file counted once.
    pub bytes: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// What was attempted on which object, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key names no snapshot.
    #[error("snapshot {0} does not exist")]
    SnapshotNotFound(String),
    /// The key is in use.
    #[error("snapshot {0} already exists")]
    SnapshotExists(String),
    /// A key that cannot be a file name.
    #[error("invalid snapshot key {0:?}")]
    InvalidKey(String),
    /// The chain id names no layer.
    #[error("layer {0} does not exist")]
    LayerNotFound(ChainId),
    /// A snapshot or another layer stands on the layer.
    #[error("layer {0} is in use")]
    LayerInUse(ChainId),
    /// No driver has the name.
    #[error("there is no storage driver {0:?} (there are overlay2, erofs, btrfs and copy)")]
    UnknownDriver(String),
    /// The kernel or the disk lacks what the driver needs.
    #[error("storage driver {driver} cannot be used here")]
    Unavailable {
        /// The driver.
        driver: Driver,
        /// What it lacks.
        source: Box<Error>,
    },
    /// The kernel or the disk refused.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes a `map_err` adapter that names the operation and its path.
    fn io<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source: source.into() }
    }
}

/// A filled layer and where it goes.
#[derive(Debug)]
pub struct FilledLayer {
    /// The layer.
    pub writer: LayerWriter,
    /// Its name.
    pub chain: ChainId,
    /// The layer below.
    pub parent: Option<ChainId>,
}

/// A driver of snapshots. All methods are safe to call from several threads at once, and leave the
/// disk such that [`Snapshotter::recover`] cleans up after a kill at any instruction.
pub trait Snapshotter: Send + Sync {
    /// The name of the driver that makes new layers and snapshots, as `docker info` prints it.
    fn name(&self) -> &'static str;

    /// All drivers, and whether they can be used here: each is tried, once.
    fn drivers(&self) -> &[DriverStatus];

    /// Makes a writable snapshot on top of a layer (or of nothing).
    fn prepare(&self, key: &str, parent: Option<&ChainId>) -> Result<Vec<Mount>>;

    /// Makes a read-only snapshot of a layer.
    fn view(&self, key: &str, parent: &ChainId) -> Result<Vec<Mount>>;

    /// The mounts of an existing snapshot. Must not be called while the snapshot is mounted.
    fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// Removes a snapshot. It is gone when this returns; its disk space comes back soon after.
    fn remove(&self, key: &str) -> Result<()>;

    /// What a snapshot holds alone. Walks the tree: slow for large ones.
    fn usage(&self, key: &str) -> Result<Usage>;

    /// What a snapshot changed in the layers below it, by path. Costs what was changed, not what is
    /// below.
    fn diff(&self, key: &str) -> Result<Vec<Change>>;

    /// Writes what a snapshot changed as the tar of a layer, with whiteouts for what is deleted.
    /// Nothing may write to the snapshot meanwhile, or the tar has some of it.
    fn write_changes(&self, key: &str, output: &mut dyn Write) -> Result<(), ponton_archive::Error>;

    /// Begins a layer. What is below it need not be known yet.
    fn begin_layer(&self) -> Result<LayerWriter>;

    /// Makes filled layers visible under their names, durably: with one sync, all data are on the
    /// disk first. Parents come before their children. A layer that another made meanwhile is kept,
    /// and the one given is discarded.
    fn commit_layers(&self, layers: Vec<FilledLayer>) -> Result<()>;

    /// Whether a layer is there, complete.
    fn has_layer(&self, chain: &ChainId) -> bool;

    /// Writes a layer's tar, as it was unpacked, byte for byte. The caller compares its digest, which
    /// differs when somebody changed the layer on disk.
    fn write_tar(&self, chain: &ChainId, output: &mut dyn Write) -> Result<(), ponton_archive::Error>;

    /// The layer's tar without the contents of its files, where the driver has that apart.
    fn outline(&self, chain: &ChainId) -> Result<Option<Outline>, ponton_archive::Error>;

    /// The mounts that show a layer with all those below, read-only. No snapshot is made: the layer
    /// must not be removed meanwhile.
    fn layer_mounts(&self, chain: &ChainId) -> Result<Vec<Mount>>;

    /// Removes a layer; refused while a snapshot or another layer stands on it.
    fn remove_layer(&self, chain: &ChainId) -> Result<()>;

    /// All layers, in no order.
    fn layers(&self) -> Vec<ChainId>;

    /// All snapshots' keys, in no order.
    fn snapshots(&self) -> Vec<String>;

    /// Removes what an interrupted operation left. To be called once, before other threads use the
    /// driver.
    fn recover(&self) -> Result<()>;
}
