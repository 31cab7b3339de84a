//! Compressed log files: gzip, so that everybody can read them, and yet to be entered at any place.
//!
//! A file is a row of gzip members that each hold [`CHUNK`] bytes (the last one what is left). The
//! header of a member has an extra field, as that of bgzip has: how long the member is, and which file
//! the whole was made from. So a reader finds the beginnings of all members without reading them.
//!
//! ```text
//! member = 1f 8b 08 04  time:u32=0  00 ff  length:u16=16  'P' 'n' 12:u16 member:u32 inode:u64   header
//!          deflated data
//!          crc:u32 size:u32
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

/// How much of the log one member holds, in bytes: a number of whole blocks of the format `local`.
pub const CHUNK: usize = 256 << 10;

const HEADER: usize = 28;
const TRAILER: usize = 8;
/// gzip, deflate, with an extra field, of no time, for no system.
const MAGIC: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
/// The length of the extra field, its name, and the length of its contents.
const EXTRA: [u8; 6] = [16, 0, b'P', b'n', 12, 0];
/// What deflate makes of a chunk at worst, with some room.
const MEMBER_MAX: usize = CHUNK + CHUNK / 8 + 1024;

/// Writes what is in `source`, from its beginning, to `target`.
pub fn compress(source: &File, mut target: &File) -> io::Result<()> {
    let inode = source.metadata()?.ino();
    let mut chunk = vec![0; CHUNK];
    let mut member = Vec::new();
    let mut deflate = Compress::new(Compression::fast(), false);
    let mut offset = 0;
    loop {
        let length = read_full(source, &mut chunk, offset)?;
        if length == 0 {
            return Ok(());
        }
        offset += length as u64;
        write_member(&mut member, &chunk[..length], inode, &mut deflate)?;
        target.write_all(&member)?;
    }
}

fn write_member(member: &mut Vec<u8>, chunk: &[u8], inode: u64, deflate: &mut Compress) -> io::Result<()> {
    member.clear();
    member.reserve(MEMBER_MAX);
    member.resize(HEADER, 0);
    deflate.reset();
    // With room for everything one call is enough.
    match deflate.compress_vec(chunk, member, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => {}
        _ => return Err(io::Error::other("deflate does not end")),
    }
    let mut crc = Crc::new();
    crc.update(chunk);
    member.extend_from_slice(&crc.sum().to_le_bytes());
    member.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
    let length = member.len() as u32;
    member[..10].copy_from_slice(&MAGIC);
    member[10..16].copy_from_slice(&EXTRA);
    member[16..20].copy_from_slice(&length.to_le_bytes());
    member[20..28].copy_from_slice(&inode.to_le_bytes());
    Ok(())
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where the members of a compressed file are.
#[derive(Debug)]
pub struct Index {
    /// The beginning of each, and where the last ends.
    offsets: Vec<u64>,
    /// The size of the log that is in it, in bytes.
    pub size: u64,
    /// The inode number of the file that it was made from.
    pub inode: u64,
}

impl Index {
    /// Finds the members; an error if the file is none of ours, or damaged.
    pub fn new(file: &File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        let mut index = Self { offsets: vec![0], size: 0, inode: 0 };
        let mut offset = 0;
        while offset < end {
            let mut header = [0; HEADER];
            file.read_exact_at(&mut header, offset)?;
            let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, inode @ ..] = header;
            let length = u64::from(u32::from_le_bytes([a, b, c, d]));
            let is_ours = header.starts_with(&MAGIC) && header[10..16] == EXTRA;
            if !is_ours
                || length < (HEADER + TRAILER) as u64
                || length > MEMBER_MAX as u64
                || offset + length > end
            {
                return Err(damaged());
            }
            index.inode = u64::from_le_bytes(inode);
            offset += length;
            index.offsets.push(offset);
        }
        let members = index.offsets.len() as u64 - 1;
        if members > 0 {
            let mut size = [0; 4];
            file.read_exact_at(&mut size, end - 4)?;
            let last = u64::from(u32::from_le_bytes(size));
            if last == 0 || last > CHUNK as u64 {
                return Err(damaged());
            }
            index.size = (members - 1) * CHUNK as u64 + last;
        }
        Ok(index)
    }

    /// Decompresses the chunk of this number into `chunk`, which is emptied first; nothing behind the
    /// last.
    pub fn read(&self, file: &File, number: usize, chunk: &mut Vec<u8>) -> io::Result<()> {
        chunk.clear();
        let (Some(begin), Some(end)) = (self.offsets.get(number), self.offsets.get(number + 1)) else {
            return Ok(());
        };
        let mut member = vec![0; (end - begin) as usize];
        file.read_exact_at(&mut member, *begin)?;
        chunk.reserve(CHUNK);
        let data = &member[HEADER..member.len() - TRAILER];
        match Decompress::new(false).decompress_vec(data, chunk, FlushDecompress::Finish) {
            Ok(Status::StreamEnd) => {}
            _ => return Err(damaged()),
        }
        let mut crc = Crc::new();
        crc.update(chunk);
        let wanted = [crc.sum().to_le_bytes(), (chunk.len() as u32).to_le_bytes()].concat();
        let is_last = number + 2 == self.offsets.len();
        if !member.ends_with(&wanted) || (!is_last && chunk.len() != CHUNK) {
            return Err(damaged());
        }
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "compressed log is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(content: &[u8]) -> (tempfile::TempDir, File, u64) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("log"), content).unwrap();
        let source = File::open(directory.path().join("log")).unwrap();
        let target = File::create_new(directory.path().join("log.gz")).unwrap();
        compress(&source, &target).unwrap();
        let target = File::open(directory.path().join("log.gz")).unwrap();
        (directory, target, source.metadata().unwrap().ino())
    }

    fn content(size: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        // Half of it cannot be compressed.
        (0..size).map(|at| if at / 1000 % 2 == 0 { b'x' } else { step() }).collect()
    }

    #[test]
    fn every_chunk_is_found() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let content = content(size);
            let (_directory, file, inode) = compressed(&content);
            let index = Index::new(&file).unwrap();
            assert_eq!(index.size, size as u64);
            assert_eq!(index.inode, if size == 0 { 0 } else { inode });
            let mut chunk = Vec::new();
            for (number, expected) in content.chunks(CHUNK).enumerate() {
                index.read(&file, number, &mut chunk).unwrap();
                assert!(chunk == expected);
            }
            index.read(&file, size.div_ceil(CHUNK), &mut chunk).unwrap();
            assert!(chunk.is_empty());
        }
    }

    #[test]
    fn others_can_read_it() {
        let content = content(CHUNK + 77);
        let (directory, _, _) = compressed(&content);
        let mut gzip = std::process::Command::new("gzip");
        let output = gzip.arg("-dc").arg(directory.path().join("log.gz")).output().unwrap();
        assert!(output.status.success() && output.stdout == content);
    }

    #[test]
    fn damage_is_found() {
        let (directory, file, _) = compressed(&content(CHUNK + 77));
        let good = std::fs::read(directory.path().join("log.gz")).unwrap();
        let path = directory.path().join("bad.gz");
        for (bad, why) in [
            (good[..good.len() - 1].to_vec(), "cut"),
            (good[..HEADER - 1].to_vec(), "cut in the header"),
            ([&b"\x1f\x8b\x08\0"[..], &good[4..]].concat(), "of another program"),
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(Index::new(&File::open(&path).unwrap()).is_err(), "{why}");
        }
        let mut bad = good.clone();
        bad[HEADER + 100] ^= 0x55;
        std::fs::write(&path, bad).unwrap();
        let index = Index::new(&file).unwrap();
        assert!(index.read(&File::open(&path).unwrap(), 0, &mut Vec::new()).is_err());
        assert!(index.read(&File::open(&path).unwrap(), 1, &mut Vec::new()).is_ok());
    }
}
