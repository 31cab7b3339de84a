//! What can go wrong with a registry.

use std::io;
use std::time::{Duration, SystemTime};

use hyper::header;
use ponton_oci::digest::Digest;
use serde::Deserialize;

use crate::transport::Answer;

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
    /// The server is not whom it says it is, as far as this host trusts, or trust can't be configured.
    #[error("{host}: {reason}")]
    Certificate {
        /// The registry's host.
        host: String,
        /// Why.
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
        /// When to come again, if it said so.
        retry_after: Option<Duration>,
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
            Self::Connect { .. }
            | Self::Lost { .. }
            | Self::Timeout { .. }
            | Self::TooManyRequests { .. } => Kind::Unavailable,
            Self::Unauthorized { .. } => Kind::Unauthorized,
            Self::Denied { .. } => Kind::Denied,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Status { status, .. } if *status >= 500 => Kind::Unavailable,
            Self::Status { .. } => Kind::Invalid,
            Self::Certificate { .. }
            | Self::Redirect { .. }
            | Self::Answer { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. } => Kind::Untrusted,
            Self::NotImplemented(_) | Self::Source { .. } | Self::Credentials { .. } => Kind::Internal,
        }
    }
}

/// An error's text with those of its causes, each once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        if !text.contains(&further) {
            text.push_str(": ");
            text.push_str(&further);
        }
        cause = error.source();
    }
    text
}

/// Bytes of a refusal that are read, and characters of it that are shown.
const REFUSAL_MAX: u64 = 64 << 10;
const MESSAGE_MAX: usize = 1024;

/// What a registry's refusal means.
pub(crate) async fn refusal(what: &str, answer: &mut Answer) -> Error {
    let status = answer.status;
    let retry_after =
        answer.header(header::RETRY_AFTER).and_then(|text| retry_after(text, SystemTime::now()));
    let body = answer.whole(what, REFUSAL_MAX, Duration::from_secs(10)).await.unwrap_or_default();
    let message = message(&body).unwrap_or_else(|| status.to_string().to_lowercase());
    let what = what.to_owned();
    match status.as_u16() {
        401 => Error::Unauthorized { what, message },
        403 => Error::Denied { what, message },
        404 => Error::NotFound { what, message },
        429 => Error::TooManyRequests { what, message, retry_after },
        status => Error::Status { what, status, message, retry_after },
    }
}

/// The words of a refusal: of the registry (`errors`), of Docker Hub's other services (`details`, `message`), or
/// of a server of tokens (RFC 6749, 5.2).
fn message(body: &[u8]) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Refusal {
        errors: Vec<Item>,
        details: Option<String>,
        message: Option<String>,
        error: Option<String>,
        error_description: Option<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Item {
        code: String,
        message: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    let words = |item: &Item| format!("{}: {}", item.code.to_lowercase().replace('_', " "), item.message);
    let items: Vec<_> = refusal.errors.iter().map(words).collect();
    let message = match items.is_empty() {
        false => items.join(", "),
        true => refusal.details.or(refusal.error_description).or(refusal.message).or(refusal.error)?,
    };
    Some(printable(&message))
}

/// Text of a stranger, for a terminal and of bounded length.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_MAX).collect()
}

/// When to come again: a number of seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_understood() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                Some("manifest unknown: manifest unknown"),
            ),
            (
                r#"{"errors":[{"code":"DENIED","message":"a\u001b[31mb"},{"code":"X","message":"y"}]}"#,
                Some("denied: a [31mb, x: y"),
            ),
            (r#"{"details":"incorrect username or password"}"#, Some("incorrect username or password")),
            (r#"{"error":"invalid_grant"}"#, Some("invalid_grant")),
            ("{}", None),
            ("<html>", None),
            (r#"{"errors":null}"#, None),
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn times_to_come_again_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (text, expected) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
