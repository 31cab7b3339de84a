//! `export`: a container's own file system as a tar, whether it runs or not. Volumes and what else is
//! mounted in it stay out: where they are, the directory is empty.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use ponton_archive::create::Creator;
use ponton_sys::namespace::Kinds;
use ponton_sys::path::Root;
use ponton_sys::{mount, namespace};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::Task;
use super::root::{mount_snapshot, without_devices};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::request::Stream;
use crate::spec::idmap::IdMaps;
use crate::stream;

impl Engine {
    /// The whole file system as a tar.
    pub async fn export(self: &Arc<Self>, name: &str) -> Result<Stream<Bytes>> {
        let container = self.find(name)?;
        let running = container.change(|task| async { task.first_process() }.boxed()).await?;
        let (engine, id) = (Arc::clone(self), container.id.clone());
        // On the disk owners are as the container calls them.
        let settings = running.as_ref().map(|_| Arc::clone(&container.view().settings));
        let ids = settings.and_then(|settings| settings.ids.as_ref().map(IdMaps::to_ids));
        let root = blocking(move || engine.bare_root(&id, running)).await?;
        let engine = Arc::clone(self);
        Ok(stream::written(move |writer| {
            let failed = |error| Error::failed(format!("export container {}", container.id), error);
            let directory = root
                .open_path("/", OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|error| Error::failed("open root", error))?;
            let mut creator = Creator::new(writer).in_ids(ids);
            creator.add_children(directory.as_fd(), b"").map_err(failed)?;
            creator.finish().map_err(failed)?;
            super::emit(&engine, &container.id, &container.view(), "export", &[]);
            // To unmount so much takes a while.
            Ok(root)
        }))
    }

    /// The root of a container's file system with nothing mounted in it.
    fn bare_root(&self, id: &str, running: Option<OwnedFd>) -> Result<Root> {
        let root = match running.map(clone_root).transpose()?.flatten() {
            Some(root) => root,
            None => mount_snapshot(&self.snapshotter.mounts(id)?)?,
        };
        Ok(Root::from_fd(root))
    }
}

impl Task {
    /// Where it runs, its first process.
    fn first_process(&self) -> Result<Option<OwnedFd>> {
        let Some(run) = &self.run else { return Ok(None) };
        let process = run.pidfd.try_clone();
        process.map(Some).map_err(|error| Error::failed(format!("open the process of {}", self.id()), error))
    }
}

/// The mount that is the root of a process's mount namespace, without what is mounted below.
/// A mount can be cloned only in its own namespace, which a thread of ours joins for that and takes with it
/// when it ends. None where the process has ended meanwhile.
fn clone_root(process: OwnedFd) -> Result<Option<OwnedFd>> {
    let clone = move || {
        // Without the file system context of the other threads, which would move as well.
        namespace::unshare(Kinds::from_bits_retain(UnshareFlags::FS.bits()))?;
        match namespace::join(process.as_fd(), Kinds::MOUNT) {
            Err(error) if error.errno() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
            joined => joined?,
        }
        without_devices(mount::clone_tree(rustix::fs::CWD, c"/", false)?).map(Some)
    };
    let cloned = std::thread::Builder::new().name("export".into()).spawn(clone);
    let cloned = cloned.map_err(|error| Error::failed("start a thread", error))?.join();
    Ok(cloned.map_err(|_| Error::internal("clone the root of a container: the thread panicked"))??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_has_no_root() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = ponton_sys::pidfd::open(child.id()).unwrap();
        child.wait().unwrap();
        assert!(clone_root(process).unwrap().is_none());
        let own = ponton_sys::pidfd::open(std::process::id()).unwrap();
        assert!(clone_root(own).unwrap().is_some());
    }
}
