//! The manifests and indexes of the images that are here.

use std::collections::BTreeMap;

use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::{Digest, ImageId, ManifestDigest};
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::media_type;
use ponton_oci::reference::Reference;
use ponton_registry::Fetched;
use ponton_store::ImageRecord;

use crate::{Error, Images, Result};

impl Images {
    /// The indexes by which an image is named.
    pub(crate) fn indexes_of(&self, id: &ImageId) -> Result<Vec<(Fetched, Index)>> {
        let references = self.store.images().references_of(id)?;
        let mut indexes = Vec::new();
        for digest in references.iter().filter_map(Reference::digest) {
            let Ok(bytes) = self.store.content().read(digest) else { continue };
            let Ok(index) = Index::from_slice(&bytes) else { continue };
            let kind = index.media_type.clone().unwrap_or_else(|| media_type::OCI_INDEX.to_owned());
            let descriptor = Descriptor::new(&kind, digest.clone(), bytes.len() as u64);
            indexes.push((Fetched { descriptor, bytes }, index));
        }
        Ok(indexes)
    }

    /// The manifest with which an image came or went, if it is here.
    pub(crate) fn manifest_of(&self, image: &ImageRecord) -> Result<Option<(Fetched, Manifest)>> {
        let references = self.store.images().references_of(&image.id)?;
        let digests = image.manifest.iter().map(ManifestDigest::digest);
        for digest in digests.chain(references.iter().filter_map(Reference::digest)) {
            let Ok(bytes) = self.store.content().read(digest) else { continue };
            let Ok(manifest) = Manifest::from_slice(&bytes) else { continue };
            if manifest.config.digest != *image.id.digest() || manifest.layers.len() != image.layers.len() {
                continue;
            }
            let kind = manifest.media_type.clone().unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
            let descriptor = Descriptor::new(&kind, digest.clone(), bytes.len() as u64);
            return Ok(Some((Fetched { descriptor, bytes }, manifest)));
        }
        Ok(None)
    }
}

/// The manifest of an image that has none that fits: Docker's, which every registry takes, or OCI's
/// where there are layers that Docker's has no type for.
pub(crate) fn build_manifest(id: &ImageId, raw: &[u8], layers: &[Descriptor]) -> Result<Fetched> {
    let is_docker = layers.iter().all(|layer| !layer.media_type.ends_with("zstd"));
    let (kind, config) = match is_docker {
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    let retype = |layer: &Descriptor| {
        let gzip = layer.media_type.ends_with("gzip");
        let zstd = layer.media_type.ends_with("zstd");
        let kind = match (is_docker, gzip, zstd) {
            (true, true, _) => media_type::DOCKER_LAYER_GZIP,
            (true, false, _) => media_type::DOCKER_LAYER,
            (false, _, true) => media_type::OCI_LAYER_ZSTD,
            (false, true, _) => media_type::OCI_LAYER_GZIP,
            (false, false, false) => media_type::OCI_LAYER,
        };
        Descriptor::new(kind, layer.digest.clone(), layer.size)
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        artifact_type: None,
        config: Descriptor::new(config, id.digest().clone(), raw.len() as u64),
        layers: layers.iter().map(retype).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| Error::Invalid(format!("write the manifest of {id}: {error}")))?;
    let descriptor = Descriptor::new(kind, Digest::sha256_of(&bytes), bytes.len() as u64);
    Ok(Fetched { descriptor, bytes })
}
