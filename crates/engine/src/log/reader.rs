//! Reads a container's log: Docker's `json-file` lines in `container.log`, and in `container.log.1`,
//! `.2`, … which are older. Nothing is read twice and the tail is found from the end.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

use crate::request::LogsRequest;

/// How much is read at once.
const BLOCK: usize = 64 << 10;
/// A line longer than this is not one that a shim wrote; the file is damaged there.
const LONGEST_LINE: usize = 1 << 20;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

/// A place in a container's log, going forward.
pub(crate) struct Reader {
    path: PathBuf,
    request: LogsRequest,
    raw: bool,
    /// The file being read, and those that come after it.
    files: VecDeque<File>,
    offset: u64,
    /// Bytes of a line whose end was not read yet.
    rest: Vec<u8>,
    /// A line after `until` was met.
    past_end: bool,
}

impl Reader {
    /// Opens the log at `path` at the first line that `request` wants. `raw`: no frames (the
    /// container has a terminal).
    pub(crate) fn open(path: &Path, request: LogsRequest, raw: bool) -> io::Result<Self> {
        let mut files = VecDeque::new();
        if let Some(current) = open(path)? {
            files.push_back(current);
        }
        for number in 1.. {
            let Some(file) = open(&rotated(path, number))? else { break };
            // A rotation between two opens shows the same file twice.
            let known = files.iter().map(identity).collect::<io::Result<Vec<_>>>()?;
            if !known.contains(&identity(&file)?) {
                files.push_front(file);
            }
        }
        let mut reader =
            Self { path: path.to_owned(), request, raw, files, offset: 0, rest: Vec::new(), past_end: false };
        if let Some(lines) = reader.request.tail {
            reader.seek_tail(lines)?;
        }
        Ok(reader)
    }

    /// Drops the files before the last `lines` lines, and goes to where those begin.
    fn seek_tail(&mut self, lines: u64) -> io::Result<()> {
        let mut wanted = lines;
        for index in (0..self.files.len()).rev() {
            let (offset, found) = tail_offset(&self.files[index], wanted)?;
            wanted -= found;
            if wanted == 0 || index == 0 {
                self.files.drain(..index);
                self.offset = offset;
                break;
            }
        }
        Ok(())
    }

    /// The next output: some lines as the client gets them, or `None` at the (present) end. The
    /// output may be empty when none of the lines read was wanted.
    pub(crate) fn next_batch(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.past_end {
            return Ok(None);
        }
        let Some(block) = self.next_block()? else { return Ok(None) };
        let mut pending = std::mem::take(&mut self.rest);
        pending.extend_from_slice(&block);
        let mut output = Vec::with_capacity(pending.len());
        let mut start = 0;
        for end in memchr_newlines(&pending) {
            self.render(&pending[start..end], &mut output);
            start = end + 1;
        }
        if pending.len() - start < LONGEST_LINE {
            self.rest = pending.split_off(start);
        }
        Ok(Some(output))
    }

    /// Whether a line after `until` was met: nothing comes any more.
    pub(crate) fn is_past_end(&self) -> bool {
        self.past_end
    }

    fn next_block(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = self.files.front() else {
                match open(&self.path)? {
                    Some(file) => self.files.push_back(file),
                    None => return Ok(None),
                }
                continue;
            };
            let mut block = vec![0; BLOCK];
            let count = file.read_at(&mut block, self.offset)?;
            if count > 0 {
                self.offset += count as u64;
                block.truncate(count);
                return Ok(Some(block));
            }
            if self.files.len() == 1 {
                let Some(newer) = self.newer_than_last()? else { return Ok(None) };
                self.files.push_back(newer);
                // What was written between the read and the rotation.
                let mut late = vec![0; BLOCK];
                let count = self.files[0].read_at(&mut late, self.offset)?;
                if count > 0 {
                    self.offset += count as u64;
                    late.truncate(count);
                    return Ok(Some(late));
                }
            }
            self.files.pop_front();
            self.offset = 0;
            self.rest.clear();
        }
    }

    /// The file that was begun after the last one that is open here; `None` when that is current.
    fn newer_than_last(&self) -> io::Result<Option<File>> {
        let Some(last) = self.files.back().map(identity).transpose()? else { return Ok(None) };
        let Some(mut newer) = open(&self.path)? else { return Ok(None) };
        if identity(&newer)? == last {
            return Ok(None);
        }
        for number in 1.. {
            let Some(file) = open(&rotated(&self.path, number))? else { break };
            if identity(&file)? == last {
                break;
            }
            newer = file;
        }
        Ok(Some(newer))
    }

    /// Writes one line as the client gets it, if it is wanted.
    fn render(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { return };
        let wanted = match line.stream.as_ref() {
            "stdout" => self.request.stdout,
            "stderr" => self.request.stderr,
            _ => false,
        };
        let request = &self.request;
        let timed = request.since.is_some() || request.until.is_some() || request.timestamps;
        let time = timed.then(|| line.time.parse::<Timestamp>().ok()).flatten();
        if let (Some(until), Some(time)) = (request.until, time)
            && time > until
        {
            self.past_end = true;
            return;
        }
        if let (Some(since), Some(time)) = (request.since, time)
            && time < since
        {
            return;
        }
        if !wanted || self.past_end {
            return;
        }
        let stamp = match time {
            Some(time) if request.timestamps => format!("{time:.9} "),
            _ => String::new(),
        };
        if !self.raw {
            let stream = if line.stream == "stderr" { 2 } else { 1 };
            let length = (stamp.len() + line.log.len()) as u32;
            output.extend_from_slice(&[stream, 0, 0, 0]);
            output.extend_from_slice(&length.to_be_bytes());
        }
        output.extend_from_slice(stamp.as_bytes());
        output.extend_from_slice(line.log.as_bytes());
    }
}

/// Where in `file` its last `wanted` lines begin, and how many there are (at most `wanted`).
fn tail_offset(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    let mut newlines = 0;
    let mut end = length;
    let mut block = vec![0; BLOCK];
    if wanted == 0 {
        return Ok((length, 0));
    }
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        for index in (0..part.len()).rev() {
            if part[index] != b'\n' {
                continue;
            }
            // The last newline ends the last line; each one before it ends the line before.
            newlines += 1;
            if newlines > wanted {
                return Ok((start + index as u64 + 1, wanted));
            }
        }
        end = start;
    }
    Ok((0, newlines))
}

fn memchr_newlines(bytes: &[u8]) -> impl Iterator<Item = usize> + use<'_> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index)
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn request() -> LogsRequest {
        LogsRequest { stdout: true, stderr: true, ..LogsRequest::default() }
    }

    fn line(text: &str, stream: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.5Z\"}}\n"
        )
    }

    fn read(reader: &mut Reader) -> String {
        let mut all = Vec::new();
        while let Some(batch) = reader.next_batch().unwrap() {
            all.extend(batch);
        }
        String::from_utf8(all).unwrap()
    }

    fn log(lines: &[String]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        std::fs::write(&path, lines.concat()).unwrap();
        (dir, path)
    }

    #[test]
    fn frames_carry_stream_and_length() {
        let (_dir, path) = log(&[line("a", "stdout", 1), line("bc", "stderr", 2)]);
        let mut reader = Reader::open(&path, request(), false).unwrap();
        assert_eq!(read(&mut reader).as_bytes(), b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\x03bc\n");
    }

    #[test]
    fn tail_since_until_and_streams_choose_lines() {
        let lines: Vec<_> = (0..30)
            .map(|n| line(&format!("n{n}"), if n % 2 == 0 { "stdout" } else { "stderr" }, n))
            .collect();
        let (_dir, path) = log(&lines);
        let get = |request| read(&mut Reader::open(&path, request, true).unwrap());
        assert_eq!(get(LogsRequest { tail: Some(2), ..request() }), "n28\nn29\n");
        assert_eq!(get(LogsRequest { tail: Some(0), ..request() }), "");
        assert_eq!(get(LogsRequest { tail: Some(99), ..request() }).lines().count(), 30);
        assert_eq!(get(LogsRequest { tail: Some(3), stderr: false, ..request() }), "n28\n");
        let time = |text: &str| Some(text.parse().unwrap());
        let since = LogsRequest { since: time("2026-01-01T00:00:28Z"), ..request() };
        assert_eq!(get(since), "n28\nn29\n");
        let until = LogsRequest { until: time("2026-01-01T00:00:01.5Z"), ..request() };
        assert_eq!(get(until), "n0\nn1\n");
        let stamped = LogsRequest { timestamps: true, tail: Some(1), ..request() };
        assert_eq!(get(stamped), "2026-01-01T00:00:29.500000000Z n29\n");
    }

    #[test]
    fn tail_reaches_into_older_files() {
        let (_dir, path) = log(&[line("new", "stdout", 9)]);
        std::fs::write(rotated(&path, 1), line("old", "stdout", 8)).unwrap();
        std::fs::write(rotated(&path, 2), line("oldest", "stdout", 7)).unwrap();
        let get = |tail| read(&mut Reader::open(&path, LogsRequest { tail, ..request() }, true).unwrap());
        assert_eq!(get(Some(2)), "old\nnew\n");
        assert_eq!(get(None), "oldest\nold\nnew\n");
    }

    #[test]
    fn reading_goes_on_across_rotations_and_half_lines() {
        let (_dir, path) = log(&[line("one", "stdout", 1)]);
        let mut reader = Reader::open(&path, request(), true).unwrap();
        assert_eq!(read(&mut reader), "one\n");
        let two = line("two", "stdout", 2);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&two.as_bytes()[..10]).unwrap();
        assert_eq!(read(&mut reader), "");
        file.write_all(&two.as_bytes()[10..]).unwrap();
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        std::fs::write(&path, line("three", "stdout", 3)).unwrap();
        std::fs::rename(rotated(&path, 1), rotated(&path, 2)).unwrap();
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        std::fs::write(&path, line("four", "stdout", 4)).unwrap();
        assert_eq!(read(&mut reader), "two\nthree\nfour\n");
    }

    #[test]
    fn a_long_tail_crosses_blocks() {
        let lines: Vec<_> = (0..5000).map(|n| line(&format!("n{n}"), "stdout", 0)).collect();
        let (_dir, path) = log(&lines);
        let tail = LogsRequest { tail: Some(4321), ..request() };
        let text = read(&mut Reader::open(&path, tail, true).unwrap());
        assert_eq!(text.lines().count(), 4321);
        assert!(text.starts_with("n679\n"));
    }

    #[test]
    fn damaged_lines_are_left_out() {
        let (_dir, path) = log(&["garbage\n".into(), line("ok", "stdout", 1), "{\"log\":".into()]);
        assert_eq!(read(&mut Reader::open(&path, request(), true).unwrap()), "ok\n");
    }
}
