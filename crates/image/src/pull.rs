//! Images from a registry.

use std::sync::Arc;

use ponton_oci::digest::{ImageId, ManifestDigest};
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;

use ponton_registry::Cancel;

use crate::remote::Remote;
use crate::{Error, Images, Result};

/// What of an image is pulled.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform; the host's if none, and then another one is taken where the registry has only
    /// that.
    pub platform: Option<Platform>,
    /// The images of all platforms of an index.
    pub all_platforms: bool,
}

/// Something to tell the user while a pull goes on. Layers are named by the first 12 characters of
/// their blobs' digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    /// What the name means is known: digest of the manifest or index.
    Resolved(ManifestDigest),
    /// News of a layer.
    Layer {
        /// Short name.
        id: String,
        /// What happens to it.
        status: LayerStatus,
    },
}

/// How far a layer has come. Unpacking begins with the first bytes: [`LayerStatus::Extracting`] is
/// told of what is left when all bytes are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerStatus {
    /// Docker's "Pulling fs layer".
    Pending,
    /// It is there already.
    AlreadyExists,
    /// Its turn comes later.
    Waiting,
    /// Compressed bytes.
    Downloading {
        /// So far.
        current: u64,
        /// In all.
        total: u64,
    },
    /// All bytes are there, and are what the digest says.
    DownloadComplete,
    /// Compressed bytes.
    Extracting {
        /// So far.
        current: u64,
        /// In all.
        total: u64,
    },
    /// Unpacked and verified.
    PullComplete,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image for the platform asked for.
    pub id: ImageId,
    /// Digest of the manifest or index that the name means.
    pub digest: ManifestDigest,
    /// Whether the name means something else than before.
    pub is_new: bool,
    /// The image's platform, where it is neither the host's nor was asked for.
    pub other_platform: Option<Platform>,
}

impl Images {
    /// Pulls the image that `reference` names from the repository `from`, unpacks it, and gives it
    /// its names: the reference, and the repository with the digest. `now`, in nanoseconds since the
    /// epoch, is when it got them.
    ///
    /// On an error, and when cancelled, nothing stays behind but what other pulls wait for.
    pub fn pull(
        &self,
        from: &Arc<dyn Remote>,
        reference: &Reference,
        options: &PullOptions,
        now: i64,
        cancel: &Cancel,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Pulled> {
        let _ = (from, reference, options, now, cancel, progress);
        Err(Error::NotImplemented("pull"))
    }
}
