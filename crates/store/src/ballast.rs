//! A file that only takes up space, to be given up when the disk is full: then what has happened
//! can still be written down, and what takes the space can be removed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

/// Bytes: hundreds of changes of the database, and nothing to a disk.
const SIZE: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Nothing is written before [`Ballast::take_on`].
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_held(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|status| status.len() == SIZE)
    }

    /// Takes up the space, if it is not taken up yet. On an error none is.
    pub(crate) fn take_on(&self) -> io::Result<()> {
        if self.is_held() {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE).map_err(|errno| {
            // What was got of it is more useful to others.
            let _ = fs::remove_file(&self.path);
            errno.into()
        })
    }

    /// Gives the space up; says whether there was any.
    pub(crate) fn give_up(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn space_is_taken_and_given() {
        let directory = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(directory.path().join("ballast"));
        assert!(!ballast.give_up());
        ballast.take_on().unwrap();
        ballast.take_on().unwrap();
        assert!(ballast.is_held());
        assert!(fs::metadata(ballast.path()).unwrap().blocks() * 512 >= SIZE, "not a hole");
        assert!(ballast.give_up());
        assert!(!ballast.is_held());
    }
}
