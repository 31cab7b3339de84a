//! A log file: entries at its end, in one of two formats, and a new file when it is full.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Run, json, local};
use crate::shim::protocol::{LogFile, LogFormat};

/// An open log file.
#[derive(Debug)]
pub(super) struct Writer {
    target: LogFile,
    file: File,
    size: u64,
    /// Since the question was last asked.
    has_rotated: bool,
}

impl Writer {
    /// Opens the file, and makes it where it is missing. What a writer that was killed left half
    /// written is cut off.
    pub(super) fn open(target: LogFile) -> io::Result<Self> {
        let file = open(&target.path)?;
        let size = match target.format {
            LogFormat::Json { .. } => json::repair(&file)?,
            LogFormat::Local => local::repair(&file)?,
        };
        let has_rotated = target.compress && numbered(&target.path, 1).exists();
        Ok(Self { target, file, size, has_rotated })
    }

    /// Adds output to `out`, which is written and emptied whenever a new file is begun: when there is output for one, so
    /// that what came last is there to be read.
    pub(super) fn add(&mut self, run: &Run<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let mut result = Ok(());
        match &self.target.format {
            LogFormat::Local => {
                let time_ns = u64::try_from(run.time.as_nanosecond()).unwrap_or(0);
                result = self.rotate_if_full(out);
                local::put(out, self.size + out.len() as u64, time_ns, run.flags(), run.text);
            }
            LogFormat::Json { attrs } => {
                let tail = json::tail(run.stream, attrs, run.time);
                for line in run.lines() {
                    result = result.and(self.rotate_if_full(out));
                    json::put(out, &tail, line);
                }
            }
        }
        result
    }

    /// Writes `out`, and empties it. After an error the file has nothing of it.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let result = self.file.write_all(out);
        match result {
            Ok(()) => self.size += out.len() as u64,
            // Half an entry would spoil the next one.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        out.clear();
        result
    }

    /// Whether there are files to be compressed that were not there at the last call.
    pub(super) fn take_rotated(&mut self) -> Option<LogFile> {
        let has_rotated = std::mem::take(&mut self.has_rotated);
        (has_rotated && self.target.compress && self.target.max_files > 1).then(|| self.target.clone())
    }

    fn rotate_if_full(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let max = self.target.max_size_bytes;
        if max == 0 || self.size + (out.len() as u64) < max {
            return Ok(());
        }
        self.flush(out)?;
        self.rotate()
    }

    /// Begins a new file: the older ones move up by one, the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.target.path;
        if self.target.max_files <= 1 {
            self.file.set_len(0)?;
        } else {
            for number in (1..self.target.max_files).rev() {
                rename(&compressed(path, number - 1), &compressed(path, number))?;
                rename(&numbered(path, number - 1), &numbered(path, number))?;
            }
            self.file = open(path)?;
            self.has_rotated = true;
        }
        self.size = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).read(true).append(true).mode(0o640).open(path)
}

/// Renames a file, in place of one that is there; without the one, the other goes all the same.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match std::fs::rename(from, to) {
        Err(error) if absent(&error) => match std::fs::remove_file(to) {
            Err(error) if !absent(&error) => Err(error),
            _ => Ok(()),
        },
        result => result,
    }
}

/// The path of the file that is `number` files older than the current one.
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    with_suffix(path, &format!(".{number}"))
}

/// The path of the same file when it is compressed.
pub fn compressed(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}.gz"))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fixture;
    use super::*;

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_goes() {
        let mut fixture = Fixture::json(200, 3);
        for number in 0..20 {
            fixture.stdout(format!("line {number}\n").as_bytes(), 0);
        }
        let count = std::fs::read_dir(fixture.directory.path()).unwrap().count();
        assert_eq!(count, 3);
        let all = fixture.text("log.2") + &fixture.text("log.1") + &fixture.text("log");
        let numbers: Vec<u32> = all
            .lines()
            .map(|line| line.split_once("line ").unwrap().1.split_once('\\').unwrap().0.parse().unwrap())
            .collect();
        assert_eq!(numbers, (numbers[0]..20).collect::<Vec<_>>());
        assert!(fixture.text("log.1").len() >= 200);
        // One batch is split where the file is full.
        fixture.stdout(b"a\nb\nc\nd\ne\nf\n", 0);
        assert!(fixture.text("log.1").len() < 300);
    }

    #[test]
    fn a_single_file_is_begun_again() {
        for format in [LogFormat::Json { attrs: String::new() }, LogFormat::Local] {
            let mut fixture = Fixture::new(format, 100, 1);
            for number in 0..99 {
                fixture.stdout(format!("line {number}\n").as_bytes(), 0);
                assert!(fixture.text("log").contains(&format!("line {number}")), "the last one is kept");
            }
            assert_eq!(std::fs::read_dir(fixture.directory.path()).unwrap().count(), 1);
            assert!(fixture.text("log").len() < 200);
        }
    }

    #[test]
    fn compressed_files_move_up_too() {
        let mut fixture = Fixture::json(50, 4);
        std::fs::write(fixture.directory.path().join("log.1.gz"), "one").unwrap();
        std::fs::write(fixture.directory.path().join("log.3.gz"), "three").unwrap();
        fixture.stdout(b"line\n", 0);
        fixture.stdout(b"next\n", 0);
        assert_eq!(fixture.text("log.2.gz"), "one");
        assert!(fixture.text("log.1").contains("line"));
        let mut names: Vec<_> = std::fs::read_dir(fixture.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2.gz"]);
    }

    #[test]
    fn a_log_that_was_killed_in_writing_goes_on_behind_its_last_entry() {
        let mut fixture = Fixture::json(0, 1);
        fixture.stdout(b"whole\n", 0);
        let path = fixture.directory.path().join("log");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"log\":\"ha").unwrap();
        let mut fixture = fixture.reopened();
        fixture.stdout(b"next\n", 0);
        assert_eq!(fixture.text("log").lines().count(), 2);
        assert!(!fixture.text("log").contains("ha\""));
    }
}
