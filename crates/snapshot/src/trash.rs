//! Deleting trees without making anybody wait: a rename into the trash directory, which takes
//! microseconds, and a thread that deletes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::{fs, io, thread};

use ponton_sys::btrfs;

use crate::copy::SUBVOLUMES;

/// A directory into which trees are renamed to be deleted in the background. It must be on the same
/// file system, and belongs to the trash alone: all that is in it is deleted.
#[derive(Debug, Clone)]
pub struct Trash {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    next: AtomicU64,
    queue: Sender<Job>,
}

/// What the thread does.
#[derive(Debug)]
enum Job {
    Delete(PathBuf),
    /// The last descriptor of a mount unmounts it.
    Close(OwnedFd),
}

impl Trash {
    /// Starts the deleting thread on a directory, which is created if need be. What an earlier
    /// process left in it is deleted, too.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let (queue, jobs) = channel::<Job>();
        let mut next = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("trash-")?.parse::<u64>().ok());
            if let Some(number) = number {
                next = next.max(number.saturating_add(1));
            }
            let _ = queue.send(Job::Delete(entry.path()));
        }
        thread::Builder::new().name("trash".into()).spawn(move || {
            for job in jobs {
                match job {
                    Job::Delete(path) => {
                        if let Err(error) = delete(&path) {
                            tracing::warn!(path = %path.display(), %error, "delete discarded tree");
                        }
                    }
                    Job::Close(mount) => drop(mount),
                }
            }
        })?;
        let inner = Inner { directory: directory.to_owned(), next: AtomicU64::new(next), queue };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes a file or tree out of its place; it is gone from there when this returns.
    pub fn try_discard(&self, path: &Path) -> io::Result<()> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let target = self.inner.directory.join(format!("trash-{number}"));
        fs::rename(path, &target)?;
        // The thread lives as long as the sender: a failed send cannot happen, and the next start
        // would delete the tree.
        let _ = self.inner.queue.send(Job::Delete(target));
        Ok(())
    }

    /// Closes a descriptor when there is time for what that may take.
    pub(crate) fn close(&self, mount: OwnedFd) {
        let _ = self.inner.queue.send(Job::Close(mount));
    }

    /// As [`Trash::try_discard`], for where a failure cannot be handed on: it is logged, and what
    /// is left is found by the next recovery.
    pub fn discard(&self, path: &Path) {
        match self.try_discard(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "discard tree");
            }
            _ => {}
        }
    }
}

/// Subvolumes go at once, with all that is in them. `remove_dir_all` does not follow symbolic links, nor races of them.
fn delete(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            if let Ok(directory) = File::open(path) {
                for name in SUBVOLUMES {
                    let _ = btrfs::destroy(&directory, name);
                }
            }
            fs::remove_dir_all(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
