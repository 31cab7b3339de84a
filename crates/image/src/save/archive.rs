//! The tar that images are saved to.

use std::collections::BTreeSet;
use std::io::{BufWriter, Read, Write};

use ponton_archive::header::{Header, Kind};
use ponton_archive::writer::Writer;
use ponton_oci::digest::Digest;

use crate::{Error, Result};

fn failed(source: ponton_archive::Error) -> Error {
    Error::Unpack { what: "write image archive".to_owned(), source }
}

/// Where a blob is in the archive.
pub(super) fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The archive under way. Its bytes depend on the images alone: no time, no owner.
pub(super) struct Archive<'a> {
    writer: Writer<BufWriter<&'a mut dyn Write>>,
    written: BTreeSet<Digest>,
}

impl<'a> Archive<'a> {
    pub(super) fn new(output: &'a mut dyn Write) -> Self {
        Self { writer: Writer::new(BufWriter::with_capacity(1 << 18, output)), written: BTreeSet::new() }
    }

    pub(super) fn directories(&mut self) -> Result<()> {
        for path in ["blobs/", "blobs/sha256/"] {
            let path = path.as_bytes().to_vec();
            let header = Header { path, kind: Kind::Directory, mode: 0o755, ..Header::default() };
            self.writer.header(&header).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn file(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        let header = Header { path: path.as_bytes().to_vec(), mode: 0o644, ..Header::default() };
        self.writer.file(&header, contents).map_err(failed)
    }

    pub(super) fn blob(&mut self, contents: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256_of(contents);
        if self.begin_blob(&digest, contents.len() as u64)? {
            self.writer.stream().write_all(contents).map_err(Error::io("write image archive"))?;
            self.end_blob(contents.len() as u64)?;
        }
        Ok(digest)
    }

    /// Adds a blob that `write` writes; nothing if the archive has it.
    pub(super) fn blob_written(
        &mut self,
        digest: &Digest,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        if self.begin_blob(digest, size)? {
            write(self.writer.stream())?;
            self.end_blob(size)?;
        }
        Ok(())
    }

    /// Adds a blob that is read; what is read has its size, or it is an error.
    pub(super) fn blob_read(&mut self, digest: &Digest, size: u64, input: impl Read) -> Result<()> {
        if self.begin_blob(digest, size)? {
            let header = Header { path: path_of(digest).into_bytes(), size, ..Header::default() };
            self.writer.contents(&header, input).map_err(failed)?;
        }
        Ok(())
    }

    /// False if the blob is in the archive already.
    fn begin_blob(&mut self, digest: &Digest, size: u64) -> Result<bool> {
        if !self.written.insert(digest.clone()) {
            return Ok(false);
        }
        let path = path_of(digest).into_bytes();
        self.writer.header(&Header { path, mode: 0o644, size, ..Header::default() }).map_err(failed)?;
        Ok(true)
    }

    fn end_blob(&mut self, size: u64) -> Result<()> {
        self.writer.pad(size).map_err(failed)
    }

    pub(super) fn finish(self) -> Result<()> {
        self.writer.finish().map_err(failed)?;
        Ok(())
    }
}
