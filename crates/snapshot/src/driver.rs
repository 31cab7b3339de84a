//! The drivers, and what each needs of the kernel and the disk.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::str::FromStr;

use crate::mounted;
use crate::{Error, Result};

/// How new layers are kept, and new snapshots made of them. Any driver goes on with what another one
/// made: a layer is a tree or an image whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// Layers are trees; a snapshot is an overlay of them.
    Overlay,
    /// Layers are EROFS images, one file each; a snapshot is an overlay of them.
    Erofs,
    /// Layers are trees; a snapshot is a subvolume that shares all blocks with them.
    Btrfs,
    /// Layers are trees; a snapshot is a copy of them, which shares blocks where the disk can.
    Copy,
}

/// `BTRFS_SUPER_MAGIC` (statfs(2)).
const BTRFS: i64 = 0x9123_683e;

impl Driver {
    /// All, the first one that can be used being the default.
    pub const ALL: [Self; 4] = [Self::Overlay, Self::Erofs, Self::Btrfs, Self::Copy];

    /// Its name in `docker info`; that of overlayfs is the one that Docker's clients look for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay2",
            Self::Erofs => "erofs",
            Self::Btrfs => "btrfs",
            Self::Copy => "copy",
        }
    }

    /// Whether layers are images.
    pub(crate) fn makes_images(self) -> bool {
        self == Self::Erofs
    }

    /// Whether snapshots hold all their files.
    pub(crate) fn makes_copies(self) -> bool {
        matches!(self, Self::Btrfs | Self::Copy)
    }

    /// Finds out whether it can be used in a directory, by doing there once what it will do.
    pub(crate) fn probe(self, directory: &Path) -> Result<()> {
        match self {
            Self::Copy => Ok(()),
            Self::Btrfs => {
                let status = rustix::fs::statfs(directory).map_err(Error::io("statfs", directory))?;
                if status.f_type == BTRFS {
                    return Ok(());
                }
                Err(Error::io("use btrfs in", directory)(io::Error::other("the file system is no btrfs")))
            }
            Self::Overlay | Self::Erofs => {
                let probe = directory.join(format!("probe-{}", self.name()));
                let _ = fs::remove_dir_all(&probe);
                let result = self.probe_overlay(&probe);
                let _ = fs::remove_dir_all(&probe);
                result
            }
        }
    }

    fn probe_overlay(self, directory: &Path) -> Result<()> {
        for name in ["lower", "upper", "work"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).map_err(Error::io("create directory", &path))?;
        }
        let mut lower = directory.join("lower").display().to_string();
        let image_path = directory.join("image");
        let mut held = None;
        if self.makes_images() {
            let image = File::options().read(true).write(true).create_new(true).open(&image_path);
            let image = image.map_err(Error::io("create", &image_path))?;
            ponton_archive::erofs::write(io::empty(), &image)
                .map_err(|error| Error::io("write", &image_path)(io::Error::other(error)))?;
            lower = mounted::path_of(held.insert(mounted::mount(&image_path)?));
        }
        let options = [
            format!("lowerdir={lower}"),
            format!("upperdir={}", directory.join("upper").display()),
            format!("workdir={}", directory.join("work").display()),
        ];
        ponton_sys::overlay::mount("overlay", &options, 0)
            .map(drop)
            .map_err(|error| Error::io("mount an overlay in", directory)(io::Error::new(error.kind(), error)))
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Driver {
    type Err = Error;

    /// Takes the names that Docker has for the same, too.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "overlay" => Ok(Self::Overlay),
            "vfs" => Ok(Self::Copy),
            _ => Self::ALL
                .into_iter()
                .find(|driver| driver.name() == name)
                .ok_or_else(|| Error::UnknownDriver(name.to_owned())),
        }
    }
}
