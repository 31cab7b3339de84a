//! The entries of a log file, in either format: one after another, the last ones, and those from a time
//! on.

use std::borrow::Cow;
use std::io;

use jiff::Timestamp;
use ponton_runtime::shim::log::local::{self, BLOCK, STDERR, Step};
use serde::Deserialize;

use super::source::Source;

/// What stands in a container's log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Docker's `json-file`.
    Json,
    /// [`local`]
    Local,
}

/// Output of one stream that was read at one time.
pub(super) struct Entry<'a> {
    /// None if the file does not tell.
    pub(super) time_ns: Option<u64>,
    pub(super) is_stderr: bool,
    /// One line or more, or a piece of one.
    pub(super) text: Cow<'a, [u8]>,
    /// A JSON object; empty if there is none.
    pub(super) attrs: &'a str,
}

/// The inside of a JSON line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    attrs: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

/// A place in a file: where an entry begins, and how many of its lines are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) lines: u64,
}

impl Format {
    /// Shows the entries in `bytes`, which stand at `offset` of a file, until the answer is false. What
    /// it gives: how many bytes were looked at, up to an entry that is not whole.
    pub(super) fn entries(self, bytes: &[u8], offset: u64, show: &mut dyn FnMut(Entry<'_>) -> bool) -> usize {
        match self {
            Self::Json => json_entries(bytes, show),
            Self::Local => local_entries(bytes, offset, show),
        }
    }

    /// Where the last `wanted` lines of a file begin, and how many there are (at most `wanted`).
    pub(super) fn tail(self, source: &mut Source, wanted: u64) -> io::Result<(Place, u64)> {
        let mut end = source.size()?;
        let mut found = 0;
        if wanted == 0 {
            return Ok((Place { offset: end, lines: 0 }, 0));
        }
        let mut block = vec![0; BLOCK];
        while end > 0 {
            // Blocks of the file, also for JSON, so that whoever wants the last lines of a compressed
            // file decompresses no more than those need.
            let start = (end - 1) / BLOCK as u64 * BLOCK as u64;
            let length = source.read_at(&mut block[..(end - start) as usize], start)?;
            let block = &block[..length];
            let place = match self {
                Self::Json => json_tail(block, start, wanted, &mut found),
                Self::Local => local_tail(block, start, wanted, &mut found),
            };
            if let Some(place) = place {
                return Ok((place, wanted));
            }
            end = start;
        }
        Ok((Place::default(), found))
    }

    /// Where an entry of a file begins before which there is none of `since_ns` or later; not far before
    /// the first one of that time.
    pub(super) fn since(self, source: &mut Source, since_ns: u64) -> io::Result<u64> {
        let (mut low, mut high) = (0, source.size()?);
        while high - low > 2 * BLOCK as u64 {
            let middle = low + (high - low) / 2;
            match self.first_from(source, middle)? {
                Some((start, time)) if start < high && time < since_ns => low = start,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The time of a file's first entry.
    pub(super) fn begin(self, source: &mut Source) -> io::Result<Option<u64>> {
        Ok(self.first_from(source, 0)?.map(|(_, time)| time))
    }

    /// Where the first entry that begins at `offset` or soon after it begins, and its time; none if that
    /// cannot be told.
    fn first_from(self, source: &mut Source, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let mut bytes = vec![0; BLOCK];
        let start = match self {
            Self::Local => offset.next_multiple_of(BLOCK as u64),
            Self::Json if offset == 0 => 0,
            Self::Json => {
                let length = source.read_at(&mut bytes, offset - 1)?;
                let Some(at) = memchr::memchr(b'\n', &bytes[..length]) else { return Ok(None) };
                offset + at as u64
            }
        };
        let length = source.read_at(&mut bytes, start)?;
        let mut time = None;
        self.entries(&bytes[..length], start, &mut |entry| {
            time = entry.time_ns;
            false
        });
        Ok(time.map(|time| (start, time)))
    }
}

fn json_entries(bytes: &[u8], show: &mut dyn FnMut(Entry<'_>) -> bool) -> usize {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = serde_json::from_slice::<Line<'_>>(&bytes[start..end]);
        start = end + 1;
        // What is no entry is a damage.
        let Ok(line) = line else { continue };
        let time = line.time.parse::<Timestamp>().ok();
        let is_stderr = match line.stream.as_ref() {
            "stdout" => false,
            "stderr" => true,
            _ => continue,
        };
        let entry = Entry {
            time_ns: time.and_then(|time| u64::try_from(time.as_nanosecond()).ok()),
            is_stderr,
            text: match line.log {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
            attrs: line.attrs.map_or("", |attrs| attrs.get()),
        };
        if !show(entry) {
            break;
        }
    }
    start
}

fn local_entries(bytes: &[u8], offset: u64, show: &mut dyn FnMut(Entry<'_>) -> bool) -> usize {
    let mut at = 0;
    loop {
        let left = BLOCK - ((offset + at as u64) % BLOCK as u64) as usize;
        let rest = &bytes[at..];
        let is_whole = rest.len() >= left;
        match local::step(&rest[..left.min(rest.len())], is_whole) {
            Step::Record(record, length) => {
                at += length;
                let is_stderr = record.flags & STDERR != 0;
                let (time_ns, text) = (Some(record.time_ns), Cow::Borrowed(record.text));
                if !show(Entry { time_ns, is_stderr, text, attrs: "" }) {
                    return at;
                }
            }
            Step::End => at += left,
            Step::Unfinished => return at,
        }
    }
}

/// Counts the lines of a block backwards; where the last `wanted` begin, if that is in this block.
fn json_tail(block: &[u8], start: u64, wanted: u64, found: &mut u64) -> Option<Place> {
    // `found` counts newlines here. The last one ends the last line; each one before it ends the line
    // before.
    for at in memchr::memrchr_iter(b'\n', block) {
        if *found == wanted {
            return Some(Place { offset: start + at as u64 + 1, lines: 0 });
        }
        *found += 1;
    }
    None
}

fn local_tail(block: &[u8], start: u64, wanted: u64, found: &mut u64) -> Option<Place> {
    let records: Vec<_> = local::records(block).collect();
    for (at, record) in records.iter().rev() {
        *found += lines(record.text);
        if *found >= wanted {
            return Some(Place { offset: start + *at as u64, lines: *found - wanted });
        }
    }
    None
}

/// How many lines a text has, one without an end included.
fn lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64 + u64::from(!text.ends_with(b"\n"))
}
