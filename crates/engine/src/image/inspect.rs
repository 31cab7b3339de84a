//! All about one image.

use std::sync::Arc;

use jiff::Timestamp;
use ponton_api::container::{Config, GraphDriver};
use ponton_api::image::{HistoryItem, Inspect, Metadata, RootFs};
use ponton_image::{Image, ImageSummary};
use ponton_oci::reference::Reference;

use super::{check_platform, digests, platform_of, seconds, tags};
use crate::engine::{Engine, blocking};
use crate::error::Result;

impl Engine {
    /// All about one image, which has to be for `platform`; with its manifests if they are wanted.
    pub async fn image_inspect(
        self: &Arc<Self>,
        name: &str,
        platform: Option<&str>,
        manifests: bool,
    ) -> Result<Inspect> {
        let (images, asked) = (self.images.clone(), name.to_owned());
        let image = blocking(move || Ok(images.get(&asked)?)).await?;
        check_platform(name, &image, platform)?;
        let config = &image.config;
        let last = config.history.last().and_then(|entry| entry.comment.clone());
        let tagged = self.store.images().tagged_at(&image.id)?;
        let summary = self.summary_of(&image)?;
        let descriptor = self.descriptor(&summary);
        Ok(Inspect {
            id: image.id.to_string(),
            repo_tags: tags(&image.references),
            repo_digests: digests(&image.references),
            comment: config.comment.clone().or(last).unwrap_or_default(),
            created: image.created.clone().unwrap_or_default(),
            docker_version: config.docker_version.clone().unwrap_or_default(),
            author: config.author.clone().unwrap_or_default(),
            config: api_config(&image),
            architecture: config.architecture.clone(),
            variant: config.variant.clone().unwrap_or_default(),
            os: config.os.clone(),
            os_version: config.os_version.clone().unwrap_or_default(),
            size: image.size as i64,
            graph_driver: GraphDriver { data: None, name: self.snapshotter.name().to_owned() },
            root_fs: RootFs {
                r#type: "layers".into(),
                layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            metadata: Metadata {
                last_tag_time: tagged
                    .and_then(|time| Timestamp::from_nanosecond(i128::from(time)).ok())
                    .map_or_else(|| ponton_api::ZERO_TIME.into(), |time| time.to_string()),
            },
            manifests: manifests.then(|| self.manifests(&summary, descriptor.clone())),
            descriptor: Some(descriptor),
            ..Inspect::default()
        })
    }

    fn summary_of(&self, image: &Image) -> Result<ImageSummary> {
        let record = self.store.images().get(&image.id)?;
        let manifest = record.as_ref().and_then(|record| record.manifest.clone());
        Ok(ImageSummary {
            id: image.id.clone(),
            references: image.references.clone(),
            created_at: record.as_ref().map_or(0, |record| record.created_at),
            used_at: record.as_ref().map_or(0, |record| record.used_at),
            size: image.size,
            labels: image.config.config.labels.clone(),
            platform: platform_of(image),
            manifest,
        })
    }

    /// How an image came to be, which has to be for `platform`.
    pub async fn image_history(
        self: &Arc<Self>,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Vec<HistoryItem>> {
        let (images, name) = (self.images.clone(), name.to_owned());
        let platform = platform.map(str::to_owned);
        let history = blocking(move || {
            check_platform(&name, &images.get(&name)?, platform.as_deref())?;
            Ok(images.history(&name)?)
        })
        .await?;
        Ok(history
            .into_iter()
            .map(|item| HistoryItem {
                id: item.id.map_or_else(|| "<missing>".into(), |id| id.to_string()),
                created: item.created.as_deref().map_or(0, seconds),
                created_by: item.created_by,
                tags: match item.references.is_empty() {
                    true => None,
                    false => Some(item.references.iter().map(Reference::familiar).collect()),
                },
                size: item.size as i64,
                comment: item.comment,
            })
            .collect())
    }
}

/// The image's configuration in the API's shape: the two share their names in JSON.
fn api_config(image: &Image) -> Config {
    serde_json::to_value(&image.config.config)
        .ok()
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}
