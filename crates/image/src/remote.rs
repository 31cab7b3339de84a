//! One repository of a registry, as far as pulling and pushing need it.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_registry::{Cancel, Fetched, Result, Source, TagOrDigest, blocking};

/// A repository of a registry. Every method blocks, also for long; one that fails has already tried
/// again where that could help. In the daemon it is a [`blocking::Repository`].
pub trait Remote: Send + Sync {
    /// The full name without tag (`docker.io/library/busybox`).
    fn name(&self) -> &str;

    /// The same repository, whose methods end once `cancel` is cancelled.
    fn with_cancel(&self, cancel: Cancel) -> Arc<dyn Remote>;

    /// A manifest or index, its digest verified if one was asked for.
    fn manifest(&self, what: &TagOrDigest) -> Result<Fetched>;

    /// A blob's bytes: exactly as many as the descriptor says, or an error. Their digest is verified
    /// by the caller.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>>;

    /// Whether the repository has the blob.
    fn has_blob(&self, digest: &Digest) -> Result<bool>;

    /// Asks for a blob of another repository of the registry; false if it is not to be had.
    fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool>;

    /// Sends a blob; `source` begins it anew for each attempt.
    fn push_blob(&self, descriptor: &Descriptor, source: &Source<'_>) -> Result<()>;

    /// Begins to send a blob whose size and digest are known at its end only.
    fn upload(&self) -> Result<Box<dyn Upload>>;

    /// Sends a manifest or index; says its digest.
    fn push_manifest(&self, what: &TagOrDigest, media_type: &str, bytes: &[u8]) -> Result<Digest>;
}

/// A blob on its way; given up when dropped.
pub trait Upload: Send {
    /// Sends the next bytes.
    fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Completes the blob, which must have this digest.
    fn finish(self: Box<Self>, digest: &Digest) -> Result<()>;
}

impl Remote for blocking::Repository {
    fn name(&self) -> &str {
        self.name()
    }

    fn with_cancel(&self, cancel: Cancel) -> Arc<dyn Remote> {
        Arc::new(self.clone().with_cancel(cancel))
    }

    fn manifest(&self, what: &TagOrDigest) -> Result<Fetched> {
        self.manifest(what)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.blob(descriptor, 0)?.unverified()))
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.has_blob(digest)
    }

    fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        self.mount_blob(digest, from)
    }

    fn push_blob(&self, descriptor: &Descriptor, source: &Source<'_>) -> Result<()> {
        self.push_blob(descriptor, source)
    }

    fn upload(&self) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.upload()?))
    }

    fn push_manifest(&self, what: &TagOrDigest, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        self.push_manifest(what, media_type, bytes)
    }
}

impl Upload for blocking::Upload {
    fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.write(bytes)
    }

    fn finish(self: Box<Self>, digest: &Digest) -> Result<()> {
        (*self).finish(digest)
    }
}

/// The registry's error that a reader of [`Remote::blob`] gave, if it is one.
pub(crate) fn error_of(error: io::Error) -> Result<ponton_registry::Error, io::Error> {
    error.downcast::<ponton_registry::Error>()
}
