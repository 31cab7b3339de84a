//! The log of a container, in the format of Docker's `json-file` driver: one JSON object a line.
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2024-05-06T07:08:09.1234Z"}
//! ```
//!
//! A line of more than [`LINE_MAX`] bytes is cut into entries without `\n` at their end, which all
//! have the time of the first. Bytes that are not UTF-8 are replaced, as Go's encoder does.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::protocol::LogTarget;

/// The most bytes of output in one entry.
const LINE_MAX: usize = 16 << 10;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    target: LogTarget,
    file: File,
    size: u64,
    unfinished: [Unfinished; 2],
}

/// The beginning of a line whose end was not read yet.
#[derive(Debug, Default)]
struct Unfinished {
    text: Vec<u8>,
    /// The time of the first entry of a line that was cut.
    cut_at: Option<Timestamp>,
}

impl Log {
    /// Opens the log, and makes it where it is missing.
    pub(super) fn open(target: LogTarget) -> io::Result<Self> {
        let file = open_file(&target.path)?;
        let size = file.metadata()?.len();
        Ok(Self { target, file, size, unfinished: Default::default() })
    }

    /// Writes the lines of `chunk`, which was read at `now`; `scratch` is any buffer, for reuse.
    /// An unfinished last line is kept until its end comes. After an error the log has no part of
    /// what could not be written, and goes on with what comes next.
    pub(super) fn write(
        &mut self,
        stream: Stream,
        mut chunk: &[u8],
        now: Timestamp,
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut batch = Batch::new(stream, now, scratch);
        let mut unfinished = std::mem::take(&mut self.unfinished[stream as usize]);
        let mut result = Ok(());
        while !chunk.is_empty() {
            let room = LINE_MAX - unfinished.text.len();
            let window = &chunk[..chunk.len().min(room)];
            let newline = memchr::memchr(b'\n', window);
            let taken = newline.map_or(window.len(), |at| at + 1);
            let piece = &chunk[..taken];
            chunk = &chunk[taken..];
            let ends_here = newline.is_some();
            if !ends_here && taken < room {
                unfinished.text.extend_from_slice(piece);
                break;
            }
            batch.entry(&unfinished.text, piece, unfinished.cut_at);
            unfinished.cut_at = if ends_here { None } else { unfinished.cut_at.or(Some(now)) };
            unfinished.text = Vec::new();
            if self.is_full(batch.out.len()) {
                result = result.and(self.flush(&mut batch)).and(self.rotate());
            }
        }
        self.unfinished[stream as usize] = unfinished;
        result.and(self.flush(&mut batch))
    }

    /// Writes what is unfinished: no more will come.
    pub(super) fn end(&mut self, now: Timestamp, scratch: &mut Vec<u8>) -> io::Result<()> {
        let mut result = Ok(());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let unfinished = std::mem::take(&mut self.unfinished[stream as usize]);
            if !unfinished.text.is_empty() {
                let mut batch = Batch::new(stream, now, scratch);
                batch.entry(&unfinished.text, &[], unfinished.cut_at);
                result = result.and(self.flush(&mut batch));
            }
        }
        result
    }

    /// Whether the file has its size when `more` bytes are added.
    fn is_full(&self, more: usize) -> bool {
        self.target.max_size_bytes > 0 && self.size + more as u64 >= self.target.max_size_bytes
    }

    fn flush(&mut self, batch: &mut Batch<'_>) -> io::Result<()> {
        let result = self.file.write_all(batch.out);
        match result {
            Ok(()) => self.size += batch.out.len() as u64,
            // Half a line would spoil the next one.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        batch.out.clear();
        result
    }

    /// Begins a new file: the older ones move up by one, the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.target.path;
        for number in (1..self.target.max_files).rev() {
            let from = if number == 1 { path.clone() } else { numbered(path, number - 1) };
            match std::fs::rename(from, numbered(path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.target.max_files <= 1 {
            self.file.set_len(0)?;
        } else {
            self.file = open_file(path)?;
        }
        self.size = 0;
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Entries that are written together.
struct Batch<'a> {
    out: &'a mut Vec<u8>,
    stream: &'static str,
    /// What stands after the text of an entry of now.
    tail: String,
}

impl<'a> Batch<'a> {
    fn new(stream: Stream, now: Timestamp, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        Self { out, stream, tail: tail(stream, now) }
    }

    /// Adds the entry of one piece of a line, given as two that follow each other.
    fn entry(&mut self, begin: &[u8], end: &[u8], time: Option<Timestamp>) {
        self.out.extend_from_slice(b"{\"log\":\"");
        if begin.is_empty() {
            escape(end, self.out);
        } else {
            // A character may lie on the border.
            escape(&[begin, end].concat(), self.out);
        }
        match time {
            None => self.out.extend_from_slice(self.tail.as_bytes()),
            Some(time) => self.out.extend_from_slice(tail(self.stream, time).as_bytes()),
        }
    }
}

fn tail(stream: &str, time: Timestamp) -> String {
    format!("\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n")
}

/// Writes the inside of a JSON string as Docker does.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid().as_bytes(), out);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// The bytes that may not stand for themselves; 0xe2 begins U+2028 and U+2029.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

fn escape_valid(mut text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while let Some(at) = text.iter().position(|&byte| SPECIAL[usize::from(byte)]) {
        out.extend_from_slice(&text[..at]);
        let byte = text[at];
        text = &text[at + 1..];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => match text {
                [0x80, last @ (0xa8 | 0xa9), rest @ ..] => {
                    out.extend_from_slice(b"\\u202");
                    out.push(HEX[usize::from(last & 0xf)]);
                    text = rest;
                }
                _ => out.push(byte),
            },
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
            }
        }
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        log: Log,
        scratch: Vec<u8>,
    }

    impl Fixture {
        fn new(max_size_bytes: u64, max_files: u32) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("json.log");
            let log = Log::open(LogTarget { path, max_size_bytes, max_files }).unwrap();
            Self { directory, log, scratch: Vec::new() }
        }

        fn write(&mut self, stream: Stream, chunk: &[u8], nanosecond: i128) {
            let now = Timestamp::from_nanosecond(nanosecond).unwrap();
            self.log.write(stream, chunk, now, &mut self.scratch).unwrap();
        }

        fn end(&mut self, nanosecond: i128) {
            self.log.end(Timestamp::from_nanosecond(nanosecond).unwrap(), &mut self.scratch).unwrap();
        }

        fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.directory.path().join(name)).unwrap()
        }
    }

    #[test]
    fn lines_are_entries_and_streams_do_not_mix() {
        let mut fixture = Fixture::new(0, 1);
        fixture.write(Stream::Stdout, b"one\ntw", 1_500_000_000);
        fixture.write(Stream::Stderr, b"err\n", 2_000_000_000);
        fixture.write(Stream::Stdout, b"o\n\nrest", 3_000_000_001);
        fixture.end(4_120_000_000);
        assert_eq!(
            fixture.text("json.log"),
            r#"{"log":"one\n","stream":"stdout","time":"1970-01-01T00:00:01.5Z"}
{"log":"err\n","stream":"stderr","time":"1970-01-01T00:00:02Z"}
{"log":"two\n","stream":"stdout","time":"1970-01-01T00:00:03.000000001Z"}
{"log":"\n","stream":"stdout","time":"1970-01-01T00:00:03.000000001Z"}
{"log":"rest","stream":"stdout","time":"1970-01-01T00:00:04.12Z"}
"#
        );
    }

    #[test]
    fn text_is_escaped_as_docker_does() {
        let escaped = |text: &[u8]| {
            let mut out = Vec::new();
            escape(text, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            escaped(b"a\tb\x07<>&\"\\\x7f\r\n\0"),
            r#"a\u0009b\u0007\u003c\u003e\u0026\"\\"#.to_owned() + "\x7f" + r"\r\n\u0000"
        );
        assert_eq!(escaped("é€\u{2028}\u{2029}\u{202a}🦀".as_bytes()), "é€\\u2028\\u2029\u{202a}🦀");
        assert_eq!(escaped(b"\xe2\x82x \xffy\xe2"), r"\ufffd\ufffdx \ufffdy\ufffd");
    }

    #[test]
    fn a_long_line_is_cut_and_keeps_the_time_of_its_first_part() {
        let mut fixture = Fixture::new(0, 1);
        let line = [vec![b'x'; 2 * LINE_MAX], b"tail\n".to_vec()].concat();
        fixture.write(Stream::Stdout, &line[..20_000], 1_000_000_000);
        fixture.write(Stream::Stdout, &line[20_000..], 2_000_000_000);
        fixture.write(Stream::Stdout, b"next\n", 3_000_000_000);
        let text = fixture.text("json.log");
        let entries: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let lengths: Vec<_> = entries.iter().map(|entry| entry["log"].as_str().unwrap().len()).collect();
        assert_eq!(lengths, [LINE_MAX, LINE_MAX, 5, 5]);
        let times: Vec<_> = entries.iter().map(|entry| entry["time"].as_str().unwrap()).collect();
        assert_eq!(times[..3], ["1970-01-01T00:00:01Z"; 3]);
        assert_eq!(times[3], "1970-01-01T00:00:03Z");
    }

    #[test]
    fn a_line_of_exactly_the_limit_ends_with_an_entry_of_its_newline() {
        let mut fixture = Fixture::new(0, 1);
        fixture.write(Stream::Stdout, &[vec![b'x'; LINE_MAX], b"\n".to_vec()].concat(), 0);
        let text = fixture.text("json.log");
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).unwrap().starts_with(r#"{"log":"\n""#));
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_goes() {
        let mut fixture = Fixture::new(200, 3);
        for number in 0..20 {
            fixture.write(Stream::Stdout, format!("line {number}\n").as_bytes(), 0);
        }
        let count = std::fs::read_dir(fixture.directory.path()).unwrap().count();
        assert_eq!(count, 3);
        let all = fixture.text("json.log.2") + &fixture.text("json.log.1") + &fixture.text("json.log");
        let numbers: Vec<u32> = all
            .lines()
            .map(|line| line.split_once("line ").unwrap().1.split_once('\\').unwrap().0.parse().unwrap())
            .collect();
        assert_eq!(numbers, (numbers[0]..20).collect::<Vec<_>>());
        assert!(fixture.text("json.log.1").len() >= 200);
        // One batch is split where the file is full.
        fixture.write(Stream::Stdout, b"a\nb\nc\nd\ne\nf\n", 0);
        assert!(fixture.text("json.log.1").len() < 300);
    }

    #[test]
    fn a_single_file_is_begun_again() {
        let mut fixture = Fixture::new(100, 1);
        for number in 0..9 {
            fixture.write(Stream::Stdout, format!("{number}\n").as_bytes(), 0);
        }
        assert_eq!(std::fs::read_dir(fixture.directory.path()).unwrap().count(), 1);
        assert!(fixture.text("json.log").len() < 100);
    }
}
