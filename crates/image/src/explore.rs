//! What is in an image, layer by layer, and what of it is wasted.

use ponton_api::explore::Exploration;

use crate::{Error, Images, Result};

impl Images {
    /// Analyses an image. Without `files`, layers have no lists of files.
    pub fn explore(&self, _name: &str, _files: bool) -> Result<Exploration> {
        Err(Error::NotImplemented("explore"))
    }
}
