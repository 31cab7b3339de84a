//! Owner, mode, attributes and times of what an archive makes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::header::{Header, Kind, Time};
use crate::{Error, Result};

/// All of a regular file's metadata, to be set after its contents.
pub(crate) fn finish_file(file: &OwnedFd, header: &Header, owner: Option<(u32, u32)>) -> Result<()> {
    set_metadata(file.as_fd(), header, owner)?;
    let times = timestamps(header.mtime);
    rustix::fs::futimens(file, &times).map_err(Error::io("set times of", &header.path))
}

/// Owner before mode before attributes: changing the owner clears setuid bits and capabilities. What
/// is right already is left alone: to look is much cheaper than to change, which the file system
/// writes in its journal.
pub(crate) fn set_metadata(file: BorrowedFd<'_>, header: &Header, owner: Option<(u32, u32)>) -> Result<()> {
    let (uid, gid) = owner.unwrap_or((header.uid, header.gid));
    let status = rustix::fs::fstat(file).map_err(Error::io("stat", &header.path))?;
    let is_others = (status.st_uid, status.st_gid) != (uid, gid);
    if is_others {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(file, "", owner.0, owner.1, AtFlags::EMPTY_PATH)
            .map_err(Error::io("change owner of", &header.path))?;
    }
    let lost_bits = is_others && header.mode & 0o6000 != 0;
    if header.kind != Kind::Symlink && (status.st_mode & 0o7777 != header.mode || lost_bits) {
        set_mode(file, header).map_err(Error::io("change mode of", &header.path))?;
    }
    for (name, value) in &header.xattrs {
        // What is overlayfs's (and any other privileged program's) is not the archive's to set.
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match rustix::fs::setxattr(link_of(file), name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            // user.* is for files and directories alone.
            Err(Errno::PERM) if name.starts_with(b"user.") => {}
            Err(errno) => return Err(Error::io("set extended attribute of", &header.path)(errno)),
        }
    }
    Ok(())
}

fn set_mode(file: BorrowedFd<'_>, header: &Header) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(header.mode);
    match header.kind {
        Kind::Regular | Kind::Directory => rustix::fs::fchmod(file, mode),
        // A descriptor of a device that is not opened takes only its link in proc.
        _ => rustix::fs::chmodat(CWD, link_of(file), mode, AtFlags::empty()),
    }
}

/// Sets the times of what is open in any way.
pub(crate) fn set_times(file: BorrowedFd<'_>, time: Time) -> Result<(), Errno> {
    rustix::fs::utimensat(file, "", &timestamps(time), AtFlags::EMPTY_PATH)
}

fn link_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use ponton_sys::path::Root;

    use super::*;
    use crate::apply::{Applier, Options};
    use crate::writer::Writer;

    /// Owners and modes are the archive's, whatever umask and the directory's group give a new file.
    #[test]
    fn owners_and_modes_are_the_archives_in_a_directory_of_another_group() {
        let cases =
            [(0, 0, 0o644), (0, 0, 0o666), (0, 7, 0o640), (5, 0, 0o4755), (5, 8, 0o2777), (0, 7, 0o6711)];
        for for_layer in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let (root, kept) = (directory.path().join("fs"), directory.path().join("kept"));
            fs::create_dir_all(&kept).unwrap();
            fs::create_dir_all(root.join("d")).unwrap();
            chown(root.join("d"), None, Some(7)).unwrap();
            fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o2755)).unwrap();
            let mut writer = Writer::new(Vec::new());
            for (number, (uid, gid, mode)) in cases.into_iter().enumerate() {
                let path = format!("d/{number}").into_bytes();
                let header = Header { path, kind: Kind::Regular, uid, gid, mode, ..Header::default() };
                writer.file(&header, b"x").unwrap();
            }
            let tar = writer.finish().unwrap();
            let kept = for_layer.then(|| fs::File::open(&kept).unwrap().into());
            let options = Options { kept, ..Options::default() };
            Applier::new(Root::open(&root).unwrap(), options).unwrap().apply(tar.as_slice(), None).unwrap();
            for (number, expected) in cases.into_iter().enumerate() {
                let found = fs::metadata(root.join(format!("d/{number}"))).unwrap();
                assert_eq!(
                    (found.uid(), found.gid(), found.mode() & 0o7777),
                    expected,
                    "{for_layer} {number}"
                );
            }
        }
    }
}
