//! The one SQLite database, `meta.db`.
//!
//! ```text
//! images            id (of its configuration)  manifest?  size  created_at  used_at  platform  labels (JSON)
//!   image_references  name ──> image  tagged_at        docker.io/library/busybox:latest, …/busybox@sha256:…
//!   image_layers      image ──> chain_id  position     lowest is 0
//! layers            chain_id  diff_id  parent?  size  tar_size
//! layer_blobs       diff_id  digest  media_type  size  kept      forms in which registries have a layer
//! blob_sources      digest  repository                           where a layer's blob is known to be
//! containers        id  name (unique)  created_at  config (JSON)  state (JSON)
//! volumes           name  driver  created_at  anonymous  record (JSON)
//! ```
//!
//! Times are nanoseconds since the epoch, sizes are bytes, digests are text. The journal is a WAL
//! with `synchronous=NORMAL`: a killed process loses nothing, a power cut may lose the last changes
//! but never damages what was before. The WAL is folded into the database by a thread of its own,
//! so that no writer waits for the disk.
//!
//! When the disk is full, a change gets the space of the [ballast](crate::ballast), and then that of
//! the WAL's frames which are folded in already: a container's end and its removal can be written
//! down even then.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::ballast::Ballast;
use crate::error::{Error, Result};

const SCHEMA_VERSION: i64 = 2;
const SCHEMA: &str = "
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    manifest TEXT,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    platform TEXT NOT NULL,
    labels TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE image_references (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    tagged_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX image_references_by_image ON image_references(image);
CREATE TABLE layers (
    chain_id TEXT PRIMARY KEY,
    diff_id TEXT NOT NULL,
    parent TEXT REFERENCES layers(chain_id),
    size INTEGER NOT NULL,
    tar_size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_parent ON layers(parent);
CREATE INDEX layers_by_diff_id ON layers(diff_id);
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    PRIMARY KEY (diff_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_digest ON layer_blobs(digest);
CREATE TABLE blob_sources (
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, repository)
) STRICT, WITHOUT ROWID;
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    chain_id TEXT NOT NULL REFERENCES layers(chain_id),
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_chain_id ON image_layers(chain_id);
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    config TEXT NOT NULL,
    state TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    driver TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    anonymous INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// From schema 1, whose layers knew one blob each and called the size of a layer's tar `blob_size`
/// where they had none. What the configurations say is filled in by [`Images::describe`].
///
/// [`Images::describe`]: crate::Images::describe
const FROM_1: &str = "
ALTER TABLE images ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN platform TEXT NOT NULL DEFAULT '';
ALTER TABLE images ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
UPDATE images SET used_at =
    coalesce((SELECT max(tagged_at) FROM image_references WHERE image = id), created_at);
DROP INDEX layers_by_blob;
ALTER TABLE layers DROP COLUMN blob;
ALTER TABLE layers DROP COLUMN media_type;
ALTER TABLE layers RENAME COLUMN blob_size TO tar_size;
CREATE INDEX layers_by_diff_id ON layers(diff_id);
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    PRIMARY KEY (diff_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_digest ON layer_blobs(digest);
CREATE TABLE blob_sources (
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, repository)
) STRICT, WITHOUT ROWID;
";

/// After so many changes the WAL is folded into the database.
const CHANGES_PER_CHECKPOINT: u32 = 500;
/// A WAL longer than this is begun anew.
const FRAMES_MAX: i64 = 2000;
/// Other programs (`sqlite3 meta.db`) may hold a lock for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// So often it is tried to get the ballast back.
const BALLAST_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Database {
    connection: Mutex<Connection>,
    changes: AtomicU32,
    checkpoint: SyncSender<()>,
    ballast: Ballast,
}

impl Database {
    pub(crate) fn open(path: &Path, ballast: Ballast) -> Result<Self> {
        let mut connection = connect(path).map_err(Error::database("open", path.display()))?;
        prepare_schema(&mut connection, path)?;
        let (checkpoint, due) = sync_channel(1);
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn({
                let (path, ballast) = (path.clone(), ballast.clone());
                move || checkpoint_when_due(&path, &ballast, &due)
            })
            .map_err(Error::io("start a thread for", &path))?;
        Ok(Self { connection: Mutex::new(connection), changes: AtomicU32::new(0), checkpoint, ballast })
    }

    /// The connection, to read.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held rolled its transaction back; the connection is sound.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong, one sentence each.
    pub(crate) fn check(&self) -> Result<Vec<String>> {
        let connection = self.lock();
        let mut found: Vec<String> = connection
            .prepare("PRAGMA integrity_check")
            .and_then(|mut check| check.query_map((), |row| row.get(0))?.collect())
            .map_err(Error::database("check", "integrity"))?;
        found.retain(|line| line != "ok");
        let dangling = connection
            .prepare("PRAGMA foreign_key_check")
            .and_then(|mut check| {
                let names = |row: &rusqlite::Row<'_>| {
                    Ok(format!("a record of {} names a missing one of {}", text(row, 0)?, text(row, 2)?))
                };
                check.query_map((), names)?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .map_err(Error::database("check", "foreign keys"))?;
        found.extend(dangling);
        Ok(found)
    }

    /// Makes a change, whole or not at all. It may be tried more than once.
    pub(crate) fn change<T>(
        &self,
        operation: &'static str,
        object: &(impl ToString + ?Sized),
        change: impl Fn(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let attempt = |connection: &mut Connection| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(Error::database(operation, object.to_string()))?;
            let done = change(&transaction)?;
            transaction.commit().map_err(Error::database(operation, object.to_string()))?;
            Ok(done)
        };
        let full = |result: &Result<T>| matches!(result, Err(error) if error.is_out_of_space());
        let mut result = attempt(&mut connection);
        if full(&result) && self.ballast.give_up() {
            tracing::warn!(path = %self.ballast.path().display(), "the disk is full: the ballast is given up");
            // The thread that folds the WAL in takes the ballast on again.
            let _ = self.checkpoint.try_send(());
            result = attempt(&mut connection);
        }
        if full(&result) && checkpoint(&connection, "PRAGMA wal_checkpoint(RESTART)").is_ok() {
            result = attempt(&mut connection);
        }
        drop(connection);
        if self.changes.fetch_add(1, Ordering::Relaxed) % CHANGES_PER_CHECKPOINT == CHANGES_PER_CHECKPOINT - 1
        {
            // Full means that one is due already.
            let _ = self.checkpoint.try_send(());
        }
        result
    }
}

fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    row.get(column)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;
         PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=0;
         PRAGMA journal_size_limit=1048576; PRAGMA cache_size=-1024;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn prepare_schema(connection: &mut Connection, path: &Path) -> Result<()> {
    let failed = || Error::database("prepare the schema of", path.display());
    let version: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0)).map_err(failed())?;
    let mut install = |statements| {
        let transaction = connection.transaction().map_err(failed())?;
        transaction.execute_batch(statements).map_err(failed())?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed())?;
        transaction.commit().map_err(failed())
    };
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => install(SCHEMA),
        1 => {
            tracing::info!(path = %path.display(), "bring the database from schema 1 to 2");
            install(FROM_1)
        }
        other => Err(Error::Version {
            path: path.to_owned(),
            found: other.to_string(),
            supported: crate::LAYOUT_VERSION,
        }),
    }
}

/// Folds the WAL into the database whenever it is asked to, and keeps the ballast taken on, until
/// the store is closed.
fn checkpoint_when_due(path: &Path, ballast: &Ballast, due: &Receiver<()>) {
    let mut held = take_on(ballast);
    loop {
        let asked = if held {
            due.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            // Not at once: what was given up was for a change.
            due.recv_timeout(BALLAST_INTERVAL)
        };
        match asked {
            Ok(()) => {
                fold_in(path);
                held = held && ballast.is_held();
            }
            Err(RecvTimeoutError::Timeout) => held = take_on(ballast),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn take_on(ballast: &Ballast) -> bool {
    let taken = ballast.take_on();
    if let Err(error) = &taken {
        tracing::warn!(path = %ballast.path().display(), %error, "reserve space for the database");
    }
    taken.is_ok()
}

fn fold_in(path: &Path) {
    let done = connect(path).and_then(|connection| {
        let frames = checkpoint(&connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        // Under constant writing the passive one never gets to the end of the WAL; what is
        // left now is short, so that writers wait for little.
        if frames > FRAMES_MAX {
            checkpoint(&connection, "PRAGMA wal_checkpoint(RESTART)")?;
        }
        Ok(())
    });
    if let Err(error) = done {
        tracing::warn!(path = %path.display(), %error, "checkpoint the database");
    }
}

/// Folds the WAL in; says how many frames (pages) it has.
fn checkpoint(connection: &Connection, statement: &str) -> rusqlite::Result<i64> {
    connection.query_row(statement, (), |row| row.get(1))
}
