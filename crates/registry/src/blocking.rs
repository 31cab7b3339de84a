//! The same for threads that may block.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use tokio::runtime::Handle;

use crate::error::Result;
use crate::repository::{Fetched, TagOrDigest};
use crate::upload::Source;

/// [`crate::Repository`], blocking.
#[derive(Clone, Debug)]
pub struct Repository {
    repository: crate::Repository,
    runtime: Handle,
}

impl Repository {
    pub(crate) fn new(repository: crate::Repository, runtime: Handle) -> Self {
        Self { repository, runtime }
    }

    /// The same repository, for what may be cancelled.
    #[must_use]
    pub fn with_cancel(self, cancel: crate::Cancel) -> Self {
        Self { repository: self.repository.with_cancel(cancel), runtime: self.runtime }
    }

    /// The full name without tag (`docker.io/library/busybox`).
    pub fn name(&self) -> &str {
        self.repository.name()
    }

    /// [`crate::Repository::manifest`]
    pub fn manifest(&self, what: &TagOrDigest) -> Result<Fetched> {
        self.runtime.block_on(self.repository.manifest(what))
    }

    /// [`crate::Repository::head_manifest`]
    pub fn head_manifest(&self, what: &TagOrDigest) -> Result<Descriptor> {
        self.runtime.block_on(self.repository.head_manifest(what))
    }

    /// [`crate::Repository::blob`]
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob> {
        let stream = self.runtime.block_on(self.repository.blob(descriptor, offset))?;
        Ok(Blob { stream, runtime: self.runtime.clone(), rest: Bytes::new() })
    }

    /// [`crate::Repository::has_blob`]
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.runtime.block_on(self.repository.has_blob(digest))
    }

    /// [`crate::Repository::mount_blob`]
    pub fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        self.runtime.block_on(self.repository.mount_blob(digest, from))
    }

    /// [`crate::Repository::push_blob`]
    pub fn push_blob(&self, descriptor: &Descriptor, source: &Source<'_>) -> Result<()> {
        self.runtime.block_on(self.repository.push_blob(descriptor, source))
    }

    /// [`crate::Repository::upload`]
    pub fn upload(&self) -> Result<Upload> {
        let upload = self.runtime.block_on(self.repository.upload())?;
        Ok(Upload { upload, runtime: self.runtime.clone() })
    }

    /// [`crate::Repository::push_manifest`]
    pub fn push_manifest(&self, what: &TagOrDigest, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.runtime.block_on(self.repository.push_manifest(what, media_type, bytes))
    }

    /// [`crate::Repository::tags`]
    pub fn tags(&self) -> Result<Vec<String>> {
        self.runtime.block_on(self.repository.tags())
    }

    /// [`crate::Repository::referrers`]
    pub fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        self.runtime.block_on(self.repository.referrers(digest, artifact_type))
    }
}

/// [`crate::Blob`], blocking. As a reader it gives the registry's errors as [`io::Error`]s around
/// [`crate::Error`].
#[derive(Debug)]
pub struct Blob {
    stream: crate::Blob,
    runtime: Handle,
    /// What came and wasn't read yet.
    rest: Bytes,
}

impl Blob {
    /// [`crate::Blob::next`]
    #[expect(clippy::should_implement_trait, reason = "an iterator would be consumed by its adapters")]
    pub fn next(&mut self) -> Option<Result<Bytes>> {
        if self.rest.has_remaining() {
            return Some(Ok(std::mem::take(&mut self.rest)));
        }
        self.runtime.block_on(self.stream.next())
    }

    /// [`crate::Blob::unverified`]
    #[must_use]
    pub fn unverified(self) -> Self {
        Self { stream: self.stream.unverified(), ..self }
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while !self.rest.has_remaining() {
            match self.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(bytes) => self.rest = bytes.map_err(io::Error::other)?,
            }
        }
        let size = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..size]);
        Ok(size)
    }
}

/// [`crate::Upload`], blocking.
#[derive(Debug)]
pub struct Upload {
    upload: crate::Upload,
    runtime: Handle,
}

impl Upload {
    /// [`crate::Upload::write`]
    pub fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.runtime.block_on(self.upload.write(bytes))
    }

    /// [`crate::Upload::finish`]
    pub fn finish(self, digest: &Digest) -> Result<()> {
        self.runtime.block_on(self.upload.finish(digest))
    }
}
