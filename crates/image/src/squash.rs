//! Several layers become one.

use ponton_oci::digest::ImageId;
use ponton_oci::reference::Reference;

use crate::{Error, Images, Result};

/// What `squash` makes of an image.
#[derive(Debug, Clone, Default)]
pub struct SquashOptions {
    /// An image whose layers are the lowest of the squashed one's, and stay as they are; all layers
    /// become one if none.
    pub from: Option<String>,
    /// Name to give to the new image.
    pub reference: Option<Reference>,
    /// Comment of the history entry; empty for none.
    pub message: String,
    /// Time of creation, RFC 3339.
    pub created: String,
}

impl Images {
    /// Makes an image with the same files and the same configuration, but fewer layers.
    pub fn squash(&self, _name: &str, _options: &SquashOptions) -> Result<ImageId> {
        Err(Error::NotImplemented("squash"))
    }
}
