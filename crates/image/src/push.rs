//! Images to a registry.

use ponton_oci::digest::ManifestDigest;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;

use ponton_registry::Cancel;

use crate::remote::Remote;
use crate::{Error, Images, Result};

/// What of an image is pushed.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// The image of this platform alone. If none, the index with all that are here, or else the
    /// image.
    pub platform: Option<Platform>,
}

/// News of a layer that is pushed. Layers are named by the first 12 characters of their diff ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushProgress {
    /// Short name.
    pub id: String,
    /// What happens to it.
    pub status: PushStatus,
}

/// How far a layer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushStatus {
    /// Its turn comes.
    Preparing,
    /// Its turn comes later.
    Waiting,
    /// The repository has it.
    Exists,
    /// The registry took it from this other repository of its own.
    Mounted(String),
    /// Bytes of the layer.
    Pushing {
        /// So far.
        current: u64,
        /// In all.
        total: u64,
    },
    /// The repository has it now.
    Pushed,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest or index.
    pub digest: ManifestDigest,
    /// Its bytes.
    pub size: u64,
}

impl Images {
    /// Pushes the image that has the name `reference` to the repository `to`, under that name's tag.
    /// A pulled image goes out as it came in, byte by byte. `now` is as for [`Images::pull`].
    pub fn push(
        &self,
        reference: &Reference,
        to: &dyn Remote,
        options: &PushOptions,
        now: i64,
        cancel: &Cancel,
        progress: &mut (dyn FnMut(PushProgress) + Send),
    ) -> Result<Pushed> {
        let _ = (reference, to, options, now, cancel, progress);
        Err(Error::NotImplemented("push"))
    }
}
