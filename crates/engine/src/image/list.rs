//! The list of images.

use std::collections::HashMap;
use std::sync::Arc;

use ponton_api::distribution::{Descriptor, Platform as ApiPlatform};
use ponton_api::filters::Filters;
use ponton_api::image::{ManifestImage, ManifestSize, ManifestSummary, Summary, UnpackedSize};
use ponton_image::ImageSummary;
use ponton_oci::digest::{ChainId, Digest, ImageId};
use ponton_oci::media_type::{OCI_CONFIG, OCI_MANIFEST};
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;
use ponton_store::ImageRecord;

use super::{created, digests, is_dangling, seconds, tags, truth, until};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::request::ImageListOptions;

const FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

impl Engine {
    /// The images, newest first.
    pub async fn image_list(self: &Arc<Self>, options: ImageListOptions) -> Result<Vec<Summary>> {
        options.filters.check_known(FILTERS).map_err(|error| Error::invalid(error.to_string()))?;
        let engine = Arc::clone(self);
        blocking(move || {
            let wanted = Wanted::new(&engine, &options.filters)?;
            let mut images = engine.images.summaries()?;
            images.retain(|image| wanted.matches(image));
            // An image that was asked for by a name is shown under this name alone.
            for image in &mut images {
                image.references.retain(|name| wanted.is_named(name));
            }
            engine.summaries(images, &options)
        })
        .await
    }

    fn summaries(&self, images: Vec<ImageSummary>, options: &ImageListOptions) -> Result<Vec<Summary>> {
        let containers = options.containers.then(|| self.containers_by_image());
        let shared = match options.shared_size {
            true => Some(self.shared_sizes()?),
            false => None,
        };
        let describe = |image: ImageSummary| {
            let shared_size = shared.as_ref().map(|sizes| sizes.get(&image.id).copied().unwrap_or_default());
            let descriptor = options.manifests.then(|| self.descriptor(&image));
            let id = image.id.to_string();
            let count = containers.as_ref().map(|counts| counts.get(&id).copied().unwrap_or_default());
            Summary {
                id,
                repo_tags: tags(&image.references),
                repo_digests: digests(&image.references),
                created: created(&image),
                size: image.size as i64,
                shared_size: shared_size.unwrap_or(-1),
                containers: count.unwrap_or(-1),
                manifests: descriptor.clone().map(|manifest| self.manifests(&image, manifest)),
                descriptor,
                labels: Some(image.labels).filter(|labels| !labels.is_empty()),
                ..Summary::default()
            }
        };
        Ok(images.into_iter().map(describe).collect())
    }

    /// When the image that a name means was made, in seconds since the epoch.
    fn image_created(&self, name: &str) -> Result<i64> {
        Ok(self.images.get(name)?.created.as_deref().map_or(0, seconds))
    }

    /// How many bytes of each image others have, too.
    fn shared_sizes(&self) -> Result<HashMap<ImageId, i64>> {
        let records = self.store.images().list()?;
        let mut users = HashMap::<&ChainId, u32>::new();
        for layer in records.iter().flat_map(|image| &image.layers) {
            *users.entry(&layer.chain_id).or_default() += 1;
        }
        let shared = |image: &ImageRecord| {
            let layers = image.layers.iter().filter(|layer| users.get(&layer.chain_id) > Some(&1));
            layers.map(|layer| layer.size as i64).sum()
        };
        Ok(records.iter().map(|image| (image.id.clone(), shared(image))).collect())
    }

    /// The manifests of an image: of each there is one, that of its platform.
    pub(super) fn manifests(&self, image: &ImageSummary, descriptor: Descriptor) -> Vec<ManifestSummary> {
        let containers = self.image_users(&image.id).into_iter().map(|user| user.container).collect();
        let content = descriptor.size;
        let unpacked = image.size as i64;
        vec![ManifestSummary {
            id: descriptor.digest.clone(),
            descriptor,
            available: true,
            size: ManifestSize { content, total: content + unpacked },
            kind: "image".into(),
            image_data: Some(ManifestImage {
                platform: api_platform(&image.platform),
                containers,
                size: UnpackedSize { unpacked },
            }),
        }]
    }

    /// The manifest that an image came with; for one that was made here, its configuration.
    pub(super) fn descriptor(&self, image: &ImageSummary) -> Descriptor {
        let read = |digest: &Digest| self.store.content().read(digest).unwrap_or_default();
        let (media_type, digest, size) = match &image.manifest {
            Some(manifest) => {
                let bytes = read(manifest.digest());
                (media_type(&bytes), manifest.to_string(), bytes.len())
            }
            None => (OCI_CONFIG.to_owned(), image.id.to_string(), read(image.id.digest()).len()),
        };
        let platform = Some(api_platform(&image.platform));
        Descriptor { media_type, digest, size: size as i64, platform, ..Descriptor::default() }
    }
}

/// What a manifest says it is.
fn media_type(manifest: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let typed = serde_json::from_slice::<Typed>(manifest).ok().and_then(|manifest| manifest.media_type);
    typed.unwrap_or_else(|| OCI_MANIFEST.into())
}

pub(super) fn api_platform(platform: &Platform) -> ApiPlatform {
    ApiPlatform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
    }
}

/// Docker's filters, looked up once.
struct Wanted<'a> {
    filters: &'a Filters,
    before: Option<i64>,
    since: Option<i64>,
    until: Option<i64>,
    dangling: Option<bool>,
}

impl<'a> Wanted<'a> {
    fn new(engine: &Engine, filters: &'a Filters) -> Result<Self> {
        let created_of = |name: &str| -> Result<Option<i64>> {
            filters.get(name).next().map(|name| engine.image_created(name)).transpose()
        };
        Ok(Self {
            filters,
            before: created_of("before")?,
            since: created_of("since")?,
            until: until(filters)?,
            dangling: truth(filters, "dangling")?,
        })
    }

    fn matches(&self, image: &ImageSummary) -> bool {
        let time = created(image);
        self.before.is_none_or(|before| time < before)
            && self.since.is_none_or(|since| time > since)
            && self.until.is_none_or(|until| time < until)
            && self.dangling.is_none_or(|dangling| is_dangling(image) == dangling)
            && self.filters.matches_labels("label", &image.labels)
            && self.filters.matches("reference", |wanted| {
                image.references.iter().any(|name| reference_matches(name, wanted))
            })
    }

    /// Whether a name is one of those that are asked for.
    fn is_named(&self, name: &Reference) -> bool {
        self.filters.matches("reference", |wanted| reference_matches(name, wanted))
    }
}

/// Docker's `reference` filter: a pattern of `*`, `?` and the name, with or without a tag; the name as
/// it is shown, or in full.
fn reference_matches(name: &Reference, pattern: &str) -> bool {
    let names = [name.familiar(), name.familiar_name(), name.to_string(), name.name()];
    names.iter().any(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

/// Whether `text` fits a pattern in which `*` stands for anything within one path part.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            let stop = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=stop).any(|taken| glob(rest, &text[taken..]))
        }
        Some((b'?', rest)) => text.first().is_some_and(|byte| *byte != b'/') && glob(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_match_patterns() {
        let name: Reference = "busybox:latest".parse().unwrap();
        for (pattern, expected) in [
            ("busybox", true),
            ("busybox:*", true),
            ("busy*", true),
            ("b?sybox:latest", true),
            ("docker.io/library/busybox", true),
            ("box", false),
            ("*/*", false),
        ] {
            assert_eq!(reference_matches(&name, pattern), expected, "{pattern}");
        }
    }
}
