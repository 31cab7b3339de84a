//! A directory tree becomes a tar.
//!
//! Files are opened by their name in a directory that is held open, never by a path and never
//! following a link: a container may be changing the tree meanwhile. They are looked at before they are opened,
//! for a device does things when it is; but where the mount is `nodev`, one call opens what is likely a file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use ponton_sys::path::Root;
use ponton_sys::user_namespace::Ids;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;

use crate::apply::{OPAQUE, WHITEOUT};
use crate::header::{Header, Kind, Time};
use crate::tree::{MAX_DEPTH, as_path};
use crate::writer::Writer;
use crate::{Error, Result};

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
/// Extended attributes that go into archives: what a container itself may set, and capabilities.
const XATTRS: [&[u8]; 2] = [b"user.", b"security.capability"];

/// How a tree keeps what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It is a whole tree.
    Plain,
    /// It is overlayfs's upper directory: what is deleted of the layers below is a character device
    /// 0/0, and `trusted.overlay.opaque` marks directories that hide all below them.
    Overlay,
}

/// Writes files and trees to one archive; hard links among them stay hard links.
pub struct Creator<W: Write> {
    writer: Writer<W>,
    /// First name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Times are cut to whole seconds, which needs no extension and is what Docker does.
    whole_seconds: bool,
    form: Form,
    /// What owners are called, where that is not as on the disk.
    ids: Option<Ids>,
}

/// A path that a layer changes, relative to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Relative to the root.
    pub path: &'a [u8],
    /// Whether it is gone, with all below it.
    pub is_deleted: bool,
}

/// Writes a whole root file system.
pub fn export<W: Write>(root: BorrowedFd<'_>, output: W) -> Result<W> {
    let mut creator = Creator::new(output);
    creator.add_children(root, b"")?;
    creator.finish()
}

/// Writes the tar of a layer (image-spec layer.md) from a tree as overlayfs has it in its upper
/// directory.
pub fn layer_of_overlay<W: Write>(upper: BorrowedFd<'_>, output: W) -> Result<W> {
    let mut creator = Creator { form: Form::Overlay, ..Creator::new(output) };
    let status = rustix::fs::fstat(upper).map_err(Error::io("stat", b"/"))?;
    // Most layers say nothing of the root, and Docker's never do.
    if (status.st_mode & 0o7777, status.st_uid, status.st_gid) != (0o755, 0, 0) {
        let root = creator.header_of(upper, &status, b".")?;
        root.map_or(Ok(()), |root| creator.writer.header(&root))?;
    }
    creator.add_children(upper, b"")?;
    creator.finish()
}

/// Writes the tar of a layer from a whole tree and what is changed in it. Directories come before
/// what is in them; what is in a new one is listed too.
pub fn layer_of_changes<'a, W: Write>(
    root: &Root,
    changes: impl IntoIterator<Item = Change<'a>>,
    output: W,
) -> Result<W> {
    let mut creator = Creator::new(output);
    for change in changes {
        if change.is_deleted {
            creator.whiteout(change.path, &Header::default())?;
            continue;
        }
        let file = match root.open_path(as_path(change.path), PATH) {
            Ok(file) => file,
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("open", change.path)(error.source)),
        };
        creator.add_alone(&file, change.path)?;
    }
    creator.finish()
}

impl<W: Write> Creator<W> {
    /// Writes to a stream, which should be buffered.
    pub fn new(output: W) -> Self {
        let (writer, links) = (Writer::new(output), HashMap::new());
        Self { writer, links, whole_seconds: true, form: Form::Plain, ids: None }
    }

    /// Calls owners what they are in a user namespace.
    pub fn in_ids(self, ids: Option<Ids>) -> Self {
        Self { ids, ..self }
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
        let directory = open_directory(directory, path)?;
        self.children(&directory, path, 0)
    }

    /// Writes the end mark and hands the stream back, flushed.
    pub fn finish(self) -> Result<W> {
        self.writer.finish()
    }

    /// `file` is open with `O_PATH`.
    fn add_open(&mut self, file: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        match self.add_alone(file, path)? {
            Some(directory) => self.children(&directory, path, depth),
            None => Ok(()),
        }
    }

    /// Adds one file, with its contents. A directory is handed back open, nothing in it added.
    fn add_alone(&mut self, file: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>> {
        let status = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH).map_err(Error::io("stat", path))?;
        let Some(mut header) = self.header_of(file.as_fd(), &status, path)? else { return Ok(None) };
        if self.form == Form::Overlay && header.kind == Kind::Char && (header.major, header.minor) == (0, 0) {
            self.whiteout(path, &header)?;
            return Ok(None);
        }
        if header.kind != Kind::Directory && self.add_link(&header, &status)? {
            return Ok(None);
        }
        match header.kind {
            Kind::Regular => {
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                let file = rustix::fs::openat(CWD, link, READ, Mode::empty());
                self.contents(file.map_err(Error::io("open", path))?, header)?;
                Ok(None)
            }
            Kind::Directory => {
                let directory = open_directory(file.as_fd(), path)?;
                header.xattrs =
                    xattrs_of(&directory).map_err(Error::io("read extended attributes of", path))?;
                self.writer.header(&header)?;
                if self.form == Form::Overlay {
                    self.overlay_directory(&directory, &header)?;
                }
                Ok(Some(directory))
            }
            _ => self.writer.header(&header).map(|()| None),
        }
    }

    /// Adds another name of a file that is there already; false when it is not.
    fn add_link(&mut self, header: &Header, status: &Stat) -> Result<bool> {
        if status.st_nlink <= 1 {
            return Ok(false);
        }
        let known = self.links.entry((status.st_dev, status.st_ino)).or_insert_with(|| header.path.clone());
        if *known == header.path {
            return Ok(false);
        }
        let link = known.clone();
        self.writer.header(&Header { link, kind: Kind::HardLink, size: 0, ..header.clone() })?;
        Ok(true)
    }

    /// Adds a regular file that is open for reading.
    fn contents(&mut self, file: OwnedFd, mut header: Header) -> Result<()> {
        let failed = Error::io("read extended attributes of", &header.path);
        header.xattrs = xattrs_of(&file).map_err(failed)?;
        self.writer.header(&header)?;
        if header.size > 0 {
            // A file that shrinks meanwhile is filled up with zeros: its size was announced.
            self.writer.contents(&header, File::from(file).chain(io::repeat(0)))?;
        }
        Ok(())
    }

    /// An entry that deletes `path` of the layers below.
    fn whiteout(&mut self, path: &[u8], header: &Header) -> Result<()> {
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = path.split_at(start);
        self.writer.header(&Header {
            path: [parent, WHITEOUT, name].concat(),
            kind: Kind::Regular,
            mode: 0o600,
            ..header.clone()
        })
    }

    /// What overlayfs notes at a directory.
    fn overlay_directory(&mut self, directory: &OwnedFd, header: &Header) -> Result<()> {
        let mut value = [0; 1];
        let mut has = |name: &str| match rustix::fs::fgetxattr(directory, name, &mut value) {
            Ok(length) => Ok(length > 0 && value[0] == b'y'),
            // A longer value.
            Err(Errno::RANGE) => Ok(true),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
            Err(errno) => Err(Error::io("read extended attributes of", &header.path)(errno)),
        };
        if has("trusted.overlay.redirect")? {
            return Err(Error::entry(&header.path, "is another directory that was renamed (redirect_dir)"));
        }
        if !has("trusted.overlay.opaque")? {
            return Ok(());
        }
        self.writer.header(&Header {
            path: [&header.path, OPAQUE].concat(),
            kind: Kind::Regular,
            mode: 0o600,
            xattrs: Vec::new(),
            ..header.clone()
        })
    }

    fn children(&mut self, directory: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::entry(path, "nested too deeply"));
        }
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory).map_err(Error::io("read directory", path))? {
            let entry = entry.map_err(Error::io("read directory", path))?;
            let name = entry.file_name().to_bytes();
            // In a layer such a name would delete something.
            let is_misread = self.form == Form::Overlay && name.starts_with(WHITEOUT);
            if !matches!(name, b"." | b"..") && !is_misread {
                entries.push((name.to_vec(), entry.file_type()));
            }
        }
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let has_no_devices = rustix::fs::fstatvfs(directory)
            .is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NODEV));
        for (name, kind) in entries {
            let child = match path {
                b"" => name.clone(),
                _ if path.ends_with(b"/") => [path, &name].concat(),
                _ => [path, b"/", &name].concat(),
            };
            if has_no_devices && kind == FileType::RegularFile && self.add_file(directory, &name, &child)? {
                continue;
            }
            match rustix::fs::openat(directory, name.as_slice(), PATH, Mode::empty()) {
                Ok(file) => self.add_open(&file, &child, depth + 1)?,
                // Removed meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::io("open", &child)(errno)),
            }
        }
        Ok(())
    }

    /// Adds what is, by its directory on a mount without devices, a regular file. False when it is none (any more),
    /// or can't be opened.
    fn add_file(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8]) -> Result<bool> {
        // Nothing of another mount, which may have devices; and no wait for the other end of a fifo.
        let flags = READ.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
        let opened = rustix::fs::openat2(directory, name, flags, Mode::empty(), ResolveFlags::NO_XDEV);
        let Ok(file) = opened else { return Ok(false) };
        let status = rustix::fs::fstat(&file).map_err(Error::io("stat", path))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let Some(header) = self.header_of(file.as_fd(), &status, path)? else { return Ok(false) };
        if !self.add_link(&header, &status)? {
            self.contents(file, header)?;
        }
        Ok(true)
    }

    fn header_of(&self, file: BorrowedFd<'_>, status: &Stat, path: &[u8]) -> Result<Option<Header>> {
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
        let owner = (status.st_uid, status.st_gid);
        let (uid, gid) = self.ids.as_ref().map_or(owner, |ids| ids.inside(owner));
        let mut header = Header {
            path: path.to_vec(),
            kind,
            mode: status.st_mode & 0o7777,
            uid,
            gid,
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
        }
        Ok(Some(header))
    }
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn xattrs_of(file: &OwnedFd) -> Result<Xattrs, Errno> {
    const MAX: usize = 1 << 16;
    let mut start = [0u8; 1024];
    let mut whole;
    let names = match rustix::fs::flistxattr(file, &mut start) {
        Ok(length) => &start[..length],
        Err(Errno::RANGE) => {
            whole = vec![0; MAX];
            let length = rustix::fs::flistxattr(file, &mut whole)?;
            &whole[..length]
        }
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        if !XATTRS.iter().any(|wanted| name.starts_with(wanted)) || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; MAX];
        match rustix::fs::fgetxattr(file, name, &mut value) {
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

/// Opens a directory that is open in any way, for reading.
fn open_directory(directory: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(directory, ".", READ | OFlags::DIRECTORY, Mode::empty())
        .map_err(Error::io("open directory", path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use ponton_sys::mount;

    use super::*;

    /// A directory of all kinds of files, as a mount with these attributes.
    fn mounted(directory: &tempfile::TempDir, attributes: u64) -> OwnedFd {
        let path = directory.path();
        let _ = fs::create_dir(path.join("directory"));
        fs::write(path.join("directory/file"), "contents").unwrap();
        fs::write(path.join("empty"), "").unwrap();
        let _ = fs::hard_link(path.join("directory/file"), path.join("linked"));
        let _ = symlink("directory/file", path.join("symlink"));
        for (name, kind) in [("fifo", FileType::Fifo), ("null", FileType::CharacterDevice)] {
            let _ = rustix::fs::mknodat(CWD, path.join(name), kind, Mode::RUSR, rustix::fs::makedev(1, 3));
        }
        let root = fs::File::open(path).unwrap();
        let mount = mount::clone_tree(&root, c"", false).unwrap();
        let change = mount::Change { set: attributes, ..mount::Change::default() };
        mount::change(mount.as_fd(), change, false).unwrap();
        mount
    }

    #[test]
    fn a_mount_without_devices_is_archived_alike() {
        let directory = tempfile::tempdir().unwrap();
        let [plain, nodev] = [0, mount::MOUNT_ATTR_NODEV].map(|attributes| mounted(&directory, attributes));
        let flags = rustix::fs::fstatvfs(&nodev).unwrap().f_flag;
        assert!(flags.contains(StatVfsMountFlags::NODEV));
        let [plain, nodev] = [plain, nodev].map(|root| export(root.as_fd(), Vec::new()).unwrap());
        assert_eq!(plain.len(), 10 * 512, "seven entries, one with contents, and the end");
        assert!(plain == nodev);
    }

    #[test]
    fn what_became_something_else_is_not_taken_for_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = mounted(&directory, mount::MOUNT_ATTR_NODEV);
        let root = open_directory(root.as_fd(), b"").unwrap();
        let mut creator = Creator::new(Vec::new());
        for name in ["directory", "symlink", "fifo", "null", "gone"] {
            assert!(!creator.add_file(&root, name.as_bytes(), name.as_bytes()).unwrap(), "{name}");
        }
        assert_eq!(creator.finish().unwrap().len(), 1024, "nothing but the end");
    }
}
