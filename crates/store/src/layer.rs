//! Layers' records, and the blobs in which registries have them.

use ponton_oci::{ChainId, DiffId, Digest, ImageId};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::error::{Error, Result};
use crate::image::Images;
use crate::row::{from_sql, parse, parse_optional, to_sql};

/// The columns that [`read_layer`] reads.
pub(crate) const LAYER: &str = "chain_id, diff_id, parent, layers.size, tar_size";
const BLOB: &str = "diff_id, digest, media_type, size, kept";

/// A layer on top of its parents, unpacked by the snapshotter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// The layer with all below it.
    pub chain_id: ChainId,
    /// The layer's own uncompressed tar.
    pub diff_id: DiffId,
    /// What is below it.
    pub parent: Option<ChainId>,
    /// Bytes of the unpacked layer.
    pub size: u64,
    /// Bytes of its uncompressed tar.
    pub tar_size: u64,
}

/// A form in which registries have a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// What it is when it is uncompressed.
    pub diff_id: DiffId,
    /// Its own digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// Whether its content is kept as a blob.
    pub kept: bool,
    /// A repository that has it, with its registry (`docker.io/library/busybox`).
    pub source: Option<String>,
}

impl Images<'_> {
    /// The layer with this chain id.
    pub fn layer(&self, chain_id: &ChainId) -> Result<Option<LayerRecord>> {
        self.database
            .lock()
            .prepare_cached(&format!("SELECT {LAYER} FROM layers WHERE chain_id = ?1"))
            .and_then(|mut select| select.query_row([chain_id.to_string()], read_layer).optional())
            .map_err(Error::database("read layer", chain_id))
    }

    /// All layers.
    pub fn layers(&self) -> Result<Vec<LayerRecord>> {
        self.database
            .lock()
            .prepare_cached(&format!("SELECT {LAYER} FROM layers"))
            .and_then(|mut select| select.query_map((), read_layer)?.collect())
            .map_err(Error::database("list", "layers"))
    }

    /// The layers, in whatever place of a stack, that have this content.
    pub fn layers_with(&self, diff_id: &DiffId) -> Result<Vec<LayerRecord>> {
        self.database
            .lock()
            .prepare_cached(&format!("SELECT {LAYER} FROM layers WHERE diff_id = ?1"))
            .and_then(|mut select| select.query_map([diff_id.to_string()], read_layer)?.collect())
            .map_err(Error::database("read layers with", diff_id))
    }

    /// The images that have this layer.
    pub fn images_with_layer(&self, chain_id: &ChainId) -> Result<Vec<ImageId>> {
        self.database
            .lock()
            .prepare_cached("SELECT image FROM image_layers WHERE chain_id = ?1")
            .and_then(|mut select| select.query_map([chain_id.to_string()], |row| parse(row, 0))?.collect())
            .map_err(Error::database("read images of layer", chain_id))
    }

    /// The forms in which registries have a layer, those first whose content is kept. The sources
    /// are left out.
    pub fn blobs_of(&self, diff_id: &DiffId) -> Result<Vec<LayerBlob>> {
        self.database
            .lock()
            .prepare_cached(&format!("SELECT {BLOB} FROM layer_blobs WHERE diff_id = ?1 ORDER BY kept DESC"))
            .and_then(|mut select| select.query_map([diff_id.to_string()], read_blob)?.collect())
            .map_err(Error::database("read blobs of layer", diff_id))
    }

    /// All layers' blobs. The sources are left out.
    pub fn layer_blobs(&self) -> Result<Vec<LayerBlob>> {
        self.database
            .lock()
            .prepare_cached(&format!("SELECT {BLOB} FROM layer_blobs"))
            .and_then(|mut select| select.query_map((), read_blob)?.collect())
            .map_err(Error::database("list", "layers' blobs"))
    }

    /// Notes that the content of a layer's blob is not kept any more.
    pub fn forget_content(&self, digest: &Digest) -> Result<()> {
        self.database.change("forget content of", digest, |transaction| {
            transaction
                .prepare_cached("UPDATE layer_blobs SET kept = 0 WHERE digest = ?1")
                .and_then(|mut update| update.execute([digest.to_string()]))
                .map(drop)
                .map_err(Error::database("forget content of", digest))
        })
    }

    /// The repositories that are known to have a blob, with their registries.
    pub fn sources_of(&self, digest: &Digest) -> Result<Vec<String>> {
        self.database
            .lock()
            .prepare_cached("SELECT repository FROM blob_sources WHERE digest = ?1 ORDER BY repository")
            .and_then(|mut select| select.query_map([digest.to_string()], |row| row.get(0))?.collect())
            .map_err(Error::database("read sources of", digest))
    }
}

pub(crate) fn put_layer(transaction: &Transaction<'_>, layer: &LayerRecord) -> rusqlite::Result<()> {
    let LayerRecord { chain_id, diff_id, parent, size, tar_size } = layer;
    transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO layers (chain_id, diff_id, parent, size, tar_size)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            chain_id.to_string(),
            diff_id.to_string(),
            parent.as_ref().map(ToString::to_string),
            to_sql(*size),
            to_sql(*tar_size),
        ])
        .map(drop)
}

pub(crate) fn put_blob(transaction: &Transaction<'_>, blob: &LayerBlob) -> rusqlite::Result<()> {
    let digest = blob.digest.to_string();
    transaction
        .prepare_cached(
            "INSERT INTO layer_blobs VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET kept = max(kept, excluded.kept)",
        )?
        .execute(params![blob.diff_id.to_string(), digest, blob.media_type, to_sql(blob.size), blob.kept])?;
    if let Some(source) = &blob.source {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO blob_sources VALUES (?1, ?2)")?
            .execute(params![digest, source])?;
    }
    Ok(())
}

/// Removes what is known of a layer's blobs if no layer has that content any more; gives the blobs
/// that were kept.
pub(crate) fn remove_blobs_of(
    transaction: &Transaction<'_>,
    diff_id: &DiffId,
) -> rusqlite::Result<Vec<Digest>> {
    let removed: Vec<LayerBlob> = transaction
        .prepare_cached(&format!(
            "DELETE FROM layer_blobs WHERE diff_id = ?1
             AND NOT EXISTS (SELECT 1 FROM layers WHERE diff_id = ?1) RETURNING {BLOB}"
        ))?
        .query_map([diff_id.to_string()], read_blob)?
        .collect::<rusqlite::Result<_>>()?;
    for blob in &removed {
        transaction
            .prepare_cached(
                "DELETE FROM blob_sources WHERE digest = ?1
                 AND NOT EXISTS (SELECT 1 FROM layer_blobs WHERE digest = ?1)",
            )?
            .execute([blob.digest.to_string()])?;
    }
    Ok(removed.into_iter().filter(|blob| blob.kept).map(|blob| blob.digest).collect())
}

pub(crate) fn read_layer(row: &Row<'_>) -> rusqlite::Result<LayerRecord> {
    Ok(LayerRecord {
        chain_id: parse(row, 0)?,
        diff_id: parse(row, 1)?,
        parent: parse_optional(row, 2)?,
        size: from_sql(row.get(3)?),
        tar_size: from_sql(row.get(4)?),
    })
}

fn read_blob(row: &Row<'_>) -> rusqlite::Result<LayerBlob> {
    Ok(LayerBlob {
        diff_id: parse(row, 0)?,
        digest: parse(row, 1)?,
        media_type: row.get(2)?,
        size: from_sql(row.get(3)?),
        kept: row.get(4)?,
        source: None,
    })
}
