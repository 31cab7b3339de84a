//! What can go wrong with an image.

use ponton_oci::digest::Digest;

/// What was attempted on which object, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image has this name or id.
    #[error("No such image: {0}")]
    NotFound(String),
    /// The image is in use, or the name means several.
    #[error("{0}")]
    Conflict(String),
    /// The request or the archive is at fault.
    #[error("{0}")]
    Invalid(String),
    /// A part of the archive is at fault.
    #[error("invalid archive: {what}")]
    Archive {
        /// Which part.
        what: String,
        /// The cause.
        source: ponton_archive::Error,
    },
    /// Content is not what its name says.
    #[error("{what}: digest is {found}, expected {expected}")]
    DigestMismatch {
        /// Which content.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest that was found.
        found: Digest,
    },
    /// What is not built yet.
    #[error("{0} is not implemented")]
    NotImplemented(&'static str),
    /// The kernel or the disk refused.
    #[error("{what}")]
    Io {
        /// What was attempted on which object.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The archive library failed, the archive not being at fault.
    #[error(transparent)]
    Unpack(ponton_archive::Error),
    /// The snapshotter failed.
    #[error(transparent)]
    Snapshot(#[from] ponton_snapshot::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
