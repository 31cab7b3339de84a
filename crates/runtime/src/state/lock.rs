//! One command at a time on one container.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ponton_sys as sys;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// A container's directory, held by one command (flock(2)). The kernel lets go of it when the
/// command ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    directory: OwnedFd,
}

impl Lock {
    /// Holds the directory, once nobody else does any more; at most for `patience`, then the error is
    /// `EWOULDBLOCK`. None if there is no such directory, or none any more.
    pub(super) fn take(path: &Path, patience: Duration) -> Result<Option<Self>, sys::Error> {
        let deadline = Instant::now() + patience;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |errno: Errno| sys::Error::new("lock", path.display(), errno);
        loop {
            let directory = match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(failed(errno)),
            };
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                // It may have been removed, and even made anew, since it was opened.
                Ok(()) if is_at(&directory, path)? => return Ok(Some(Self { directory })),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

fn is_at(directory: &OwnedFd, path: &Path) -> Result<bool, sys::Error> {
    let own = rustix::fs::fstat(directory).map_err(sys::Error::of("fstat", path.display()))?;
    match rustix::fs::stat(path) {
        Ok(there) => Ok(own.st_ino == there.st_ino && own.st_dev == there.st_dev),
        Err(errno) if errno.kind() == ErrorKind::NotFound => Ok(false),
        Err(errno) => Err(sys::Error::new("stat", path.display(), errno)),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that was cloned meanwhile has the same open directory: closing ours is not enough.
        let _ = rustix::fs::flock(self.directory.as_fd(), FlockOperation::Unlock);
    }
}
