//! One repository of a registry, as far as pulling and pushing need it.

use std::io::Read;

use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;

use crate::Result;

/// Which manifest or index of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one that has the tag.
    Tag(String),
    /// The one with the digest.
    Digest(Digest),
}

/// A manifest or index as it came: its digest has been compared with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A repository of a registry. Every method blocks, also for long; a method that fails has already
/// tried again where that could help.
pub trait Remote: Send + Sync {
    /// The registry's name as in references (`docker.io`).
    fn registry(&self) -> &str;

    /// The repository's path in the registry (`library/busybox`).
    fn repository(&self) -> &str;

    /// A manifest or index.
    fn manifest(&self, target: &Target) -> Result<Document>;

    /// A blob's bytes. Reading them to the end succeeds only if size and digest hold.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>>;

    /// Whether the repository has the blob.
    fn has_blob(&self, digest: &Digest) -> Result<bool>;

    /// Asks for a blob of another repository of the registry; false if it is not to be had.
    fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool>;

    /// Sends a blob; `open` begins it anew for each attempt.
    fn push_blob(
        &self,
        descriptor: &Descriptor,
        open: &dyn Fn() -> Result<Box<dyn Read + Send>>,
    ) -> Result<()>;

    /// Begins to send a blob whose size and digest are known at its end only.
    fn upload(&self) -> Result<Box<dyn Upload>>;

    /// Sends a manifest or index; says its digest.
    fn push_manifest(&self, target: &Target, media_type: &str, bytes: &[u8]) -> Result<Digest>;
}

/// A blob on its way; given up when dropped.
pub trait Upload: Send {
    /// Sends the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Completes the blob, which must have this digest.
    fn finish(self: Box<Self>, digest: &Digest) -> Result<()>;
}
