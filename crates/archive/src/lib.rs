//! tar to tree and back.
//!
//! - [`compression`]: recognises and undoes compression, in this process.
//! - [`header`], [`reader`], [`writer`]: the tar format, streamed.
//! - [`apply`]: a layer's tar becomes a directory tree; nothing that the tar says leaves the root.
//! - [`erofs`]: a layer's tar becomes an image that the kernel mounts.
//! - [`recipe`]: what, beside the tree, is needed to rebuild the very bytes of a tar.
//! - [`create`]: a directory tree becomes a tar.
//! - [`copy`]: what `docker cp` does, on a root that a container may be changing meanwhile.
//!
//! Every lookup below a root is made by descriptor: `openat2` with `RESOLVE_IN_ROOT`, or one
//! component with `O_NOFOLLOW`. Archives are untrusted: sizes and counts in headers are bounded
//! before they are believed.

pub mod apply;
pub mod compression;
pub mod copy;
pub mod create;
pub mod erofs;
mod filler;
pub mod header;
mod metadata;
pub mod reader;
pub mod recipe;
mod tree;
pub mod writer;

#[cfg(test)]
mod tests;

use std::io;

pub use tree::components;

/// What was attempted on which entry, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream that the archive comes from failed.
    #[error("read archive")]
    Read(#[source] io::Error),
    /// The stream that the archive goes to failed.
    #[error("write archive")]
    Write(#[source] io::Error),
    /// The archive ends inside an entry.
    #[error("archive is truncated at byte {offset}")]
    Truncated {
        /// Where the archive ends.
        offset: u64,
    },
    /// A header that is no tar header, or asks for too much.
    #[error("invalid tar header at byte {offset}: {reason}")]
    Header {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry that cannot be applied.
    #[error("archive entry {path:?}: {reason}")]
    Entry {
        /// The entry's name.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel or the disk refused something for an entry.
    #[error("{operation} {path:?}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The entry's name, relative to the root.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// Compressed data that cannot be decompressed.
    #[error("unsupported compression {0}")]
    Compression(&'static str),
    /// A rebuilt archive differs: a file of the tree was changed.
    #[error("file {path:?} of the layer was changed: {expected} bytes expected, {found} found")]
    Changed {
        /// The file.
        path: String,
        /// Its size in the archive.
        expected: u64,
        /// Its size now.
        found: u64,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A name from an archive as text for an error.
fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Error {
    fn io<E: Into<io::Error>>(operation: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { operation, path: printable(path), source: source.into() }
    }

    fn entry(path: &[u8], reason: impl Into<String>) -> Self {
        Self::Entry { path: printable(path), reason: reason.into() }
    }

    /// Whether the archive is at fault, and not this host.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self,
            Self::Truncated { .. } | Self::Header { .. } | Self::Entry { .. } | Self::Compression(_)
        ) || matches!(self, Self::Read(source) if matches!(
            source.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
        ))
    }
}
