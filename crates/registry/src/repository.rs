//! One repository of a registry.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::Digest;
use ponton_oci::reference::{DEFAULT_TAG, Reference};
use tokio::runtime::Handle;

use crate::blob::Blob;
use crate::blocking;
use crate::client::Shared;
use crate::config::Cancel;
use crate::credentials::Credentials;
use crate::endpoint::Session;
use crate::error::{Error, Result};
use crate::transport::{Ask, Payload};
use crate::upload::{Source, Upload};
use crate::{list, manifest, upload};

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

impl TagOrDigest {
    pub(crate) fn as_path(&self) -> String {
        match self {
            Self::Tag(tag) => tag.clone(),
            Self::Digest(digest) => digest.to_string(),
        }
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
    shared: Arc<Shared>,
    registry: Arc<str>,
    /// `library/busybox`
    path: Arc<str>,
    name: Arc<str>,
    credentials: Credentials,
    cancel: Cancel,
}

impl Repository {
    pub(crate) fn new(shared: Arc<Shared>, name: &Reference, credentials: Credentials) -> Self {
        Self {
            shared,
            registry: name.registry().into(),
            path: name.repository().into(),
            name: name.name().into(),
            credentials,
            cancel: Cancel::new(),
        }
    }

    /// The same repository, for what may be cancelled.
    #[must_use]
    pub fn with_cancel(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
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
    pub async fn manifest(&self, what: &TagOrDigest) -> Result<Fetched> {
        self.or_cancelled(self.ask_for_manifest(what, &Method::GET)).await
    }

    /// Type, digest and size of a manifest or index, as the registry tells them.
    pub async fn head_manifest(&self, what: &TagOrDigest) -> Result<Descriptor> {
        Ok(self.or_cancelled(self.ask_for_manifest(what, &Method::HEAD)).await?.descriptor)
    }

    /// Opens a blob from a byte on. The stream resumes by itself where connections are cut, and ends in an
    /// error unless exactly the descriptor's bytes came; the digest is verified if it began at 0.
    ///
    /// The URLs of foreign layers (`Descriptor::urls`) are not followed: an image can't send its host anywhere.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob> {
        let what = self.what(&TagOrDigest::from(&descriptor.digest));
        if offset > descriptor.size {
            return Err(Error::Size { what, expected: descriptor.size, actual: offset });
        }
        let path = format!("/v2/{}/blobs/{}", self.path, descriptor.digest);
        let sessions = self.shared.for_pull(&self.registry, &self.path, &self.credentials);
        let mut blob = Blob::new(sessions, self.cancel.clone(), (what, path), descriptor, offset);
        self.or_cancelled(blob.open()).await?;
        Ok(blob)
    }

    /// Whether the repository has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let what = self.what(&digest.into());
        let session = self.for_push(None);
        let ask = async {
            let url = session.url(&format!("/v2/{}/blobs/{digest}", self.path)).await?;
            session.persist(&ask(&session, &what, Method::HEAD, url)).await
        };
        match self.or_cancelled(ask).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the registry to take a blob over from another of its repositories (`library/busybox`). False: it
    /// doesn't, and the blob is to be pushed.
    pub async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        let what = self.what(&digest.into());
        let session = self.for_push(Some(from));
        self.or_cancelled(upload::mount(&session, &self.path, &what, digest, from)).await
    }

    /// Pushes a blob. `source` is opened anew for each attempt, and is read on a thread of its own; what it
    /// gives must be the descriptor's bytes.
    pub async fn push_blob(&self, descriptor: &Descriptor, source: &Source<'_>) -> Result<()> {
        let what = self.what(&TagOrDigest::from(&descriptor.digest));
        let session = self.for_push(None);
        self.or_cancelled(upload::push(&session, &self.path, &what, descriptor, source)).await
    }

    /// Begins the upload of a blob whose size and digest show at its end.
    pub async fn upload(&self) -> Result<Upload> {
        let session = self.for_push(None);
        let cancel = self.cancel.clone();
        self.or_cancelled(Upload::begin(session, cancel, &self.path, self.name.to_string())).await
    }

    /// Pushes a manifest or index, by its digest or under a tag, and gives its digest.
    pub async fn push_manifest(&self, what: &TagOrDigest, media_type: &str, bytes: Bytes) -> Result<Digest> {
        let name = self.what(what);
        let session = self.for_push(None);
        self.or_cancelled(manifest::push(&session, &self.path, &name, what, media_type, bytes)).await
    }

    /// All tags.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let session = self.for_pull();
        self.or_cancelled(list::tags(&session, &self.path, &self.name)).await
    }

    /// The manifests that have a manifest as their subject; of one artifact's type, if one is given.
    pub async fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let what = self.what(&digest.into());
        let session = self.for_pull();
        self.or_cancelled(list::referrers(&session, &self.path, &what, digest, artifact_type)).await
    }

    fn what(&self, what: &TagOrDigest) -> String {
        match what {
            TagOrDigest::Tag(tag) => format!("{}:{tag}", self.name),
            TagOrDigest::Digest(digest) => format!("{}@{digest}", self.name),
        }
    }

    fn for_push(&self, from: Option<&str>) -> Session {
        self.shared.for_push(&self.registry, &self.path, from, &self.credentials)
    }

    /// The registry itself, to be read: what is listed is not taken from a mirror.
    fn for_pull(&self) -> Session {
        self.shared.for_registry(&self.registry, &self.path, &self.credentials)
    }

    /// Asks one server after the other. What the last one, the registry itself, says is final.
    async fn ask_for_manifest(&self, what: &TagOrDigest, method: &Method) -> Result<Fetched> {
        let name = self.what(what);
        for mirror in self.shared.mirrors(&self.registry, &self.path) {
            match manifest::fetch(&mirror, &self.path, &name, what, method).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => mirror.endpoint.note(&error),
            }
        }
        manifest::fetch(&self.for_pull(), &self.path, &name, what, method).await
    }

    async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            done = work => done,
        }
    }
}

/// A request without payload.
pub(crate) fn ask<'a>(session: &Session, what: &'a str, method: Method, url: Uri) -> Ask<'a> {
    let wait = session.transport.limits.idle;
    Ask { what, method, url, headers: Vec::new(), payload: Payload::None, wait, sent: Arc::default() }
}

/// The header of a media type.
pub(crate) fn content_type(what: &str, media_type: &str) -> Result<(HeaderName, HeaderValue)> {
    let reason = || Error::Config { what: what.to_owned(), reason: format!("no media type: {media_type:?}") };
    let value = HeaderValue::from_str(media_type).map_err(|_| reason())?;
    Ok((header::CONTENT_TYPE, value))
}
