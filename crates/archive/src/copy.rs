//! What `docker cp` does: look at a path of a container, take it out as a tar, put a tar in.
//!
//! Paths are the container's: absolute or not, symbolic links in them are followed inside the root.
//! A trailing `/` or `/.` means the directory that a link at the end leads to.

use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ponton_sys::path::Root;
use ponton_sys::user_namespace::Ids;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::apply::{Applier, Options, Stats, Whiteouts};
use crate::create::Creator;
use crate::header::Time;
use crate::tree::{as_path, canonical_path};
use crate::{Error, Result};

/// What Docker's `X-Docker-Container-Path-Stat` tells of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path that was asked for; `/` for the root.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Type and permissions as Go's `os.FileMode` has them.
    pub mode: u32,
    /// Time of last modification.
    pub mtime: Time,
    /// Where a symbolic link leads in the container, absolute; empty for others.
    pub link_target: String,
}

/// How a tar is put in.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Refuse to replace a directory by something else and the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Owner and group of what is made, instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// What owners are on the disk, where the container has a user namespace.
    pub ids: Option<Ids>,
}

/// Looks at a path. A link at its end is not followed, unless a slash comes after it.
pub fn stat(root: &Root, path: &Path) -> Result<PathStat> {
    let place = Place::find(root, path)?;
    place.stat(root)
}

/// Writes a path, with all below it if it is a directory, as a tar; returns what [`stat`] would
/// have told, for exactly what is written. Names begin with the path's last component.
pub fn get(root: &Root, path: &Path) -> Result<Source> {
    let place = Place::find(root, path)?;
    let stat = place.stat(root)?;
    Ok(Source { stat, place, ids: None })
}

/// Something that was found and can be written as a tar.
pub struct Source {
    /// What it is.
    pub stat: PathStat,
    place: Place,
    ids: Option<Ids>,
}

impl Source {
    /// Calls owners what they are in the container's user namespace.
    pub fn in_ids(self, ids: Option<Ids>) -> Self {
        Self { ids, ..self }
    }

    /// Writes it, to the end mark.
    pub fn write<W: Write>(self, output: W) -> Result<W> {
        let mut creator = Creator::new(output).in_ids(self.ids);
        creator.add(self.place.parent.as_fd(), &self.place.name, &self.place.shown)?;
        creator.finish()
    }
}

/// Unpacks a decompressed tar into a directory of the container, which must be there.
pub fn put(root: &Root, path: &Path, input: impl BufRead, options: PutOptions) -> Result<Stats> {
    let shown = path.as_os_str().as_encoded_bytes();
    let directory =
        root.open_path(path, OFlags::PATH).map_err(|error| Error::io("open", shown)(error.source))?;
    let status = rustix::fs::fstat(&directory).map_err(Error::io("stat", shown))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return Err(Error::entry(shown, "extraction point is not a directory"));
    }
    let no_id = || Error::entry(shown, "the owner has no id in the container's user namespace");
    let owner = match (options.owner, &options.ids) {
        (Some(owner), Some(ids)) => Some(ids.outside(owner).ok_or_else(no_id)?),
        (owner, _) => owner,
    };
    let options = Options {
        whiteouts: Whiteouts::Plain,
        kept: None,
        owner,
        ids: options.ids,
        refuse_replacing_directories: options.no_overwrite_dir_non_dir,
    };
    Applier::new(Root::from_fd(directory), options)?.apply(input, None)
}

/// A path that was walked: a name in a directory that is held open.
struct Place {
    parent: OwnedFd,
    name: Vec<u8>,
    /// The last component as it was asked for.
    shown: Vec<u8>,
}

impl Place {
    fn find(root: &Root, path: &Path) -> Result<Self> {
        let bytes = path.as_os_str().as_encoded_bytes();
        let follows = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
        let walked = if follows { [bytes, b"/."].concat() } else { bytes.to_vec() };
        let (parent, name) =
            root.open_parent(as_path(&walked)).map_err(|error| Error::io("open", bytes)(error.source))?;
        let dots = bytes.ends_with(b"/.") || bytes == b".";
        let last = bytes.split(|byte| *byte == b'/').rfind(|part| !matches!(*part, b"" | b"."));
        let shown = match last {
            None if dots && bytes != b"/." => b".".to_vec(),
            None => b"/".to_vec(),
            Some(_) if dots => b".".to_vec(),
            Some(last) => last.to_vec(),
        };
        Ok(Self { parent, name: name.into_encoded_bytes(), shown })
    }

    fn stat(&self, root: &Root) -> Result<PathStat> {
        let status = rustix::fs::statat(&self.parent, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("stat", &self.shown))?;
        let link_target = match FileType::from_raw_mode(status.st_mode) {
            FileType::Symlink => self.link_target(root)?,
            _ => String::new(),
        };
        Ok(PathStat {
            name: String::from_utf8_lossy(&self.shown).into_owned(),
            size: status.st_size as u64,
            mode: go_file_mode(status.st_mode),
            mtime: Time { seconds: status.st_mtime, nanoseconds: status.st_mtime_nsec as u32 },
            link_target,
        })
    }

    /// The path that a link leads to, every link on the way followed; where nothing is there, the
    /// path that it would have.
    fn link_target(&self, root: &Root) -> Result<String> {
        let shown = |path: &[u8]| format!("/{}", String::from_utf8_lossy(path));
        let parent = canonical_path(root, &self.parent).map_err(Error::io("resolve", &self.shown))?;
        let own = [parent.as_slice(), b"/", &self.name].concat();
        if let Ok(file) = root.open_path(as_path(&own), OFlags::PATH) {
            let path = canonical_path(root, &file).map_err(Error::io("resolve", &self.shown))?;
            return Ok(shown(&path));
        }
        let text = rustix::fs::readlinkat(&self.parent, self.name.as_slice(), Vec::new())
            .map_err(Error::io("read link", &self.shown))?
            .into_bytes();
        let joined = if text.starts_with(b"/") { text } else { [&parent, b"/" as &[u8], &text].concat() };
        Ok(shown(&clean(&joined)))
    }
}

/// Takes `.` and `..` out of a path; at the root, `..` is the root.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    components.join(&b'/')
}

/// `os.FileMode`: permissions in the low nine bits, types and special bits at the top.
fn go_file_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        _ => 0,
    };
    let mode = Mode::from_raw_mode(mode);
    let special = [(Mode::SUID, 1 << 23), (Mode::SGID, 1 << 22), (Mode::SVTX, 1 << 20)];
    special
        .iter()
        .filter(|(bit, _)| mode.contains(*bit))
        .fold(kind | (mode.as_raw_mode() & 0o777), |all, (_, bit)| all | bit)
}

/// Whether an error means that the path is not there, or leads through something that is no
/// directory.
pub fn is_not_found(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    let errno = source.raw_os_error();
    errno == Some(Errno::NOENT.raw_os_error()) || errno == Some(Errno::NOTDIR.raw_os_error())
}
