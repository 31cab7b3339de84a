//! The list of images.

use std::collections::HashMap;
use std::sync::Arc;

use ponton_api::distribution::{Descriptor, Platform as ApiPlatform};
use ponton_api::filters::Filters;
use ponton_api::image::{ManifestImage, ManifestSize, ManifestSummary, Summary, UnpackedSize};
use ponton_image::Image;
use ponton_oci::digest::ChainId;
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;

use super::{created, digests, platform_of, tags, truth, until};
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
            let images: Vec<Image> =
                engine.images.list()?.into_iter().filter(|image| wanted.matches(image)).collect();
            engine.summaries(&images, &options)
        })
        .await
    }

    fn summaries(&self, images: &[Image], options: &ImageListOptions) -> Result<Vec<Summary>> {
        let containers = options.containers.then(|| self.containers_by_image());
        let shared = match options.shared_size {
            true => Some(self.shared_layers()?),
            false => None,
        };
        Ok(images
            .iter()
            .map(|image| {
                let id = image.id.to_string();
                let count = containers.as_ref().map(|counts| counts.get(&id).copied().unwrap_or_default());
                let sizes = shared.as_ref();
                let shared_size = sizes.map(|sizes| image.chain.iter().filter_map(|l| sizes.get(l)).sum());
                Summary {
                    repo_tags: tags(image),
                    repo_digests: digests(image),
                    created: created(image),
                    size: image.size as i64,
                    shared_size: shared_size.unwrap_or(-1),
                    labels: Some(image.config.config.labels.clone()).filter(|labels| !labels.is_empty()),
                    containers: count.unwrap_or(-1),
                    manifests: options.manifests.then(|| self.manifests(image)),
                    id,
                    ..Summary::default()
                }
            })
            .collect())
    }

    /// The layers that more than one image has, with their sizes.
    fn shared_layers(&self) -> Result<HashMap<ChainId, i64>> {
        let mut layers = HashMap::<ChainId, (u32, i64)>::new();
        for image in self.store.images().list()? {
            for layer in image.layers {
                layers.entry(layer.chain_id).or_insert((0, layer.size as i64)).0 += 1;
            }
        }
        let shared = layers.into_iter().filter(|(_, (count, _))| *count > 1);
        Ok(shared.map(|(chain, (_, size))| (chain, size)).collect())
    }

    /// The manifests of an image: of each there is one, that of its platform.
    pub(super) fn manifests(&self, image: &Image) -> Vec<ManifestSummary> {
        let containers = self.image_users(&image.id).into_iter().map(|user| user.container).collect();
        let descriptor = self.descriptor(image);
        let content = descriptor.size;
        let unpacked = image.size as i64;
        vec![ManifestSummary {
            id: descriptor.digest.clone(),
            descriptor,
            available: true,
            size: ManifestSize { content, total: content + unpacked },
            kind: "image".into(),
            image_data: Some(ManifestImage {
                platform: api_platform(&platform_of(image)),
                containers,
                size: UnpackedSize { unpacked },
            }),
        }]
    }

    /// The manifest that an image came with; for one that was made here, its configuration.
    pub(super) fn descriptor(&self, image: &Image) -> Descriptor {
        let platform = Some(api_platform(&platform_of(image)));
        let record = self.store.images().get(&image.id).ok().flatten();
        let manifest = record.and_then(|record| record.manifest);
        let read =
            manifest.and_then(|digest| Some((self.store.content().read(digest.digest()).ok()?, digest)));
        match read {
            Some((bytes, digest)) => Descriptor {
                media_type: media_type(&bytes),
                digest: digest.to_string(),
                size: bytes.len() as i64,
                platform,
                ..Descriptor::default()
            },
            None => Descriptor {
                media_type: ponton_oci::media_type::OCI_CONFIG.into(),
                digest: image.id.to_string(),
                size: image.raw.len() as i64,
                platform,
                ..Descriptor::default()
            },
        }
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
    typed.unwrap_or_else(|| ponton_oci::media_type::OCI_MANIFEST.into())
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
            filters.get(name).next().map(|name| Ok(created(&engine.images.get(name)?))).transpose()
        };
        Ok(Self {
            filters,
            before: created_of("before")?,
            since: created_of("since")?,
            until: until(filters)?,
            dangling: truth(filters, "dangling")?,
        })
    }

    fn matches(&self, image: &Image) -> bool {
        let time = created(image);
        self.before.is_none_or(|before| time < before)
            && self.since.is_none_or(|since| time > since)
            && self.until.is_none_or(|until| time < until)
            && self.dangling.is_none_or(|dangling| tags(image).is_empty() == dangling)
            && self.filters.matches_labels("label", &image.config.config.labels)
            && self.filters.matches("reference", |wanted| {
                image.references.iter().any(|name| reference_matches(name, wanted))
            })
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
