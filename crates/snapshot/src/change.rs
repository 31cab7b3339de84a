//! What a snapshot changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::merged::{
    Merged, file_type, is_directory, is_opaque, is_whiteout, names_in, open_directory, status_of,
};

/// A path that a snapshot changed in the layers below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute, in the snapshot's root. A deleted directory stands for all that was in it.
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Its contents or metadata; of a directory, or what is in it.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// How a directory says what was deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletions {
    /// By whiteouts, and by opaque directories: it holds changes only.
    Marked,
    /// By what is missing: it holds all that there is.
    Missing,
}

/// The changes of a snapshot whose own files are in `own`, sorted, a directory before what is in it.
///
/// As Docker has it, a directory is not modified by another time or size alone, but by each change in
/// it; files are compared by type, mode, owner, size, time and capabilities, and never read.
///
/// What is at an `ignored` path is no change, unless it is one of a layer's files.
pub(crate) fn compare(
    own: &OwnedFd,
    below: &Merged,
    deletions: Deletions,
    ignored: &'static [&'static str],
) -> Result<Vec<Change>, Errno> {
    let is_overlay = deletions == Deletions::Marked;
    let mut comparison = Comparison { is_overlay, ignored, changes: Vec::new() };
    comparison.directory(own, Some(below), deletions, Path::new("/"))?;
    Ok(comparison.changes)
}

struct Comparison {
    is_overlay: bool,
    ignored: &'static [&'static str],
    changes: Vec<Change>,
}

impl Comparison {
    fn directory(
        &mut self,
        own: &OwnedFd,
        below: Option<&Merged>,
        deletions: Deletions,
        path: &Path,
    ) -> Result<(), Errno> {
        let deletions = if self.is_overlay && is_opaque(own) { Deletions::Missing } else { deletions };
        let mut names: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        if let (Some(below), Deletions::Missing) = (below, deletions) {
            names.extend(below.names()?.into_keys().map(|name| (name, false)));
        }
        names.extend(names_in(own)?.into_iter().map(|name| (name, true)));
        for (name, is_here) in names {
            let path = path.join(OsStr::from_bytes(&name));
            if is_here {
                self.name(own, below, deletions, &name, path)?;
            } else {
                self.changes.push(Change { path, kind: ChangeKind::Deleted });
            }
        }
        Ok(())
    }

    fn name(
        &mut self,
        own: &OwnedFd,
        below: Option<&Merged>,
        deletions: Deletions,
        name: &[u8],
        path: PathBuf,
    ) -> Result<(), Errno> {
        // A running container may have removed it meanwhile.
        let Some(status) = status_of(own, name)? else { return Ok(()) };
        let found = below.map_or(Ok(None), |below| below.find(name))?;
        let mut add = |kind, path| self.changes.push(Change { path, kind });
        if self.is_overlay && is_whiteout(&status) {
            if found.is_some() {
                add(ChangeKind::Deleted, path);
            }
            return Ok(());
        }
        let Some((found, below)) = found.zip(below) else {
            if self.ignored.iter().any(|ignored| path == Path::new(ignored)) {
                return Ok(());
            }
            add(ChangeKind::Added, path.clone());
            if is_directory(&status) {
                self.inside(own, name, None, deletions, &path)?;
            }
            return Ok(());
        };
        let is_changed = differs(&status, &found.status)
            || capability(own, name) != capability(below.directory(found.layer), name);
        if !is_directory(&status) {
            if is_changed {
                add(ChangeKind::Modified, path);
            }
            return Ok(());
        }
        let at = self.changes.len();
        let below = if is_directory(&found.status) { Some(below.enter(name)?) } else { None };
        self.inside(own, name, below.as_ref(), deletions, &path)?;
        if is_changed || self.changes.len() > at {
            self.changes.insert(at, Change { path, kind: ChangeKind::Modified });
        }
        Ok(())
    }

    fn inside(
        &mut self,
        own: &OwnedFd,
        name: &[u8],
        below: Option<&Merged>,
        deletions: Deletions,
        path: &Path,
    ) -> Result<(), Errno> {
        match open_directory(own, name) {
            Ok(directory) => self.directory(&directory, below, deletions, path),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn differs(one: &Stat, other: &Stat) -> bool {
    let owner_and_type = |status: &Stat| (status.st_mode, status.st_uid, status.st_gid, status.st_rdev);
    let contents = |status: &Stat| (status.st_size, status.st_mtime, status.st_mtime_nsec);
    owner_and_type(one) != owner_and_type(other)
        || file_type(one) != rustix::fs::FileType::Directory && contents(one) != contents(other)
}

fn capability(directory: &OwnedFd, name: &[u8]) -> Option<Vec<u8>> {
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
    let mut value = vec![0; 64];
    let length = rustix::fs::lgetxattr(path, "security.capability", &mut value).ok()?;
    value.truncate(length);
    Some(value)
}
