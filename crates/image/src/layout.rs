//! An OCI image layout (image-spec image-layout.md) as a directory.

use std::path::Path;

use crate::{Error, Images, LoadOptions, LoadedImage, Progress, Result, SaveOptions};

impl Images {
    /// Writes images as a layout into a directory, which is made if it is missing and must be empty.
    pub fn save_directory(&self, _names: &[String], _options: &SaveOptions, _directory: &Path) -> Result<()> {
        Err(Error::NotImplemented("save to a directory"))
    }

    /// Takes in the images of a layout in a directory, or of an unpacked archive. Links are followed
    /// inside of it only.
    pub fn load_directory(
        &self,
        _directory: &Path,
        _options: &LoadOptions,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>> {
        Err(Error::NotImplemented("load from a directory"))
    }
}
