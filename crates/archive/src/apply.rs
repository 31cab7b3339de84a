//! A tar becomes a directory tree.
//!
//! *Invariant*: whatever the archive says, nothing outside the root is made, changed or linked to.
//! An entry is made by its name in a directory that is held open, exclusively and without following
//! a link; its metadata are set through its own descriptor.

use std::io::{BufRead, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use ponton_sys::path::Root;
use ponton_sys::user_namespace::Ids;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::filler::{self, Filler};
use crate::header::{Header, Kind, Time};
use crate::metadata::{self, set_metadata, set_times};
use crate::reader::{Payload, Reader};
use crate::recipe::Recorder;
use crate::tree::{self, Tree, as_path};
use crate::{Error, Result};

/// Prefix of a whiteout: `.wh.name` deletes `name` of the layers below.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Hides all that the layers below have in the directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of aufs's own files, which mean nothing here.
pub(crate) const WHITEOUT_META: &[u8] = b".wh..wh.";

/// What a whiteout in the archive becomes (image-spec layer.md, "Whiteouts").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whiteouts {
    /// overlayfs's: a character device 0/0, and `trusted.overlay.opaque`.
    Overlay,
    /// The file is removed from the tree.
    Remove,
    /// The file is removed from the tree, and overlayfs's whiteout takes its place: for several layers
    /// that become one.
    Merge,
    /// A file like any other.
    #[default]
    Plain,
}

/// How an archive is applied.
#[derive(Debug, Default)]
pub struct Options {
    /// What becomes of whiteouts.
    pub whiteouts: Whiteouts,
    /// Where files that a later entry replaces are kept, by number; otherwise they are removed. On
    /// the same file system as the root, and needed for a recipe. The tree is a layer's then: nobody
    /// else can enter it.
    pub kept: Option<OwnedFd>,
    /// Owner and group of everything, instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// What the owners are on the disk, where they are those of a user namespace.
    pub ids: Option<Ids>,
    /// Refuse to replace a directory by something else and the reverse, instead of doing it.
    pub refuse_replacing_directories: bool,
}

/// What was applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the contents of files, and of what symlinks say.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

/// Applies archives to one root.
pub struct Applier {
    tree: Tree,
    options: Options,
    stats: Stats,
    kept: u64,
    /// Directories' times, set at the end because making an entry changes them; those of all archives
    /// that were applied, for the same reason.
    times: Vec<(Vec<u8>, Time)>,
    /// Whiteouts made so far, to know when a directory takes the place of one.
    whiteouts: std::collections::HashSet<Vec<u8>>,
}

/// Where a recipe goes, if one is wanted.
pub type Recording<'a> = Option<&'a mut Recorder<Box<dyn std::io::Write + Send>>>;

impl Applier {
    /// An applier for this root.
    pub fn new(root: Root, options: Options) -> Result<Self> {
        Ok(Self {
            tree: Tree::new(root)?,
            options,
            stats: Stats::default(),
            kept: 0,
            times: Vec::new(),
            whiteouts: std::collections::HashSet::new(),
        })
    }

    /// Applies a decompressed archive to its end. On an error what was made so far stays.
    ///
    /// The contents of small files are written on a second thread: making files and filling them
    /// cost the kernel about as much.
    pub fn apply(&mut self, input: impl BufRead, recording: Recording<'_>) -> Result<Stats> {
        let owner = self.options.owner;
        thread::scope(|scope| {
            let (mut filler, queue) = Filler::new();
            let worker = scope.spawn(move || queue.work(owner));
            let entries = self.entries(input, recording, &mut filler);
            // What was made before an error is filled too.
            let applied = entries.and(filler.finish());
            // An error of the worker's is the cause where both failed.
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            applied
        })?;
        self.set_directory_times()?;
        Ok(self.stats)
    }

    fn entries(
        &mut self,
        input: impl BufRead,
        mut recording: Recording<'_>,
        filler: &mut Filler,
    ) -> Result<()> {
        let mut reader = match recording {
            Some(_) => Reader::recording(input),
            None => Reader::new(input),
        };
        while let Some(mut header) = reader.next_entry()? {
            if let (Some(ids), None) = (&self.options.ids, self.options.owner) {
                let owner = ids.outside((header.uid, header.gid));
                let no_id =
                    || Error::entry(&header.path, "its owner has no id in the container's user namespace");
                (header.uid, header.gid) = owner.ok_or_else(no_id)?;
            }
            if let Some(recorder) = &mut recording {
                recorder.raw(&reader.take_record())?;
            }
            self.stats.entries += 1;
            self.entry(header, reader.payload(), &mut recording, filler)?;
        }
        if let Some(recorder) = &mut recording {
            recorder.raw(&reader.take_record())?;
        }
        Ok(())
    }

    fn entry<R: BufRead>(
        &mut self,
        header: Header,
        mut payload: Payload<'_, R>,
        recording: &mut Recording<'_>,
        filler: &mut Filler,
    ) -> Result<()> {
        let components = tree::components(&header.path)
            .ok_or_else(|| Error::entry(&header.path, "leads out of the root"))?;
        let Some((name, parents)) = components.split_last() else {
            return self.root_entry(&header);
        };
        self.tree.enter(parents)?;
        let is_whiteout = self.options.whiteouts != Whiteouts::Plain && name.starts_with(WHITEOUT);
        if is_whiteout {
            self.whiteout(name, &header, recording)?;
        } else if header.kind == Kind::Regular {
            let file = self.create(name, &header, recording)?;
            if header.sparse.is_none() {
                let path = self.tree.path_of(name);
                return self.fill(file, &path, header, payload, recording, filler);
            }
            return self.fill_sparse(&file, &header, payload, recording);
        } else if self.make_room(name, &header, recording)? {
            match header.kind {
                Kind::Directory => self.directory(name, &header)?,
                Kind::HardLink => self.hard_link(name, &header)?,
                _ => self.special(name, &header)?,
            }
        }
        // Contents that have no file of their own are kept in the recipe.
        if let Some(recorder) = recording {
            loop {
                let bytes = payload.fill()?;
                let length = bytes.len();
                if length == 0 {
                    break;
                }
                recorder.raw(bytes)?;
                payload.consume(length);
            }
        }
        Ok(())
    }

    /// The entry `./`: only its metadata count.
    fn root_entry(&mut self, header: &Header) -> Result<()> {
        if header.kind != Kind::Directory {
            return Err(Error::entry(&header.path, "the root is a directory"));
        }
        self.tree.enter(&[])?;
        set_metadata(self.tree.current(), header, self.options.owner)?;
        self.times.push((Vec::new(), header.mtime));
        Ok(())
    }

    /// Removes what is in the way of an entry. False if nothing is left to do.
    fn make_room(&mut self, name: &[u8], header: &Header, recording: &mut Recording<'_>) -> Result<bool> {
        let existing = tree::file_type(self.tree.current(), name).map_err(Error::io("stat", &header.path))?;
        let Some(existing) = existing else { return Ok(true) };
        let was_directory = existing == FileType::Directory;
        let is_directory = header.kind == Kind::Directory;
        if was_directory && is_directory {
            return Ok(true);
        }
        if self.options.refuse_replacing_directories && was_directory != is_directory {
            let (old, new) =
                if was_directory { ("directory", "non-directory") } else { ("non-directory", "directory") };
            return Err(Error::entry(&header.path, format!("cannot overwrite {old} with {new}")));
        }
        if header.kind == Kind::HardLink && self.is_own_name(name, header) {
            return Ok(false);
        }
        self.replace(name, &header.path, recording)?;
        Ok(true)
    }

    /// A hard link to itself, which must not remove what it links to.
    fn is_own_name(&self, name: &[u8], header: &Header) -> bool {
        let target = tree::components(&header.link).map(|components| components.join(&b'/'));
        target == Some(self.tree.path_of(name))
    }

    /// Takes what has a name out of the tree.
    fn replace(&mut self, name: &[u8], path: &[u8], recording: &mut Recording<'_>) -> Result<()> {
        let parent = self.tree.current();
        let Some(kept) = &self.options.kept else {
            return tree::remove(parent, name).map_err(Error::io("remove", path));
        };
        rustix::fs::renameat(parent, name, kept, self.kept.to_string())
            .map_err(Error::io("replace", path))?;
        if let Some(recorder) = recording {
            recorder.moved(&self.tree.path_of(name), self.kept)?;
        }
        self.kept += 1;
        Ok(())
    }

    /// Makes an empty file. Most are new, so that is tried first.
    fn create(&mut self, name: &[u8], header: &Header, recording: &mut Recording<'_>) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Where only we can enter the tree, a file may have its mode before it has its owner, and needs no
        // chmod later.
        let mode = if self.options.kept.is_some() { header.mode & 0o777 } else { 0o600 };
        let mode = Mode::from_raw_mode(mode);
        let create = |parent: BorrowedFd<'_>| rustix::fs::openat(parent, name, flags, mode);
        let mut created = create(self.tree.current());
        if matches!(created, Err(Errno::EXIST)) {
            self.make_room(name, header, recording)?;
            created = create(self.tree.current());
        }
        created.map_err(Error::io("create", &header.path))
    }

    fn fill<R: BufRead>(
        &mut self,
        file: OwnedFd,
        path: &[u8],
        header: Header,
        mut payload: Payload<'_, R>,
        recording: &mut Recording<'_>,
        filler: &mut Filler,
    ) -> Result<()> {
        self.stats.bytes += header.size;
        if let (Some(recorder), true) = (recording, header.size > 0) {
            recorder.file(path, header.size)?;
        }
        if header.size <= filler::MAX_SIZE {
            return filler.fill(file, header, &mut payload);
        }
        let write = Error::io("write", &header.path);
        write_payload(&file, &mut payload).map_err(|error| error.unwrap_or_else(write))?;
        metadata::finish_file(&file, &header, self.options.owner)
    }

    fn fill_sparse<R: BufRead>(
        &mut self,
        file: &OwnedFd,
        header: &Header,
        mut payload: Payload<'_, R>,
        recording: &mut Recording<'_>,
    ) -> Result<()> {
        let Some(sparse) = &header.sparse else { return Ok(()) };
        self.stats.bytes += sparse.size;
        rustix::fs::ftruncate(file, sparse.size).map_err(Error::io("extend", &header.path))?;
        for (start, length) in &sparse.data {
            write_piece(file, *start, *length, &mut payload, recording, &header.path)?;
        }
        metadata::finish_file(file, header, self.options.owner)
    }

    fn directory(&mut self, name: &[u8], header: &Header) -> Result<()> {
        let parent = self.tree.current();
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("create directory", &header.path)(errno)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(Error::io("open directory", &header.path))?;
        set_metadata(directory.as_fd(), header, self.options.owner)?;
        let path = self.tree.path_of(name);
        if self.whiteouts.remove(&path) {
            set_opaque(directory.as_fd(), &header.path)?;
        }
        self.times.push((path, header.mtime));
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], header: &Header) -> Result<()> {
        let target = tree::components(&header.link)
            .ok_or_else(|| Error::entry(&header.path, "hard link leads out of the root"))?
            .join(&b'/');
        let (directory, target_name) = self
            .tree
            .root()
            .open_parent(as_path(&target))
            .map_err(|error| Error::entry(&header.path, format!("hard link to {error}")))?;
        match rustix::fs::linkat(directory, target_name, self.tree.current(), name, AtFlags::empty()) {
            // The archive's fault: the target is a directory, on another file system, or not there.
            Err(errno @ (Errno::PERM | Errno::XDEV | Errno::NOENT)) => {
                let target = String::from_utf8_lossy(&target);
                Err(Error::entry(&header.path, format!("hard link to {target:?}: {errno}")))
            }
            linked => linked.map_err(Error::io("create hard link", &header.path)),
        }
    }

    fn special(&mut self, name: &[u8], header: &Header) -> Result<()> {
        let parent = self.tree.current();
        let mode = Mode::from_raw_mode(0o600);
        let device = rustix::fs::makedev(header.major, header.minor);
        match header.kind {
            Kind::Char => rustix::fs::mknodat(parent, name, FileType::CharacterDevice, mode, device),
            Kind::Block => rustix::fs::mknodat(parent, name, FileType::BlockDevice, mode, device),
            Kind::Fifo => rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0),
            _ => {
                self.stats.bytes += header.link.len() as u64;
                rustix::fs::symlinkat(as_path(&header.link), parent, name)
            }
        }
        .map_err(Error::io("create", &header.path))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(Error::io("open", &header.path))?;
        set_metadata(made.as_fd(), header, self.options.owner)?;
        set_times(made.as_fd(), header.mtime).map_err(Error::io("set times of", &header.path))
    }

    fn whiteout(&mut self, name: &[u8], header: &Header, recording: &mut Recording<'_>) -> Result<()> {
        let mode = self.options.whiteouts;
        if name == OPAQUE {
            if mode != Whiteouts::Overlay {
                self.clear_directory(&header.path)?;
            }
            if mode != Whiteouts::Remove {
                set_opaque(self.tree.current(), &header.path)?;
            }
            return Ok(());
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let target = &name[WHITEOUT.len()..];
        if matches!(target, b"" | b"." | b"..") {
            return Err(Error::entry(&header.path, "whiteout of no name"));
        }
        if mode != Whiteouts::Overlay {
            self.replace(target, &header.path, recording)?;
        }
        if mode == Whiteouts::Remove {
            return Ok(());
        }
        let parent = self.tree.current();
        match tree::file_type(parent, target).map_err(Error::io("stat", &header.path))? {
            // The layer itself has something there, which hides what is below; of a directory only
            // if it says so.
            Some(FileType::Directory) => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(parent, target, flags, Mode::empty())
                    .map_err(Error::io("open directory", &header.path))?;
                set_opaque(directory.as_fd(), &header.path)
            }
            Some(_) => Ok(()),
            None => {
                let mode = Mode::from_raw_mode(0);
                rustix::fs::mknodat(parent, target, FileType::CharacterDevice, mode, 0)
                    .map_err(Error::io("create whiteout", &header.path))?;
                self.whiteouts.insert(self.tree.path_of(target));
                Ok(())
            }
        }
    }

    fn clear_directory(&mut self, path: &[u8]) -> Result<()> {
        let directory = self.tree.current();
        let entries = rustix::fs::Dir::read_from(directory).map_err(Error::io("read directory", path))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("read directory", path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                tree::remove(directory, name).map_err(Error::io("remove", path))?;
            }
        }
        Ok(())
    }

    fn set_directory_times(&mut self) -> Result<()> {
        self.tree.forget();
        for (path, time) in &self.times {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
            let directory = match self.tree.root().open_path(as_path(path), flags) {
                Ok(directory) => directory,
                // It was replaced later.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(Error::io("open directory", path)(error.source)),
            };
            set_times(directory.as_fd(), *time).map_err(Error::io("set times of", path))?;
        }
        Ok(())
    }
}

fn set_opaque(directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(Error::io("mark as opaque", path))
}

/// Copies all contents to a file.
fn write_payload<R: BufRead>(file: &OwnedFd, payload: &mut Payload<'_, R>) -> Result<(), WriteError> {
    loop {
        let bytes = payload.fill().map_err(WriteError::Archive)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let written =
            rustix::io::retry_on_intr(|| rustix::io::write(file, bytes)).map_err(WriteError::File)?;
        payload.consume(written);
    }
}

enum WriteError {
    Archive(Error),
    File(Errno),
}

impl WriteError {
    fn unwrap_or_else(self, file_error: impl FnOnce(Errno) -> Error) -> Error {
        match self {
            Self::Archive(error) => error,
            Self::File(errno) => file_error(errno),
        }
    }
}

/// Copies one piece of a sparse file to its place, and to the recipe.
fn write_piece<R: BufRead>(
    file: &OwnedFd,
    start: u64,
    length: u64,
    payload: &mut Payload<'_, R>,
    recording: &mut Recording<'_>,
    path: &[u8],
) -> Result<()> {
    let mut done = 0;
    while done < length {
        let bytes = payload.fill()?;
        let most = usize::try_from(length - done).map_or(bytes.len(), |most| most.min(bytes.len()));
        if most == 0 {
            return Err(Error::entry(path, "sparse file is shorter than its map"));
        }
        let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &bytes[..most], start + done))
            .map_err(Error::io("write", path))?;
        if let Some(recorder) = recording {
            recorder.raw(&bytes[..written])?;
        }
        payload.consume(written);
        done += written as u64;
    }
    Ok(())
}
