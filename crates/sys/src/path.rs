//! Untrusted paths, resolved inside of a root directory by the kernel (openat2(2)).
//!
//! *Invariant*: no lookup leaves the root, whatever symlinks, `..` and absolute names say, and
//! whoever changes the tree meanwhile. A path is walked once, and what comes back is a descriptor.
//!
//! Not for the host's own paths, which are trusted: use `std::fs` there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::Error;

/// How many dangling symlinks [`Root::mkdir_all`] goes through, as many as the kernel does.
const LINKS_MAX: usize = 40;
/// openat2 answers EAGAIN when the tree is renamed under it; more often than this is an attack.
const RETRIES_MAX: usize = 128;

/// A directory that paths are resolved in.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Opens a directory of the host. The path itself is trusted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Self::from_fd)
            .map_err(|errno| failed("open root", path, errno))
    }

    /// Uses this directory, which may be open with `O_PATH`.
    pub fn from_fd(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// A second handle on the same directory.
    pub fn try_clone(&self) -> Result<Self, Error> {
        self.directory
            .try_clone()
            .map(Self::from_fd)
            .map_err(|source| Error::new("duplicate", "root directory", source))
    }

    /// Opens a path with these flags and `O_CLOEXEC`; files made by `O_CREAT` get mode 0600.
    ///
    /// Without `O_PATH`, device files and FIFOs are opened too, with what that does and how long it
    /// takes: look at the file first ([`Root::stat`], then [`reopen`]) when the tree is untrusted.
    pub fn open_path(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Error> {
        self.open_with_mode(path.as_ref(), flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| failed("open", path.as_ref(), errno))
    }

    /// Opens a path with these flags and `O_CLOEXEC`, where it is what its names say: no symlink is
    /// followed and no mount point is crossed, so it is of the root's own file system.
    pub fn open_own(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Error> {
        let path = path.as_ref();
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
            .map_err(|errno| failed("open", path, errno))
    }

    /// Opens the directory that the last name of a path is in; the last name is not looked up.
    ///
    /// The name is a single component without `/`. It is `.` for the root and for paths that end in
    /// `.` or `..`, and the directory is then what the path itself means.
    pub fn open_parent(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString), Error> {
        let path = path.as_ref();
        let (parent, name) = split_last(path);
        self.open_directory(parent)
            .map(|directory| (directory, name.to_owned()))
            .map_err(|errno| failed("open parent of", path, errno))
    }

    /// Opens a directory (`O_PATH`), and makes it and those above it where they are missing, with
    /// `mode` less the umask.
    ///
    /// Symlinks are followed inside of the root; where one dangles, its target is made. Directories
    /// that were made stay behind on an error.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<OwnedFd, Error> {
        self.make_directories(path.as_ref(), Mode::from_raw_mode(mode))
            .map_err(|errno| failed("mkdir", path.as_ref(), errno))
    }

    /// Opens a file of any type (`O_PATH`), or makes an empty one with `mode` less the umask, and
    /// the directories above it (0755): the place that a file is mounted on.
    pub fn create_file_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<OwnedFd, Error> {
        let path = path.as_ref();
        let create = || {
            match self.open_with_mode(path, OFlags::PATH, Mode::empty()) {
                Err(Errno::NOENT) => {}
                done => return done,
            }
            let (parent, _) = split_last(path);
            self.make_directories(parent, Mode::from_raw_mode(0o755))?;
            // O_NONBLOCK: what another process has put there meanwhile may be a FIFO.
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            self.open_with_mode(path, flags, Mode::from_raw_mode(mode))?;
            self.open_with_mode(path, OFlags::PATH, Mode::empty())
        };
        create().map_err(|errno| failed("create", path, errno))
    }

    /// What a path means, symlinks followed.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Stat, Error> {
        self.status(path.as_ref(), OFlags::PATH)
    }

    /// What a path means, a symlink at its end not followed.
    pub fn lstat(&self, path: impl AsRef<Path>) -> Result<Stat, Error> {
        self.status(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// The text of a symlink. It is untrusted like everything in the tree.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let path = path.as_ref();
        self.open_with_mode(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .and_then(|link| rustix::fs::readlinkat(link, "", Vec::new()))
            .map(|target| PathBuf::from(OsString::from_vec(target.into_bytes())))
            .map_err(|errno| failed("read link", path, errno))
    }

    /// Reads a regular file of at most `size_max` bytes; others are refused (EINVAL, EFBIG) before
    /// they are opened.
    pub fn read(&self, path: impl AsRef<Path>, size_max: u64) -> Result<Vec<u8>, Error> {
        let path = path.as_ref();
        let file = self
            .open_with_mode(path, OFlags::PATH, Mode::empty())
            .map_err(|errno| failed("open", path, errno))?;
        let status = rustix::fs::fstat(&file).map_err(|errno| failed("stat", path, errno))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(failed("read (not a regular file)", path, Errno::INVAL));
        }
        let file = reopen(&file, OFlags::RDONLY).map_err(|error| failed_io("read", path, error))?;
        let mut content = Vec::new();
        File::from(file)
            .take(size_max.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|error| failed_io("read", path, error))?;
        if content.len() as u64 > size_max {
            return Err(failed("read (too large)", path, Errno::FBIG));
        }
        Ok(content)
    }

    fn status(&self, path: &Path, flags: OFlags) -> Result<Stat, Error> {
        self.open_with_mode(path, flags, Mode::empty())
            .and_then(rustix::fs::fstat)
            .map_err(|errno| failed("stat", path, errno))
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_with_mode(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    fn open_with_mode(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // O_TMPFILE has O_DIRECTORY's bit in it; a mode where nothing is made is an error.
        let creates = flags.contains(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
        let mode = if creates { mode } else { Mode::empty() };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut result = Err(Errno::AGAIN);
        for _ in 0..RETRIES_MAX {
            result = rustix::fs::openat2(&self.directory, path, flags | OFlags::CLOEXEC, mode, resolve);
            if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        result
    }

    fn make_directories(&self, path: &Path, mode: Mode) -> Result<OwnedFd, Errno> {
        let mut path = path.to_owned();
        let mut links = 0;
        for _ in 0..RETRIES_MAX + path.components().count() {
            match self.open_directory(&path) {
                Err(Errno::NOENT) => {}
                done => return done,
            }
            let (directory, existing, missing) = self.deepest_directory(&path)?;
            match rustix::fs::mkdirat(&directory, &missing, mode) {
                Err(Errno::EXIST) => {}
                made => {
                    made?;
                    continue;
                }
            }
            // Something is there that leads nowhere: a dangling symlink, or another process's
            // directory that was just made.
            match rustix::fs::readlinkat(&directory, &missing, Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let rest: PathBuf = path.components().skip(existing.components().count() + 1).collect();
                    path = existing.join(OsStr::from_bytes(target.as_bytes())).join(rest);
                }
                Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::AGAIN)
    }

    /// The longest part of a path that exists, and the name after it, which doesn't.
    fn deepest_directory(&self, path: &Path) -> Result<(OwnedFd, PathBuf, OsString), Errno> {
        let components: Vec<Component<'_>> = path.components().collect();
        for (at, component) in components.iter().enumerate().rev() {
            let existing: PathBuf = components.iter().take(at).collect();
            match self.open_directory(&existing) {
                Ok(directory) => match component {
                    Component::Normal(name) => return Ok((directory, existing, (*name).to_owned())),
                    _ => return Err(Errno::NOENT),
                },
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::NOENT)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Opens what an `O_PATH` descriptor stands for, with other flags and `O_CLOEXEC`, through
/// `/proc/self/fd`, without a walk.
pub fn reopen(descriptor: impl AsFd, flags: OFlags) -> Result<OwnedFd, io::Error> {
    let link = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    Ok(rustix::fs::openat(CWD, link, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether two descriptors stand for the same file.
pub fn is_same_file(one: impl AsFd, other: impl AsFd) -> Result<bool, io::Error> {
    let one = rustix::fs::statat(one, "", AtFlags::EMPTY_PATH)?;
    let other = rustix::fs::statat(other, "", AtFlags::EMPTY_PATH)?;
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Splits a path in the directory and the last name, without a lookup.
fn split_last(path: &Path) -> (&Path, &OsStr) {
    let dot = OsStr::new(".");
    let ends_in_dots = path.as_os_str().as_bytes().ends_with(b"/.");
    match (path.file_name(), path.parent()) {
        (Some(name), Some(parent)) if !ends_in_dots => (parent, name),
        _ => (path, dot),
    }
}

fn failed(operation: &'static str, path: &Path, errno: Errno) -> Error {
    failed_io(operation, path, errno.into())
}

fn failed_io(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::new(operation, path.display().to_string(), source)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root in a temporary directory, with a file outside of it that nothing must reach.
    struct Tree {
        directory: PathBuf,
        root: Root,
    }

    impl Tree {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("ponton-path-{}-{name}", std::process::id()));
            fs::create_dir_all(directory.join("root/etc")).unwrap();
            fs::write(directory.join("secret"), "outside").unwrap();
            fs::write(directory.join("root/etc/passwd"), "inside").unwrap();
            let root = Root::open(directory.join("root")).unwrap();
            Self { directory, root }
        }

        fn inside(&self, path: &str) -> PathBuf {
            self.directory.join("root").join(path)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.directory).unwrap();
        }
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let tree = Tree::new("stay");
        symlink("/", tree.inside("absolute")).unwrap();
        symlink("../../../..", tree.inside("up")).unwrap();
        symlink(&tree.directory, tree.inside("host")).unwrap();
        for path in [
            "etc/passwd",
            "/etc/passwd",
            "absolute/etc/passwd",
            "up/etc/passwd",
            "../../etc/passwd",
            "etc/../../../etc/passwd",
        ] {
            assert_eq!(tree.root.read(path, 100).unwrap(), b"inside", "{path}");
        }
        for path in ["host/secret", "../secret", "up/secret"] {
            assert!(tree.root.read(path, 100).is_err(), "{path}");
        }
        assert_eq!(tree.root.read_link("up").unwrap(), Path::new("../../../.."));
    }

    #[test]
    fn magic_links_are_refused() {
        let tree = Tree::new("magic");
        let proc = Root::open("/proc").unwrap();
        assert!(proc.open_path("self/root", OFlags::PATH).is_err());
        let file = File::open(tree.inside("etc/passwd")).unwrap();
        assert!(proc.open_path(format!("self/fd/{}", file.as_raw_fd()), OFlags::PATH).is_err());
    }

    #[test]
    fn what_is_own_is_neither_linked_nor_mounted() {
        let tree = Tree::new("own");
        symlink("etc", tree.inside("link")).unwrap();
        tree.root.open_own("etc/passwd", OFlags::RDONLY).unwrap();
        for path in ["link/passwd", "etc/../etc/../../secret", "/etc/passwd"] {
            assert!(tree.root.open_own(path, OFlags::RDONLY).is_err(), "{path}");
        }
        let host = Root::open("/").unwrap();
        assert!(host.open_own("proc/version", OFlags::RDONLY).is_err());
    }

    #[test]
    fn directories_are_made_inside() {
        let tree = Tree::new("mkdir");
        symlink("/run", tree.inside("dangling")).unwrap();
        symlink("../../../escaped", tree.inside("etc/up")).unwrap();
        symlink("loop", tree.inside("loop")).unwrap();
        tree.root.mkdir_all("a/b/c", 0o755).unwrap();
        tree.root.mkdir_all("dangling/lock/x", 0o755).unwrap();
        tree.root.mkdir_all("/etc/up/y", 0o755).unwrap();
        tree.root.mkdir_all("", 0o755).unwrap();
        tree.root.mkdir_all("/", 0o755).unwrap();
        assert!(tree.inside("a/b/c").is_dir());
        assert!(tree.inside("run/lock/x").is_dir());
        assert!(tree.inside("escaped/y").is_dir());
        assert!(!tree.directory.join("escaped").exists());
        assert!(tree.root.mkdir_all("loop/x", 0o755).is_err());
        assert!(tree.root.mkdir_all("etc/passwd/x", 0o755).is_err());
        tree.root.mkdir_all("missing/../../../x", 0o755).unwrap();
        assert!(tree.inside("x").is_dir());
    }

    #[test]
    fn files_are_made_inside_and_found() {
        let tree = Tree::new("create");
        symlink("/var/hosts", tree.inside("etc/hosts")).unwrap();
        fs::create_dir(tree.inside("var")).unwrap();
        tree.root.create_file_all("etc/hosts", 0o644).unwrap();
        tree.root.create_file_all("new/dir/file", 0o644).unwrap();
        tree.root.create_file_all("etc/passwd", 0o644).unwrap();
        assert!(tree.inside("var/hosts").is_file());
        assert!(tree.inside("new/dir/file").is_file());
        assert_eq!(fs::read(tree.inside("etc/passwd")).unwrap(), b"inside");
    }

    #[test]
    fn parents_are_inside_and_names_are_plain() {
        let tree = Tree::new("parent");
        symlink("..", tree.inside("up")).unwrap();
        for (path, parent, expected) in [
            ("etc/passwd", "etc", "passwd"),
            ("up/x/", ".", "x"),
            ("../x", ".", "x"),
            ("/", ".", "."),
            ("", ".", "."),
            ("etc/..", ".", "."),
            ("etc/.", "etc", "."),
        ] {
            let (directory, name) = tree.root.open_parent(path).unwrap();
            assert_eq!(name, expected, "{path}");
            let wanted = File::open(tree.inside(parent)).unwrap();
            assert!(is_same_file(&directory, &wanted).unwrap(), "{path}");
        }
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let tree = Tree::new("read");
        let fifo = tree.inside("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(tree.root.read("fifo", 100).is_err());
        assert!(tree.root.read("etc", 100).is_err());
        assert!(tree.root.read("etc/passwd", 5).is_err());
        assert_eq!(tree.root.read("etc/passwd", 6).unwrap().len(), 6);
    }
}
