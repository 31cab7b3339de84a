//! An image from what a container changed.

use ponton_oci::digest::{Digest, ImageId};
use ponton_oci::image_config::{ContainerConfig, History, ImageConfig};
use ponton_oci::platform::Platform;
use ponton_oci::reference::Reference;

use crate::import::nanoseconds;
use crate::layer::{Stack, Unpacked};
use crate::list::parse_config;
use crate::{Error, Images, Result, change};

/// What `commit` makes of a container's changes.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image that the container was made from, whose layers and history come first.
    pub parent: Option<ImageId>,
    /// What a container of the new image runs with, before `changes`.
    pub config: ContainerConfig,
    /// Dockerfile instructions for the configuration, one per element (`CMD ["sh"]`).
    pub changes: Vec<String>,
    /// Author; empty for none.
    pub author: String,
    /// Comment of the history entry; empty for none.
    pub message: String,
    /// The container's command, for the history.
    pub created_by: String,
    /// Name to give to the image.
    pub reference: Option<Reference>,
    /// Time of creation, RFC 3339.
    pub created: String,
}

impl Images {
    /// Makes an image of a snapshot: the parent's layers, and one more of what the snapshot changed,
    /// if it changed anything. Nothing may write to the snapshot meanwhile, or the layer has some of
    /// it.
    pub fn commit_layer(&self, snapshot: &str, options: &CommitOptions) -> Result<ImageId> {
        let created_at = created_at(&options.created)?;
        let (mut config, mut stack) = match &options.parent {
            Some(parent) => self.parent(parent)?,
            None => (of_host(), Stack::default()),
        };
        config.config = options.config.clone();
        change::apply(&options.changes, &mut config.config)?;
        let what = format!("changes of container {snapshot}");
        let layer = self.unpack_written(&what, |output| self.snapshotter.write_changes(snapshot, output))?;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        config.created = Some(options.created.clone());
        config.author = text(&options.author);
        config.comment = text(&options.message);
        config.history.push(History {
            created: config.created.clone(),
            created_by: text(&options.created_by),
            author: config.author.clone(),
            comment: config.comment.clone(),
            empty_layer: is_empty(&layer),
        });
        push_layer(layer, &mut config, &mut stack);
        let raw = to_json(&config)?;
        let references: Vec<_> = options.reference.iter().cloned().collect();
        let _guard = self.exclusive();
        self.commit(stack, &raw, created_at, &references, created_at)
    }

    /// An image's configuration and layers, to put more on top.
    pub(crate) fn parent(&self, id: &ImageId) -> Result<(ImageConfig, Stack)> {
        let record = self.store.images().get(id)?.ok_or_else(|| Error::NotFound(id.to_string()))?;
        let config = parse_config(id, &self.store.content().read(id.digest())?)?;
        Ok((config, Stack { records: record.layers, filled: Vec::new() }))
    }
}

/// The configuration of an image that stands on no other.
pub(crate) fn of_host() -> ImageConfig {
    let Platform { architecture, os, variant, .. } = Platform::host();
    let variant = (!variant.is_empty()).then_some(variant);
    ImageConfig { architecture, os, variant, ..ImageConfig::default() }
}

/// Puts a layer on top, unless nothing is in it.
pub(crate) fn push_layer(layer: Unpacked, config: &mut ImageConfig, stack: &mut Stack) {
    if !is_empty(&layer) {
        config.rootfs.diff_ids.push(layer.info.diff_id.clone());
        stack.push(layer.info, Some(layer.writer));
    }
}

/// Whether it is the tar of two blocks of zeros that Docker knows as the empty layer.
fn is_empty(layer: &Unpacked) -> bool {
    layer.info.tar_size == 1024 && *layer.info.diff_id.digest() == Digest::sha256_of(&[0; 1024])
}

/// The time that a client or the daemon gave, in nanoseconds since the epoch.
pub(crate) fn created_at(created: &str) -> Result<i64> {
    nanoseconds(created)
        .ok_or_else(|| Error::Invalid(format!("time of creation {created:?} is not RFC 3339")))
}

pub(crate) fn to_json(config: &ImageConfig) -> Result<Vec<u8>> {
    serde_json::to_vec(config).map_err(|error| Error::Invalid(format!("configuration of the image: {error}")))
}
