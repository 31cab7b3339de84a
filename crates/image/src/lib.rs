//! Images: pull, push, import, load, save, list, inspect, tag, remove, check.
//!
//! An image is its configuration: the id is the digest of the configuration's bytes, and the
//! configuration names its layers by [`DiffId`](ponton_oci::digest::DiffId). Unpacked layers are
//! kept by the snapshotter and nothing is kept twice: beside an unpacked layer stands its *recipe*
//! (see [`ponton_archive::recipe`]), from which the layer's tar is rebuilt byte by byte and verified
//! against its diff id when the image is saved.
//!
//! This crate runs nothing and knows no container: who uses an image is asked of the caller.

mod budget;
pub mod change;
mod check;
mod commit;
mod documents;
mod error;
mod explore;
mod fetch;
mod gzip;
mod import;
mod layer;
mod layout;
mod limits;
mod list;
mod load;
mod pipeline;
mod prune;
mod pull;
mod push;
mod record;
mod remote;
mod remove;
mod resolve;
mod save;
mod squash;
mod turn;

#[cfg(test)]
mod care_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transfer_tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ponton_oci::digest::{ChainId, ImageId, ManifestDigest};
use ponton_oci::image_config::ImageConfig;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_snapshot::Snapshotter;
use ponton_store::Store;

use fetch::Fetches;
use turn::Turns;

pub use budget::{Budget, Collected, Exceeded};
pub use check::{CheckProgress, Problem, Report};
pub use commit::CommitOptions;
pub use error::{Error, Result};
pub use limits::Limits;
pub use load::LoadOptions;
pub use ponton_registry::Cancel;
pub use prune::{DiskUsage, ImageUsage, Pruned};
pub use pull::{LayerStatus, PullOptions, PullProgress, Pulled};
pub use push::{PushOptions, PushProgress, PushStatus, Pushed};
pub use remote::{Remote, Upload};
pub use save::{Format, SaveOptions};
pub use squash::SquashOptions;

/// The images of one data root. Cheap to clone; every method blocks.
#[derive(Clone)]
pub struct Images {
    store: Store,
    snapshotter: Arc<dyn Snapshotter>,
    limits: Limits,
    fetches: Arc<Fetches>,
    /// Those who compress.
    compressing: Arc<Turns>,
    /// When images were last used, as far as it is not written down.
    uses: Arc<Mutex<HashMap<ImageId, i64>>>,
    /// Held while layers come or go together with the records that name them.
    changing: Arc<Mutex<()>>,
}

/// What `import` makes of a root file system.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name to give to the image.
    pub reference: Option<Reference>,
    /// Dockerfile instructions for the configuration, one per element (`CMD ["sh"]`).
    pub changes: Vec<String>,
    /// Comment of the history entry; empty for none.
    pub message: String,
    /// Platform; the host's if none.
    pub platform: Option<Platform>,
    /// Time of creation, RFC 3339.
    pub created: String,
}

/// An image with all that inspecting and running it needs.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The configuration, parsed.
    pub config: ImageConfig,
    /// The configuration's bytes, unknown fields included.
    pub raw: Vec<u8>,
    /// Its names, sorted; those by digest (`busybox@sha256:…`) are Docker's RepoDigests.
    pub references: Vec<Reference>,
    /// Bytes of the files in all its layers.
    pub size: u64,
    /// Its layers, base first.
    pub chain: Vec<ChainId>,
    /// Time of creation as the configuration gives it, RFC 3339.
    pub created: Option<String>,
}

/// An image as it is listed: what needs no look into its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of the configuration.
    pub id: ImageId,
    /// Its names, those by digest included, sorted.
    pub references: Vec<Reference>,
    /// When it was made, nanoseconds since the epoch.
    pub created_at: i64,
    /// When it was last pulled, made, named or used by a container, nanoseconds since the epoch.
    pub used_at: i64,
    /// Bytes of the files in all its layers.
    pub size: u64,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// What it runs on.
    pub platform: Platform,
    /// The manifest that it came with or was pushed with.
    pub manifest: Option<ManifestDigest>,
}

/// Something to tell the user while a `load` goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of a layer's tar unpacked so far.
    Layer {
        /// Short name of the layer: the first 12 characters of its diff id, or of its name in the
        /// archive while the diff id is not known.
        id: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all, 0 if not known.
        total: u64,
    },
    /// An image is complete.
    Loaded(LoadedImage),
}

/// One image that `load` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its id.
    pub id: ImageId,
    /// The names that it got.
    pub references: Vec<Reference>,
}

/// One line of an image's history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The image's id on the newest line, `None` (printed `<missing>`) on the others.
    pub id: Option<ImageId>,
    /// RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Names of the image on the newest line.
    pub references: Vec<Reference>,
    /// Bytes that the instruction's layer holds.
    pub size: u64,
    /// Comment.
    pub comment: String,
}

/// What a removal did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or a layer is gone.
    Deleted(String),
}

impl Images {
    /// The images in `store`, unpacked by `snapshotter`.
    pub fn new(store: Store, snapshotter: Arc<dyn Snapshotter>) -> Self {
        let limits = Limits::default();
        Self {
            store,
            snapshotter,
            limits,
            fetches: Arc::default(),
            compressing: Arc::default(),
            uses: Arc::default(),
            changing: Arc::default(),
        }
    }

    /// The same with other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What all users of the images' layers share.
    pub fn snapshotter(&self) -> &Arc<dyn Snapshotter> {
        &self.snapshotter
    }

    fn exclusive(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The container's id.
    pub container: String,
    /// Whether it is running.
    pub running: bool,
}
