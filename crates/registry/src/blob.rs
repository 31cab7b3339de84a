//! Blobs on their way here.

use bytes::Bytes;

use crate::error::Result;

/// A blob as a stream, made by [`crate::Repository::blob`].
#[derive(Debug)]
pub struct Blob {
    offset: u64,
}

impl Blob {
    /// The next bytes; `None` at the end, when everything is there and verified. After an error, nothing more.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        None
    }

    /// The byte of the blob that comes next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Leaves verifying the digest to the caller, who hashes the bytes anyway.
    #[must_use]
    pub fn unverified(self) -> Self {
        self
    }
}
