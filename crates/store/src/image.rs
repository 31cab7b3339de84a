//! Images' records and their names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ponton_oci::{Digest, ImageConfig, ImageId, ManifestDigest, Platform, Reference};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::layer::{LAYER, LayerBlob, LayerRecord, put_blob, put_layer, read_layer, remove_blobs_of};
use crate::row::{from_sql, parse, parse_optional, reference, to_sql};

/// The columns that [`read_image`] reads.
const IMAGE: &str = "id, manifest, size, created_at, used_at, platform, labels";

/// An image as it is kept; its configuration is the blob with the id's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The manifest it last came or went with, which is a blob too.
    pub manifest: Option<ManifestDigest>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// When the image was made, by its configuration, nanoseconds since the epoch.
    pub created_at: i64,
    /// When it was last made, pulled, named or used, nanoseconds since the epoch.
    pub used_at: i64,
    /// What it runs on, by its configuration.
    pub platform: Platform,
    /// Its configuration's labels.
    pub labels: BTreeMap<String, String>,
    /// The layers, lowest first.
    pub layers: Vec<LayerRecord>,
}

impl ImageRecord {
    /// An image with this configuration and no layers yet.
    pub fn new(id: ImageId, config: &ImageConfig, created_at: i64, used_at: i64) -> Self {
        let platform = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            os_version: config.os_version.clone().unwrap_or_default(),
            os_features: Vec::new(),
            variant: config.variant.clone().unwrap_or_default(),
        };
        let labels = config.config.labels.clone();
        Self { id, manifest: None, size: 0, created_at, used_at, platform, labels, layers: Vec::new() }
    }
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
    /// Adds an image with its layers and their blobs, and gives it these names. What is there already
    /// stays, except that the image's manifest and time of use become the new ones; names move from
    /// the images that had them.
    ///
    /// Blobs and snapshots must be there before.
    pub fn put(
        &self,
        image: &ImageRecord,
        blobs: &[LayerBlob],
        references: &[Reference],
        tagged_at: i64,
    ) -> Result<()> {
        self.database.change("insert image", &image.id, |transaction| {
            put_image(transaction, image)
                .and_then(|()| blobs.iter().try_for_each(|blob| put_blob(transaction, blob)))
                .and_then(|()| {
                    let id = image.id.to_string();
                    references.iter().try_for_each(|name| put_reference(transaction, name, &id, tagged_at))
                })
                .map_err(Error::database("insert image", &image.id))
        })
    }

    /// The image with this id.
    pub fn get(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        let connection = self.database.lock();
        let failed = || Error::database("read image", id);
        let image = connection
            .prepare_cached(&format!("SELECT {IMAGE} FROM images WHERE id = ?1"))
            .and_then(|mut select| select.query_row([id.to_string()], read_image).optional())
            .map_err(failed())?;
        let Some(mut image) = image else { return Ok(None) };
        image.layers = read_layers(&connection, id).map_err(failed())?;
        Ok(Some(image))
    }

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let mut images = self.list_without_layers()?;
        let mut layers: HashMap<ImageId, Vec<LayerRecord>> = HashMap::new();
        let connection = self.database.lock();
        connection
            .prepare_cached(&format!(
                "SELECT {LAYER}, image FROM image_layers JOIN layers USING (chain_id)
                 ORDER BY image, position"
            ))
            .and_then(|mut select| {
                let mut rows = select.query(())?;
                while let Some(row) = rows.next()? {
                    layers.entry(parse(row, 5)?).or_default().push(read_layer(row)?);
                }
                Ok(())
            })
            .map_err(Error::database("list", "layers of images"))?;
        for image in &mut images {
            image.layers = layers.remove(&image.id).unwrap_or_default();
        }
        Ok(images)
    }

    /// All images, the newest first, with `layers` left empty: fast for thousands.
    pub fn list_without_layers(&self) -> Result<Vec<ImageRecord>> {
        self.database
            .lock()
            .prepare_cached(&format!("SELECT {IMAGE} FROM images ORDER BY created_at DESC, id"))
            .and_then(|mut select| select.query_map((), read_image)?.collect())
            .map_err(Error::database("list", "images"))
    }

    /// Notes when images were last used; an earlier time than the known one is not taken.
    pub fn touch(&self, used: &[(ImageId, i64)]) -> Result<()> {
        self.database.change("touch", "images", |transaction| {
            used.iter()
                .try_for_each(|(id, used_at)| {
                    transaction
                        .prepare_cached("UPDATE images SET used_at = max(used_at, ?2) WHERE id = ?1")?
                        .execute(params![id.to_string(), used_at])
                        .map(drop)
                })
                .map_err(Error::database("touch", "images"))
        })
    }

    /// Notes with which manifest, whose blob is there, an image went to a registry, in which forms
    /// its layers went, and the name by digest that it has there.
    pub fn pushed(
        &self,
        id: &ImageId,
        manifest: &ManifestDigest,
        blobs: &[LayerBlob],
        name: &Reference,
        now: i64,
    ) -> Result<()> {
        self.database.change("note the push of", name, |transaction| {
            let id = id.to_string();
            transaction
                .prepare_cached("UPDATE images SET manifest = ?2, used_at = max(used_at, ?3) WHERE id = ?1")
                .and_then(|mut update| update.execute(params![id, manifest.to_string(), now]))
                .and_then(|_| blobs.iter().try_for_each(|blob| put_blob(transaction, blob)))
                .and_then(|()| put_reference(transaction, name, &id, now))
                .map_err(Error::database("note the push of", name))
        })
    }

    /// Writes down what the configuration says of an image from an older database.
    pub(crate) fn describe(self, id: &ImageId, config: &ImageConfig) -> Result<()> {
        let described = ImageRecord::new(id.clone(), config, 0, 0);
        self.database.change("describe", id, |transaction| {
            transaction
                .prepare_cached("UPDATE images SET platform = ?2, labels = ?3 WHERE id = ?1")
                .and_then(|mut update| {
                    update.execute(params![
                        id.to_string(),
                        json(&described.platform),
                        json(&described.labels)
                    ])
                })
                .map(drop)
                .map_err(Error::database("describe", id))
        })
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

    /// All names, sorted, by what they name: fast for thousands.
    pub fn references_by_image(&self) -> Result<HashMap<ImageId, Vec<Reference>>> {
        let mut names = HashMap::<_, Vec<_>>::new();
        self.database
            .lock()
            .prepare_cached("SELECT name, image FROM image_references ORDER BY name")
            .and_then(|mut select| {
                let mut rows = select.query(())?;
                while let Some(row) = rows.next()? {
                    names.entry(parse(row, 1)?).or_default().push(reference(row, 0)?);
                }
                Ok(())
            })
            .map_err(Error::database("list", "image references"))?;
        Ok(names)
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
            let named_now = transaction
                .prepare_cached("UPDATE images SET used_at = max(used_at, ?2) WHERE id = ?1")
                .and_then(|mut update| update.execute(params![id.to_string(), tagged_at]))
                .map_err(failed())?;
            if named_now == 0 {
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
                .prepare_cached(&format!("DELETE FROM images WHERE id = ?1 RETURNING {IMAGE}"))
                .and_then(|mut delete| delete.query_row([id.to_string()], read_image).optional())
                .map_err(failed())?
                .ok_or_else(|| Error::NotFound { kind: "image", name: id.to_string() })?;
            let mut candidates = BTreeSet::from([id.digest().clone()]);
            candidates.extend(image.manifest.map(Digest::from));
            candidates.extend(references.iter().filter_map(|name| name.digest().cloned()));
            let mut removed = RemovedImage { references, ..RemovedImage::default() };
            for layer in layers.into_iter().rev() {
                if !remove_unused_layer(transaction, &layer).map_err(failed())? {
                    break;
                }
                candidates.extend(remove_blobs_of(transaction, &layer.diff_id).map_err(failed())?);
                removed.layers.push(layer);
            }
            for digest in candidates {
                if !is_blob_named(transaction, &digest).map_err(failed())? {
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
                 UNION SELECT digest FROM layer_blobs WHERE kept
                 UNION SELECT substr(name, instr(name, '@') + 1) FROM image_references
                 WHERE instr(name, '@')",
            )
            .and_then(|mut select| select.query_map((), |row| parse(row, 0))?.collect())
            .map_err(Error::database("list", "blobs"))
    }

    /// Whether a record names the blob.
    pub fn is_blob_named(&self, digest: &Digest) -> Result<bool> {
        is_blob_named(&self.database.lock(), digest).map_err(Error::database("look for uses of", digest))
    }
}

fn put_image(transaction: &Transaction<'_>, image: &ImageRecord) -> rusqlite::Result<()> {
    let (id, manifest) = (image.id.to_string(), image.manifest.as_ref().map(ToString::to_string));
    let is_new = transaction
        .prepare_cached("INSERT OR IGNORE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            id,
            manifest,
            to_sql(image.size),
            image.created_at,
            image.used_at,
            json(&image.platform),
            json(&image.labels)
        ])?;
    if is_new == 0 {
        transaction
            .prepare_cached(
                "UPDATE images SET manifest = coalesce(?2, manifest), used_at = max(used_at, ?3) WHERE id = ?1",
            )?
            .execute(params![id, manifest, image.used_at])?;
        return Ok(());
    }
    for (position, layer) in image.layers.iter().enumerate() {
        put_layer(transaction, layer)?;
        transaction.prepare_cached("INSERT INTO image_layers VALUES (?1, ?2, ?3)")?.execute(params![
            id,
            to_sql(position as u64),
            layer.chain_id.to_string()
        ])?;
    }
    Ok(())
}

fn put_reference(
    transaction: &Transaction<'_>,
    name: &Reference,
    image: &str,
    tagged_at: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO image_references VALUES (?1, ?2, ?3)")?
        .execute(params![name.to_string(), image, tagged_at])
        .map(drop)
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
    if name.tag().is_some()
        && let Some(id) = named(connection, &name.with_digest(digest.clone()))?
    {
        return Ok(Some(id));
    }
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
        .prepare_cached(&format!(
            "SELECT {LAYER} FROM image_layers JOIN layers USING (chain_id)
             WHERE image = ?1 ORDER BY position"
        ))?
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
             UNION ALL SELECT 1 FROM layer_blobs WHERE digest = ?1 AND kept
             UNION ALL SELECT 1 FROM image_references
             WHERE instr(name, '@') AND substr(name, instr(name, '@') + 1) = ?1",
        )?
        .exists([digest.to_string()])
}

fn read_image(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    Ok(ImageRecord {
        id: parse(row, 0)?,
        manifest: parse_optional(row, 1)?,
        size: from_sql(row.get(2)?),
        created_at: row.get(3)?,
        used_at: row.get(4)?,
        // Only listed: what cannot be read is as good as unknown.
        platform: serde_json::from_str(row.get_ref(5)?.as_str()?).unwrap_or_default(),
        labels: serde_json::from_str(row.get_ref(6)?.as_str()?).unwrap_or_default(),
        layers: Vec::new(),
    })
}

/// Maps of text and the like, whose writing cannot fail.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
