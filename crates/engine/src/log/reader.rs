//! Reads a container's log forward from a place that is found without reading what stands before it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::format::{Entry, Format};
use super::source::{self, Source};
use crate::request::LogsRequest;

/// How much is read at once: two blocks of the format `local` at least.
const READ: usize = 256 << 10;
/// A line of JSON that is longer than this is none that a shim wrote; the file is damaged there.
const LONGEST_LINE: usize = 4 << 20;

/// A place in a container's log, going forward.
pub(crate) struct Reader {
    path: PathBuf,
    format: Format,
    renderer: Renderer,
    /// The file being read, and those that come after it.
    files: VecDeque<Source>,
    offset: u64,
    /// How much is read at once.
    window: usize,
    /// Empty while nothing comes.
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens the log at `path` at the first line that `request` wants. `raw`: no frames (the
    /// container has a terminal).
    pub(crate) fn open(path: &Path, format: Format, request: LogsRequest, raw: bool) -> io::Result<Self> {
        let files = source::all(path)?;
        let mut reader = Self {
            path: path.to_owned(),
            format,
            renderer: Renderer { request, raw, skip: 0, past_end: false },
            files,
            offset: 0,
            window: READ,
            buffer: Vec::new(),
        };
        let request = &reader.renderer.request;
        match (request.tail, request.since) {
            (Some(lines), _) => reader.seek_tail(lines)?,
            (None, Some(since)) => reader.seek_since(since)?,
            (None, None) => {}
        }
        Ok(reader)
    }

    /// Drops the files before the last `lines` lines, and goes to where those begin.
    fn seek_tail(&mut self, lines: u64) -> io::Result<()> {
        let mut wanted = lines;
        for index in (0..self.files.len()).rev() {
            let (place, found) = self.format.tail(&mut self.files[index], wanted)?;
            wanted -= found;
            if wanted == 0 || index == 0 {
                self.files.drain(..index);
                self.offset = place.offset;
                self.renderer.skip = place.lines;
                break;
            }
        }
        Ok(())
    }

    /// Drops the files before `since`, and goes to a place a little before it.
    fn seek_since(&mut self, since: Timestamp) -> io::Result<()> {
        let since = u64::try_from(since.as_nanosecond()).unwrap_or(0);
        let mut first = 0;
        for index in (1..self.files.len()).rev() {
            if self.format.begin(&mut self.files[index])?.is_some_and(|time| time < since) {
                first = index;
                break;
            }
        }
        self.files.drain(..first);
        if let Some(file) = self.files.front_mut() {
            self.offset = self.format.since(file, since)?;
        }
        Ok(())
    }

    /// The next output: some lines as the client gets them, or `None` at the (present) end. The
    /// output may be empty when none of the lines read was wanted.
    pub(crate) fn next_batch(&mut self) -> io::Result<Option<Vec<u8>>> {
        while !self.renderer.past_end {
            self.buffer.resize(self.window, 0);
            let Some(file) = self.files.front_mut() else {
                self.files = source::all(&self.path)?;
                if self.files.is_empty() {
                    break;
                }
                continue;
            };
            let length = file.read_at(&mut self.buffer, self.offset)?;
            let mut output = Vec::with_capacity(length + length / 2);
            let renderer = &mut self.renderer;
            let taken = self.format.entries(&self.buffer[..length], self.offset, &mut |entry| {
                renderer.render(&entry, &mut output);
                !renderer.past_end
            });
            self.offset += taken as u64;
            if taken > 0 {
                return Ok(Some(output));
            }
            if length == self.buffer.len() {
                self.pass_long_line();
                continue;
            }
            if !self.next_file()? {
                break;
            }
        }
        self.buffer = Vec::new();
        Ok(None)
    }

    /// Whether a line after `until` was met: nothing comes any more.
    pub(crate) fn is_past_end(&self) -> bool {
        self.renderer.past_end
    }

    /// Nothing later than this is wanted.
    pub(crate) fn end_at(&mut self, at: Timestamp) {
        let until = &mut self.renderer.request.until;
        *until = Some(until.map_or(at, |until| until.min(at)));
    }

    fn pass_long_line(&mut self) {
        if self.window < LONGEST_LINE {
            self.window *= 2;
        } else {
            self.offset += self.window as u64;
            self.window = READ;
        }
    }

    /// At the end of a file goes on with the next one, if there is one.
    fn next_file(&mut self) -> io::Result<bool> {
        let only_one = self.files.len() == 1;
        let Some(file) = self.files.front_mut() else { return Ok(false) };
        if only_one {
            match source::newer(&self.path, file)? {
                Some(newer) => {
                    self.files.push_back(newer);
                    // Something may have been written between the read and the rotation.
                    return Ok(true);
                }
                // A log of one file is emptied when that is full.
                None if file.size()? < self.offset => {
                    self.offset = 0;
                    return Ok(true);
                }
                None => return Ok(false),
            }
        }
        self.files.pop_front();
        self.offset = 0;
        Ok(true)
    }
}

/// Writes lines as the client gets them.
struct Renderer {
    request: LogsRequest,
    raw: bool,
    /// Lines that are passed over.
    skip: u64,
    /// A line after `until` was met.
    past_end: bool,
}

impl Renderer {
    fn render(&mut self, entry: &Entry<'_>, output: &mut Vec<u8>) {
        let mut text = entry.text.as_ref();
        while self.skip > 0 && !text.is_empty() {
            self.skip -= 1;
            text = &text[line_end(text)..];
        }
        let request = &self.request;
        let wanted = if entry.is_stderr { request.stderr } else { request.stdout };
        let at = entry.time_ns.map(i128::from);
        if request.until.is_some_and(|until| at.is_some_and(|at| at > until.as_nanosecond())) {
            self.past_end = true;
            return;
        }
        if request.since.is_some_and(|since| at.is_some_and(|at| at < since.as_nanosecond())) || !wanted {
            return;
        }
        let head = self.head(entry);
        if self.raw && head.is_empty() {
            output.extend_from_slice(text);
            return;
        }
        let stream = if entry.is_stderr { 2 } else { 1 };
        while !text.is_empty() {
            let (line, rest) = text.split_at(line_end(text));
            text = rest;
            if !self.raw {
                output.extend_from_slice(&[stream, 0, 0, 0]);
                output.extend_from_slice(&((head.len() + line.len()) as u32).to_be_bytes());
            }
            output.extend_from_slice(head.as_bytes());
            output.extend_from_slice(line);
        }
    }

    /// What stands before each line of an entry.
    fn head(&self, entry: &Entry<'_>) -> String {
        let mut head = String::new();
        if self.request.timestamps
            && let Some(time) = entry.time_ns.and_then(|ns| Timestamp::from_nanosecond(ns.into()).ok())
        {
            head = format!("{time:.9} ");
        }
        if self.request.details {
            head.push_str(&details(entry.attrs));
            head.push(' ');
        }
        head
    }
}

fn line_end(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1)
}

/// Attributes as Docker prints them: sorted, and escaped as in a URL's query.
fn details(attrs: &str) -> String {
    let attrs: std::collections::BTreeMap<String, String> = serde_json::from_str(attrs).unwrap_or_default();
    let pairs: Vec<_> =
        attrs.iter().map(|(name, value)| format!("{}={}", query_escape(name), query_escape(value))).collect();
    pairs.join(",")
}

fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
