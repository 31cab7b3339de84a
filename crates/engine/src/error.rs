//! The engine's one error: what kind it is (the API's status follows from that), what to tell the
//! client, and the cause for the daemon's log.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as a client can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The named object is not there.
    NotFound,
    /// The request cannot be right.
    Invalid,
    /// The request does not fit the state that the object is in.
    Conflict,
    /// The object is in the wanted state already.
    NotModified,
    /// The client may not do this.
    Forbidden,
    /// The client did not say who it is.
    Unauthorized,
    /// Something that is needed is not there now; trying again may help.
    Unavailable,
    /// Ponton does not do this.
    NotImplemented,
    /// The client or the daemon gave up.
    Cancelled,
    /// The world or the engine failed.
    Internal,
}

/// An error of an engine call. Its text is Docker's where Docker has one.
#[derive(Debug)]
pub struct Error {
    /// The class that decides the HTTP status.
    pub kind: ErrorKind,
    /// The text for the client.
    pub message: String,
    /// The cause, for the log.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self { kind: ErrorKind::$kind, message: message.into(), source: None }
        })*
    };
}

impl Error {
    constructors! {
        /// The named object is not there.
        not_found => NotFound;
        /// The request cannot be right.
        invalid => Invalid;
        /// The request does not fit the object's state.
        conflict => Conflict;
        /// Something needed is not there now.
        unavailable => Unavailable;
        /// Ponton does not do this.
        not_implemented => NotImplemented;
        /// The client or the daemon gave up.
        cancelled => Cancelled;
        /// The client may not do this.
        forbidden => Forbidden;
        /// The world or the engine failed.
        internal => Internal;
    }

    /// The object is in the wanted state already.
    pub fn not_modified() -> Self {
        Self { kind: ErrorKind::NotModified, message: String::new(), source: None }
    }

    /// `attempted: cause`, of kind Internal, with the cause kept.
    pub fn failed(attempted: impl fmt::Display, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause = cause.into();
        let message = format!("{attempted}: {}", chain(cause.as_ref()));
        Self { kind: ErrorKind::Internal, message, source: Some(cause) }
    }

    /// Docker's answer for a container that is not there.
    pub(crate) fn no_such_container(name: &str) -> Self {
        Self::not_found(format!("No such container: {name}"))
    }

    /// Docker's answer where a running container is needed.
    pub(crate) fn not_running(id: &str) -> Self {
        Self::conflict(format!("Container {id} is not running"))
    }
}

/// The texts of an error and of all its causes, joined by colons. A cause that its parent's text
/// already ends with is not repeated.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let part = next.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = next.source();
    }
    text
}

/// An error of the kernel in Go's words: lower case, without its number.
pub(crate) fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
