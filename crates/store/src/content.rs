//! Blobs by digest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ponton_oci::Digest;
use ponton_oci::digest::Algorithm;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use sha2::Digest as _;

use crate::error::{Error, Result};
use crate::layout::make_private_directory;

/// Names the files of file systems that have no unnamed ones.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The blobs of one data root. Clones share them.
#[derive(Clone, Debug)]
pub struct Content {
    root: Arc<PathBuf>,
}

impl Content {
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        let content = Self { root: Arc::new(root) };
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            make_private_directory(&content.directory(algorithm))?;
        }
        let ingest = content.ingest();
        // Only file systems without O_TMPFILE leave something here.
        if fs::read_dir(&ingest).is_ok_and(|mut entries| entries.next().is_some()) {
            fs::remove_dir_all(&ingest).map_err(Error::io("remove", &ingest))?;
        }
        make_private_directory(&ingest)?;
        Ok(content)
    }

    /// Begins a blob that will be named by its SHA-256.
    pub fn writer(&self) -> Result<Ingest> {
        self.writer_with(Algorithm::Sha256)
    }

    /// Begins a blob that will be named by this algorithm.
    pub fn writer_with(&self, algorithm: Algorithm) -> Result<Ingest> {
        let (file, name) = self.temporary_file()?;
        let hasher = match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(sha2::Sha512::new())),
        };
        let pending = Pending { file, name };
        Ok(Ingest { content: self.clone(), pending, hasher, size: 0, size_max: u64::MAX })
    }

    /// Makes a blob of these bytes, durable on return.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let sealed = self.seal(bytes)?;
        let digest = sealed.digest().clone();
        self.commit(vec![sealed]).map(|()| digest)
    }

    /// Writes a blob of these bytes, to be made visible by [`Content::commit`].
    pub fn seal(&self, bytes: &[u8]) -> Result<Sealed> {
        self.seal_with(Algorithm::Sha256, bytes)
    }

    /// The same, named by this algorithm.
    pub fn seal_with(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Sealed> {
        let mut ingest = self.writer_with(algorithm)?;
        ingest.write_all(bytes).map_err(Error::io("write", &self.ingest()))?;
        ingest.seal(None)
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub fn reader(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound { kind: "blob", name: digest.to_string() },
            _ => Error::io("open", &path)(error),
        })
    }

    /// Reads a small blob whole, such as a configuration or a manifest.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.reader(digest)?, &mut bytes)
            .map_err(Error::io("read", &self.path(digest)))?;
        Ok(bytes)
    }

    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// The blob's size in bytes, if it is there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|status| status.len())
    }

    /// Removes a blob; one that isn't there is no error. Who has it open reads on.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory(digest.algorithm()).join(digest.hex())
    }

    /// All blobs, with their sizes in bytes.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = self.directory(algorithm);
            let list = Error::io("list", &directory);
            let entries: Vec<_> =
                fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<_>>).map_err(list)?;
            for entry in entries {
                let digest = entry.file_name().to_str().and_then(|hex| Digest::new(algorithm, hex).ok());
                if let (Some(digest), Ok(status)) = (digest, entry.metadata()) {
                    blobs.push((digest, status.len()));
                }
            }
        }
        Ok(blobs)
    }

    /// Makes finished blobs visible, durably, with one sync for all of them.
    pub fn commit(&self, blobs: Vec<Sealed>) -> Result<()> {
        match blobs.as_slice() {
            [] => return Ok(()),
            [blob] => blob.pending.file.sync_data().map_err(Error::io("sync", &self.ingest()))?,
            [blob, ..] => rustix::fs::syncfs(&blob.pending.file)
                .map_err(io::Error::from)
                .map_err(Error::io("sync", &self.ingest()))?,
        }
        let mut algorithms: Vec<Algorithm> = Vec::new();
        for blob in blobs {
            let algorithm = blob.digest.algorithm();
            self.publish(blob)?;
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        for algorithm in algorithms {
            let directory = self.directory(algorithm);
            File::open(&directory).and_then(|file| file.sync_all()).map_err(Error::io("sync", &directory))?;
        }
        Ok(())
    }

    /// Gives a durable file its name. One that is there already has the same content.
    fn publish(&self, mut blob: Sealed) -> Result<()> {
        let path = self.path(&blob.digest);
        let result = if let Some(name) = blob.pending.name.take() {
            rustix::fs::rename(&name, &path)
        } else {
            let link = format!("/proc/self/fd/{}", blob.pending.file.as_raw_fd());
            match rustix::fs::linkat(CWD, link, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
                Err(Errno::EXIST) => Ok(()),
                result => result,
            }
        };
        result.map_err(io::Error::from).map_err(Error::io("link", &path))
    }

    fn temporary_file(&self) -> Result<(File, Option<PathBuf>)> {
        let ingest = self.ingest();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &ingest, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => return Ok((file.into(), None)),
            // Not every file system has unnamed files (overlayfs before Linux 6.1, NFS).
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
            Err(errno) => return Err(Error::io("create a file in", &ingest)(errno.into())),
        }
        let name = ingest.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| Error::io("create", &name)(errno.into()))
            .map(|file| (file.into(), Some(name)))
    }

    fn directory(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }
}

/// A file without a blob's name yet; it goes when this does.
#[derive(Debug)]
struct Pending {
    file: File,
    name: Option<PathBuf>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nothing more can be done; what stays is wiped when the store is opened again.
            let _ = fs::remove_file(name);
        }
    }
}

#[derive(Debug)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

/// A blob that is being written: hashed as it comes, invisible until [`Ingest::commit`], gone when
/// dropped before. It has no buffer of its own: write big pieces.
#[derive(Debug)]
pub struct Ingest {
    content: Content,
    pending: Pending,
    hasher: Hasher,
    size: u64,
    size_max: u64,
}

impl Ingest {
    /// Refuses more than this many bytes (`io::ErrorKind::FileTooLarge`).
    #[must_use]
    pub fn with_size_max(self, size_max: u64) -> Self {
        Self { size_max, ..self }
    }

    /// How many bytes have been written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Ends the writing, and compares digest and size with what was announced. The blob stays
    /// invisible until it is given to [`Content::commit`].
    pub fn seal(self, expected: Option<(&Digest, u64)>) -> Result<Sealed> {
        let digest = match self.hasher {
            Hasher::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::from_sha512(hasher.finalize().into()),
        };
        if let Some((expected_digest, expected_size)) = expected {
            if self.size != expected_size {
                return Err(Error::SizeMismatch {
                    digest: expected_digest.clone(),
                    expected: expected_size,
                    actual: self.size,
                });
            }
            if digest != *expected_digest {
                return Err(Error::DigestMismatch { expected: expected_digest.clone(), actual: digest });
            }
        }
        Ok(Sealed { pending: self.pending, digest, size: self.size })
    }

    /// Ends the writing and makes the blob visible, durable on return.
    pub fn commit(self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64)> {
        let content = self.content.clone();
        let sealed = self.seal(expected)?;
        let done = (sealed.digest.clone(), sealed.size);
        content.commit(vec![sealed])?;
        Ok(done)
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.size_max - self.size {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("content has more than the {} bytes that are allowed", self.size_max),
            ));
        }
        let written = self.pending.file.write(bytes)?;
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(&bytes[..written]),
            Hasher::Sha512(hasher) => hasher.update(&bytes[..written]),
        }
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob that is written and verified, but invisible until [`Content::commit`].
#[derive(Debug)]
pub struct Sealed {
    pending: Pending,
    digest: Digest,
    size: u64,
}

impl Sealed {
    /// The content's digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The content's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Opens the content for reading, from its beginning and with a position of its own.
    pub fn reader(&self) -> Result<File> {
        let link = format!("/proc/self/fd/{}", self.pending.file.as_raw_fd());
        File::open(&link).map_err(Error::io("open", Path::new(&link)))
    }
}
