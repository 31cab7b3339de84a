//! The progress of a pull, push, load or import, as docker's client draws it: a line for each layer that is
//! drawn over on a terminal; on anything else each status on a line of its own, without the counts.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use ponton_api::stream::{JsonMessage, ProgressDetail};
use ponton_api::unit;
use ponton_client::JsonStream;

use crate::error::Error;
use crate::output;

/// Where the progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    Stderr,
    /// Only errors are told.
    Nowhere,
}

/// Shows all messages. The daemon's last one may be an error; what programs are told (`aux`) goes to `aux`.
pub(crate) async fn show(
    mut messages: JsonStream<JsonMessage>,
    target: Target,
    mut aux: impl FnMut(serde_json::Value),
) -> Result<(), Error> {
    let columns = match target {
        Target::Stdout => columns(&io::stdout()),
        Target::Stderr => columns(&io::stderr()),
        Target::Nowhere => None,
    };
    let mut drawing = Drawing { columns, lines: HashMap::new() };
    while let Some(message) = messages.next().await? {
        if let Some(detail) = message.error_detail {
            return Err(Error::invalid(detail.message));
        }
        if !message.error.is_empty() {
            return Err(Error::invalid(message.error));
        }
        if let Some(value) = message.aux {
            aux(value);
            continue;
        }
        let text = drawing.draw(&message);
        match target {
            Target::Stdout => output::print(&text)?,
            Target::Stderr => output::complain_raw(&text),
            Target::Nowhere => {}
        }
    }
    Ok(())
}

/// How wide the terminal is, if it is one.
fn columns(stream: &(impl IsTerminal + std::os::fd::AsFd)) -> Option<u16> {
    if !stream.is_terminal() {
        return None;
    }
    Some(rustix::termios::tcgetwinsize(stream).map_or(0, |size| size.ws_col))
}

#[derive(Debug)]
struct Drawing {
    /// The terminal's, if it is one.
    columns: Option<u16>,
    /// The line of each id, counted from the first.
    lines: HashMap<String, usize>,
}

impl Drawing {
    fn draw(&mut self, message: &JsonMessage) -> String {
        let detail = message.progress_detail.as_ref();
        let has_line = detail.is_some() && !message.id.is_empty();
        if !has_line {
            self.lines.clear();
        }
        let (Some(detail), Some(columns), true) = (detail, self.columns, message.stream.is_empty()) else {
            return plain(message);
        };
        let (id, status, bar) = (&message.id, &message.status, bar(detail, columns));
        if !has_line {
            return format!("\x1b[2K\r{status} {bar}\r");
        }
        let mut text = String::new();
        let next = self.lines.len();
        let line = *self.lines.entry(message.id.clone()).or_insert_with(|| {
            text.push('\n');
            next
        });
        let up = self.lines.len() - line;
        // Writing to a string does not fail.
        let _ = write!(text, "\x1b[{up}A\x1b[2K\r{id}: {status} {bar}\r\x1b[{up}B");
        text
    }
}

/// A message on a line of its own; how far something is, is not said.
fn plain(message: &JsonMessage) -> String {
    let counted =
        message.progress_detail.as_ref().is_some_and(|detail| detail.current > 0 || detail.total > 0);
    if counted || (message.status.is_empty() && message.stream.is_empty()) {
        return String::new();
    }
    let text =
        if message.stream.is_empty() { format!("{}\n", message.status) } else { message.stream.clone() };
    if message.id.is_empty() { text } else { format!("{}: {text}", message.id) }
}

/// `[=====>    ]  1.5MB/3MB`, without the bar where it does not fit.
fn bar(detail: &ProgressDetail, columns: u16) -> String {
    const WIDTH: i64 = 50;
    const LEAST_COLUMNS: u16 = 110;
    let &ProgressDetail { current, total, ref units, hide_counts } = detail;
    if current <= 0 && total <= 0 {
        return String::new();
    }
    let size = |bytes| unit::human_size_precise(bytes, 4);
    let counts = match units.as_str() {
        "" if total <= 0 || current > total => format!("{:>8}", size(current)),
        "" => format!("{:>8}/{}", size(current), size(total)),
        units if total <= 0 || current > total => format!("{current} {units}"),
        units => format!("{current}/{total} {units}"),
    };
    if total <= 0 {
        return counts;
    }
    let mut text = String::new();
    if columns > LEAST_COLUMNS {
        let share = current as f64 / total as f64;
        let done = ((share * 100.0) as i64 / 2).clamp(0, WIDTH) as usize;
        text = format!("[{}>{}] ", "=".repeat(done), " ".repeat(WIDTH as usize - done));
    }
    if !hide_counts {
        text.push_str(&counts);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<JsonMessage> {
        let lines = [
            r#"{"status":"Pulling from library/busybox","id":"latest"}"#,
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"a"}"#,
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"b"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":1234,"total":56789},"id":"a"}"#,
            r#"{"status":"Extracting","progressDetail":{"current":3,"units":"s"},"id":"b"}"#,
            r#"{"status":"Pull complete","progressDetail":{},"id":"a"}"#,
            r#"{"status":"Digest: sha256:1"}"#,
            r#"{"status":"Importing","progressDetail":{"current":5}}"#,
            r#"{"stream":"Loaded image: a\n"}"#,
        ];
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn drawn(columns: Option<u16>) -> String {
        let mut drawing = Drawing { columns, lines: HashMap::new() };
        messages().iter().map(|message| drawing.draw(message)).collect()
    }

    #[test]
    fn pipes_get_plain_lines() {
        assert_eq!(
            drawn(None),
            "latest: Pulling from library/busybox\na: Pulling fs layer\nb: Pulling fs layer\n\
             a: Pull complete\nDigest: sha256:1\nLoaded image: a\n"
        );
    }

    /// The bytes are those of docker's client 28.2 for the same messages.
    #[test]
    fn terminals_are_drawn_over() {
        let wide = "[=>                                                 ]  1.234kB/56.79kB";
        for (columns, bar) in [(130, wide), (90, " 1.234kB/56.79kB")] {
            assert_eq!(
                drawn(Some(columns)),
                format!(
                    "latest: Pulling from library/busybox\n\n\x1b[1A\x1b[2K\ra: Pulling fs layer \r\x1b[1B\n\
                     \x1b[1A\x1b[2K\rb: Pulling fs layer \r\x1b[1B\x1b[2A\x1b[2K\ra: Downloading {bar}\r\x1b[2B\
                     \x1b[1A\x1b[2K\rb: Extracting 3 s\r\x1b[1B\x1b[2A\x1b[2K\ra: Pull complete \r\x1b[2B\
                     Digest: sha256:1\n\x1b[2K\rImporting       5B\rLoaded image: a\n"
                )
            );
        }
    }
}
