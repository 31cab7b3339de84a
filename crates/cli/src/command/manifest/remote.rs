//! What `manifest` asks of a registry.

use ponton_oci::image_config::ImageConfig;
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::media_type::{is_index, is_manifest};
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_registry::{Client, Config, Fetched, Repository, TagOrDigest};

use super::store::Entry;
use crate::credentials::stored;
use crate::error::Error;

/// A configuration is small: more than this is none.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// One registry, with the user's credentials for it.
pub(super) struct Registry {
    client: Client,
}

impl Registry {
    /// The registry of a name.
    pub(super) fn new(name: &Reference, is_insecure: bool) -> Result<Self, Error> {
        let mut config = Config::default();
        if is_insecure {
            config.insecure.push(name.registry().to_owned());
        }
        Ok(Self { client: Client::new(config).map_err(error)? })
    }

    fn repository(&self, name: &Reference) -> Repository {
        self.client.repository(name, stored(name.registry()))
    }

    /// The manifest or index of a name.
    pub(super) async fn fetch(&self, name: &Reference) -> Result<Fetched, Error> {
        self.repository(name).manifest(&TagOrDigest::from(name)).await.map_err(error)
    }

    /// The manifest of an image, with the platform that its configuration tells.
    pub(super) async fn image(&self, name: &Reference) -> Result<Entry, Error> {
        let found = self.fetch(name).await?;
        if is_index(&found.descriptor.media_type) {
            return Err(Error::invalid(format!("{} is a manifest list", name.familiar())));
        }
        self.entry(name, found).await
    }

    /// The manifests that an index names.
    pub(super) async fn images(&self, name: &Reference, index: &[u8]) -> Result<Vec<Entry>, Error> {
        let index = Index::from_slice(index).map_err(|error| Error::invalid(error.to_string()))?;
        let mut entries = Vec::new();
        for descriptor in index.manifests.into_iter().filter(|found| is_manifest(&found.media_type)) {
            let found = self.fetch(&name.with_digest(descriptor.digest.clone())).await?;
            let name = format!("{name}@{}", descriptor.digest);
            entries.push(Entry { name, descriptor, raw: found.bytes });
        }
        Ok(entries)
    }

    async fn entry(&self, name: &Reference, found: Fetched) -> Result<Entry, Error> {
        let manifest =
            Manifest::from_slice(&found.bytes).map_err(|error| Error::invalid(error.to_string()))?;
        let too_long = || Error::invalid(format!("the configuration of {} is too long", name.familiar()));
        if manifest.config.size > MAX_CONFIG_BYTES {
            return Err(too_long());
        }
        let mut blob = self.repository(name).blob(&manifest.config, 0).await.map_err(error)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = blob.next().await {
            bytes.extend_from_slice(&chunk.map_err(error)?);
        }
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|error| {
            Error::invalid(format!("decode the configuration of {}: {error}", name.familiar()))
        })?;
        let mut descriptor = found.descriptor;
        descriptor.platform = Some(Platform {
            architecture: config.architecture,
            os: config.os,
            os_version: config.os_version.unwrap_or_default(),
            variant: config.variant.unwrap_or_default(),
            ..Platform::default()
        });
        Ok(Entry { name: name.to_string(), descriptor, raw: found.bytes })
    }

    /// Brings an image of another repository of the same registry into that of `list`.
    pub(super) async fn copy(&self, entry: &Entry, from: &Reference, list: &Reference) -> Result<(), Error> {
        let (source, target) = (self.repository(from), self.repository(list));
        let manifest = Manifest::from_slice(&entry.raw).map_err(|error| Error::invalid(error.to_string()))?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            // Foreign layers are in no registry.
            if !blob.urls.is_empty()
                || target.has_blob(&blob.digest).await.map_err(error)?
                || target.mount_blob(&blob.digest, from.repository()).await.map_err(error)?
            {
                continue;
            }
            let mut upload = target.upload().await.map_err(error)?;
            let mut content = source.blob(blob, 0).await.map_err(error)?;
            while let Some(chunk) = content.next().await {
                upload.write(chunk.map_err(error)?).await.map_err(error)?;
            }
            upload.finish(&blob.digest).await.map_err(error)?;
        }
        let what = TagOrDigest::from(&entry.descriptor.digest);
        let media_type = &entry.descriptor.media_type;
        target.push_manifest(&what, media_type, entry.raw.clone().into()).await.map(drop).map_err(error)
    }

    /// Pushes a list under its name; its digest.
    pub(super) async fn push_index(
        &self,
        list: &Reference,
        media_type: &str,
        index: Vec<u8>,
    ) -> Result<String, Error> {
        let pushed =
            self.repository(list).push_manifest(&TagOrDigest::from(list), media_type, index.into()).await;
        pushed.map(|digest| digest.to_string()).map_err(error)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn error(source: ponton_registry::Error) -> Error {
    Error::invalid(source.to_string())
}
