//! Mounts: options in words to a source, attributes and propagation.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A mount of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// What is mounted.
    pub source: Source,
    /// Where, in the container.
    pub target: String,
    /// How it differs from its source.
    #[serde(default)]
    pub attributes: Attributes,
    /// How mounts below it spread.
    #[serde(default)]
    pub propagation: Option<Propagation>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A new instance of a file system.
    FileSystem {
        /// Its type, `tmpfs`.
        r#type: String,
        /// Its source, which most ignore.
        source: String,
        /// Its own options, `size=65536k`.
        options: Vec<String>,
    },
    /// A file or directory of the host.
    Bind {
        /// Its path on the host.
        path: PathBuf,
        /// With what is mounted below it.
        recursive: bool,
    },
}

/// Attributes of a mount as `MOUNT_ATTR_*` bits (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Set on the mount.
    pub set: u64,
    /// Cleared on the mount.
    pub clear: u64,
    /// Set on the mount and all below it.
    pub set_recursive: u64,
    /// Cleared on the mount and all below it.
    pub clear_recursive: u64,
}

/// How mounts made below a mount spread to its copies (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// One of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`.
    pub flag: u64,
    /// For all mounts below it too.
    pub recursive: bool,
}

/// One mount of a root file system, as a snapshotter tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootMount {
    /// The file system's type, `overlay`, or `bind`.
    pub r#type: String,
    /// Its source.
    pub source: String,
    /// Where below the root; none is the root.
    pub target: Option<String>,
    /// Its options, `lowerdir=…`, `ro`.
    pub options: Vec<String>,
}
