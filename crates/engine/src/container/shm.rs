//! Shared memory that other containers may join (`--ipc shareable`): a tmpfs of its own below the directory of
//! what lasts until the next boot, since a mount of the container's own namespace cannot be given to others.

use std::fs;
use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::engine::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// `<exec-root>/shm/<id>`
    pub(super) fn shm_path(&self, id: &str) -> PathBuf {
        self.config().exec_root.join("shm").join(id)
    }

    /// Mounts the shared memory of a container, anew if a former run has left it.
    pub(super) fn make_shm(&self, id: &str, bytes: i64) -> Result<()> {
        self.drop_shm(id);
        let path = self.shm_path(id);
        crate::shim::make_private(&path)?;
        let options = std::ffi::CString::new(format!("mode=1777,size={bytes}")).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("shm", &path, "tmpfs", flags, options.as_c_str())
            .map_err(|error| Error::failed(format!("mount shared memory at {}", path.display()), error))
    }

    /// Lets it go; containers that share it keep it.
    pub(super) fn drop_shm(&self, id: &str) {
        let path = self.shm_path(id);
        if !path.exists() {
            return;
        }
        // One that is not mounted is only a directory.
        let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
        if let Err(error) = fs::remove_dir(&path) {
            tracing::warn!(%error, path = %path.display(), "remove the place of shared memory");
        }
    }

    /// Lets go what belongs to containers that do not run.
    pub(crate) fn sweep_shm(&self) {
        for entry in fs::read_dir(self.config().exec_root.join("shm")).into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            if !self.by_id(&id).is_some_and(|container| container.view().life.is_running()) {
                self.drop_shm(&id);
            }
        }
    }
}
