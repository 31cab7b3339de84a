//! What a registered runtime has of a container below the engine's directories. Its shim takes that away when
//! the container ends; what shim and daemon left when both were killed goes here.

use std::fs;
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;

use super::Settings;
use crate::engine::Engine;

impl Engine {
    /// Has the runtime delete a container that does not run, and removes its bundle.
    pub(super) fn clear_bundle(&self, settings: &Settings) {
        let bundle = self.config().exec_root.join("bundles").join(&settings.id);
        if !bundle.exists() {
            return;
        }
        // A runtime that is not registered any more cannot be asked.
        if let Ok(Some(foreign)) = self.foreign(settings) {
            let mut command = Command::new(&foreign.program);
            command.args(&foreign.args).arg("--root").arg(&foreign.state);
            command.args(["delete", "--force", &settings.id]).stdin(Stdio::null());
            match command.output() {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    tracing::warn!(said, container = settings.id, "delete by its runtime");
                }
                Err(error) => tracing::warn!(%error, container = settings.id, "delete by its runtime"),
            }
        }
        let rootfs = bundle.join("rootfs");
        // One that is not mounted is only a directory.
        let _ = rustix::mount::unmount(&rootfs, UnmountFlags::DETACH);
        // Never into a root file system that could not be unmounted.
        if let Err(error) = fs::remove_dir(&rootfs).and_then(|()| fs::remove_dir_all(&bundle)) {
            tracing::warn!(%error, bundle = %bundle.display(), "remove a bundle");
        }
    }
}
