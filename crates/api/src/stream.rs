//! What flows after an answer's head: progress messages, and the frames of attach and logs.

use serde::{Deserialize, Serialize};

use crate::is_default;

/// One line of the progress of a pull, load, import or build.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JsonMessage {
    /// Text to print as it is.
    #[serde(skip_serializing_if = "is_default")]
    pub stream: String,
    /// What is being done to `id`.
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The same as a drawn bar, for old clients.
    #[serde(skip_serializing_if = "is_default")]
    pub progress: String,
    /// What it is being done to.
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    /// Why it failed: the last message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The same text, for old clients.
    #[serde(skip_serializing_if = "is_default")]
    pub error: String,
    /// A value for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

impl JsonMessage {
    /// The message that ends a stream that failed.
    pub fn failure(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            error_detail: Some(ErrorDetail { code: 0, message: message.clone() }),
            error: message,
            ..Self::default()
        }
    }
}

/// How far something is, in bytes unless `units` says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressDetail {
    /// Done.
    #[serde(skip_serializing_if = "is_default")]
    pub current: i64,
    /// To do, 0 if that isn't known.
    #[serde(skip_serializing_if = "is_default")]
    pub total: i64,
    /// What is counted.
    #[serde(skip_serializing_if = "is_default")]
    pub units: String,
    /// Don't print the numbers.
    #[serde(rename = "hidecounts", skip_serializing_if = "is_default")]
    pub hide_counts: bool,
}

/// Why something failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// An exit code where there is one.
    #[serde(skip_serializing_if = "is_default")]
    pub code: i64,
    /// In words.
    pub message: String,
}

/// The stream that a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Input; Docker uses it for output too, on terminals.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the engine's own, in words.
    SystemError = 3,
}

/// The head of a frame of `application/vnd.docker.multiplexed-stream`:
/// `[kind, 0, 0, 0, length, length, length, length]`, the length big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The stream.
    pub kind: StreamKind,
    /// How many bytes follow.
    pub length: u32,
}

/// The first byte of a frame names no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized stream: {0}")]
pub struct UnknownStream(pub u8);

impl FrameHeader {
    /// How long the head itself is.
    pub const LENGTH: usize = 8;

    /// The head in bytes.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let [a, b, c, d] = self.length.to_be_bytes();
        [self.kind as u8, 0, 0, 0, a, b, c, d]
    }

    /// Reads a head.
    pub fn decode(bytes: [u8; Self::LENGTH]) -> Result<Self, UnknownStream> {
        let [kind, _, _, _, length @ ..] = bytes;
        let kind = match kind {
            0 => StreamKind::Stdin,
            1 => StreamKind::Stdout,
            2 => StreamKind::Stderr,
            3 => StreamKind::SystemError,
            other => return Err(UnknownStream(other)),
        };
        Ok(Self { kind, length: u32::from_be_bytes(length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let header = FrameHeader { kind: StreamKind::Stderr, length: 0x0102_0304 };
        assert_eq!(header.encode(), [2, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(FrameHeader::decode(header.encode()), Ok(header));
        assert_eq!(FrameHeader::decode([9, 0, 0, 0, 0, 0, 0, 0]), Err(UnknownStream(9)));
    }

    #[test]
    fn only_what_is_set_is_printed() {
        let message = JsonMessage { stream: "Loaded image: a\n".into(), ..JsonMessage::default() };
        assert_eq!(serde_json::to_string(&message).unwrap(), r#"{"stream":"Loaded image: a\n"}"#);
        assert_eq!(
            serde_json::to_string(&JsonMessage::failure("no")).unwrap(),
            r#"{"errorDetail":{"message":"no"},"error":"no"}"#
        );
    }
}
