//! An image from what a container changed.

use ponton_oci::digest::ImageId;
use ponton_oci::image_config::ContainerConfig;
use ponton_oci::reference::Reference;

use crate::{Error, Images, Result};

/// What `commit` makes of a container's changes.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image that the container was made from, whose layers and history come first.
    pub parent: Option<ImageId>,
    /// What a container of the new image runs with, before `changes`.
    pub config: ContainerConfig,
    /// Dockerfile instructions for the configuration, one per element (`CMD ["sh"]`).
    pub changes: Vec<String>,
    /// Author; empty for none.
    pub author: String,
    /// Comment of the history entry; empty for none.
    pub message: String,
    /// The container's command, for the history.
    pub created_by: String,
    /// Name to give to the image.
    pub reference: Option<Reference>,
    /// Time of creation, RFC 3339.
    pub created: String,
}

impl Images {
    /// Makes an image of a snapshot: the parent's layers, and one more of what the snapshot changed.
    /// Nothing may write to the snapshot meanwhile, or the layer has some of it.
    pub fn commit_layer(&self, _snapshot: &str, _options: &CommitOptions) -> Result<ImageId> {
        Err(Error::NotImplemented("commit"))
    }
}
