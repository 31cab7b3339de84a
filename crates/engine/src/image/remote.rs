//! Registries, as pulling and pushing know them.

use std::io::{self, Read};

use bytes::Bytes;
use ponton_image::{Document, Error, Remote, Result, Target, Upload};
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_oci::reference::Reference;
use ponton_registry::{TagOrDigest, blocking};

/// One repository of a registry.
pub(super) struct Registry {
    registry: String,
    repository: String,
    client: blocking::Repository,
}

impl Registry {
    pub(super) fn new(name: &Reference, client: blocking::Repository) -> Self {
        Self { registry: name.registry().to_owned(), repository: name.repository().to_owned(), client }
    }
}

fn target(target: &Target) -> TagOrDigest {
    match target {
        Target::Tag(tag) => TagOrDigest::Tag(tag.clone()),
        Target::Digest(digest) => TagOrDigest::Digest(digest.clone()),
    }
}

/// Keeps the registry's error whole: what it means decides what the client hears.
fn failed(what: &str) -> impl FnOnce(ponton_registry::Error) -> Error {
    move |error| match error {
        ponton_registry::Error::Cancelled => Error::Cancelled,
        error => Error::Registry { what: what.to_owned(), source: Box::new(error) },
    }
}

impl Remote for Registry {
    fn registry(&self) -> &str {
        &self.registry
    }

    fn repository(&self) -> &str {
        &self.repository
    }

    fn manifest(&self, wanted: &Target) -> Result<Document> {
        let fetched = self.client.manifest(&target(wanted)).map_err(failed("get manifest"))?;
        Ok(Document { descriptor: fetched.descriptor, bytes: fetched.bytes })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let blob = self.client.blob(descriptor, 0).map_err(failed("get blob"))?;
        Ok(Box::new(blob))
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.client.has_blob(digest).map_err(failed("look for blob"))
    }

    fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        self.client.mount_blob(digest, from).map_err(failed("mount blob"))
    }

    fn push_blob(
        &self,
        descriptor: &Descriptor,
        open: &(dyn Fn() -> Result<Box<dyn Read + Send>> + Send + Sync),
    ) -> Result<()> {
        let source = || open().map_err(io::Error::other);
        self.client.push_blob(descriptor, &source).map_err(failed("push blob"))
    }

    fn upload(&self) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Sending(self.client.upload().map_err(failed("push blob"))?)))
    }

    fn push_manifest(&self, wanted: &Target, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        self.client.push_manifest(&target(wanted), media_type, bytes).map_err(failed("push manifest"))
    }
}

struct Sending(blocking::Upload);

impl Upload for Sending {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(Bytes::copy_from_slice(bytes)).map_err(failed("push blob"))
    }

    fn finish(self: Box<Self>, digest: &Digest) -> Result<()> {
        self.0.finish(digest).map_err(failed("push blob"))
    }
}
