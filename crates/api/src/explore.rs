//! What is in an image: `GET /ponton/images/{name}/explore`. Sizes in bytes.

use serde::{Deserialize, Serialize};

use crate::is_default;

/// An image, layer by layer, and what of it is wasted: bytes of files that a higher layer replaces or
/// removes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Exploration {
    /// The image's id.
    pub id: String,
    /// Its names.
    pub tags: Vec<String>,
    /// Bytes of all layers' files.
    pub size: u64,
    /// Between 0 and 1: the bytes that each path needs at the least, by those that it takes.
    pub efficiency: f64,
    /// Bytes of files that occur in more than one layer, all of their occurrences.
    pub wasted_bytes: u64,
    /// `wasted_bytes` by the bytes of the layers above the lowest, between 0 and 1.
    pub user_wasted: f64,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The paths that waste, the worst first.
    pub wasted: Vec<Wasted>,
}

/// One layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Layer {
    /// Digest of its tar.
    pub digest: String,
    /// The instruction that made it.
    pub command: String,
    /// When, RFC 3339; empty if that is not known.
    pub created: String,
    /// Bytes of its files.
    pub size: u64,
    /// What it does to the files of the layers below, by path; only when asked for by `files=1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<File>>,
}

/// One path of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct File {
    /// From the root, without a slash before or behind it. A name that is not UTF-8 has replacement
    /// characters.
    pub path: String,
    /// What became of it in this layer.
    pub change: FileChange,
    /// Its type and permissions, as `st_mode`; 0 for what is removed.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
    /// Owner.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: u32,
    /// Group.
    #[serde(skip_serializing_if = "is_default")]
    pub gid: u32,
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub size: u64,
    /// What a symbolic or hard link points to.
    #[serde(skip_serializing_if = "is_default")]
    pub link: String,
}

/// What a layer does to a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileChange {
    /// It was not there.
    #[default]
    Added,
    /// It was there, and is replaced or given other attributes.
    Changed,
    /// It was there.
    Removed,
}

/// A path of which more than one layer holds bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Wasted {
    /// The path, without a slash before it.
    pub path: String,
    /// In how many layers it occurs.
    pub count: u64,
    /// Bytes of all of them.
    pub size: u64,
}
