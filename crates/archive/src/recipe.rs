//! What, beside an unpacked tree, is needed to rebuild the tar byte by byte.
//!
//! The digest of a layer is that of its tar, and no two programs write the same tar. A recipe keeps
//! all bytes of the tar that are not contents of the tree's files: headers, padding, contents that
//! found no file of their own. It is a small fraction of the layer, and stands in one directory
//! with it:
//!
//! ```text
//! <layer>/fs          the tree
//! <layer>/recipe      zstd; a sequence of records, numbers in LEB128
//!                       0 length bytes            bytes of the tar as they are
//!                       1 size length path        contents of the tree's file `path`
//!                       2 number length path      what was at `path` so far is at kept/<number>
//! <layer>/kept/       files and trees that a later entry of the tar replaced
//! ```
//!
//! A recipe is trusted as little as the tree: who rebuilds a tar compares its digest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use ponton_sys::path::Root;
use rustix::fs::OFlags;

use crate::tree::as_path;
use crate::{Error, Result, printable};

const RAW: u8 = 0;
const FILE: u8 = 1;
const MOVED: u8 = 2;
/// Longest path, and longest piece of raw bytes, that is read at once.
const MAX_PATH: u64 = 1 << 20;

/// Writes a recipe while a tar is applied.
pub struct Recorder<W: Write> {
    output: zstd::Encoder<'static, W>,
}

impl<W: Write> Recorder<W> {
    /// Writes to a new file.
    pub fn new(output: W) -> Result<Self> {
        Ok(Self { output: zstd::Encoder::new(output, 1).map_err(Error::Write)? })
    }

    /// Bytes of the tar that are nowhere else.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.head(RAW, bytes.len() as u64, None)?;
        self.output.write_all(bytes).map_err(Error::Write)
    }

    /// Contents that are now in the file `path` of the tree.
    pub fn file(&mut self, path: &[u8], size: u64) -> Result<()> {
        self.head(FILE, size, Some(path))
    }

    /// What is at `path` of the tree was moved to `kept/<number>`.
    pub fn moved(&mut self, path: &[u8], number: u64) -> Result<()> {
        self.head(MOVED, number, Some(path))
    }

    /// Completes the recipe.
    pub fn finish(self) -> Result<W> {
        self.output.finish().map_err(Error::Write)
    }

    fn head(&mut self, tag: u8, number: u64, path: Option<&[u8]>) -> Result<()> {
        let mut head = vec![tag];
        push_number(&mut head, number);
        if let Some(path) = path {
            push_number(&mut head, path.len() as u64);
            head.extend_from_slice(path);
        }
        self.output.write_all(&head).map_err(Error::Write)
    }
}

/// Writes the tar of the layer in `directory`. The caller compares the digest of what was written.
pub fn rebuild(directory: &Path, output: &mut dyn Write) -> Result<()> {
    let moves = read_moves(directory)?;
    let root = |name: &str| {
        Root::open(directory.join(name)).map_err(|error| Error::entry(name.as_bytes(), error.to_string()))
    };
    let tree = root("fs")?;
    let kept = if moves.0.is_empty() { None } else { Some(root("kept")?) };
    let mut records = Records::open(directory)?;
    let mut position = 0;
    while let Some(record) = records.next_record()? {
        position += 1;
        match record {
            Record::Raw(length) => {
                io::copy(&mut (&mut records.input).take(length), output).map_err(Error::Write)?;
            }
            Record::Moved { .. } => {}
            Record::File { size, path } => match (moves.find(&path, position), &kept) {
                (Some((number, rest)), Some(kept)) => {
                    let place = [number.to_string().as_bytes(), rest].concat();
                    copy_file(kept, &place, size, output)?;
                }
                _ => copy_file(&tree, &path, size, output)?,
            },
        }
    }
    Ok(())
}

/// The layer's tar with zeros for the contents of its files: all that headers say, for the price of
/// the recipe.
pub struct Outline {
    records: Records,
    part: Part,
}

/// What the outline is at.
enum Part {
    Raw(u64),
    Zeros(u64),
    End,
}

impl Outline {
    /// Opens the recipe of the layer in `directory`.
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(Self { records: Records::open(directory)?, part: Part::Raw(0) })
    }
}

impl BufRead for Outline {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while matches!(self.part, Part::Raw(0) | Part::Zeros(0)) {
            let failed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            self.part = match self.records.next_record().map_err(failed)? {
                Some(Record::Raw(length)) => Part::Raw(length),
                Some(Record::File { size, .. }) => Part::Zeros(size),
                Some(Record::Moved { .. }) => Part::Zeros(0),
                None => Part::End,
            };
        }
        let (bytes, left) = match self.part {
            Part::Raw(left) => (self.records.input.fill_buf()?, left),
            Part::Zeros(left) => (&ZEROS[..], left),
            Part::End => return Ok(&[]),
        };
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&bytes[..usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))])
    }

    fn consume(&mut self, amount: usize) {
        match &mut self.part {
            Part::Raw(left) => {
                self.records.input.consume(amount);
                *left -= amount as u64;
            }
            Part::Zeros(left) => *left -= amount as u64,
            Part::End => {}
        }
    }
}

impl Read for Outline {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

fn copy_file(root: &Root, path: &[u8], size: u64, output: &mut dyn Write) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = root.open_path(as_path(path), flags).map_err(|error| Error::entry(path, error.to_string()))?;
    let copied = io::copy(&mut File::from(file).take(size), output).map_err(Error::Write)?;
    if copied == size {
        return Ok(());
    }
    Err(Error::Changed { path: printable(path), expected: size, found: copied })
}

/// By path: at which record something was moved away from there, and to which number.
#[derive(Default)]
struct Moves(HashMap<Vec<u8>, Vec<(u64, u64)>>);

impl Moves {
    /// Where a file that was written by the record at `position` went: the first move after it of
    /// the file itself, or of a directory above it, took it out of the tree for good. Gives the
    /// number, and the path below it with its slash.
    fn find<'a>(&self, path: &'a [u8], position: u64) -> Option<(u64, &'a [u8])> {
        let slashes = (1..path.len()).filter(|at| path[*at] == b'/');
        slashes
            .chain([path.len()])
            .filter_map(|end| {
                let moves = self.0.get(&path[..end])?;
                let next = moves.partition_point(|(at, _)| *at <= position);
                moves.get(next).map(|(at, number)| (*at, *number, &path[end..]))
            })
            .min()
            .map(|(_, number, rest)| (number, rest))
    }
}

/// A first pass for what was moved: rare, and known only from what comes later.
fn read_moves(directory: &Path) -> Result<Moves> {
    let mut moves = Moves::default();
    if !directory.join("kept").exists() {
        return Ok(moves);
    }
    let mut records = Records::open(directory)?;
    let mut position = 0;
    while let Some(record) = records.next_record()? {
        position += 1;
        match record {
            Record::Raw(length) => {
                io::copy(&mut (&mut records.input).take(length), &mut io::sink()).map_err(Error::Read)?;
            }
            Record::File { .. } => {}
            Record::Moved { number, path } => moves.0.entry(path).or_default().push((position, number)),
        }
    }
    Ok(moves)
}

enum Record {
    /// So many bytes follow in the recipe.
    Raw(u64),
    File {
        size: u64,
        path: Vec<u8>,
    },
    Moved {
        number: u64,
        path: Vec<u8>,
    },
}

struct Records {
    input: BufReader<zstd::Decoder<'static, BufReader<File>>>,
}

impl Records {
    fn open(directory: &Path) -> Result<Self> {
        let file = File::open(directory.join("recipe")).map_err(Error::Read)?;
        Ok(Self { input: BufReader::with_capacity(1 << 17, zstd::Decoder::new(file).map_err(Error::Read)?) })
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        let mut tag = [0];
        if self.input.read(&mut tag).map_err(Error::Read)? == 0 {
            return Ok(None);
        }
        let number = self.number()?;
        Ok(Some(match tag[0] {
            RAW => Record::Raw(number),
            FILE => Record::File { size: number, path: self.path()? },
            MOVED => Record::Moved { number, path: self.path()? },
            _ => return Err(malformed()),
        }))
    }

    fn path(&mut self) -> Result<Vec<u8>> {
        let length = self.number()?;
        if length > MAX_PATH {
            return Err(malformed());
        }
        let mut path = vec![0; length as usize];
        self.input.read_exact(&mut path).map_err(Error::Read)?;
        Ok(path)
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte).map_err(Error::Read)?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(malformed())
    }
}

fn push_number(output: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        output.push(number as u8 | 0x80);
        number >>= 7;
    }
    output.push(number as u8);
}

fn malformed() -> Error {
    Error::Read(io::Error::new(io::ErrorKind::InvalidData, "malformed recipe"))
}
