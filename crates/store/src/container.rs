//! Containers' records.

use rusqlite::{ErrorCode, OptionalExtension as _, Row, Transaction, params};

use crate::database::Database;
use crate::error::{Error, Result};

/// A container as it is kept. The store does not read what is in the JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// The full id, 64 hexadecimal digits.
    pub id: String,
    /// The name, without Docker's slash.
    pub name: String,
    /// When it was created, nanoseconds since the epoch.
    pub created_at: i64,
    /// What it was created with, JSON.
    pub config: String,
    /// What has become of it, JSON.
    pub state: String,
}

/// The containers' records.
#[derive(Clone, Copy, Debug)]
pub struct Containers<'a> {
    pub(crate) database: &'a Database,
}

impl Containers<'_> {
    /// Adds a container.
    ///
    /// # Errors
    /// [`Error::NameInUse`] if another one has the name or the id.
    pub fn insert(&self, record: &ContainerRecord) -> Result<()> {
        let ContainerRecord { id, name, created_at, config, state } = record;
        self.database.change("insert container", id, |transaction| {
            transaction
                .prepare_cached("INSERT INTO containers VALUES (?1, ?2, ?3, ?4, ?5)")
                .and_then(|mut insert| insert.execute(params![id, name, created_at, config, state]))
                .map_err(|error| name_error(transaction, "insert container", name, error))?;
            Ok(())
        })
    }

    /// Replaces a container's state.
    pub fn update_state(&self, id: &str, state: &str) -> Result<()> {
        self.set("UPDATE containers SET state = ?2 WHERE id = ?1", id, state)
    }

    /// Replaces a container's configuration.
    pub fn update_config(&self, id: &str, config: &str) -> Result<()> {
        self.set("UPDATE containers SET config = ?2 WHERE id = ?1", id, config)
    }

    /// Replaces a container's configuration and state together.
    pub fn update(&self, id: &str, config: &str, state: &str) -> Result<()> {
        self.database.change("update container", id, |transaction| {
            let changed = transaction
                .prepare_cached("UPDATE containers SET config = ?2, state = ?3 WHERE id = ?1")
                .and_then(|mut update| update.execute(params![id, config, state]))
                .map_err(Error::database("update container", id))?;
            found(changed, id)
        })
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`Error::NameInUse`] if another one has it.
    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        self.database.change("rename container", id, |transaction| {
            let changed = transaction
                .prepare_cached("UPDATE containers SET name = ?2 WHERE id = ?1")
                .and_then(|mut update| update.execute(params![id, name]))
                .map_err(|error| name_error(transaction, "rename container", name, error))?;
            found(changed, id)
        })
    }

    /// Removes a container's record; says whether there was one.
    pub fn remove(&self, id: &str) -> Result<bool> {
        self.database.change("remove container", id, |transaction| {
            transaction
                .prepare_cached("DELETE FROM containers WHERE id = ?1")
                .and_then(|mut delete| delete.execute([id]))
                .map(|removed| removed > 0)
                .map_err(Error::database("remove container", id))
        })
    }

    /// The container with this full id.
    pub fn get(&self, id: &str) -> Result<Option<ContainerRecord>> {
        self.database
            .lock()
            .prepare_cached("SELECT * FROM containers WHERE id = ?1")
            .and_then(|mut select| select.query_row([id], read).optional())
            .map_err(Error::database("read container", id))
    }

    /// All containers, the newest first.
    pub fn list(&self) -> Result<Vec<ContainerRecord>> {
        self.database
            .lock()
            .prepare_cached("SELECT * FROM containers ORDER BY created_at DESC, id")
            .and_then(|mut select| select.query_map((), read)?.collect())
            .map_err(Error::database("list", "containers"))
    }

    fn set(self, statement: &'static str, id: &str, value: &str) -> Result<()> {
        self.database.change("update container", id, |transaction| {
            let changed = transaction
                .prepare_cached(statement)
                .and_then(|mut update| update.execute([id, value]))
                .map_err(Error::database("update container", id))?;
            found(changed, id)
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<ContainerRecord> {
    Ok(ContainerRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        created_at: row.get(2)?,
        config: row.get(3)?,
        state: row.get(4)?,
    })
}

fn found(changed: usize, id: &str) -> Result<()> {
    if changed == 0 {
        return Err(Error::NotFound { kind: "container", name: id.to_owned() });
    }
    Ok(())
}

/// Names who has the name, where that is what went wrong.
fn name_error(
    transaction: &Transaction<'_>,
    operation: &'static str,
    name: &str,
    error: rusqlite::Error,
) -> Error {
    let is_taken = matches!(&error, rusqlite::Error::SqliteFailure(code, _)
        if code.code == ErrorCode::ConstraintViolation);
    let holder = transaction
        .query_row("SELECT id FROM containers WHERE name = ?1", [name], |row| row.get(0))
        .optional();
    match holder {
        Ok(Some(holder)) if is_taken => Error::NameInUse { name: name.to_owned(), holder },
        _ => Error::database(operation, name)(error),
    }
}
