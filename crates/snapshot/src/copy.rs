//! Snapshots that hold all their files: copies of the layers, sharing blocks with them where the disk
//! can, and on btrfs subvolumes, of which the next copy is made at once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ponton_sys::btrfs;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::merged::{Merged, file_type, open_directory};
use crate::{Error, Result};

/// What may be a subvolume in the directory of a layer or a snapshot.
pub(crate) const SUBVOLUMES: [&str; 3] = ["root", "full", "full.new"];
/// How a directory is opened that may have been exchanged for a link.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How deep trees are walked: more levels than `PATH_MAX` has room for are an attack.
const MAX_DEPTH: usize = 2048;

/// Copies layers to `<directory>/<name>`.
pub(crate) fn make(directory: &Path, name: &str, layers: &Merged) -> Result<()> {
    let target = directory.join(name);
    fs::create_dir(&target).map_err(Error::io("create directory", &target))?;
    copy(layers, &target)
}

/// Copies layers to a new subvolume.
pub(crate) fn make_subvolume(directory: &Path, name: &str, layers: &Merged) -> Result<()> {
    let target = directory.join(name);
    let parent = File::open(directory).map_err(Error::io("open directory", directory))?;
    btrfs::create(&parent, name).map_err(|error| failed("create subvolume", &target, error))?;
    copy(layers, &target)
}

/// Makes the subvolume `root` in a snapshot's directory from the one of all layers, which stands in
/// the directory of the topmost, and is made there if it is missing.
pub(crate) fn snapshot(
    layer: &Path,
    layers: impl FnOnce() -> Result<Merged>,
    directory: &Path,
) -> Result<()> {
    let full = layer.join("full");
    if !full.exists() {
        let parent = File::open(layer).map_err(Error::io("open directory", layer))?;
        // Left by a kill.
        let _ = btrfs::destroy(&parent, "full.new");
        make_subvolume(layer, "full.new", &layers()?)?;
        fs::rename(layer.join("full.new"), &full).map_err(Error::io("rename to", &full))?;
    }
    let source = File::open(&full).map_err(Error::io("open", &full))?;
    let target = File::open(directory).map_err(Error::io("open directory", directory))?;
    btrfs::snapshot(&source, &target, "root")
        .map_err(|error| failed("create snapshot", &directory.join("root"), error))
}

fn failed(operation: &'static str, path: &Path, error: ponton_sys::Error) -> Error {
    Error::io(operation, path)(error.source)
}

fn copy(layers: &Merged, target: &Path) -> Result<()> {
    let open = || rustix::fs::open(target, DIRECTORY, Mode::empty());
    let copied = open().and_then(|root| {
        let mut copier = Copier { root: target, links: HashMap::new() };
        copier.children(layers, &root, &mut PathBuf::new(), 0)?;
        if layers.is_empty() {
            return rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755));
        }
        let top = layers.directory(0);
        set_metadata(top, b".", &rustix::fs::fstat(top)?, &root, b".")
    });
    copied.map_err(Error::io("copy layers to", target))
}

/// Copies all that is in a directory to an empty one, with owners, modes, times, attributes and hard
/// links, sharing blocks where the disk can; and the directory's own metadata. No link is followed.
pub fn copy_tree(source: OwnedFd, target: &Path) -> Result<()> {
    copy(&Merged::new(vec![source]), target)
}

/// Gives a directory another's owner, mode, attributes and times.
pub fn copy_metadata(source: BorrowedFd<'_>, target: &Path) -> Result<(), Errno> {
    let target = rustix::fs::open(target, DIRECTORY, Mode::empty())?;
    set_metadata(source, b".", &rustix::fs::fstat(source)?, &target, b".")
}

struct Copier<'a> {
    root: &'a Path,
    /// First name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier<'_> {
    fn children(
        &mut self,
        from: &Merged,
        to: &OwnedFd,
        path: &mut PathBuf,
        depth: usize,
    ) -> Result<(), Errno> {
        if depth >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        for (name, found) in from.names()? {
            path.push(OsStr::from_bytes(&name));
            let (source, status) = (from.directory(found.layer), &found.status);
            if file_type(status) == FileType::Directory {
                rustix::fs::mkdirat(to, name.as_slice(), Mode::from_raw_mode(0o700))?;
                let directory = open_directory(to, &name)?;
                self.children(&from.enter(&name)?, &directory, path, depth + 1)?;
                set_metadata(source, &name, status, to, &name)?;
            } else {
                self.file(source, status, to, &name, path)?;
            }
            path.pop();
        }
        Ok(())
    }

    fn file(
        &mut self,
        source: &OwnedFd,
        status: &Stat,
        to: &OwnedFd,
        name: &[u8],
        path: &Path,
    ) -> Result<(), Errno> {
        if status.st_nlink > 1 {
            let first = self.links.entry((status.st_dev, status.st_ino)).or_insert_with(|| path.to_owned());
            if first != path {
                let first = self.root.join(first);
                return rustix::fs::linkat(rustix::fs::CWD, first, to, name, AtFlags::empty());
            }
        }
        match file_type(status) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(source, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
                copy_contents(&file.into(), &copy.into(), status.st_size as u64)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
            }
            other => rustix::fs::mknodat(to, name, other, Mode::from_raw_mode(0o600), status.st_rdev)?,
        }
        set_metadata(source, name, status, to, name)
    }
}

/// Copies what is no hole.
fn copy_contents(from: &File, to: &File, size: u64) -> Result<(), Errno> {
    if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    rustix::fs::ftruncate(to, size)?;
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => return Ok(()),
            other => other?,
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        copy_piece(from, to, start, end)?;
    }
}

fn copy_piece(from: &File, to: &File, start: u64, end: u64) -> Result<(), Errno> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let most = usize::try_from(end - read).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), most) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // The file systems differ.
            Err(_) => return copy_by_reading(from, to, read, end).map_err(|error| errno_of(&error)),
        }
    }
    Ok(())
}

fn copy_by_reading(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    while at < end {
        let most = usize::try_from(end - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let length = from.read_at(&mut buffer[..most], at)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Owner before mode before attributes: changing the owner clears setuid bits and capabilities.
fn set_metadata(
    source: impl AsFd,
    source_name: &[u8],
    status: &Stat,
    to: &OwnedFd,
    name: &[u8],
) -> Result<(), Errno> {
    let owner = (Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)));
    rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if file_type(status) != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(status.st_mode), AtFlags::empty())?;
    }
    copy_xattrs(&path_of(&source, source_name), &path_of(to, name))?;
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    };
    rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_xattrs(from: &[u8], to: &[u8]) -> Result<(), Errno> {
    let mut names = vec![0u8; 1 << 16];
    let length = match rustix::fs::llistxattr(from, &mut names) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // What was meant for overlayfs has been done.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 1 << 16];
        let length = rustix::fs::lgetxattr(from, name, &mut value)?;
        match rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn path_of(directory: impl AsFd, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).as_bytes(), name].concat()
}
