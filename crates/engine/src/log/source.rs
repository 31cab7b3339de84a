//! The files of a log, compressed or not, as they are read.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use ponton_runtime::shim::log::gzip::{CHUNK, Index};
use ponton_runtime::shim::log::{compressed, numbered};

/// How much of a file's beginning, with its first time, tells it from others.
const HEAD: usize = 256;

/// An open file of a log. It stays readable when it gets another name, or none.
pub(super) struct Source {
    file: File,
    /// The inode number that it has, or had before it was compressed: a later file may have that again.
    inode: u64,
    packed: Option<Packed>,
}

struct Packed {
    index: Index,
    /// The chunk that was read last, and its number.
    chunk: Vec<u8>,
    number: usize,
}

impl Source {
    /// Opens the file that is `number` files older than the current one.
    fn open(path: &Path, number: u32) -> io::Result<Option<Self>> {
        if let Some(file) = open(&numbered(path, number))? {
            let inode = file.metadata()?.ino();
            return Ok(Some(Self { file, inode, packed: None }));
        }
        let Some(file) = open(&compressed(path, number))? else { return Ok(None) };
        let index = match Index::new(&file) {
            Err(error) if is_damage(&error) => {
                tracing::warn!(%error, path = %compressed(path, number).display(), "log file is passed over");
                return Ok(None);
            }
            index => index?,
        };
        let inode = index.inode;
        let packed = Packed { index, chunk: Vec::new(), number: usize::MAX };
        Ok(Some(Self { file, inode, packed: Some(packed) }))
    }

    /// Whether it is the same file, seen under another name or before it was compressed.
    fn is_same(&mut self, other: &mut Self) -> io::Result<bool> {
        if self.inode != other.inode {
            return Ok(false);
        }
        let (mut one, mut two) = ([0; HEAD], [0; HEAD]);
        let length = self.read_at(&mut one, 0)?.min(other.read_at(&mut two, 0)?);
        // What was compressed is not empty: one that is has its number from it.
        let is_told = length > 0 || (self.packed.is_none() && other.packed.is_none());
        Ok(is_told && one[..length] == two[..length])
    }

    /// How much log there is in it, in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        match &self.packed {
            Some(packed) => Ok(packed.index.size),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    /// Reads until the buffer is full or there is no more.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let length = self.read_some(&mut buffer[filled..], offset + filled as u64)?;
            if length == 0 {
                break;
            }
            filled += length;
        }
        Ok(filled)
    }

    fn read_some(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(packed) = &mut self.packed else {
            return match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.file.read_at(buffer, offset),
                result => result,
            };
        };
        let (number, at) = ((offset / CHUNK as u64) as usize, (offset % CHUNK as u64) as usize);
        if packed.number != number {
            packed.number = usize::MAX;
            match packed.index.read(&self.file, number, &mut packed.chunk) {
                // The file ends here.
                Err(error) if is_damage(&error) => packed.chunk.clear(),
                read => read?,
            }
            packed.number = number;
        }
        let there = packed.chunk.get(at..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }
}

/// All files of a log, the oldest first.
pub(super) fn all(path: &Path) -> io::Result<VecDeque<Source>> {
    let mut files: VecDeque<Source> = VecDeque::new();
    walk(path, |mut source| {
        // What was renamed between two looks is seen twice.
        for known in &mut files {
            if known.is_same(&mut source)? {
                return Ok(true);
            }
        }
        files.push_front(source);
        Ok(true)
    })?;
    Ok(files)
}

/// The file that was begun after this one; none while this one is current.
pub(super) fn newer(path: &Path, than: &mut Source) -> io::Result<Option<Source>> {
    let mut newer = None;
    walk(path, |mut source| {
        let is_older = source.is_same(than)?;
        if !is_older {
            newer = Some(source);
        }
        Ok(!is_older)
    })?;
    Ok(newer)
}

/// Shows the files from the current one to older ones, as long as the answer is true. While they are
/// renamed one may be missing between others.
fn walk(path: &Path, mut show: impl FnMut(Source) -> io::Result<bool>) -> io::Result<()> {
    let mut missing = 0;
    for number in 0.. {
        match Source::open(path, number)? {
            Some(source) => {
                if !show(source)? {
                    return Ok(());
                }
                missing = 0;
            }
            None if missing == 1 => return Ok(()),
            None => missing = 1,
        }
    }
    Ok(())
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
