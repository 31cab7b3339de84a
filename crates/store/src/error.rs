use std::io;
use std::path::{Path, PathBuf};

use ponton_oci::Digest;

/// The store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon holds the data root.
    #[error(
        "another daemon (process {pid}) uses the data root of {path}: stop it, or choose another --data-root"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The other daemon's process id, as far as it is known.
        pid: String,
    },
    /// The data root was made by another version.
    #[error(
        "{path} says layout {found:?}, this version reads layout {supported}: use the version that made it"
    )]
    Version {
        /// The file with the number.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What is understood.
        supported: u32,
    },
    /// The file system said no.
    #[error("{operation} {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database said no.
    #[error("{operation} {object} in the database")]
    Database {
        /// What was attempted.
        operation: &'static str,
        /// With which record.
        object: String,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A container's or volume's name is taken.
    #[error("the name {name:?} is in use by {holder}")]
    NameInUse {
        /// The name.
        name: String,
        /// Id of who has it.
        holder: String,
    },
    /// Nothing has that id or name.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// `image`, `container`, `volume`, `blob`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The beginning of an id that fits several.
    #[error("the id {name} is ambiguous: several {kind}s begin with it")]
    Ambiguous {
        /// `image`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// What came in is not what was announced.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// The digest that was announced.
        expected: Digest,
        /// The digest that came.
        actual: Digest,
    },
    /// What came in is shorter or longer than announced.
    #[error("content {digest} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// The digest that was announced.
        digest: Digest,
        /// The size that was announced.
        expected: u64,
        /// The size that came.
        actual: u64,
    },
}

impl Error {
    /// For `map_err`: what was attempted, with which file.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// For `map_err`: what was attempted, with which record.
    pub(crate) fn database(
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { operation, object: object.to_string(), source }
    }

    /// Whether the disk is full.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Database { source: rusqlite::Error::SqliteFailure(code, _), .. } => {
                code.code == rusqlite::ErrorCode::DiskFull
            }
            _ => false,
        }
    }
}
