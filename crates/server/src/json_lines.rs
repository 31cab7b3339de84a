//! Streams of JSON values, one a line.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use ponton_api::stream::JsonMessage;
use serde::Serialize;

/// How values are set apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By a line end.
    Lines,
    /// RFC 7464: a record separator before, a line end after.
    Sequence,
}

/// One value with its framing.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, framing: Framing) -> Bytes {
    let mut text = match framing {
        Framing::Lines => Vec::new(),
        Framing::Sequence => vec![0x1e],
    };
    if serde_json::to_writer(&mut text, value).is_err() {
        return Bytes::new();
    }
    text.push(b'\n');
    text.into()
}

/// Values as they come; an error is the last line, as [`JsonMessage`] words it.
pub(crate) fn lines<T, E>(
    values: impl Stream<Item = Result<T, E>> + Send,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send
where
    T: Serialize,
    E: std::fmt::Display,
{
    values.map(|value| {
        Ok(match value {
            Ok(value) => encode(&value, Framing::Lines),
            Err(error) => encode(&JsonMessage::failure(error.to_string()), Framing::Lines),
        })
    })
}
