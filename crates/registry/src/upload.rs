//! Blobs on their way to a registry.

use std::io::{self, Read};

use bytes::Bytes;
use ponton_oci::digest::Digest;

use crate::error::{Error, Result};

/// Opens the bytes of a blob, from the first.
pub type Source<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'a;

/// The upload of a blob of unknown size, made by [`crate::Repository::upload`]. Dropped unfinished, the
/// registry forgets it in its own time.
#[derive(Debug)]
pub struct Upload {}

impl Upload {
    /// Sends the next bytes.
    pub async fn write(&mut self, _bytes: Bytes) -> Result<()> {
        Err(Error::NotImplemented("push"))
    }

    /// Ends the blob, which must have this digest.
    pub async fn finish(self, _digest: &Digest) -> Result<()> {
        Err(Error::NotImplemented("push"))
    }
}
