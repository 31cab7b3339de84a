//! The local end of `cp`: trees to tar, and tar to trees that cannot leave their destination.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::path::{ends_in_dot, ends_in_separator, file_name};
use crate::error::{Error, reason};

/// How many chunks wait between the network and the disk.
const QUEUE: usize = 16;
const CHUNK_BYTES: usize = 256 << 10;

/// What is copied into a container.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) is_directory: bool,
    /// The path ended in `/.`.
    pub(crate) contents_only: bool,
}

impl Source {
    /// Looks at a local path; a link at its end is followed if asked for, or if a separator follows it.
    pub(crate) fn open(given: &str, follow: bool) -> Result<Self, Error> {
        let error = |source| Error::file("lstat", given, source);
        let absolute = std::path::absolute(given).map_err(error)?;
        let follow = follow || ends_in_separator(given) || ends_in_dot(given);
        let path = if follow { fs::canonicalize(&absolute).map_err(error)? } else { absolute };
        let metadata = fs::symlink_metadata(&path).map_err(error)?;
        if ends_in_separator(given) && !metadata.is_dir() {
            return Err(Error::invalid(format!("lstat {given}: not a directory")));
        }
        // A followed link keeps its own name.
        let name = if ends_in_dot(given) || given.ends_with("..") {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        } else {
            file_name(given)
        };
        Ok(Self { path, name, is_directory: metadata.is_dir(), contents_only: ends_in_dot(given) })
    }
}

/// An archive that is made while it is sent.
pub(crate) struct Packed<S> {
    pub(crate) stream: S,
    /// Bytes of content so far.
    pub(super) bytes: Arc<AtomicU64>,
}

/// Packs a tree as `name` (`.` for what is in it). Without `keep_owner`, everything belongs to root.
pub(crate) fn pack(
    source: Source,
    name: String,
    keep_owner: bool,
) -> Packed<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let bytes = Arc::new(AtomicU64::new(0));
    let counter = bytes.clone();
    tokio::task::spawn_blocking(move || {
        let mut builder =
            Builder::new(io::BufWriter::with_capacity(CHUNK_BYTES, ChannelWriter(sender.clone())));
        let mut packer = Packer { builder: &mut builder, keep_owner, counter: &counter };
        let result = packer.add(&source.path, Path::new(&name)).and_then(|()| {
            let mut writer = builder.into_inner()?;
            writer.flush()
        });
        if let Err(error) = result {
            // The receiver is gone if the daemon refused the archive: it has said why.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    Packed { stream, bytes }
}

struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Packer<'a, W: Write> {
    builder: &'a mut Builder<W>,
    keep_owner: bool,
    counter: &'a AtomicU64,
}

impl<W: Write> Packer<'_, W> {
    fn add(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path).map_err(|source| with_path(path, &source))?;
        let kind = metadata.file_type();
        let mut header = self.header(&metadata);
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            let directory = name.join("");
            self.builder.append_data(&mut header, directory, io::empty())?;
            let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                self.add(&entry.path(), &name.join(entry.file_name()))?;
            }
            return Ok(());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self.builder.append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_file() {
            let file = File::open(path).map_err(|source| with_path(path, &source))?;
            header.set_size(metadata.len());
            // A file that grows or shrinks meanwhile must not break the archive.
            let content = file.take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
            self.counter.fetch_add(metadata.len(), Ordering::Relaxed);
            return self.builder.append_data(&mut header, name, content);
        }
        let device = match (metadata.mode() & 0o170_000, metadata.rdev()) {
            (0o020_000, device) => Some((EntryType::Char, device)),
            (0o060_000, device) => Some((EntryType::Block, device)),
            (0o010_000, _) => Some((EntryType::Fifo, 0)),
            // Sockets have no place in an archive.
            _ => None,
        };
        let Some((entry_type, device)) = device else { return Ok(()) };
        header.set_entry_type(entry_type);
        header.set_device_major(rustix::fs::major(device))?;
        header.set_device_minor(rustix::fs::minor(device))?;
        self.builder.append_data(&mut header, name, io::empty())
    }

    fn header(&self, metadata: &Metadata) -> Header {
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        let (uid, gid) = if self.keep_owner { (metadata.uid(), metadata.gid()) } else { (0, 0) };
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_size(0);
        header
    }
}

fn with_path(path: &Path, source: &io::Error) -> io::Error {
    io::Error::new(source.kind(), format!("{}: {}", path.display(), reason(source)))
}

/// Where an archive from a container goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unpack {
    /// The directory that nothing leaves.
    pub(crate) root: PathBuf,
    /// What the first component of each name becomes; `None` keeps it, an empty path drops it.
    pub(crate) rename: Option<PathBuf>,
}

impl Unpack {
    /// Docker's rules for `source` (a path in a container) copied to the local `target`.
    pub(super) fn plan(
        source: &str,
        is_directory: bool,
        target: &Path,
        given_directory: bool,
    ) -> Result<Self, Error> {
        let found = fs::metadata(target).ok();
        let contents_only = ends_in_dot(source);
        let beside = || {
            let parent = target.parent().unwrap_or(Path::new("/")).to_owned();
            Self { root: parent, rename: target.file_name().map(PathBuf::from) }
        };
        match (is_directory, found.map(|found| found.is_dir())) {
            (true, Some(true)) if contents_only => {
                Ok(Self { root: target.to_owned(), rename: Some(PathBuf::new()) })
            }
            (_, Some(true)) => Ok(Self { root: target.to_owned(), rename: None }),
            (true, Some(false)) => Err(Error::invalid("cannot copy directory")),
            (false, None) if given_directory => Err(Error::invalid(format!(
                "destination directory {:?} does not exist",
                target.display().to_string()
            ))),
            (true, None) | (false, Some(false) | None) => Ok(beside()),
        }
    }

    /// The place of an entry below the root; `None` for the directory that the contents come from.
    fn place(&self, name: &Path) -> io::Result<Option<PathBuf>> {
        let mut parts = Vec::new();
        for component in name.components() {
            match component {
                Component::Normal(part) => parts.push(part),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::other(format!("{} leaves the destination", name.display())));
                }
            }
        }
        let path: PathBuf = match (&self.rename, parts.split_first()) {
            (_, None) => return Ok(None),
            (None, _) => parts.iter().collect(),
            (Some(first), Some((_, rest))) => {
                let mut path = first.clone();
                path.extend(rest);
                path
            }
        };
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }
}

/// Unpacks a stream; gives back how many bytes of content there were.
pub(crate) async fn unpack(
    stream: impl Stream<Item = Result<Bytes, ponton_client::Error>> + Send + Unpin,
    plan: Unpack,
) -> Result<u64, Error> {
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    let root = plan.root.display().to_string();
    let unpacker = tokio::task::spawn_blocking(move || {
        unpack_blocking(ChannelReader { receiver, rest: Bytes::new() }, &plan)
    });
    let mut stream = stream;
    let mut broken = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            // The unpacker is gone if it failed, and says why below.
            Ok(chunk) => {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacker.await.map_err(|error| Error::invalid(error.to_string()))?;
    match broken {
        Some(error) => Err(error.into()),
        None => unpacked.map_err(|source| Error::file("unpack into", root, source)),
    }
}

struct ChannelReader {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(out.len());
        out[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

fn unpack_blocking(reader: impl Read, plan: &Unpack) -> io::Result<u64> {
    let mut archive = Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(false);
    archive.set_overwrite(true);
    let mut tree = Tree { root: fs::canonicalize(&plan.root)?, known: PathBuf::new() };
    let mut writer = FileWriter { umask: umask(), buffer: vec![0; CHUNK_BYTES] };
    let mut bytes = 0;
    // Directories get their modes and times last, so that one without write permission can be filled.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(place) = plan.place(&entry.path()?)? else { continue };
        let path = tree.inside(&place)?;
        bytes += entry.size();
        match entry.header().entry_type() {
            EntryType::Directory => {
                // A link in the place of a directory would lead what follows out of the destination.
                let found = fs::symlink_metadata(&path);
                if found.as_ref().is_ok_and(|found| !found.is_dir()) {
                    return Err(io::Error::other(format!(
                        "cannot overwrite non-directory {} with directory",
                        path.display()
                    )));
                }
                if found.is_err() {
                    fs::create_dir(&path)?;
                }
                directories.push((path, entry.header().mode()?));
            }
            EntryType::Link => {
                let target =
                    entry.link_name()?.ok_or_else(|| io::Error::other("a hard link without a target"))?;
                let Some(target) = plan.place(&target)? else { continue };
                let target = tree.inside(&target)?;
                remove_file(&path)?;
                fs::hard_link(target, path)?;
            }
            EntryType::Block | EntryType::Char | EntryType::Fifo => {
                return Err(io::Error::other(format!(
                    "{} is a special file, which is not copied",
                    place.display()
                )));
            }
            EntryType::Regular => writer.write(&mut entry, &path)?,
            _ => {
                remove_file(&path)?;
                entry.unpack(&path)?;
            }
        }
    }
    for (path, mode) in directories.into_iter().rev() {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777))?;
    }
    Ok(bytes)
}

/// Writes files in few system calls: most are small and new.
struct FileWriter {
    /// What the kernel takes from the mode of a new file.
    umask: u32,
    buffer: Vec<u8>,
}

impl FileWriter {
    fn write<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &Path) -> io::Result<()> {
        let mode = entry.header().mode()? & 0o7777;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(mode & 0o777);
        let mut file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_file(path)?;
                options.open(path)?
            }
            opened => opened?,
        };
        loop {
            let count = fill(entry, &mut self.buffer)?;
            file.write_all(&self.buffer[..count])?;
            if count < self.buffer.len() {
                break;
            }
        }
        if mode & (self.umask | 0o7000) != 0 {
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
        let mtime = std::time::UNIX_EPOCH + std::time::Duration::from_secs(entry.header().mtime()?);
        file.set_times(fs::FileTimes::new().set_accessed(mtime).set_modified(mtime))
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// This process's umask; where it cannot be told, all that it could be.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}

/// The destination.
struct Tree {
    root: PathBuf,
    /// The last directory that was found to be a real one below the root, with all above it. The archive
    /// cannot take a directory away, so it stays one.
    known: PathBuf,
}

impl Tree {
    /// The path of an entry, if all directories above it are real ones below the root.
    fn inside(&mut self, place: &Path) -> io::Result<PathBuf> {
        let parent = place.parent().unwrap_or(Path::new(""));
        if parent != self.known {
            let mut path = self.root.clone();
            for component in parent.components() {
                path.push(component);
                if !fs::symlink_metadata(&path)?.is_dir() {
                    return Err(io::Error::other(format!("{} is not a directory", path.display())));
                }
            }
            parent.clone_into(&mut self.known);
        }
        Ok(self.root.join(place))
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            Err(io::Error::other(format!("cannot overwrite directory {} with non-directory", path.display())))
        }
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if *kind == EntryType::Directory { 0o755 } else { 0o644 });
            match kind {
                EntryType::Symlink | EntryType::Link => {
                    header.set_size(0);
                    header.set_link_name_literal(content).unwrap();
                }
                _ => header.set_size(content.len() as u64),
            }
            // Names as they are: the tar crate would refuse the hostile ones.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            let content = if matches!(kind, EntryType::Symlink | EntryType::Link) { "" } else { content };
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn run(entries: &[(&str, EntryType, &str)], root: &Path, rename: Option<&str>) -> io::Result<u64> {
        let plan = Unpack { root: root.to_owned(), rename: rename.map(PathBuf::from) };
        unpack_blocking(&archive(entries)[..], &plan)
    }

    #[test]
    fn a_tree_is_unpacked_under_its_new_name() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let entries = [
            ("d/", EntryType::Directory, ""),
            ("d/f", EntryType::Regular, "hello"),
            ("d/l", EntryType::Symlink, "/etc/passwd"),
            ("d/h", EntryType::Link, "d/f"),
        ];
        assert_eq!(run(&entries, root, Some("e")).unwrap(), 5);
        assert_eq!(fs::read_to_string(root.join("e/h")).unwrap(), "hello");
        assert_eq!(fs::read_link(root.join("e/l")).unwrap(), Path::new("/etc/passwd"));
        run(&entries, root, Some("")).unwrap();
        assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "hello");
    }

    #[test]
    fn nothing_leaves_the_destination() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().to_str().unwrap();
        for entries in [
            vec![("../x", EntryType::Regular, "bad")],
            vec![("d/../../x", EntryType::Regular, "bad")],
            vec![("l", EntryType::Symlink, target), ("l/x", EntryType::Regular, "bad")],
            vec![
                ("l", EntryType::Symlink, target),
                ("l/", EntryType::Directory, ""),
                ("l/x", EntryType::Regular, "bad"),
            ],
            vec![("h", EntryType::Link, "../../../../etc/passwd")],
        ] {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().join("root");
            fs::create_dir(&root).unwrap();
            assert!(run(&entries, &root, None).is_err(), "{entries:?}");
            assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
            assert!(!directory.path().join("x").exists());
        }
        // An absolute name is one below the destination, and a link in the place of a file is replaced.
        let directory = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let link = format!("{target}/kept");
        let entries = [("/f", EntryType::Symlink, link.as_str()), ("/f", EntryType::Regular, "new")];
        run(&entries, directory.path(), None).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("f")).unwrap(), "new");
        assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "kept");
    }

    #[test]
    fn a_packed_tree_is_unpacked_again() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "hello").unwrap();
        std::os::unix::fs::symlink("f", from.path().join("d/l")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let to = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let source = Source::open(from.path().join("d").to_str().unwrap(), false).unwrap();
            let packed = pack(source, "renamed".to_owned(), false);
            let stream = std::pin::pin!(packed.stream);
            let stream = stream.map(|chunk| Ok(chunk.unwrap()));
            let plan = Unpack { root: to.path().to_owned(), rename: None };
            assert_eq!(
                unpack(Box::pin(stream.collect::<Vec<_>>()).await.into_stream(), plan).await.unwrap(),
                5
            );
        });
        assert_eq!(fs::read_to_string(to.path().join("renamed/f")).unwrap(), "hello");
        assert_eq!(fs::read_link(to.path().join("renamed/l")).unwrap(), Path::new("f"));
    }

    trait IntoStream<T> {
        fn into_stream(self) -> futures_util::stream::Iter<std::vec::IntoIter<T>>;
    }

    impl<T> IntoStream<T> for Vec<T> {
        fn into_stream(self) -> futures_util::stream::Iter<std::vec::IntoIter<T>> {
            futures_util::stream::iter(self)
        }
    }
}
