//! Layers that are images, mounted.
//!
//! An image is mounted once and shared by all snapshots above it: each mount of a file has a cache of
//! its own. The mount is attached nowhere; a descriptor of this process holds it, and others find it
//! through `/proc`. So nobody has to unmount anything after a kill: an overlay that was made of it
//! keeps what it needs, and the next process mounts the image anew when the next snapshot asks.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ponton_sys::mount::{Context, MOUNT_ATTR_RDONLY};

use crate::layer::check_seal;
use crate::{Error, Result};

/// Mounts of images by the number of the layer.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    mounts: Mutex<HashMap<u64, OwnedFd>>,
}

impl Mounted {
    /// A path of a layer's root, for any process that may look at this one's descriptors.
    pub(crate) fn path(&self, number: u64, image: &Path) -> Result<String> {
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let mount = match mounts.entry(number) {
            std::collections::hash_map::Entry::Occupied(mount) => mount.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(mount(image)?),
        };
        Ok(path_of(mount))
    }

    /// Lets go of a layer; unmounted when the last overlay is.
    pub(crate) fn remove(&self, number: u64) -> Option<OwnedFd> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}

pub(crate) fn path_of(mount: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd())
}

/// Mounts an image, seen by nobody.
pub(crate) fn mount(image: &Path) -> Result<OwnedFd> {
    check_seal(image).map_err(Error::io("check the seal of", image))?;
    let make = || {
        let context = Context::new("erofs")?;
        context.set("source", &image.to_string_lossy())?;
        context.set_flag("ro")?;
        context.mount(MOUNT_ATTR_RDONLY)
    };
    make().map_err(|error: ponton_sys::Error| Error::io("mount", image)(io::Error::new(error.kind(), error)))
}
