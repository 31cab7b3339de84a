//! A directory tree becomes a tar.
//!
//! Files are opened by their name in a directory that is held open, never by a path and never
//! following a link: a container may be changing the tree meanwhile.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::header::{Header, Kind, Time};
use crate::tree::MAX_DEPTH;
use crate::writer::Writer;
use crate::{Error, Result};

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Extended attributes that go into archives: what a container itself may set, and capabilities.
const XATTRS: [&[u8]; 2] = [b"user.", b"security.capability"];

/// Writes files and trees to one archive; hard links among them stay hard links.
pub struct Creator<W: Write> {
    writer: Writer<W>,
    /// First name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Times are cut to whole seconds, which needs no extension and is what Docker does.
    whole_seconds: bool,
}

impl<W: Write> Creator<W> {
    /// Writes to a stream, which should be buffered.
    pub fn new(output: W) -> Self {
        Self { writer: Writer::new(output), links: HashMap::new(), whole_seconds: true }
    }

    /// Adds the file `name` of `parent` under the name `path`, with all below if it is a directory.
    /// Sockets are left out: an archive has no entry for them.
    pub fn add(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
        let file = rustix::fs::openat(parent, OsStr::from_bytes(name), PATH, Mode::empty())
            .map_err(Error::io("open", path))?;
        self.add_open(&file, path, 0)
    }

    /// Adds all that a directory holds under names that begin with `path` and a slash (or with
    /// nothing, if `path` is empty), but not the directory itself.
    pub fn add_children(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        self.children(directory, path, 0)
    }

    /// Writes the end mark and hands the stream back, flushed.
    pub fn finish(self) -> Result<W> {
        self.writer.finish()
    }

    /// `file` is open with `O_PATH`.
    fn add_open(&mut self, file: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        let status = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH).map_err(Error::io("stat", path))?;
        let Some(mut header) = self.header_of(file, &status, path)? else { return Ok(()) };
        if status.st_nlink > 1 && header.kind != Kind::Directory {
            let known = self.links.entry((status.st_dev, status.st_ino)).or_insert_with(|| path.to_vec());
            if known != path {
                header.link.clone_from(known);
                header.kind = Kind::HardLink;
                header.size = 0;
                header.xattrs.clear();
            }
        }
        self.writer.header(&header)?;
        match header.kind {
            Kind::Regular if header.size > 0 => {
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
                let file =
                    rustix::fs::openat(CWD, link, flags, Mode::empty()).map_err(Error::io("open", path))?;
                // A file that shrinks meanwhile is filled up with zeros: its size was announced.
                self.writer.contents(&header, File::from(file).chain(io::repeat(0)))
            }
            Kind::Directory => self.children(file.as_fd(), path, depth),
            _ => Ok(()),
        }
    }

    fn children(&mut self, directory: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::entry(path, "nested too deeply"));
        }
        let directory = rustix::fs::openat(
            directory,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::io("open directory", path))?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory).map_err(Error::io("read directory", path))? {
            let entry = entry.map_err(Error::io("read directory", path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            let child = match path {
                b"" => name.clone(),
                _ if path.ends_with(b"/") => [path, &name].concat(),
                _ => [path, b"/", &name].concat(),
            };
            match rustix::fs::openat(&directory, name.as_slice(), PATH, Mode::empty()) {
                Ok(file) => self.add_open(&file, &child, depth + 1)?,
                // Removed meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::io("open", &child)(errno)),
            }
        }
        Ok(())
    }

    fn header_of(&self, file: &OwnedFd, status: &Stat, path: &[u8]) -> Result<Option<Header>> {
        let kind = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => Kind::Regular,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(None),
        };
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        let mut header = Header {
            path: path.to_vec(),
            kind,
            mode: status.st_mode & 0o7777,
            uid: status.st_uid,
            gid: status.st_gid,
            mtime: Time {
                seconds: status.st_mtime,
                nanoseconds: if self.whole_seconds { 0 } else { status.st_mtime_nsec as u32 },
            },
            size: if kind == Kind::Regular { status.st_size as u64 } else { 0 },
            major: if is_device { rustix::fs::major(status.st_rdev) } else { 0 },
            minor: if is_device { rustix::fs::minor(status.st_rdev) } else { 0 },
            ..Header::default()
        };
        if kind == Kind::Directory && !header.path.ends_with(b"/") {
            header.path.push(b'/');
        }
        if kind == Kind::Symlink {
            header.link = rustix::fs::readlinkat(file, "", Vec::new())
                .map_err(Error::io("read link", path))?
                .into_bytes();
        } else if matches!(kind, Kind::Regular | Kind::Directory) {
            header.xattrs = xattrs_of(file).map_err(Error::io("read extended attributes of", path))?;
        }
        Ok(Some(header))
    }
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn xattrs_of(file: &OwnedFd) -> Result<Xattrs, Errno> {
    const MAX: usize = 1 << 16;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut names = vec![0u8; 1024];
    let length = loop {
        match rustix::fs::listxattr(&link, &mut names) {
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < MAX => names.resize(MAX, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    };
    let mut xattrs = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if !XATTRS.iter().any(|wanted| name.starts_with(wanted)) || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; MAX];
        match rustix::fs::getxattr(&link, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                xattrs.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(xattrs)
}
