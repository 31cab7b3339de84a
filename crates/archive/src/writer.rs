//! Writing a tar: USTAR headers, with PAX records where USTAR has no room.

use std::io::{self, Read, Write};

use crate::header::{BLOCK, Block, Header, Kind};
use crate::{Error, Result, printable};

/// Writes entries one after another.
pub struct Writer<W> {
    output: W,
    /// For contents on their way.
    buffer: Vec<u8>,
}

/// Bytes of contents that are copied at once.
const BUFFER_BYTES: usize = 128 << 10;

impl<W: Write> Writer<W> {
    /// Writes to a stream, which should be buffered.
    pub fn new(output: W) -> Self {
        Self { output, buffer: Vec::new() }
    }

    /// Writes an entry's header, to be followed by [`Writer::contents`] where it has a size.
    pub fn header(&mut self, header: &Header) -> Result<()> {
        let records = Block::pax_records(header);
        if !records.is_empty() {
            self.pax(header, &records)?;
        }
        let flag = match header.kind {
            Kind::Regular => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.write(&Block::new(header, flag).0)
    }

    /// Writes an entry's contents: exactly `size` bytes of `input`, padded. A file that shrank
    /// meanwhile is an error, for what was announced cannot be taken back.
    pub fn contents(&mut self, header: &Header, mut input: impl Read) -> Result<()> {
        self.buffer.resize(BUFFER_BYTES, 0);
        let mut copied = 0;
        while copied < header.size {
            let most =
                usize::try_from(header.size - copied).map_or(BUFFER_BYTES, |rest| rest.min(BUFFER_BYTES));
            let length = match input.read(&mut self.buffer[..most]) {
                Ok(0) => {
                    let (path, expected) = (printable(&header.path), header.size);
                    return Err(Error::Changed { path, expected, found: copied });
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", &header.path)(error)),
            };
            self.output.write_all(&self.buffer[..length]).map_err(Error::Write)?;
            copied += length as u64;
        }
        self.pad(header.size)
    }

    /// Writes a small regular file whole.
    pub fn file(&mut self, header: &Header, contents: &[u8]) -> Result<()> {
        let header = Header { size: contents.len() as u64, ..header.clone() };
        self.header(&header)?;
        self.contents(&header, contents)
    }

    /// Writes the end mark and hands the stream back, flushed.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        self.output.flush().map_err(Error::Write)?;
        Ok(self.output)
    }

    /// Pads contents of `size` bytes that were written to [`Writer::stream`].
    pub fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.write(&[0; BLOCK][..padding])
    }

    /// The stream itself, for contents that are produced by writing.
    pub fn stream(&mut self) -> &mut W {
        &mut self.output
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(Error::Write)
    }

    fn pax(&mut self, header: &Header, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut data = Vec::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            if length.to_string().len() + rest > length {
                length += 1;
            }
            data.extend_from_slice(length.to_string().as_bytes());
            data.push(b' ');
            data.extend_from_slice(key);
            data.push(b'=');
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        let name = header.path.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or_default();
        let pax = Header {
            path: [b"PaxHeaders.0/", &name[..name.len().min(80)]].concat(),
            mode: 0o644,
            size: data.len() as u64,
            ..Header::default()
        };
        self.write(&Block::new(&pax, b'x').0)?;
        self.write(&data)?;
        self.pad(pax.size)
    }
}
