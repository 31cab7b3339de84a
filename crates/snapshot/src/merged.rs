//! Layers as overlayfs shows them together, without a mount.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One directory of several layers.
pub(crate) struct Merged {
    /// The layers' own, nearest first; what one of them hides is left out.
    directories: Vec<OwnedFd>,
}

/// What a name leads to.
pub(crate) struct Found {
    pub(crate) status: Stat,
    /// In which of [`Merged::directories`].
    pub(crate) layer: usize,
}

impl Merged {
    /// The root of layers, nearest first.
    pub(crate) fn new(layers: Vec<OwnedFd>) -> Self {
        let mut directories = Vec::new();
        for layer in layers {
            let is_last = is_opaque(&layer);
            directories.push(layer);
            if is_last {
                break;
            }
        }
        Self { directories }
    }

    /// Whether there is no layer.
    pub(crate) fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// One layer's own.
    pub(crate) fn directory(&self, layer: usize) -> &OwnedFd {
        &self.directories[layer]
    }

    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<Found>, Errno> {
        for (layer, directory) in self.directories.iter().enumerate() {
            if let Some(status) = status_of(directory, name)? {
                return Ok((!is_whiteout(&status)).then_some(Found { status, layer }));
            }
        }
        Ok(None)
    }

    /// A directory in this one.
    pub(crate) fn enter(&self, name: &[u8]) -> Result<Self, Errno> {
        let mut directories = Vec::new();
        for directory in &self.directories {
            match status_of(directory, name)? {
                None => {}
                Some(status) if is_directory(&status) => {
                    let directory = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())?;
                    let is_last = is_opaque(&directory);
                    directories.push(directory);
                    if is_last {
                        break;
                    }
                }
                Some(_) => break,
            }
        }
        Ok(Self { directories })
    }

    /// All names, in their order.
    pub(crate) fn names(&self) -> Result<BTreeMap<Vec<u8>, Found>, Errno> {
        let mut all: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
        for (layer, directory) in self.directories.iter().enumerate() {
            for name in names_in(directory)? {
                if let Entry::Vacant(vacant) = all.entry(name) {
                    let status = rustix::fs::statat(directory, vacant.key(), AtFlags::SYMLINK_NOFOLLOW)?;
                    vacant.insert(Found { status, layer });
                }
            }
        }
        all.retain(|_, found| !is_whiteout(&found.status));
        Ok(all)
    }
}

/// The names in a directory, in their order.
pub(crate) fn names_in(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn open_directory(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())
}

pub(crate) fn status_of(directory: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn file_type(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

pub(crate) fn is_directory(status: &Stat) -> bool {
    file_type(status) == FileType::Directory
}

/// A character device 0/0 hides the name in the layers below.
pub(crate) fn is_whiteout(status: &Stat) -> bool {
    file_type(status) == FileType::CharacterDevice && status.st_rdev == 0
}

/// Whether a directory hides all that the layers below have in it.
pub(crate) fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0; 2];
    let length = rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value);
    length.is_ok_and(|length| &value[..length] == b"y")
}
