//! The format `local`: output as it is, in records that stand in blocks.
//!
//! ```text
//! file    = block block … block            each of 64 KiB, the last as long as it has got
//! block   = record … record padding        no record crosses the end of a block
//! record  = time:u64 length:u16 flags:u8 text
//! padding = zeros up to the end of the block
//! ```
//!
//! Numbers are little-endian. The time is in nanoseconds since the epoch and never 0, which is how
//! padding is told from a record. The text of a record is one or more whole lines that were read at
//! once, each with its `\n`; or, with [`PARTIAL`], a piece of a line that has more than 16 KiB; or the
//! last line of all, which has no end. Nothing in it is changed or escaped.
//!
//! Since blocks begin at known places, a reader finds a time by halving, the last lines by going from
//! block to block backwards, and its way on behind a damage: that ends with its block. One that was
//! cut in writing is at the end of the file, and is cut off when the file is opened to be written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size of a block, in bytes.
pub const BLOCK: usize = 64 << 10;
/// The size of a record without its text, in bytes.
pub const HEADER: usize = 11;
/// The bit of a record's flags that says: of standard error.
pub const STDERR: u8 = 1;
/// The bit of a record's flags that says: a piece of a line that goes on in the next record of the
/// same stream.
pub const PARTIAL: u8 = 2;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// [`STDERR`] and [`PARTIAL`].
    pub flags: u8,
    /// The output.
    pub text: &'a [u8],
}

/// What stands at a place of a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A record, and how many bytes it has in the file.
    Record(Record<'a>, usize),
    /// Nothing more in this block.
    End,
    /// No record, in a block that is not whole: one may be written there yet.
    Unfinished,
}

/// Looks at a place of a block: `rest` is what there is from there on; `is_whole` says that it goes to
/// the end of the block.
pub fn step(rest: &[u8], is_whole: bool) -> Step<'_> {
    let record = || {
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let ([low, high, flags], text) = rest.split_first_chunk::<3>()?;
        let text = text.get(..usize::from(u16::from_le_bytes([*low, *high])))?;
        let time_ns = u64::from_le_bytes(*time);
        let is_valid = time_ns != 0 && *flags & !(STDERR | PARTIAL) == 0;
        is_valid.then_some(Record { time_ns, flags: *flags, text })
    };
    match record() {
        Some(record) => Step::Record(record, HEADER + record.text.len()),
        None if is_whole => Step::End,
        None => Step::Unfinished,
    }
}

/// The records of a block with their places in it, from its beginning to where [`step`] finds no more.
pub fn records(block: &[u8]) -> impl Iterator<Item = (usize, Record<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || match step(&block[at..], false) {
        Step::Record(record, length) => {
            at += length;
            Some((at - length, record))
        }
        Step::End | Step::Unfinished => None,
    })
}

/// Adds output to `out`, which will stand at `position` of the file, as one record or several. The
/// text is given in two parts. One with [`PARTIAL`] has to be at most 16 KiB long; another one is cut
/// at the ends of lines where a block ends, and has no longer line than that.
pub fn put(out: &mut Vec<u8>, position: u64, time_ns: u64, flags: u8, [mut begin, mut rest]: [&[u8]; 2]) {
    let first = out.len();
    while !(begin.is_empty() && rest.is_empty()) {
        let used = ((position + (out.len() - first) as u64) % BLOCK as u64) as usize;
        let room = (BLOCK - used).saturating_sub(HEADER);
        let whole = begin.len() + rest.len();
        let taken = if whole <= room {
            Some(rest.len())
        } else if flags & PARTIAL == 0 && begin.len() < room {
            memchr::memrchr(b'\n', &rest[..rest.len().min(room - begin.len())]).map(|at| at + 1)
        } else {
            None
        };
        let Some(taken) = taken else {
            out.resize(out.len() + BLOCK - used, 0);
            if used == 0 {
                // Longer than any caller has it: no block takes it.
                return;
            }
            continue;
        };
        out.extend_from_slice(&time_ns.max(1).to_le_bytes());
        out.extend_from_slice(&((begin.len() + taken) as u16).to_le_bytes());
        out.push(flags);
        out.extend_from_slice(begin);
        out.extend_from_slice(&rest[..taken]);
        begin = &[];
        rest = &rest[taken..];
    }
}

/// Cuts off what was not written to its end. The answer: the size then.
pub(super) fn repair(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok(0);
    }
    let start = (size - 1) / BLOCK as u64 * BLOCK as u64;
    let mut block = vec![0; (size - start) as usize];
    file.read_exact_at(&mut block, start)?;
    let at = records(&block).last().map_or(0, |(at, record)| at + HEADER + record.text.len());
    let whole = start + at as u64;
    // A full block may have its padding.
    if whole < size && block.len() < BLOCK {
        file.set_len(whole)?;
        return Ok(whole);
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &[u8]) -> Vec<u8> {
        file.chunks(BLOCK)
            .flat_map(|block| records(block).flat_map(|(_, record)| record.text.to_vec()))
            .collect()
    }

    #[test]
    fn records_are_what_was_put() {
        let mut out = Vec::new();
        put(&mut out, 0, 7, 0, [b"a", b"b\nc\n"]);
        let length = out.len() as u64;
        put(&mut out, length, 0, STDERR | PARTIAL, [b"", b"\xff\0"]);
        let all: Vec<_> = records(&out).map(|(_, record)| record).collect();
        assert_eq!(all[0], Record { time_ns: 7, flags: 0, text: b"ab\nc\n" });
        assert_eq!(all[1], Record { time_ns: 1, flags: 3, text: b"\xff\0" });
        assert_eq!(all.len(), 2);
        assert_eq!(step(&[], false), Step::Unfinished);
        assert_eq!(step(&out[HEADER + 5..out.len() - 1], false), Step::Unfinished);
        assert_eq!(step(&out[HEADER + 5..HEADER + 9], true), Step::End);
    }

    #[test]
    fn no_record_crosses_a_block() {
        let mut file = Vec::new();
        let mut expected = Vec::new();
        for number in 0..9000_usize {
            let line = format!("{number} {}\n", "x".repeat(number * 37 % 500)).into_bytes();
            let lines = [line.clone(), line].concat();
            let position = file.len() as u64;
            put(&mut file, position, 5, 0, [&lines[..number % 2], &lines[number % 2..]]);
            expected.extend_from_slice(&lines);
        }
        assert!(file.len() > 20 * BLOCK);
        assert!(texts(&file) == expected);
        // Whoever begins in the middle finds whole lines, too.
        assert!(expected.ends_with(&texts(&file[7 * BLOCK..])));
    }

    #[test]
    fn a_piece_that_does_not_fit_begins_the_next_block() {
        for used in [BLOCK - HEADER - 1, BLOCK - 1, BLOCK - 16_000] {
            let mut out = Vec::new();
            put(&mut out, used as u64, 5, PARTIAL, [b"", &[b'x'; 16 << 10]]);
            assert_eq!(out.len(), BLOCK - used + HEADER + (16 << 10));
            assert!(out[..BLOCK - used].iter().all(|byte| *byte == 0));
        }
        let mut out = Vec::new();
        put(&mut out, (BLOCK - HEADER - 6) as u64, 5, 0, [b"ab", b"c\nrest\n"]);
        assert_eq!(out[HEADER..HEADER + 4], *b"abc\n");
        assert_eq!(out.len(), HEADER + 6 + HEADER + 5);
    }

    #[test]
    fn what_is_cut_or_damaged_ends_its_block() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut whole = Vec::new();
        put(&mut whole, 0, 5, 0, [b"", b"one\n"]);
        let first = whole.len();
        put(&mut whole, first as u64, 5, 0, [b"", b"two\n"]);
        for cut in first..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            assert_eq!(repair(&file).unwrap(), first as u64);
            assert_eq!(std::fs::read(&path).unwrap(), whole[..first]);
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(repair(&File::open(&path).unwrap()).unwrap(), whole.len() as u64);
        // Padding that was cut goes, too.
        std::fs::write(&path, [&whole[..], &[0; 100]].concat()).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        assert_eq!(repair(&file).unwrap(), whole.len() as u64);
        let mut damaged = whole.clone();
        damaged[first + 10] = 0x80;
        assert_eq!(records(&damaged).count(), 1);
        assert_eq!(step(&damaged[first..], false), Step::Unfinished);
        assert_eq!(step(&damaged[first..], true), Step::End);
    }
}
