//! Volumes' records.

use rusqlite::{OptionalExtension as _, Row, params};

use crate::database::Database;
use crate::error::{Error, Result};

/// A volume as it is kept. The store does not read what is in the JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// The name; for an anonymous volume 64 hexadecimal digits.
    pub name: String,
    /// The driver, `local`.
    pub driver: String,
    /// When it was created, nanoseconds since the epoch.
    pub created_at: i64,
    /// Whether it goes with its container.
    pub anonymous: bool,
    /// Labels, options and what else belongs to it, JSON.
    pub record: String,
}

/// The volumes' records.
#[derive(Clone, Copy, Debug)]
pub struct Volumes<'a> {
    pub(crate) database: &'a Database,
}

impl Volumes<'_> {
    /// Adds a volume; says whether it is new. One that is there stays as it is.
    pub fn insert(&self, record: &VolumeRecord) -> Result<bool> {
        let VolumeRecord { name, driver, created_at, anonymous, record } = record;
        self.database.change("insert volume", name, |transaction| {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO volumes VALUES (?1, ?2, ?3, ?4, ?5)")
                .and_then(|mut insert| insert.execute(params![name, driver, created_at, anonymous, record]))
                .map(|inserted| inserted > 0)
                .map_err(Error::database("insert volume", name))
        })
    }

    /// The volume with this name.
    pub fn get(&self, name: &str) -> Result<Option<VolumeRecord>> {
        self.database
            .lock()
            .prepare_cached("SELECT * FROM volumes WHERE name = ?1")
            .and_then(|mut select| select.query_row([name], read).optional())
            .map_err(Error::database("read volume", name))
    }

    /// All volumes, by name.
    pub fn list(&self) -> Result<Vec<VolumeRecord>> {
        self.database
            .lock()
            .prepare_cached("SELECT * FROM volumes ORDER BY name")
            .and_then(|mut select| select.query_map((), read)?.collect())
            .map_err(Error::database("list", "volumes"))
    }

    /// Removes a volume's record; says whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool> {
        self.database.change("remove volume", name, |transaction| {
            transaction
                .prepare_cached("DELETE FROM volumes WHERE name = ?1")
                .and_then(|mut delete| delete.execute([name]))
                .map(|removed| removed > 0)
                .map_err(Error::database("remove volume", name))
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<VolumeRecord> {
    Ok(VolumeRecord {
        name: row.get(0)?,
        driver: row.get(1)?,
        created_at: row.get(2)?,
        anonymous: row.get(3)?,
        record: row.get(4)?,
    })
}
