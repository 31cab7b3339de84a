//! What a name in a registry means: from index to manifest to configuration.

use std::collections::HashSet;
use std::io::Read;

use ponton_oci::descriptor::Descriptor;
use ponton_oci::digest::{Digest, ImageId};
use ponton_oci::image_config::ImageConfig;
use ponton_oci::index::Index;
use ponton_oci::manifest::Manifest;
use ponton_oci::media_type;
use ponton_oci::platform::Platform;
use ponton_registry::{Fetched, TagOrDigest};

use crate::list::parse_config;
use crate::remote::{Remote, error_of};
use crate::{Error, Images, PullOptions, Result};

/// Levels of indexes in indexes.
const MAX_INDEX_DEPTH: usize = 4;
/// Docker's manifest format 1, in its two forms.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// One image of a repository.
pub(crate) struct Resolved {
    pub(crate) manifest: Manifest,
    /// The manifest's digest and bytes.
    pub(crate) document: Fetched,
    /// The configuration's bytes.
    pub(crate) raw: Vec<u8>,
    pub(crate) config: ImageConfig,
}

/// What a pull reads on its way.
struct Resolver<'a> {
    images: &'a Images,
    from: &'a dyn Remote,
    seen: HashSet<Digest>,
}

impl Images {
    /// The images that `top` means, the one that gets the name first.
    pub(crate) fn resolve_images(
        &self,
        from: &dyn Remote,
        top: &Fetched,
        options: &PullOptions,
    ) -> Result<Vec<Resolved>> {
        let mut resolver = Resolver { images: self, from, seen: HashSet::new() };
        let host = Platform::host();
        let wanted = options.platform.as_ref().unwrap_or(&host);
        if !media_type::is_index(&top.descriptor.media_type) {
            let image = resolver.image(top.clone())?;
            let found = platform_of(&image.config);
            if options.platform.is_some() && !wanted.runs(&found) {
                return Err(Error::NotFoundInRegistry(format!(
                    "image with reference {}@{} was found but does not match the specified platform: wanted \
                     {wanted}, actual: {found}",
                    from.name(),
                    top.descriptor.digest
                )));
            }
            return Ok(vec![image]);
        }
        let mut candidates = Vec::new();
        resolver.candidates(top, 0, &mut candidates)?;
        let rank = |descriptor: &Descriptor| rank(wanted, descriptor.platform.as_ref());
        candidates.sort_by_key(rank);
        if !options.all_platforms {
            candidates.truncate(1);
            candidates.retain(|candidate| rank(candidate) < OTHER);
        }
        if candidates.is_empty() {
            return Err(Error::NotFoundInRegistry(format!(
                "no matching manifest for {wanted} in the manifest list entries of {}@{}",
                from.name(),
                top.descriptor.digest
            )));
        }
        candidates
            .iter()
            .map(|descriptor| {
                let document = resolver.document(descriptor)?;
                resolver.image(document)
            })
            .collect()
    }
}

impl Resolver<'_> {
    /// Manifests of images in an index, and in the indexes in it.
    fn candidates(&mut self, index: &Fetched, depth: usize, found: &mut Vec<Descriptor>) -> Result<()> {
        let what = format!("{}@{}", self.from.name(), index.descriptor.digest);
        if depth >= MAX_INDEX_DEPTH {
            return Err(Error::Invalid(format!("{what} has more than {MAX_INDEX_DEPTH} levels of indexes")));
        }
        let index = Index::from_slice(&index.bytes)
            .map_err(|error| Error::Invalid(format!("index {what}: {error}")))?;
        for descriptor in index.manifests {
            // Attestations and the like say of themselves that they run nowhere.
            let is_artifact = descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
                || descriptor.artifact_type.is_some();
            if is_artifact || !self.seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if self.seen.len() > self.images.limits.documents {
                return Err(Error::Invalid(format!(
                    "{what} names more than {} manifests",
                    self.images.limits.documents
                )));
            }
            if media_type::is_index(&descriptor.media_type) {
                let index = self.document(&descriptor)?;
                self.candidates(&index, depth + 1, found)?;
            } else if media_type::is_manifest(&descriptor.media_type) {
                found.push(descriptor);
            }
        }
        Ok(())
    }

    /// A manifest or index, from here or from the registry.
    fn document(&self, descriptor: &Descriptor) -> Result<Fetched> {
        let stored = self.images.store.content().read(&descriptor.digest);
        if let Ok(bytes) = stored
            && Digest::sha256_of(&bytes) == descriptor.digest
        {
            return Ok(Fetched { descriptor: descriptor.clone(), bytes });
        }
        let fetched = self.from.manifest(&TagOrDigest::Digest(descriptor.digest.clone()))?;
        if fetched.bytes.len() as u64 != descriptor.size {
            return Err(Error::Invalid(format!(
                "manifest {}@{} has {} bytes, its index says {}",
                self.from.name(),
                descriptor.digest,
                fetched.bytes.len(),
                descriptor.size
            )));
        }
        Ok(fetched)
    }

    fn image(&self, document: Fetched) -> Result<Resolved> {
        let what = format!("{}@{}", self.from.name(), document.descriptor.digest);
        let kind = &document.descriptor.media_type;
        if kind.starts_with(SCHEMA_1) {
            return Err(Error::Invalid(format!(
                "{what} is in version 1 of Docker's manifest format, which is obsolete: push it again with a \
                 newer Docker"
            )));
        }
        if !media_type::is_manifest(kind) {
            return Err(Error::Invalid(format!("{what} is no image: unknown media type {kind:?}")));
        }
        let manifest = Manifest::from_slice(&document.bytes)
            .map_err(|error| Error::Invalid(format!("manifest {what}: {error}")))?;
        self.check(&manifest, &what)?;
        let raw = self.config(&manifest.config, &what)?;
        let id = ImageId::from(manifest.config.digest.clone());
        let config = parse_config(&id, &raw)?;
        let (expected, found) = (config.rootfs.diff_ids.len(), manifest.layers.len());
        if expected != found {
            return Err(Error::Invalid(format!(
                "manifest {what} has {found} layers, its configuration {expected}"
            )));
        }
        Ok(Resolved { manifest, document, raw, config })
    }

    /// Refuses what is no image, and layers that nobody here can unpack.
    fn check(&self, manifest: &Manifest, what: &str) -> Result<()> {
        let kind = manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type);
        if !matches!(
            manifest.config.media_type.as_str(),
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream" | ""
        ) {
            return Err(Error::Invalid(format!("{what} is no image, but an artifact of type {kind:?}")));
        }
        let max = self.images.limits.layers;
        if manifest.layers.len() > max {
            return Err(Error::Invalid(format!(
                "{what} has {} layers: no more than {max} can be stacked",
                manifest.layers.len()
            )));
        }
        for layer in &manifest.layers {
            check_layer(layer, what)?;
        }
        Ok(())
    }

    fn config(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        if descriptor.digest.algorithm() != ponton_oci::digest::Algorithm::Sha256 {
            return Err(Error::Invalid(format!("{what} has a configuration that is not named by SHA-256")));
        }
        if let Ok(bytes) = self.images.store.content().read(&descriptor.digest)
            && Digest::sha256_of(&bytes) == descriptor.digest
        {
            return Ok(bytes);
        }
        let max = self.images.limits.config_bytes;
        if descriptor.size > max {
            return Err(Error::Invalid(format!(
                "{what} has a configuration of {} bytes: no more than {max} are allowed",
                descriptor.size
            )));
        }
        let mut bytes = Vec::new();
        self.from.blob(descriptor)?.take(max + 1).read_to_end(&mut bytes).map_err(|error| match error_of(
            error,
        ) {
            Ok(error) => Error::from(error),
            Err(source) => Error::Io { what: format!("read the configuration of {what}"), source },
        })?;
        let found = Digest::sha256_of(&bytes);
        if found != descriptor.digest {
            let expected = descriptor.digest.clone();
            return Err(Error::DigestMismatch { what: format!("configuration of {what}"), expected, found });
        }
        Ok(bytes)
    }
}

fn check_layer(layer: &Descriptor, what: &str) -> Result<()> {
    let kind = layer.media_type.as_str();
    let is_known = matches!(
        kind,
        media_type::OCI_LAYER
            | media_type::OCI_LAYER_GZIP
            | media_type::OCI_LAYER_ZSTD
            | media_type::DOCKER_LAYER
            | media_type::DOCKER_LAYER_GZIP
            | media_type::DOCKER_LAYER_ZSTD
    );
    if is_known {
        return Ok(());
    }
    let digest = &layer.digest;
    if kind.contains("foreign") || kind.contains("nondistributable") {
        return Err(Error::Invalid(format!(
            "layer {digest} of {what} is foreign: it is not in the registry, as those of Windows are not"
        )));
    }
    Err(Error::Invalid(format!("layer {digest} of {what} has an unknown media type {kind:?}")))
}

/// Ranks from here on are no match.
const OTHER: u8 = 4;

/// How well an entry of an index fits, the lowest best.
fn rank(wanted: &Platform, found: Option<&Platform>) -> u8 {
    let Some(found) = found else { return 3 };
    if !wanted.runs(found) {
        return OTHER;
    }
    match found.variant.as_str() {
        variant if variant == wanted.variant => 0,
        "" | "v1" | "v8" => 1,
        _ => 2,
    }
}

/// What an image runs on.
pub(crate) fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        ..Platform::default()
    }
}
