//! Reading a tar as a stream of entries.

use std::io::{self, BufRead, Read};

use crate::header::{BLOCK, Header, Kind, Raw, Sparse, Time, number, parse_pax_time};
use crate::{Error, Result};

/// Bytes that one extension (long name, PAX records, sparse map) may have: Go's archive/tar allows
/// as many.
const MAX_EXTENSION: u64 = 1 << 20;
/// Pieces that a sparse file may have.
const MAX_SPARSE_PIECES: usize = 1 << 16;

/// Reads entries one after another. The contents of an entry come through [`Reader::payload`];
/// what is not read of them is skipped.
pub struct Reader<R> {
    input: R,
    /// Bytes consumed so far.
    offset: u64,
    /// Bytes of the current entry's contents that are still to come.
    remaining: u64,
    padding: u64,
    ended: bool,
    /// All bytes but contents, for who wants to rebuild the archive.
    record: Option<Vec<u8>>,
}

/// The extensions that precede a header.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from a decompressed stream.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, remaining: 0, padding: 0, ended: false, record: None }
    }

    /// Also keeps all bytes that are not contents, to be taken with [`Reader::take_record`].
    pub fn recording(input: R) -> Self {
        Self { record: Some(Vec::new()), ..Self::new(input) }
    }

    /// The bytes recorded since the last call.
    pub fn take_record(&mut self) -> Vec<u8> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Bytes of the archive consumed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry; `None` at the end, with everything after it read to the end of the stream.
    pub fn next_entry(&mut self) -> Result<Option<Header>> {
        self.skip_payload()?;
        if self.ended {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        loop {
            let offset = self.offset;
            let Some(block) = self.read_block(true)? else {
                self.ended = true;
                return Ok(None);
            };
            let raw = Raw(&block);
            if raw.is_zero() {
                self.ended = true;
                self.read_trailer()?;
                return Ok(None);
            }
            if !raw.checksum_matches() {
                return Err(Error::Header { offset, reason: "checksum does not match" });
            }
            match raw.type_flag() {
                b'L' => extensions.path = Some(self.read_long_name(&raw, offset)?),
                b'K' => extensions.link = Some(self.read_long_name(&raw, offset)?),
                b'x' => {
                    let records = self.read_extension(&raw, offset)?;
                    extensions.pax = parse_pax(&records)
                        .ok_or(Error::Header { offset, reason: "malformed PAX records" })?;
                }
                b'g' => drop(self.read_extension(&raw, offset)?),
                _ => return self.finish_header(&raw, offset, extensions).map(Some),
            }
        }
    }

    /// The contents of the current entry.
    pub fn payload(&mut self) -> Payload<'_, R> {
        Payload { reader: self }
    }

    fn finish_header(&mut self, raw: &Raw<'_>, offset: u64, extensions: Extensions) -> Result<Header> {
        let bad = |reason| Error::Header { offset, reason };
        let kind = match raw.type_flag() {
            0 | b'0' | b'7' | b'S' => Kind::Regular,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(bad("unknown type of entry")),
        };
        let mut header = Header {
            path: extensions.path.unwrap_or_else(|| raw.path()),
            link: extensions.link.unwrap_or_else(|| raw.link()),
            kind,
            mode: raw.mode().ok_or(bad("mode is no number"))? as u32 & 0o7777,
            mtime: Time { seconds: raw.mtime().ok_or(bad("time is no number"))?, nanoseconds: 0 },
            ..Header::default()
        };
        let mut size = raw.size().ok_or(bad("size is no number"))?;
        let mut uid = raw.uid();
        let mut gid = raw.gid();
        if matches!(kind, Kind::Char | Kind::Block) {
            let part = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
            header.major = part(raw.major()).ok_or(bad("device number out of range"))?;
            header.minor = part(raw.minor()).ok_or(bad("device number out of range"))?;
        }
        let mut sparse = PaxSparse::default();
        for (key, value) in extensions.pax {
            let text = || std::str::from_utf8(&value).ok();
            let decimal = || text().and_then(|text| text.parse::<i64>().ok());
            match key.as_slice() {
                b"path" => header.path = value,
                b"linkpath" => header.link = value,
                b"size" => size = decimal().ok_or(bad("PAX size is no number"))?,
                b"uid" => uid = decimal(),
                b"gid" => gid = decimal(),
                b"mtime" => {
                    header.mtime = text().and_then(parse_pax_time).ok_or(bad("PAX mtime is no time"))?;
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        header.xattrs.push((name.to_vec(), value));
                    } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                        sparse.record(name, &value).ok_or(bad("malformed sparse map"))?;
                    }
                }
            }
        }
        let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
        header.uid = id(uid).ok_or(bad("user id out of range"))?;
        header.gid = id(gid).ok_or(bad("group id out of range"))?;
        // Old archives mark directories by a trailing slash alone.
        if raw.type_flag() == 0 && header.path.ends_with(b"/") {
            header.kind = Kind::Directory;
        }
        if header.path.contains(&0) || header.link.contains(&0) {
            return Err(bad("name with a NUL byte"));
        }
        self.begin_payload(&header, size, offset)?;
        header.size = self.remaining;
        self.read_sparse(raw, sparse, offset, &mut header)?;
        Ok(header)
    }

    /// Only regular files have contents; hard links may in PAX archives.
    fn begin_payload(&mut self, header: &Header, size: i64, offset: u64) -> Result<()> {
        let size = u64::try_from(size).map_err(|_| Error::Header { offset, reason: "negative size" })?;
        let size = if matches!(header.kind, Kind::Regular | Kind::HardLink) { size } else { 0 };
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64).wrapping_sub(size) % BLOCK as u64;
        Ok(())
    }

    fn read_sparse(&mut self, raw: &Raw<'_>, pax: PaxSparse, offset: u64, header: &mut Header) -> Result<()> {
        let bad = |reason| Error::Header { offset, reason };
        let before = self.remaining;
        let sparse = if raw.type_flag() == b'S' {
            self.read_gnu_sparse(raw, offset)?
        } else if pax.major == Some(1) {
            self.read_sparse_map_in_payload(pax.size, offset)?
        } else if let (Some(size), false) = (pax.size, pax.numbers.is_empty()) {
            pair_up(&pax.numbers, size).ok_or(bad("malformed sparse map"))?
        } else {
            return Ok(());
        };
        if let Some(name) = pax.name {
            header.path = name;
        }
        let mut end = 0;
        let mut total = 0u64;
        for (start, length) in &sparse.data {
            let piece_end = start.checked_add(*length).filter(|end| *end <= sparse.size);
            if *start < end || piece_end.is_none() {
                return Err(bad("sparse map out of order"));
            }
            end = piece_end.unwrap_or(end);
            total += length;
        }
        if total != self.remaining || i64::try_from(sparse.size).is_err() {
            return Err(bad("sparse map and size differ"));
        }
        header.size = before.min(self.remaining);
        header.sparse = Some(sparse);
        Ok(())
    }

    fn read_gnu_sparse(&mut self, raw: &Raw<'_>, offset: u64) -> Result<Sparse> {
        let bad = || Error::Header { offset, reason: "malformed sparse map" };
        let (pairs, mut more, size) = raw.gnu_sparse();
        let size = size.and_then(|size| u64::try_from(size).ok()).ok_or_else(bad)?;
        let mut sparse = Sparse { size, data: Vec::new() };
        push_pairs(pairs, &mut sparse.data).ok_or_else(bad)?;
        while more {
            let block = self.read_block(false)?.ok_or_else(bad)?;
            push_pairs(&block[..504], &mut sparse.data).ok_or_else(bad)?;
            more = block[504] != 0;
            if sparse.data.len() > MAX_SPARSE_PIECES {
                return Err(bad());
            }
        }
        Ok(sparse)
    }

    /// PAX sparse 1.0: the contents begin with decimal lines, the number of pairs and the pairs,
    /// padded to a block.
    fn read_sparse_map_in_payload(&mut self, size: Option<u64>, offset: u64) -> Result<Sparse> {
        let bad = || Error::Header { offset, reason: "malformed sparse map" };
        let size = size.ok_or_else(bad)?;
        let mut numbers: Vec<u64> = Vec::new();
        let mut digits = Vec::new();
        loop {
            self.remaining = self.remaining.checked_sub(BLOCK as u64).ok_or_else(bad)?;
            let block = self.read_block(false)?.ok_or_else(bad)?;
            for byte in block {
                if byte == b'\n' {
                    let text = std::str::from_utf8(&digits).ok();
                    numbers.push(text.and_then(|text| text.parse().ok()).ok_or_else(bad)?);
                    digits.clear();
                } else {
                    digits.push(byte);
                }
                let count = numbers.first().copied().unwrap_or(0);
                if count > MAX_SPARSE_PIECES as u64 {
                    return Err(bad());
                }
                if !numbers.is_empty() && numbers.len() as u64 == 1 + 2 * count {
                    return pair_up(&numbers[1..], size).ok_or_else(bad);
                }
                if digits.len() > 20 {
                    return Err(bad());
                }
            }
        }
    }

    fn read_long_name(&mut self, raw: &Raw<'_>, offset: u64) -> Result<Vec<u8>> {
        let mut name = self.read_extension(raw, offset)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn read_extension(&mut self, raw: &Raw<'_>, offset: u64) -> Result<Vec<u8>> {
        let size = raw.size().and_then(|size| u64::try_from(size).ok());
        let size = size
            .filter(|size| *size <= MAX_EXTENSION)
            .ok_or(Error::Header { offset, reason: "extension too large" })?;
        let mut data = Vec::with_capacity(size.next_multiple_of(BLOCK as u64) as usize);
        while (data.len() as u64) < size {
            let block = self.read_block(false)?.ok_or(Error::Truncated { offset: self.offset })?;
            data.extend_from_slice(&block);
        }
        data.truncate(size as usize);
        Ok(data)
    }

    /// One block; `None` at the end of the stream where that may be.
    fn read_block(&mut self, may_end: bool) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 && may_end => return Ok(None),
                Ok(0) => return Err(Error::Truncated { offset: self.offset + filled as u64 }),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        self.offset += BLOCK as u64;
        if let Some(record) = &mut self.record {
            record.extend_from_slice(&block);
        }
        Ok(Some(block))
    }

    /// Reads what is left of the contents, and the padding. The contents are not recorded.
    fn skip_payload(&mut self) -> Result<()> {
        while self.remaining > 0 {
            let available = self.payload().fill()?.len();
            self.payload().consume(available);
        }
        if self.padding > 0 {
            let mut padding = [0; BLOCK];
            let padding = &mut padding[..self.padding as usize];
            self.input.read_exact(padding).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::Truncated { offset: self.offset },
                _ => Error::Read(error),
            })?;
            if let Some(record) = &mut self.record {
                record.extend_from_slice(padding);
            }
            self.offset += self.padding;
            self.padding = 0;
        }
        Ok(())
    }

    /// What follows the end mark, to the end of the stream: it counts for the digest. Recording
    /// stops being bounded by the reader here; archives end with a few blocks of zeros.
    fn read_trailer(&mut self) -> Result<()> {
        const MAX_RECORDED: usize = 64 << 20;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Read(error)),
            };
            let length = buffer.len();
            if length == 0 {
                return Ok(());
            }
            if let Some(record) = &mut self.record {
                if record.len() + length > MAX_RECORDED {
                    return Err(Error::Header { offset: self.offset, reason: "too much data after the end" });
                }
                record.extend_from_slice(buffer);
            }
            self.input.consume(length);
            self.offset += length as u64;
        }
    }
}

/// The contents of one entry, at most as many bytes as its header says.
pub struct Payload<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: BufRead> Payload<'_, R> {
    /// The next bytes, empty at the end; to be [consumed](Payload::consume).
    pub fn fill(&mut self) -> Result<&[u8]> {
        if self.reader.remaining == 0 {
            return Ok(&[]);
        }
        let remaining = self.reader.remaining;
        let offset = self.reader.offset;
        // The borrow checker wants the retry apart from the returned borrow.
        loop {
            match self.reader.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        let buffer = self.reader.input.fill_buf().map_err(Error::Read)?;
        if buffer.is_empty() {
            return Err(Error::Truncated { offset });
        }
        let length = usize::try_from(remaining).map_or(buffer.len(), |most| most.min(buffer.len()));
        Ok(&buffer[..length])
    }

    /// Marks bytes of the last [`Payload::fill`] as read.
    pub fn consume(&mut self, length: usize) {
        self.reader.input.consume(length);
        self.reader.remaining -= length as u64;
        self.reader.offset += length as u64;
    }
}

impl<R: BufRead> Read for Payload<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reader.remaining == 0 {
            return Ok(0);
        }
        let most = usize::try_from(self.reader.remaining).map_or(buffer.len(), |most| most.min(buffer.len()));
        let length = self.reader.input.read(&mut buffer[..most])?;
        if length == 0 && most > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                Error::Truncated { offset: self.reader.offset },
            ));
        }
        self.reader.remaining -= length as u64;
        self.reader.offset += length as u64;
        Ok(length)
    }
}

/// What PAX records say of a sparse file: versions 0.0, 0.1 and 1.0 of GNU's format.
#[derive(Default)]
struct PaxSparse {
    major: Option<u64>,
    size: Option<u64>,
    name: Option<Vec<u8>>,
    numbers: Vec<u64>,
}

impl PaxSparse {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(value).ok();
        let decimal = text.and_then(|text| text.parse::<u64>().ok());
        match key {
            b"major" => self.major = Some(decimal?),
            b"size" | b"realsize" => self.size = Some(decimal?),
            b"name" => self.name = Some(value.to_vec()),
            b"offset" | b"numbytes" => self.numbers.push(decimal?),
            b"map" => {
                for number in text?.split(',') {
                    self.numbers.push(number.parse().ok()?);
                }
            }
            _ => {}
        }
        (self.numbers.len() <= 2 * MAX_SPARSE_PIECES).then_some(())
    }
}

fn pair_up(numbers: &[u64], size: u64) -> Option<Sparse> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    let data = pairs.iter().map(|[start, length]| (*start, *length)).collect();
    rest.is_empty().then_some(Sparse { size, data })
}

/// Pairs of 12-byte numbers, up to the first empty one.
fn push_pairs(field: &[u8], data: &mut Vec<(u64, u64)>) -> Option<()> {
    for pair in field.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let start = u64::try_from(number(&pair[..12])?).ok()?;
        let length = u64::try_from(number(&pair[12..])?).ok()?;
        data.push((start, length));
    }
    Some(())
}

/// Records are `"<length> <key>=<value>\n"`, the length counting all of it.
fn parse_pax(mut data: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !data.is_empty() && data[0] != 0 {
        let space = data.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
        let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Some(records)
}
