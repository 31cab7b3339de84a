//! Images' records, their names and their layers.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use ponton_oci::{ChainId, DiffId, Digest, ImageId, ManifestDigest, Reference};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use crate::database::Database;
use crate::error::{Error, Result};

/// An image as it is kept; its configuration is the blob with the id's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The manifest it came with, which is a blob too.
    pub manifest: Option<ManifestDigest>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// When the image was made, by its configuration, nanoseconds since the epoch.
    pub created_at: i64,
    /// The layers, lowest first.
    pub layers: Vec<LayerRecord>,
}

/// A layer on top of its parents, unpacked by the snapshotter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// The layer with all below it.
    pub chain_id: ChainId,
    /// The layer's own uncompressed tar.
    pub diff_id: DiffId,
    /// What is below it.
    pub parent: Option<ChainId>,
    /// The blob it was unpacked from, if that is kept.
    pub blob: Option<Digest>,
    /// The blob's media type.
    pub media_type: String,
    /// The blob's size in bytes.
    pub blob_size: u64,
    /// Bytes of the unpacked layer.
    pub size: u64,
}

/// What the removal of an image leaves to be removed: the snapshots of `layers`, then `blobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedImage {
    /// The names that it had.
    pub references: Vec<Reference>,
    /// The layers that no other image has, the highest first.
    pub layers: Vec<LayerRecord>,
    /// The blobs that no other record names.
    pub blobs: Vec<Digest>,
}

/// The images' records.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    pub(crate) database: &'a Database,
}

impl Images<'_> {
    /// Adds an image and its layers, and gives it these names. What is there already stays, and
    /// names move from the images that had them.
    ///
    /// The blobs and the snapshots must be there before.
    pub fn put(&self, image: &ImageRecord, references: &[Reference], tagged_at: i64) -> Result<()> {
        self.database.change("insert image", &image.id, |transaction| {
            let failed = || Error::database("insert image", &image.id);
            let (id, manifest) = (image.id.to_string(), image.manifest.as_ref().map(ToString::to_string));
            let is_new = transaction
                .prepare_cached("INSERT OR IGNORE INTO images VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut insert| {
                    insert.execute(params![id, manifest, to_sql(image.size), image.created_at])
                })
                .map_err(failed())?;
            if is_new > 0 {
                for (position, layer) in image.layers.iter().enumerate() {
                    put_layer(transaction, layer).map_err(failed())?;
                    transaction
                        .prepare_cached("INSERT INTO image_layers VALUES (?1, ?2, ?3)")
                        .and_then(|mut insert| {
                            insert.execute(params![id, to_sql(position as u64), layer.chain_id.to_string()])
                        })
                        .map_err(failed())?;
                }
            }
            for reference in references {
                put_reference(transaction, reference, &id, tagged_at).map_err(failed())?;
            }
            Ok(())
        })
    }

    /// The image with this id.
    pub fn get(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        let connection = self.database.lock();
        let failed = || Error::database("read image", id);
        let image = connection
            .prepare_cached("SELECT * FROM images WHERE id = ?1")
            .and_then(|mut select| select.query_row([id.to_string()], read_image).optional())
            .map_err(failed())?;
        let Some(mut image) = image else { return Ok(None) };
        image.layers = read_layers(&connection, id).map_err(failed())?;
        Ok(Some(image))
    }

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let connection = self.database.lock();
        let failed = || Error::database("list", "images");
        let mut images: Vec<ImageRecord> = connection
            .prepare_cached("SELECT * FROM images ORDER BY created_at DESC, id")
            .and_then(|mut select| select.query_map((), read_image)?.collect())
            .map_err(failed())?;
        for image in &mut images {
            image.layers = read_layers(&connection, &image.id).map_err(failed())?;
        }
        Ok(images)
    }

    /// All names, and what they name.
    pub fn references(&self) -> Result<BTreeMap<Reference, ImageId>> {
        self.database
            .lock()
            .prepare_cached("SELECT name, image FROM image_references")
            .and_then(|mut select| {
                select.query_map((), |row| Ok((reference(row, 0)?, parse(row, 1)?)))?.collect()
            })
            .map_err(Error::database("list", "image references"))
    }

    /// An image's names, sorted.
    pub fn references_of(&self, id: &ImageId) -> Result<Vec<Reference>> {
        references_of(&self.database.lock(), id).map_err(Error::database("read names of", id))
    }

    /// When an image last got a name, nanoseconds since the epoch.
    pub fn tagged_at(&self, id: &ImageId) -> Result<Option<i64>> {
        self.database
            .lock()
            .prepare_cached("SELECT max(tagged_at) FROM image_references WHERE image = ?1")
            .and_then(|mut select| select.query_row([id.to_string()], |row| row.get(0)))
            .map_err(Error::database("read names of", id))
    }

    /// Gives an image a name; says which image had it before.
    pub fn tag(&self, name: &Reference, id: &ImageId, tagged_at: i64) -> Result<Option<ImageId>> {
        self.database.change("tag", name, |transaction| {
            let failed = || Error::database("tag", name);
            let exists = transaction
                .prepare_cached("SELECT 1 FROM images WHERE id = ?1")
                .and_then(|mut select| select.exists([id.to_string()]))
                .map_err(failed())?;
            if !exists {
                return Err(Error::NotFound { kind: "image", name: id.to_string() });
            }
            let before = named(transaction, name).map_err(failed())?;
            put_reference(transaction, name, &id.to_string(), tagged_at).map_err(failed())?;
            Ok(before)
        })
    }

    /// Takes a name away; says which image had it.
    pub fn untag(&self, name: &Reference) -> Result<Option<ImageId>> {
        self.database.change("untag", name, |transaction| {
            transaction
                .prepare_cached("DELETE FROM image_references WHERE name = ?1 RETURNING image")
                .and_then(|mut delete| delete.query_row([name.to_string()], |row| parse(row, 0)).optional())
                .map_err(Error::database("untag", name))
        })
    }

    /// The image that a user means: by full id, by name, by digest, or by the beginning of its id.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`].
    pub fn resolve(&self, name: &str) -> Result<ImageId> {
        let connection = self.database.lock();
        let failed = || Error::database("look up image", name);
        if let Ok(reference) = Reference::parse(name) {
            if let Some(id) = named(&connection, &reference).map_err(failed())? {
                return Ok(id);
            }
            if let Some(id) = named_by_digest(&connection, &reference).map_err(failed())? {
                return Ok(id);
            }
        }
        let beginning = name.strip_prefix("sha256:").unwrap_or(name);
        let not_found = || Error::NotFound { kind: "image", name: name.to_owned() };
        let is_hex = (1..=64).contains(&beginning.len())
            && beginning.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Err(not_found());
        }
        let from = format!("sha256:{beginning}");
        let to = format!("{from}g");
        let found: Vec<ImageId> = connection
            .prepare_cached("SELECT id FROM images WHERE id >= ?1 AND id < ?2 LIMIT 2")
            .and_then(|mut select| select.query_map([from, to], |row| parse(row, 0))?.collect())
            .map_err(failed())?;
        match <[ImageId; 1]>::try_from(found) {
            Ok([id]) => Ok(id),
            Err(found) if found.is_empty() => Err(not_found()),
            Err(_) => Err(Error::Ambiguous { kind: "image", name: name.to_owned() }),
        }
    }

    /// The layer with this chain id.
    pub fn layer(&self, chain_id: &ChainId) -> Result<Option<LayerRecord>> {
        self.database
            .lock()
            .prepare_cached("SELECT * FROM layers WHERE chain_id = ?1")
            .and_then(|mut select| select.query_row([chain_id.to_string()], read_layer).optional())
            .map_err(Error::database("read layer", chain_id))
    }

    /// All layers.
    pub fn layers(&self) -> Result<Vec<LayerRecord>> {
        self.database
            .lock()
            .prepare_cached("SELECT * FROM layers")
            .and_then(|mut select| select.query_map((), read_layer)?.collect())
            .map_err(Error::database("list", "layers"))
    }

    /// The images that have this layer.
    pub fn images_with_layer(&self, chain_id: &ChainId) -> Result<Vec<ImageId>> {
        self.database
            .lock()
            .prepare_cached("SELECT image FROM image_layers WHERE chain_id = ?1")
            .and_then(|mut select| select.query_map([chain_id.to_string()], |row| parse(row, 0))?.collect())
            .map_err(Error::database("read images of layer", chain_id))
    }

    /// Removes an image's record, its names, and the layers that no other image has.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such image.
    pub fn remove(&self, id: &ImageId) -> Result<RemovedImage> {
        self.database.change("remove image", id, |transaction| {
            let failed = || Error::database("remove image", id);
            // Names and layers' positions go with the image, so they are read before.
            let references = references_of(transaction, id).map_err(failed())?;
            let layers = read_layers(transaction, id).map_err(failed())?;
            let image = transaction
                .prepare_cached("DELETE FROM images WHERE id = ?1 RETURNING *")
                .and_then(|mut delete| delete.query_row([id.to_string()], read_image).optional())
                .map_err(failed())?
                .ok_or_else(|| Error::NotFound { kind: "image", name: id.to_string() })?;
            let mut removed = RemovedImage { references, ..RemovedImage::default() };
            let mut candidates = vec![id.digest().clone()];
            candidates.extend(image.manifest.map(Digest::from));
            for layer in layers.into_iter().rev() {
                if !remove_unused_layer(transaction, &layer).map_err(failed())? {
                    break;
                }
                candidates.extend(layer.blob.clone());
                removed.layers.push(layer);
            }
            for digest in candidates {
                if !is_blob_named(transaction, &digest).map_err(failed())? && !removed.blobs.contains(&digest)
                {
                    removed.blobs.push(digest);
                }
            }
            Ok(removed)
        })
    }

    /// All blobs that a record names.
    pub fn blobs(&self) -> Result<BTreeSet<Digest>> {
        self.database
            .lock()
            .prepare_cached(
                "SELECT id FROM images UNION SELECT manifest FROM images WHERE manifest NOT NULL
                 UNION SELECT blob FROM layers WHERE blob NOT NULL",
            )
            .and_then(|mut select| select.query_map((), |row| parse(row, 0))?.collect())
            .map_err(Error::database("list", "blobs"))
    }
}

fn put_layer(transaction: &Transaction<'_>, layer: &LayerRecord) -> rusqlite::Result<usize> {
    let LayerRecord { chain_id, diff_id, parent, blob, media_type, blob_size, size } = layer;
    transaction.prepare_cached("INSERT OR IGNORE INTO layers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
        params![
            chain_id.to_string(),
            diff_id.to_string(),
            parent.as_ref().map(ToString::to_string),
            blob.as_ref().map(ToString::to_string),
            media_type,
            to_sql(*blob_size),
            to_sql(*size),
        ],
    )
}

fn put_reference(
    transaction: &Transaction<'_>,
    name: &Reference,
    image: &str,
    tagged_at: i64,
) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO image_references VALUES (?1, ?2, ?3)")?
        .execute(params![name.to_string(), image, tagged_at])
}

fn named(connection: &Connection, name: &Reference) -> rusqlite::Result<Option<ImageId>> {
    connection
        .prepare_cached("SELECT image FROM image_references WHERE name = ?1")?
        .query_row([name.to_string()], |row| parse(row, 0))
        .optional()
}

/// The image that has the digest as its id or manifest, and a name in the same repository.
fn named_by_digest(connection: &Connection, name: &Reference) -> rusqlite::Result<Option<ImageId>> {
    let Some(digest) = name.digest() else { return Ok(None) };
    let ids: Vec<ImageId> = connection
        .prepare_cached("SELECT id FROM images WHERE id = ?1 OR manifest = ?1")?
        .query_map([digest.to_string()], |row| parse(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in ids {
        let references = references_of(connection, &id)?;
        if references.iter().any(|reference| reference.name() == name.name()) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn references_of(connection: &Connection, id: &ImageId) -> rusqlite::Result<Vec<Reference>> {
    connection
        .prepare_cached("SELECT name FROM image_references WHERE image = ?1 ORDER BY name")?
        .query_map([id.to_string()], |row| reference(row, 0))?
        .collect()
}

fn read_layers(connection: &Connection, id: &ImageId) -> rusqlite::Result<Vec<LayerRecord>> {
    connection
        .prepare_cached(
            "SELECT layers.* FROM image_layers JOIN layers USING (chain_id)
             WHERE image = ?1 ORDER BY position",
        )?
        .query_map([id.to_string()], read_layer)?
        .collect()
}

/// Removes a layer if no image has it and none is on top of it.
fn remove_unused_layer(transaction: &Transaction<'_>, layer: &LayerRecord) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached(
            "DELETE FROM layers WHERE chain_id = ?1
             AND NOT EXISTS (SELECT 1 FROM image_layers WHERE chain_id = ?1)
             AND NOT EXISTS (SELECT 1 FROM layers AS child WHERE child.parent = ?1)",
        )?
        .execute([layer.chain_id.to_string()])
        .map(|removed| removed > 0)
}

fn is_blob_named(connection: &Connection, digest: &Digest) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM images WHERE id = ?1 OR manifest = ?1
             UNION ALL SELECT 1 FROM layers WHERE blob = ?1",
        )?
        .exists([digest.to_string()])
}

fn read_image(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    Ok(ImageRecord {
        id: parse(row, 0)?,
        manifest: parse_optional(row, 1)?,
        size: from_sql(row.get(2)?),
        created_at: row.get(3)?,
        layers: Vec::new(),
    })
}

fn read_layer(row: &Row<'_>) -> rusqlite::Result<LayerRecord> {
    Ok(LayerRecord {
        chain_id: parse(row, 0)?,
        diff_id: parse(row, 1)?,
        parent: parse_optional(row, 2)?,
        blob: parse_optional(row, 3)?,
        media_type: row.get(4)?,
        blob_size: from_sql(row.get(5)?),
        size: from_sql(row.get(6)?),
    })
}

fn parse<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get::<_, String>(column)?.parse().map_err(|error| invalid(column, error))
}

fn parse_optional<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get::<_, Option<String>>(column)?
        .map(|text| text.parse().map_err(|error| invalid(column, error)))
        .transpose()
}

fn reference(row: &Row<'_>, column: usize) -> rusqlite::Result<Reference> {
    Reference::parse_exact(&row.get::<_, String>(column)?).map_err(|error| invalid(column, error))
}

fn invalid(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

/// SQLite's integers are signed; no disk holds so much that this matters.
fn to_sql(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn from_sql(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0)
}
