//! A layer's tar becomes an EROFS image, one file that the kernel mounts.
//!
//! ```text
//! byte 0       mark, and the length of the tar
//!      1024    superblock
//!      4096    the tar as it came, byte for byte: the contents of files stay where they are in it
//!              contents that cannot: of sparse files, and those with something behind them
//!              blocks of large directories, long symbolic links
//!              inodes, each with its extended attributes and what is short enough to stand behind it
//! ```
//!
//! Blocks have 512 bytes, as in a tar, whose contents so begin at a block each. Nothing is written
//! twice, nothing waits for the end but what only the end knows, and the tar comes out again as a
//! range of the file. In memory is the tree without contents: some 200 bytes for an entry.
//!
//! What a tar means is the same as in [`apply`](crate::apply) with
//! [`Whiteouts::Overlay`](crate::apply::Whiteouts::Overlay); a test compares the two. The format is
//! that of Linux's `fs/erofs/erofs_fs.h`; <https://erofs.docs.kernel.org/en/latest/ondisk/>.

#[cfg(test)]
mod compare;
mod image;
#[cfg(test)]
mod tests;
mod tree;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;

use self::image::Chunks;
use self::tree::{Content, Tree};
use crate::apply::Stats;
use crate::header::BLOCK;
use crate::reader::Reader;
use crate::{Error, Result};

/// Bytes before the tar.
const HEAD: u64 = 4096;
/// What the file begins with; the length of the tar follows, little-endian.
const MARK: &[u8; 8] = b"tar+erof";
/// Bytes that are copied at once.
const PIECE: usize = 1 << 18;

/// Makes an image of a decompressed tar, read to its end, in an empty file that is open for reading
/// and writing. On an error the file is of no use.
pub fn write(tar: impl BufRead, file: &File) -> Result<Stats> {
    let failed = Cell::new(None);
    let written = Writer { file, failed: &failed }.write(tar);
    match failed.take() {
        Some(error) => Err(write_error(error)),
        None => written,
    }
}

/// Writes the tar that an image was made of.
pub fn write_tar(image: &File, output: &mut dyn Write) -> Result<()> {
    let mut head = [0; 16];
    image.read_exact_at(&mut head, 0).map_err(Error::Read)?;
    let (mark, length) = head.split_at(MARK.len());
    if mark != MARK {
        return Err(Error::Read(io::Error::new(io::ErrorKind::InvalidData, "no image of a layer")));
    }
    let mut length = length.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let mut offset = HEAD;
    let mut buffer = vec![0; PIECE];
    while length > 0 {
        let piece = usize::try_from(length).map_or(PIECE, |length| length.min(PIECE));
        image.read_exact_at(&mut buffer[..piece], offset).map_err(Error::Read)?;
        output.write_all(&buffer[..piece]).map_err(Error::Write)?;
        offset += piece as u64;
        length -= piece as u64;
    }
    Ok(())
}

fn write_error(source: io::Error) -> Error {
    Error::Io { operation: "write", path: "the layer's image".to_owned(), source }
}

struct Writer<'a> {
    file: &'a File,
    failed: &'a Cell<Option<io::Error>>,
}

impl Writer<'_> {
    fn write(self, tar: impl BufRead) -> Result<Stats> {
        let tee = Tee { input: tar, file: self.file, written: 0, ahead: 0, failed: self.failed };
        let mut reader = Reader::recording(tee);
        let mut tree = Tree::new();
        let mut stats = Stats::default();
        // The file before, and how many bytes fill its last block.
        let mut last: Option<(tree::Id, usize)> = None;
        loop {
            let header = reader.next_entry()?;
            let record = reader.take_record();
            if let Some((id, padding)) = last.take()
                && record.iter().take(padding).any(|byte| *byte != 0)
            {
                tree.relocate(id);
            }
            let Some(header) = header else { break };
            stats.entries += 1;
            let padding = (BLOCK - (header.size % BLOCK as u64) as usize) % BLOCK;
            let added = tree.entry(&header, HEAD + reader.offset())?;
            last = added.map(|id| (id, padding));
        }
        stats.bytes = tree.bytes();
        let tar_length = reader.offset();
        let end = self.relocate(&mut tree, (HEAD + tar_length).next_multiple_of(HEAD))?;
        image::write(&tree, self.file, end)?;
        let head = [*MARK, tar_length.to_le_bytes()].concat();
        self.file.write_all_at(&head, 0).map_err(write_error)?;
        Ok(stats)
    }

    /// Copies contents that cannot stay where they are in the tar; gives the end of all contents.
    fn relocate(&self, tree: &mut Tree, mut end: u64) -> Result<u64> {
        for id in tree.take_relocated() {
            let node = tree.node_mut(id);
            match &mut node.content {
                Content::File { size, at } => {
                    self.copy(*at, end, *size)?;
                    *at = end;
                    end = image::after(end, *size)?;
                }
                Content::Sparse { map, at } => {
                    let Some(chunks) = Chunks::of(map) else { continue };
                    let after = image::after(end, chunks.total())?;
                    let mut from = *at;
                    for (start, length) in &map.data {
                        for (place, length) in chunks.places(*start, *length) {
                            self.copy(from, end + place, length)?;
                            from += length;
                        }
                    }
                    (*at, end) = (end, after);
                }
                _ => {}
            }
        }
        Ok(end)
    }

    fn copy(&self, mut from: u64, mut to: u64, mut length: u64) -> Result<()> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(length).unwrap_or(PIECE))];
        while length > 0 {
            let piece = usize::try_from(length).map_or(buffer.len(), |length| length.min(buffer.len()));
            self.file.read_exact_at(&mut buffer[..piece], from).map_err(write_error)?;
            self.file.write_all_at(&buffer[..piece], to).map_err(write_error)?;
            from += piece as u64;
            to += piece as u64;
            length -= piece as u64;
        }
        Ok(())
    }
}

/// A stream that is written to the image as it is read: each buffer at once and whole.
struct Tee<'a, R> {
    input: R,
    file: &'a File,
    /// Bytes written.
    written: u64,
    /// Bytes of the input's buffer that are written and not consumed.
    ahead: usize,
    /// Why a write failed: the reader takes it for the input's failure.
    failed: &'a Cell<Option<io::Error>>,
}

impl<R: BufRead> BufRead for Tee<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.input.fill_buf()?;
        if self.ahead == 0 {
            if let Err(error) = self.file.write_all_at(buffer, HEAD + self.written) {
                self.failed.set(Some(error));
                return Err(io::Error::other("the image cannot be written"));
            }
            self.ahead = buffer.len();
            self.written += self.ahead as u64;
        }
        Ok(&buffer[..self.ahead.min(buffer.len())])
    }

    fn consume(&mut self, amount: usize) {
        self.ahead -= amount;
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
