//! What can go wrong with an image.

use ponton_oci::digest::Digest;
use ponton_oci::reference::Reference;

/// What was attempted on which object, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image has this name or id.
    #[error("No such image: {}", shown(.0))]
    NotFound(String),
    /// The image is not there for the platforms that are asked for.
    #[error(
        "image with reference {name} was found but does not provide any of the specified platforms ({platforms})"
    )]
    NoPlatform {
        /// The image.
        name: String,
        /// The platforms.
        platforms: String,
    },
    /// The image is in use, or the name means several.
    #[error("{0}")]
    Conflict(String),
    /// The request or the archive is at fault.
    #[error("{0}")]
    Invalid(String),
    /// A part of the archive is at fault.
    #[error("{what}: invalid archive: {source}")]
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
    /// Unpacking or packing failed, the archive not being at fault.
    #[error("{what}")]
    Unpack {
        /// What was unpacked or packed.
        what: String,
        /// The cause.
        source: ponton_archive::Error,
    },
    /// The kernel or the disk refused.
    #[error("{what}")]
    Io {
        /// What was attempted on which object.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The registry failed, or refused.
    #[error(transparent)]
    Registry(ponton_registry::Error),
    /// The registry has the name, but not for the platform.
    #[error("{0}")]
    NotFoundInRegistry(String),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Not built yet.
    #[error("{0} is not implemented yet")]
    NotImplemented(&'static str),
    /// The snapshotter failed.
    #[error(transparent)]
    Snapshot(#[from] ponton_snapshot::Error),
    /// The store failed.
    #[error(transparent)]
    Store(ponton_store::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A name as Docker shows it: with its tag, if it can have one.
fn shown(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

impl Error {
    /// For `map_err`: what was attempted on which object.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<ponton_registry::Error> for Error {
    fn from(error: ponton_registry::Error) -> Self {
        match error {
            ponton_registry::Error::Cancelled => Self::Cancelled,
            other => Self::Registry(other),
        }
    }
}

impl From<ponton_store::Error> for Error {
    fn from(error: ponton_store::Error) -> Self {
        match error {
            ponton_store::Error::NotFound { kind: "image", name } => Self::NotFound(name),
            ponton_store::Error::Ambiguous { kind: "image", name } => {
                Self::Conflict(format!("image id {name} is ambiguous: several images begin with it"))
            }
            other => Self::Store(other),
        }
    }
}
