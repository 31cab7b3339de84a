//! Several layers become one.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ponton_archive::apply::{Applier, Options, Whiteouts};
use ponton_archive::create::layer_of_overlay;
use ponton_oci::digest::{DiffId, ImageId};
use ponton_oci::image_config::History;
use ponton_oci::reference::Reference;
use ponton_store::LayerRecord;
use ponton_sys::path::Root;

use crate::commit::{created_at, push_layer};
use crate::layer::{Unpacked, check_diff_id, failed};
use crate::{Error, Images, Result, pipeline};

/// What `squash` makes of an image.
#[derive(Debug, Clone, Default)]
pub struct SquashOptions {
    /// An image whose layers are the lowest of the squashed one's, and stay as they are; all layers
    /// become one if none.
    pub from: Option<String>,
    /// Name to give to the new image.
    pub reference: Option<Reference>,
    /// Comment of the history entry; empty for none.
    pub message: String,
    /// Time of creation, RFC 3339.
    pub created: String,
}

/// Names the trees that layers are merged in.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Images {
    /// Makes an image with the same files and the same configuration, but fewer layers. The history
    /// keeps the steps whose layers are gone.
    pub fn squash(&self, name: &str, options: &SquashOptions) -> Result<ImageId> {
        let created_at = created_at(&options.created)?;
        let id = self.store.images().resolve(name)?;
        let (mut config, mut stack) = self.parent(&id)?;
        let (kept_steps, kept_layers, from) = match &options.from {
            None => (0, 0, None),
            Some(base) => {
                let base = self.store.images().resolve(base)?;
                let (below, lower) = self.parent(&base)?;
                if !stack.records.starts_with(&lower.records) {
                    return Err(Error::Invalid(format!("image {id} does not stand on image {base}")));
                }
                (below.history.len(), lower.records.len(), Some(base))
            }
        };
        let upper = stack.records.split_off(kept_layers);
        let layer = self.merge(&id, &upper, kept_layers == 0)?;
        config.rootfs.diff_ids = stack.records.iter().map(|layer| layer.diff_id.clone()).collect();
        push_layer(layer, &mut config, &mut stack);
        config.created = Some(options.created.clone());
        config.history.iter_mut().skip(kept_steps).for_each(|step| step.empty_layer = true);
        let comment = match from {
            _ if !options.message.is_empty() => options.message.clone(),
            Some(base) => format!("merge {id} to {base}"),
            None => format!("create new from {id}"),
        };
        config.history.push(History {
            created: config.created.clone(),
            comment: Some(comment),
            empty_layer: stack.filled.is_empty(),
            ..History::default()
        });
        let raw = self.changed_config(&id, &config.rootfs.diff_ids, &config.history, &options.created)?;
        let references: Vec<_> = options.reference.iter().cloned().collect();
        let _guard = self.exclusive();
        self.commit(stack, &raw, created_at, &references, created_at)
    }

    /// One layer that does what several do. What is deleted matters only where something is below.
    fn merge(&self, id: &ImageId, layers: &[LayerRecord], is_lowest: bool) -> Result<Unpacked> {
        let scratch = Scratch::new(&self.store.temporary())?;
        let root =
            Root::open(&scratch.0).map_err(|error| Error::io("open directory of squash")(error.source))?;
        let whiteouts = if is_lowest { Whiteouts::Remove } else { Whiteouts::Merge };
        let mut applier = Applier::new(root, Options { whiteouts, ..Options::default() })
            .map_err(failed("squash layers"))?;
        for layer in layers {
            let what = format!("layer {}", layer.diff_id);
            let write = |output: &mut dyn std::io::Write| self.snapshotter.write_tar(&layer.chain_id, output);
            let (_, passed) =
                pipeline::run_written(write, |chunks| applier.apply(chunks, None)).map_err(failed(&what))?;
            check_diff_id(&what, &layer.diff_id, &DiffId::from(passed.digest))?;
        }
        let tree = File::open(&scratch.0).map_err(Error::io("open directory of squash"))?;
        self.unpack_written(&format!("squashed layers of image {id}"), |output| {
            layer_of_overlay(tree.as_fd(), output).map(drop)
        })
    }

    /// An image's configuration with other layers; what we don't know of it stays.
    fn changed_config(
        &self,
        id: &ImageId,
        diff_ids: &[DiffId],
        history: &[History],
        created: &str,
    ) -> Result<Vec<u8>> {
        let failed = |error| Error::Invalid(format!("configuration of image {id}: {error}"));
        let raw = self.store.content().read(id.digest())?;
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&raw).map_err(failed)?;
        config.insert("rootfs".to_owned(), serde_json::json!({"type": "layers", "diff_ids": diff_ids}));
        config.insert("history".to_owned(), serde_json::to_value(history).map_err(failed)?);
        config.insert("created".to_owned(), created.into());
        serde_json::to_vec(&config).map_err(failed)
    }
}

/// A directory for a while.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("squash-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create directory of squash"))?;
        let tree = path.join("fs");
        let scratch = Self(tree.clone());
        fs::DirBuilder::new().mode(0o755).create(&tree).map_err(Error::io("create directory of squash"))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = self.0.parent().map(fs::remove_dir_all);
    }
}
