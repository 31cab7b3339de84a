//! What can go wrong with a registry.

use std::io;
use std::time::Duration;

use ponton_oci::digest::Digest;

/// What the crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a registry didn't do what it was asked for. `what` is the object: a manifest's or blob's full name, or
/// a registry's host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not built.
    #[error("{0}: not implemented")]
    NotImplemented(&'static str),
    /// It was cancelled by [`crate::Cancel`].
    #[error("cancelled")]
    Cancelled,
    /// The name or URL in the configuration can't be used.
    #[error("{what}: {reason}")]
    Config {
        /// The part of the configuration.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection.
    #[error("{host}: {reason}")]
    Connect {
        /// The registry's host.
        host: String,
        /// Why, with causes.
        reason: String,
    },
    /// The connection ended before the answer was there, as often as was tried.
    #[error("{what}: connection lost: {reason}")]
    Lost {
        /// What was asked for.
        what: String,
        /// Why, with causes.
        reason: String,
    },
    /// The registry was silent for too long.
    #[error("{what}: no answer for {} s", after.as_secs_f32())]
    Timeout {
        /// What was asked for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// Not without valid credentials (401).
    #[error("{what}: {message}")]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// The registry's words.
        message: String,
    },
    /// Not with these credentials (403).
    #[error("{what}: {message}")]
    Denied {
        /// What was asked for.
        what: String,
        /// The registry's words.
        message: String,
    },
    /// The registry doesn't have it (404).
    #[error("{what}: {message}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The registry's words.
        message: String,
    },
    /// Too many requests (429), also after waiting.
    #[error("{what}: {message}")]
    TooManyRequests {
        /// What was asked for.
        what: String,
        /// The registry's words.
        message: String,
        /// When to come again, if it said so.
        retry_after: Option<Duration>,
    },
    /// Any other refusal.
    #[error("{what}: status {status}: {message}")]
    Status {
        /// What was asked for.
        what: String,
        /// Status of HTTP.
        status: u16,
        /// The registry's words.
        message: String,
    },
    /// It was redirected too often, or to where nobody may be sent.
    #[error("{what}: redirect to {location}: {reason}")]
    Redirect {
        /// What was asked for.
        what: String,
        /// Where it was to go.
        location: String,
        /// Why it didn't.
        reason: &'static str,
    },
    /// An answer that makes no sense.
    #[error("{what}: {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The content is not what its name says.
    #[error("{what}: wrong digest: got {actual}")]
    Digest {
        /// What was asked for, by its digest.
        what: String,
        /// The digest of what came.
        actual: Digest,
    },
    /// The content is longer or shorter than announced.
    #[error("{what}: wrong size: expected {expected} bytes, got {actual}")]
    Size {
        /// What was asked for.
        what: String,
        /// What was announced.
        expected: u64,
        /// What came, or what the registry said would come.
        actual: u64,
    },
    /// The answer is longer than such an answer may be.
    #[error("{what}: answer is larger than {max} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The bound.
        max: u64,
    },
    /// What was to be sent can't be read.
    #[error("{what}: read what is to be sent")]
    Source {
        /// What was to be sent.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Stored credentials can't be read or written.
    #[error("{what}: {reason}")]
    Credentials {
        /// File or helper.
        what: String,
        /// Why.
        reason: String,
    },
}

/// What an error means to those who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The registry doesn't have it.
    NotFound,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The credentials don't allow it.
    Denied,
    /// The registry can't be reached, is overloaded or broken: later it may go well.
    Unavailable,
    /// The registry answered nonsense, or what it gave is not what was asked for.
    Untrusted,
    /// The request or the configuration is wrong.
    Invalid,
    /// It was cancelled.
    Cancelled,
    /// Our side failed.
    Internal,
}

impl Error {
    /// What the error means.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cancelled => Kind::Cancelled,
            Self::Config { .. } => Kind::Invalid,
            Self::Connect { .. } | Self::Lost { .. } | Self::Timeout { .. } | Self::TooManyRequests { .. } => {
                Kind::Unavailable
            }
            Self::Unauthorized { .. } => Kind::Unauthorized,
            Self::Denied { .. } => Kind::Denied,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Status { status, .. } if *status >= 500 => Kind::Unavailable,
            Self::Status { .. } => Kind::Invalid,
            Self::Redirect { .. }
            | Self::Answer { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. } => Kind::Untrusted,
            Self::NotImplemented(_) | Self::Source { .. } | Self::Credentials { .. } => Kind::Internal,
        }
    }
}
