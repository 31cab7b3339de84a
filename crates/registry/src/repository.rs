//! One repository of a registry.

use std::sync::Arc;

use bytes::Bytes;
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_oci::reference::{DEFAULT_TAG, Reference};
use tokio::runtime::Handle;

use crate::blob::Blob;
use crate::blocking;
use crate::config::{Cancel, Config};
use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::upload::{Source, Upload};

/// Which manifest is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagOrDigest {
    /// The one that has this tag now.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
}

impl From<&Reference> for TagOrDigest {
    /// The digest if the name has one, else the tag, else `latest`.
    fn from(name: &Reference) -> Self {
        match name.digest() {
            Some(digest) => Self::Digest(digest.clone()),
            None => Self::Tag(name.tag().unwrap_or(DEFAULT_TAG).to_owned()),
        }
    }
}

impl From<&Digest> for TagOrDigest {
    fn from(digest: &Digest) -> Self {
        Self::Digest(digest.clone())
    }
}

/// A manifest or index as it came, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Type, digest and size; the digest is that of `bytes`.
    pub descriptor: Descriptor,
    /// The document.
    pub bytes: Vec<u8>,
}

/// One repository, with the credentials for it. Cheap to clone; clones share tokens.
#[derive(Clone, Debug)]
pub struct Repository {
    name: Arc<str>,
}

impl Repository {
    pub(crate) fn new(_config: Arc<Config>, name: &Reference, _credentials: Credentials) -> Self {
        Self { name: name.name().into() }
    }

    /// The same repository, for what may be cancelled.
    #[must_use]
    pub fn with_cancel(self, _cancel: Cancel) -> Self {
        self
    }

    /// The same repository for threads that may block. Its methods must not be called on a thread that runs
    /// asynchronous tasks.
    pub fn blocking(&self, runtime: Handle) -> blocking::Repository {
        blocking::Repository::new(self.clone(), runtime)
    }

    /// The full name without tag (`docker.io/library/busybox`).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A manifest or index, of any type: whole, bounded, its digest verified if one was asked for.
    pub async fn manifest(&self, _what: &TagOrDigest) -> Result<Fetched> {
        Err(Error::NotImplemented("manifest"))
    }

    /// Type, digest and size of a manifest or index, as the registry tells them.
    pub async fn head_manifest(&self, _what: &TagOrDigest) -> Result<Descriptor> {
        Err(Error::NotImplemented("manifest"))
    }

    /// Opens a blob from a byte on. The stream resumes by itself where connections are cut, and ends in an
    /// error unless exactly the descriptor's bytes came; the digest is verified if it began at 0.
    pub async fn blob(&self, _descriptor: &Descriptor, _offset: u64) -> Result<Blob> {
        Err(Error::NotImplemented("blob"))
    }

    /// Whether the repository has a blob.
    pub async fn has_blob(&self, _digest: &Digest) -> Result<bool> {
        Err(Error::NotImplemented("blob"))
    }

    /// Asks the registry to take a blob over from another of its repositories (`library/busybox`). False: it
    /// doesn't, and the blob is to be pushed.
    pub async fn mount_blob(&self, _digest: &Digest, _from: &str) -> Result<bool> {
        Err(Error::NotImplemented("blob"))
    }

    /// Pushes a blob. `source` is opened anew for each attempt, and is read on a thread of its own; what it
    /// gives must be the descriptor's bytes.
    pub async fn push_blob(&self, _descriptor: &Descriptor, _source: &Source<'_>) -> Result<()> {
        Err(Error::NotImplemented("push"))
    }

    /// Begins the upload of a blob whose size and digest show at its end.
    pub async fn upload(&self) -> Result<Upload> {
        Err(Error::NotImplemented("push"))
    }

    /// Pushes a manifest or index, by its digest or under a tag, and gives its digest.
    pub async fn push_manifest(&self, _what: &TagOrDigest, _media_type: &str, _bytes: Bytes) -> Result<Digest> {
        Err(Error::NotImplemented("push"))
    }

    /// All tags.
    pub async fn tags(&self) -> Result<Vec<String>> {
        Err(Error::NotImplemented("tags"))
    }

    /// The manifests that have a manifest as their subject; of one artifact's type, if one is given.
    pub async fn referrers(&self, _digest: &Digest, _artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        Err(Error::NotImplemented("referrers"))
    }
}
