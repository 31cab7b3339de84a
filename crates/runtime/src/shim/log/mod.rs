//! The log of a container: its output is divided into lines, which go into a file, to a logging
//! service, or to both.
//!
//! A line of more than [`LINE_MAX`] bytes is cut into pieces, which all have the time of the first. A
//! line is written when its end is there, or the end of the output.

mod file;
pub mod gzip;
mod json;
pub mod local;
mod message;
mod remote;

use std::io;
use std::os::fd::OwnedFd;

use jiff::Timestamp;

use super::protocol::{LogFile, LogTarget};
use file::Writer;
use message::Line;

pub use file::{compressed, numbered};
pub(in crate::shim) use remote::Remote;

/// The most bytes of output in one entry.
pub const LINE_MAX: usize = 16 << 10;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<Writer>,
    remote: Option<Remote>,
    unfinished: [Unfinished; 2],
}

/// The beginning of a line whose end was not read yet.
#[derive(Debug, Default)]
struct Unfinished {
    text: Vec<u8>,
    /// The pieces before, of a line that was cut.
    cut: Option<Piece>,
}

/// A piece of a line that was cut.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// The time of the first piece, which all have.
    time: Timestamp,
    /// Its place, from 1.
    ordinal: u32,
    /// It is the last one of the line.
    is_last: bool,
}

impl Piece {
    /// What tells its line from others.
    fn id(self) -> String {
        format!("{:016x}{:08x}", self.time.as_nanosecond(), std::process::id())
    }
}

/// Output of one time that is written together: one or more whole lines, each with its `\n`; or a
/// piece of a line that was cut; or a last line without an end.
struct Run<'a> {
    stream: Stream,
    time: Timestamp,
    /// In two parts: the first one was read earlier, and has no `\n`.
    text: [&'a [u8]; 2],
    piece: Option<Piece>,
}

impl<'a> Run<'a> {
    fn flags(&self) -> u8 {
        let stream = if self.stream == Stream::Stderr { local::STDERR } else { 0 };
        let partial = self.piece.is_some_and(|piece| !piece.is_last);
        stream | if partial { local::PARTIAL } else { 0 }
    }

    /// The lines one by one, as pairs of parts.
    fn lines(&self) -> impl Iterator<Item = [&'a [u8]; 2]> + use<'a> {
        let [mut begin, mut rest] = self.text;
        std::iter::from_fn(move || {
            if begin.is_empty() && rest.is_empty() {
                return None;
            }
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let line = [std::mem::take(&mut begin), &rest[..end]];
            rest = &rest[end..];
            Some(line)
        })
    }
}

impl Log {
    /// Opens the log. The socket is connected to its logging service.
    pub(super) fn open(target: &LogTarget, socket: Option<OwnedFd>) -> io::Result<Self> {
        let file = target.file.clone().map(Writer::open).transpose()?;
        let remote = target.remote.as_deref().map(|target| Remote::new(target.clone(), socket));
        Ok(Self { file, remote, unfinished: Default::default() })
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
        scratch.clear();
        let mut result = Ok(());
        let Unfinished { mut text, mut cut } = std::mem::take(&mut self.unfinished[stream as usize]);
        while !chunk.is_empty() {
            let room = LINE_MAX - text.len();
            let window = &chunk[..chunk.len().min(room)];
            // What follows the end of a cut line is of another time.
            let newline = match cut {
                Some(_) => memchr::memchr(b'\n', window),
                None => memchr::memrchr(b'\n', window),
            };
            if newline.is_none() && window.len() < room {
                text.extend_from_slice(window);
                break;
            }
            let taken = newline.map_or(window.len(), |at| at + 1);
            let piece = piece(cut, newline.is_some(), now);
            let time = piece.map_or(now, |piece| piece.time);
            let run = Run { stream, time, text: [&text, &chunk[..taken]], piece };
            result = result.and(self.add(&run, scratch));
            cut = piece.filter(|piece| !piece.is_last);
            text = Vec::new();
            chunk = &chunk[taken..];
        }
        self.unfinished[stream as usize] = Unfinished { text, cut };
        result.and(self.flush(scratch))
    }

    /// Writes what is unfinished: no more will come.
    pub(super) fn end(&mut self, now: Timestamp, scratch: &mut Vec<u8>) -> io::Result<()> {
        scratch.clear();
        let mut result = Ok(());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Unfinished { text, cut } = std::mem::take(&mut self.unfinished[stream as usize]);
            if text.is_empty() {
                continue;
            }
            // Without its end it is not known to be the last piece.
            let piece = cut.and_then(|_| piece(cut, false, now));
            let time = piece.map_or(now, |piece| piece.time);
            let run = Run { stream, time, text: [&text, &[]], piece };
            result = result.and(self.add(&run, scratch));
        }
        result.and(self.flush(scratch))
    }

    /// The file that was rotated since the last call, if its older ones are to be compressed.
    pub(super) fn take_rotated(&mut self) -> Option<LogFile> {
        self.file.as_mut().and_then(Writer::take_rotated)
    }

    /// Its logging service.
    pub(super) fn remote(&mut self) -> Option<&mut Remote> {
        self.remote.as_mut()
    }

    /// Its logging service alone: no more will be written.
    pub(super) fn into_remote(self) -> Option<Remote> {
        self.remote
    }

    /// Whether the container has to wait for the logging service.
    pub(super) fn is_full(&self) -> bool {
        self.remote.as_ref().is_some_and(Remote::is_full)
    }

    fn add(&mut self, run: &Run<'_>, scratch: &mut Vec<u8>) -> io::Result<()> {
        if let Some(remote) = &mut self.remote {
            for [begin, rest] in run.lines() {
                let whole;
                let text = match begin.is_empty() {
                    true => rest,
                    false => {
                        whole = [begin, rest].concat();
                        &whole
                    }
                };
                let text = text.strip_suffix(b"\n").unwrap_or(text);
                remote.add(&Line { stream: run.stream, time: run.time, text, piece: run.piece });
            }
        }
        match &mut self.file {
            Some(file) => file.add(run, scratch),
            None => Ok(()),
        }
    }

    fn flush(&mut self, scratch: &mut Vec<u8>) -> io::Result<()> {
        if let Some(remote) = &mut self.remote {
            remote.flush();
        }
        match &mut self.file {
            Some(file) => file.flush(scratch),
            None => Ok(()),
        }
    }
}

/// What a text is that ends (or does not) with the end of its line, behind the piece before it.
fn piece(before: Option<Piece>, is_end: bool, now: Timestamp) -> Option<Piece> {
    match before {
        None if is_end => None,
        None => Some(Piece { time: now, ordinal: 1, is_last: false }),
        Some(Piece { time, ordinal, .. }) => Some(Piece { time, ordinal: ordinal + 1, is_last: is_end }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::LogFormat;
    use super::*;

    pub(super) struct Fixture {
        pub(super) directory: tempfile::TempDir,
        target: LogTarget,
        log: Log,
        scratch: Vec<u8>,
    }

    impl Fixture {
        pub(super) fn json(max_size_bytes: u64, max_files: u32) -> Self {
            Self::new(LogFormat::Json { attrs: String::new() }, max_size_bytes, max_files)
        }

        pub(super) fn new(format: LogFormat, max_size_bytes: u64, max_files: u32) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let file = LogFile::new(directory.path().join("log"), format);
            let target = LogFile { max_size_bytes, max_files, ..file }.into();
            let log = Log::open(&target, None).unwrap();
            Self { directory, target, log, scratch: Vec::new() }
        }

        pub(super) fn reopened(self) -> Self {
            Self { log: Log::open(&self.target, None).unwrap(), ..self }
        }

        pub(super) fn write(&mut self, stream: Stream, chunk: &[u8], nanosecond: i128) {
            let now = Timestamp::from_nanosecond(nanosecond).unwrap();
            self.log.write(stream, chunk, now, &mut self.scratch).unwrap();
        }

        pub(super) fn stdout(&mut self, chunk: &[u8], nanosecond: i128) {
            self.write(Stream::Stdout, chunk, nanosecond);
        }

        fn end(&mut self, nanosecond: i128) {
            self.log.end(Timestamp::from_nanosecond(nanosecond).unwrap(), &mut self.scratch).unwrap();
        }

        pub(super) fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.directory.path().join(name)).unwrap()
        }

        fn records(&self) -> Vec<(u64, u8, Vec<u8>)> {
            let file = std::fs::read(self.directory.path().join("log")).unwrap();
            file.chunks(local::BLOCK)
                .flat_map(local::records)
                .map(|(_, record)| (record.time_ns, record.flags, record.text.to_vec()))
                .collect()
        }
    }

    #[test]
    fn lines_are_entries_and_streams_do_not_mix() {
        let mut fixture = Fixture::json(0, 1);
        fixture.stdout(b"one\ntw", 1_500_000_000);
        fixture.write(Stream::Stderr, b"err\n", 2_000_000_000);
        fixture.stdout(b"o\n\nrest", 3_000_000_001);
        fixture.end(4_120_000_000);
        assert_eq!(
            fixture.text("log"),
            r#"{"log":"one\n","stream":"stdout","time":"1970-01-01T00:00:01.5Z"}
{"log":"err\n","stream":"stderr","time":"1970-01-01T00:00:02Z"}
{"log":"two\n","stream":"stdout","time":"1970-01-01T00:00:03.000000001Z"}
{"log":"\n","stream":"stdout","time":"1970-01-01T00:00:03.000000001Z"}
{"log":"rest","stream":"stdout","time":"1970-01-01T00:00:04.12Z"}
"#
        );
    }

    #[test]
    fn records_have_all_lines_of_one_read() {
        let mut fixture = Fixture::new(LogFormat::Local, 0, 1);
        fixture.stdout(b"one\ntw", 1);
        fixture.write(Stream::Stderr, b"\xff\0\n", 2);
        fixture.stdout(b"o\n\nrest", 3);
        fixture.end(4);
        let expected: [(u64, u8, &[u8]); 4] =
            [(1, 0, b"one\n"), (2, local::STDERR, b"\xff\0\n"), (3, 0, b"two\n\n"), (4, 0, b"rest")];
        assert_eq!(fixture.records(), expected.map(|(time, flags, text)| (time, flags, text.to_vec())));
    }

    #[test]
    fn attributes_stand_between_stream_and_time() {
        let attrs = r#"{"a":"b"}"#.to_owned();
        let mut fixture = Fixture::new(LogFormat::Json { attrs }, 0, 1);
        fixture.stdout(b"x\n", 1_500_000_000);
        assert_eq!(
            fixture.text("log"),
            "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"b\"},\"time\":\"1970-01-01T00:00:01.5Z\"}\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_and_keeps_the_time_of_its_first_part() {
        let mut fixture = Fixture::json(0, 1);
        let mut local = Fixture::new(LogFormat::Local, 0, 1);
        let line = [vec![b'x'; 2 * LINE_MAX], b"tail\n".to_vec()].concat();
        for fixture in [&mut fixture, &mut local] {
            fixture.stdout(&line[..20_000], 1_000_000_000);
            fixture.stdout(&[&line[20_000..], b"next\n"].concat(), 2_000_000_000);
        }
        let text = fixture.text("log");
        let entries: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let lengths: Vec<_> = entries.iter().map(|entry| entry["log"].as_str().unwrap().len()).collect();
        assert_eq!(lengths, [LINE_MAX, LINE_MAX, 5, 5]);
        let times: Vec<_> = entries.iter().map(|entry| entry["time"].as_str().unwrap()).collect();
        assert_eq!(times[..3], ["1970-01-01T00:00:01Z"; 3]);
        assert_eq!(times[3], "1970-01-01T00:00:02Z");
        let records = local.records();
        let flags: Vec<_> =
            records.iter().map(|(time, flags, text)| (time / 1_000_000_000, *flags, text.len())).collect();
        assert_eq!(flags, [(1, 2, LINE_MAX), (1, 2, LINE_MAX), (1, 0, 5), (2, 0, 5)]);
    }

    #[test]
    fn a_line_of_exactly_the_limit_ends_with_an_entry_of_its_newline() {
        let mut fixture = Fixture::json(0, 1);
        fixture.stdout(&[b"a\n".to_vec(), vec![b'x'; LINE_MAX], b"\n".to_vec()].concat(), 0);
        let text = fixture.text("log");
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().nth(2).unwrap().starts_with(r#"{"log":"\n""#));
    }

    #[test]
    fn whatever_is_read_at_once_the_output_is_kept_byte_for_byte() {
        let output: Vec<u8> = (0..300_000_u32)
            .map(|at| if at % 97 == 0 || at % 5011 < 20 { b'\n' } else { (at % 251) as u8 })
            .collect();
        for step in [1, 7, 97, 4096, 65_536] {
            let mut fixture = Fixture::new(LogFormat::Local, 0, 1);
            for (number, chunk) in output.chunks(step).enumerate() {
                fixture.stdout(chunk, number as i128 + 1);
            }
            fixture.end(1 << 40);
            let records = fixture.records();
            assert!(records.iter().flat_map(|(_, _, text)| text).eq(&output));
            assert!(records.is_sorted_by_key(|(time, _, _)| *time));
        }
    }
}
