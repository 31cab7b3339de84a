//! Whether all that is kept is what its digest says.

use crate::{Error, Images, Result};

/// Something to tell the user while a check goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckProgress {
    /// What is being read now.
    pub object: String,
    /// Bytes read so far.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs that were read.
    pub blobs: usize,
    /// Layers whose tar was rebuilt and compared.
    pub layers: usize,
    /// Images whose records were compared with their configurations.
    pub images: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong, or was.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which object: `blob sha256:…`, `layer sha256:…`, `image busybox:latest`.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// Whether it is repaired now.
    pub repaired: bool,
    /// What was done about it, or is to be done.
    pub remedy: String,
}

impl Images {
    /// Reads every blob and layer, and compares them with their digests, and every record with what
    /// it names. With `repair` what can be restored is, and what nothing needs is removed.
    pub fn check(&self, repair: bool, progress: &mut dyn FnMut(CheckProgress)) -> Result<Report> {
        let _ = (repair, progress);
        Err(Error::NotImplemented("image check"))
    }
}
