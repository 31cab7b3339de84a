//! A tree that entries are made in: directories found by descriptor, the last way walked kept open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use ponton_sys::path::Root;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How deep trees are walked: more levels than `PATH_MAX` has room for are an attack on the number
/// of descriptors.
pub(crate) const MAX_DEPTH: usize = 1024;

/// A root and the directories on the way to where the last entry was made.
///
/// *Invariant*: `stack` holds real directories inside the root, each opened by its own name in the
/// one before without following a link, so that `path` is a canonical path.
pub(crate) struct Tree {
    root: Root,
    top: OwnedFd,
    stack: Vec<(Vec<u8>, OwnedFd)>,
}

impl Tree {
    pub(crate) fn new(root: Root) -> Result<Self> {
        let top =
            rustix::fs::openat(&root, ".", DIRECTORY, Mode::empty()).map_err(Error::io("open", b"/"))?;
        Ok(Self { root, top, stack: Vec::new() })
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Forgets the way: a directory on it may have been replaced.
    pub(crate) fn forget(&mut self) {
        self.stack.clear();
    }

    /// The directory that was last gone to.
    pub(crate) fn current(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.top.as_fd(), |(_, descriptor)| descriptor.as_fd())
    }

    /// The canonical path of a name in the current directory.
    pub(crate) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        for (component, _) in &self.stack {
            path.extend_from_slice(component);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// Goes to a directory; makes it and those above it (0755) where they are missing. Symbolic
    /// links on the way are followed inside the root.
    pub(crate) fn enter(&mut self, components: &[&[u8]]) -> Result<()> {
        let common =
            self.stack.iter().zip(components).take_while(|((name, _), component)| name == *component).count();
        self.stack.truncate(common);
        for (depth, component) in components.iter().enumerate().skip(common) {
            match self.enter_one(component) {
                Ok(()) => {}
                Err(Errno::LOOP | Errno::NOTDIR) => return self.enter_by_links(components),
                Err(errno) => {
                    return Err(Error::io("open directory", &components[..=depth].join(&b'/'))(errno));
                }
            }
        }
        Ok(())
    }

    fn enter_one(&mut self, name: &[u8]) -> Result<(), Errno> {
        let parent = self.current();
        let mut opened = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        if matches!(opened, Err(Errno::NOENT)) {
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            opened = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        }
        self.stack.push((name.to_vec(), opened?));
        Ok(())
    }

    /// The way leads through a symbolic link (or a file, which is an error): the kernel resolves
    /// it, and the directories are entered by their real names.
    fn enter_by_links(&mut self, components: &[&[u8]]) -> Result<()> {
        let path = components.join(&b'/');
        let directory = self
            .root
            .mkdir_all(OsStr::from_bytes(&path), 0o755)
            .map_err(|error| Error::entry(&path, format!("its directory: {error}")))?;
        let real = canonical_path(&self.root, &directory).map_err(Error::io("resolve", &path))?;
        let components: Vec<&[u8]> =
            real.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        self.stack.clear();
        for component in components {
            self.enter_one(component).map_err(Error::io("open directory", &path))?;
        }
        Ok(())
    }
}

/// The path of an open file below a root, without a leading slash.
pub(crate) fn canonical_path(root: &Root, file: impl AsFd) -> Result<Vec<u8>, Errno> {
    let read = |descriptor: BorrowedFd<'_>| {
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        rustix::fs::readlinkat(CWD, link, Vec::new()).map(std::ffi::CString::into_bytes)
    };
    let base = read(root.as_fd())?;
    let path = read(file.as_fd())?;
    // A root that is mounted nowhere reads as "/".
    let base = if base == b"/" { &[][..] } else { &base };
    let rest = path.strip_prefix(base).ok_or(Errno::XDEV)?;
    Ok(rest.strip_prefix(b"/").unwrap_or(rest).to_vec())
}

/// The components of an entry's name: `.` and empty ones dropped, `..` taken literally. `None` if
/// the name leads out of the root.
pub fn components(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()?),
            name => components.push(name),
        }
    }
    Some(components)
}

/// Removes a file or a tree by its name in a directory, following no link. Absent is fine.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    remove_below(parent, name, 0)
}

fn remove_below(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    if depth >= MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if !matches!(child, b"." | b"..") {
            remove_below(directory.as_fd(), child, depth + 1)?;
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// The type of a name in a directory, `None` if there is none.
pub(crate) fn file_type(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>, Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(FileType::from_raw_mode(status.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Bytes as a path, without a check or a copy.
pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let parts: [&[u8]; 2] = [b"a", b"c"];
        assert_eq!(components(b"/a/./b/..//c/").as_deref(), Some(&parts[..]));
        assert_eq!(components(b"./").map(|parts| parts.len()), Some(0));
        assert_eq!(components(b"../a"), None);
        assert_eq!(components(b"a/../../a"), None);
    }
}
