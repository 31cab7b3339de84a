//! An empty volume begins with what the image has where it is mounted.
//!
//! The copy is made beside the volume, and its names are moved into it only when it is whole. A daemon that
//! dies before leaves an empty volume, which the next container fills; one that dies while names are moved
//! leaves the rest of them, which [`recover`] moves.
//!
//! In a volume that is a file system of its own both stand where containers see them: it is filled only while
//! no other container has it, and what was left there is a container's word: no link is followed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ponton_image::Image;
use ponton_snapshot::{copy_metadata, copy_tree};
use ponton_sys::path::Root;
use rustix::fs::{Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Temporary, local};
use crate::container::{Settings, mount_snapshot};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::spec::point::Point;

impl Engine {
    /// Fills those of a new container's volumes that are empty.
    pub(crate) fn fill_volumes(&self, settings: &Settings, image: &Image, points: &[&Point]) -> Result<()> {
        let mut root = None;
        for point in points {
            let name = &point.shown.name;
            // What the image has nothing for needs no mount: one that fails is told at the start.
            if local::is_mounted_volume(&self.volume_options(name)?) {
                let Some(root) = self.image_root_once(&mut root, image)? else { return Ok(()) };
                if find(root, &point.shown.destination)?.is_none() {
                    continue;
                }
            }
            let using = Temporary(vec![self.use_volume(name, &settings.id)?]);
            let hold = self.volumes.hold(name);
            let _turn = hold.turn_to_fill(name)?;
            if hold.is_shared() {
                continue;
            }
            let place = Place::of(&self.volume_directory(name), hold.is_mounted());
            place.recover()?;
            if !place.names().map_err(failed("read volume", &place.data))?.is_empty() {
                continue;
            }
            let Some(root) = self.image_root_once(&mut root, image)? else { return Ok(()) };
            if let Some(source) = find(root, &point.shown.destination)? {
                place.fill(source)?;
            }
            drop(using);
        }
        Ok(())
    }

    /// The root of an image, which is opened the first time.
    fn image_root_once<'a>(&self, root: &'a mut Option<Root>, image: &Image) -> Result<Option<&'a Root>> {
        if root.is_none() {
            *root = self.image_root(image)?;
        }
        Ok(root.as_ref())
    }

    /// The root of an image, mounted for as long as it is open; `None` if it has no layers.
    pub(crate) fn image_root(&self, image: &Image) -> Result<Option<Root>> {
        let Some(top) = image.chain.last() else { return Ok(None) };
        let mounted = mount_snapshot(&self.snapshotter.layer_mounts(top)?)?;
        Ok(Some(Root::from_fd(mounted)))
    }
}

/// The directory that an image has at a path, if it has something there.
fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>> {
    let found = match root.open_path(path, OFlags::PATH) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        found => found?,
    };
    let status = rustix::fs::fstat(&found).map_err(failed("stat", Path::new(path)))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return Err(Error::invalid(format!("cannot mount volume over existing file, file exists {path}")));
    }
    // Until here it was a place only, which cannot be read.
    let directory = rustix::fs::openat(&found, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    directory.map(Some).map_err(failed("open the image's", Path::new(path)))
}

/// Finishes or clears what a kill left in a volume's directory.
pub(super) fn recover(directory: &Path) -> Result<()> {
    Place::of(directory, false).recover()
}

/// Where a volume is filled.
pub(super) struct Place {
    data: PathBuf,
    pub(super) filling: PathBuf,
    filled: PathBuf,
    replacing: PathBuf,
}

impl Place {
    /// A rename needs one file system: the copy for a volume that is one of its own is made in it.
    pub(super) fn of(directory: &Path, is_mounted: bool) -> Self {
        let data = directory.join("_data");
        let at = |name: &str| {
            if is_mounted { data.join(format!(".ponton-{name}")) } else { directory.join(name) }
        };
        Self { filling: at("filling"), filled: at("filled"), replacing: at("replacing"), data }
    }

    pub(super) fn fill(&self, source: OwnedFd) -> Result<()> {
        if is_empty_directory(&source).map_err(failed("read the image's directory for", &self.data))? {
            return copy_metadata(source.as_fd(), &self.data)
                .map_err(failed("set owner and mode of", &self.data));
        }
        self.begin()?;
        copy_tree(source, &self.filling).map_err(|error| {
            self.give_up();
            Error::failed(format!("copy files to {}", self.data.display()), error)
        })?;
        self.finish(false)
    }

    /// Makes the directory that is to be filled.
    pub(super) fn begin(&self) -> Result<()> {
        self.recover()?;
        fs::create_dir(&self.filling).map_err(failed("create directory", &self.filling))
    }

    /// Removes what was filled in; where that cannot be, the next recovery does.
    pub(super) fn give_up(&self) {
        let _ = fs::remove_dir_all(&self.filling);
    }

    /// Makes what was filled in the volume's content, or all of it.
    pub(super) fn finish(&self, replace: bool) -> Result<()> {
        // After a power cut a whole copy must be whole.
        let whole = open(&self.filling)?;
        rustix::fs::syncfs(&whole).map_err(failed("sync", &self.filling))?;
        let next = if replace { &self.replacing } else { &self.filled };
        fs::rename(&self.filling, next).map_err(failed("rename", &self.filling))?;
        self.recover()
    }

    /// Refuses to write to a volume that has content, unless that is to be replaced.
    pub(super) fn check_writable(&self, name: &str, replace: bool) -> Result<()> {
        if replace || self.names().map_err(failed("read volume", &self.data))?.is_empty() {
            return Ok(());
        }
        Err(Error::conflict(format!("restore {name}: the volume is not empty; force replaces what is in it")))
    }

    /// What the volume has, its own places for filling left out; `lost+found` is a file system's.
    fn names(&self) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.data)? {
            let path = entry?.path();
            let is_own = [&self.filling, &self.filled, &self.replacing].contains(&&path);
            if !is_own && !path.ends_with("lost+found") {
                names.push(path);
            }
        }
        Ok(names)
    }

    fn clear(&self) -> io::Result<()> {
        for path in self.names()? {
            if fs::symlink_metadata(&path)?.is_dir() {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn recover(&self) -> Result<()> {
        match fs::remove_dir_all(&self.filling) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                fs::remove_file(&self.filling).map_err(failed("remove", &self.filling))?;
            }
            removed => removed.map_err(failed("remove", &self.filling))?,
        }
        if directory(&self.replacing).is_ok() {
            self.clear().map_err(failed("empty volume", &self.data))?;
            fs::rename(&self.replacing, &self.filled).map_err(failed("rename", &self.replacing))?;
        }
        let filled = match directory(&self.filled) {
            Err(Errno::NOENT) => return Ok(()),
            // Nobody here made it.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return fs::remove_file(&self.filled).map_err(failed("remove", &self.filled));
            }
            opened => opened.map_err(failed("open", &self.filled))?,
        };
        let data = open(&self.data)?;
        let entries = Dir::read_from(&filled).map_err(failed("read", &self.filled))?;
        for entry in entries {
            let entry = entry.map_err(failed("read", &self.filled))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let moved = match rustix::fs::renameat_with(&filled, name, &data, name, RenameFlags::NOREPLACE) {
                // Somebody else made it: it stays.
                Err(Errno::EXIST) => Ok(()),
                // A file system that cannot keep what is there, as NFS: nobody has anything there yet.
                Err(Errno::INVAL) => rustix::fs::renameat(&filled, name, &data, name),
                moved => moved,
            };
            moved.map_err(failed("move files to", &self.data))?;
        }
        copy_metadata(filled.as_fd(), &self.data).map_err(failed("set owner and mode of", &self.data))?;
        fs::remove_dir_all(&self.filled).map_err(failed("remove", &self.filled))
    }
}

/// Opens a directory, and no link to one.
fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    directory(path).map_err(failed("open directory", path))
}

fn is_empty_directory(directory: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn failed<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |error| Error::failed(format!("{operation} {}", path.display()), error.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    struct Lab {
        _directory: tempfile::TempDir,
        image: PathBuf,
        volume: PathBuf,
    }

    fn lab() -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let (image, volume) = (directory.path().join("image"), directory.path().join("volume"));
        fs::create_dir_all(image.join("d")).unwrap();
        fs::create_dir_all(volume.join("_data")).unwrap();
        fs::write(image.join("d/file"), "content").unwrap();
        fs::hard_link(image.join("d/file"), image.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere", image.join("symlink")).unwrap();
        chown(image.join("d/file"), Some(7), Some(8)).unwrap();
        fs::set_permissions(image.join("d/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        chown(&image, Some(5), Some(6)).unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o1770)).unwrap();
        rustix::fs::setxattr(image.join("d"), "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
        Lab { _directory: directory, image, volume }
    }

    fn is_whole(volume: &Path) {
        let data = volume.join("_data");
        let file = fs::metadata(data.join("d/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.nlink()), (7, 8, 0o4711, 2));
        assert_eq!(fs::metadata(data.join("link")).unwrap().ino(), file.ino());
        assert_eq!(fs::read_link(data.join("symlink")).unwrap(), Path::new("/nowhere"));
        let root = fs::metadata(&data).unwrap();
        assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (5, 6, 0o1770));
        let mut value = [0; 8];
        assert_eq!(rustix::fs::getxattr(data.join("d"), "user.a", &mut value).unwrap(), 1);
        let left: Vec<_> = fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["_data"]);
    }

    #[test]
    fn a_volume_gets_the_files_of_the_image() {
        let lab = lab();
        Place::of(&lab.volume, false).fill(open(&lab.image).unwrap()).unwrap();
        is_whole(&lab.volume);
    }

    #[test]
    fn an_empty_directory_gives_its_owner_and_mode() {
        let lab = lab();
        fs::remove_dir_all(lab.image.join("d")).unwrap();
        fs::remove_file(lab.image.join("link")).unwrap();
        fs::remove_file(lab.image.join("symlink")).unwrap();
        Place::of(&lab.volume, false).fill(open(&lab.image).unwrap()).unwrap();
        let root = fs::metadata(lab.volume.join("_data")).unwrap();
        assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (5, 6, 0o1770));
    }

    #[test]
    fn what_a_kill_leaves_is_cleared_or_finished() {
        let lab = lab();
        let place = Place::of(&lab.volume, false);
        // Killed while it copied: nothing of it stays.
        fs::create_dir_all(place.filling.join("half")).unwrap();
        recover(&lab.volume).unwrap();
        assert!(place.names().unwrap().is_empty() && !place.filling.exists());
        // Killed after one of the names was moved.
        fs::create_dir(&place.filled).unwrap();
        copy_tree(open(&lab.image).unwrap(), &place.filled).unwrap();
        fs::rename(place.filled.join("d"), place.data.join("d")).unwrap();
        recover(&lab.volume).unwrap();
        is_whole(&lab.volume);
        recover(&lab.volume).unwrap();
        is_whole(&lab.volume);
    }

    #[test]
    fn what_is_replaced_is_gone_also_after_a_kill() {
        let lab = lab();
        let place = Place::of(&lab.volume, false);
        fs::create_dir_all(place.data.join("d/old")).unwrap();
        fs::write(place.data.join("link"), "old").unwrap();
        assert!(place.check_writable("v1", false).unwrap_err().message.contains("not empty"));
        // Killed before anything was removed, and with half of it gone.
        fs::create_dir(&place.replacing).unwrap();
        copy_tree(open(&lab.image).unwrap(), &place.replacing).unwrap();
        fs::remove_file(place.data.join("link")).unwrap();
        recover(&lab.volume).unwrap();
        is_whole(&lab.volume);
        assert!(!lab.volume.join("_data/d/old").exists());
    }

    #[test]
    fn what_a_container_planted_is_not_taken_for_a_copy() {
        let lab = lab();
        let secret = lab.volume.join("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("key"), "key").unwrap();
        let place = Place::of(&lab.volume, true);
        std::os::unix::fs::symlink(&secret, &place.filled).unwrap();
        place.recover().unwrap();
        assert!(secret.join("key").exists() && !place.data.join("key").exists());
        assert!(fs::symlink_metadata(&place.filled).is_err());
        std::os::unix::fs::symlink(&secret, &place.filling).unwrap();
        place.recover().unwrap();
        std::os::unix::fs::symlink(&secret, &place.replacing).unwrap();
        place.recover().unwrap();
        assert!(secret.join("key").exists());
    }
}
