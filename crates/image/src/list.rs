//! Finding images, their names and their history.

use ponton_oci::digest::ImageId;
use ponton_oci::image_config::ImageConfig;
use ponton_oci::reference::Reference;
use ponton_store::ImageRecord;

use crate::{Error, HistoryItem, Image, ImageSummary, Images, Result};

impl Images {
    /// All images, newest first, without a look into their configurations: fast for thousands.
    pub fn summaries(&self) -> Result<Vec<ImageSummary>> {
        let mut names = self.store.images().references_by_image()?;
        let summary = |record: ImageRecord| ImageSummary {
            references: names.remove(&record.id).unwrap_or_default(),
            id: record.id,
            created_at: record.created_at,
            used_at: record.used_at,
            size: record.size,
            labels: record.labels,
            platform: record.platform,
            manifest: record.manifest,
        };
        Ok(self.store.images().list_without_layers()?.into_iter().map(summary).collect())
    }

    /// The image that a name, an id or the beginning of an id means.
    pub fn get(&self, name: &str) -> Result<Image> {
        let id = self.store.images().resolve(name)?;
        let record = self.store.images().get(&id)?.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let references = self.store.images().references_of(&id)?;
        self.image(record, references)
    }

    /// Gives an image one more name, taken from another image if that has it. `now` is in
    /// nanoseconds since the epoch.
    pub fn tag(&self, name: &str, target: &Reference, now: i64) -> Result<()> {
        if target.digest().is_some() {
            return Err(Error::Invalid("refusing to create a tag with a digest reference".to_owned()));
        }
        let id = self.store.images().resolve(name)?;
        self.store.images().tag(target, &id, now)?;
        Ok(())
    }

    /// How the image came about, newest first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        let image = self.get(name)?;
        let record = self.store.images().get(&image.id)?.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let mut layers = record.layers.iter();
        let mut items: Vec<HistoryItem> = image
            .config
            .history
            .iter()
            .map(|step| HistoryItem {
                id: None,
                created: step.created.clone(),
                created_by: step.created_by.clone().unwrap_or_default(),
                references: Vec::new(),
                size: if step.empty_layer { 0 } else { layers.next().map_or(0, |layer| layer.size) },
                comment: step.comment.clone().unwrap_or_default(),
            })
            .collect();
        items.reverse();
        if let Some(newest) = items.first_mut() {
            newest.id = Some(image.id);
            newest.references = image.references;
        }
        Ok(items)
    }

    fn image(&self, record: ImageRecord, references: Vec<Reference>) -> Result<Image> {
        let raw = self.store.content().read(record.id.digest())?;
        let config = parse_config(&record.id, &raw)?;
        Ok(Image {
            created: config.created.clone(),
            config,
            raw,
            references,
            size: record.size,
            chain: record.layers.into_iter().map(|layer| layer.chain_id).collect(),
            id: record.id,
        })
    }
}

pub(crate) fn parse_config(id: &ImageId, raw: &[u8]) -> Result<ImageConfig> {
    serde_json::from_slice(raw)
        .map_err(|error| Error::Invalid(format!("configuration of image {id}: {error}")))
}
