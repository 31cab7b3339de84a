//! Progress in the words of dockerd: `{"status": "Downloading", "progressDetail": {…}, "id": "…"}`.

use ponton_api::stream::{JsonMessage, ProgressDetail};
use ponton_api::unit;
use tokio::sync::mpsc;

use crate::error::Result;

/// Messages that may wait for the client.
const WAITING: usize = 256;

/// Where a transfer that runs on a thread of its own tells its client what happens.
pub(super) struct Messages(mpsc::Sender<Result<JsonMessage>>);

impl Messages {
    /// And where they come out.
    pub(super) fn channel() -> (Self, mpsc::Receiver<Result<JsonMessage>>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Tells the client; one that has gone has cancelled the transfer, too.
    pub(super) fn tell(&self, message: Result<JsonMessage>) {
        let _ = self.0.blocking_send(message);
    }

    /// News of bytes may be left out where the client does not keep up; no other news.
    pub(super) fn tell_layer(&self, message: JsonMessage) {
        let is_number = message.progress_detail.as_ref().is_some_and(|detail| detail.current > 0);
        if !is_number || self.0.capacity() >= WAITING / 4 {
            self.tell(Ok(message));
        }
    }
}

/// A line of text, about `id` if that is not empty.
pub(super) fn text(id: impl Into<String>, text: impl Into<String>) -> JsonMessage {
    JsonMessage { status: text.into(), id: id.into(), ..JsonMessage::default() }
}

/// What is being done to `id`, without numbers.
pub(super) fn status(id: impl Into<String>, status: impl Into<String>) -> JsonMessage {
    JsonMessage { progress_detail: Some(ProgressDetail::default()), ..text(id, status) }
}

/// How far it is, in bytes; `total` is 0 where that is not known.
pub(super) fn bytes(
    id: impl Into<String>,
    status: impl Into<String>,
    current: u64,
    total: u64,
) -> JsonMessage {
    let (current, total) = (current as i64, total as i64);
    JsonMessage {
        progress_detail: Some(ProgressDetail { current, total, ..ProgressDetail::default() }),
        progress: bar(current, total),
        ..text(id, status)
    }
}

/// The numbers as a drawn bar, which clients print as it is.
fn bar(current: i64, total: i64) -> String {
    let size = |bytes| unit::human_size_precise(bytes, 4);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    if total <= 0 {
        return format!("{:>8}", size(current));
    }
    let filled = usize::try_from(current.saturating_mul(100) / total / 2).unwrap_or(0).min(50);
    let numbers = match current > total {
        true => format!("{:>8}", size(current)),
        false => format!("{:>8}/{}", size(current), size(total)),
    };
    format!("[{}>{}] {numbers}", "=".repeat(filled), " ".repeat(50 - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_dockers() {
        for (current, total, expected) in [
            (0, 0, String::new()),
            (1500, 0, "   1.5kB".into()),
            (15796, 1_575_456, format!("[>{}]   15.8kB/1.575MB", " ".repeat(50))),
            (1_575_456, 1_575_456, format!("[{}>]  1.575MB/1.575MB", "=".repeat(50))),
        ] {
            assert_eq!(bar(current, total), expected);
        }
    }
}
