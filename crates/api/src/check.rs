//! Whether what is stored is whole: the end of the answer to `POST /ponton/images/check`.

use serde::{Deserialize, Serialize};

/// What was looked at, and what is wrong. The stream of progress ends with it as its `aux`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckReport {
    /// Images looked at.
    pub images: u64,
    /// Layers looked at.
    pub layers: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong; empty if all is well.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Problem {
    /// `image`, `layer`, `blob` or `record`.
    pub kind: String,
    /// Its id or digest.
    pub id: String,
    /// What is wrong with it, and what to do where it could not be repaired.
    pub message: String,
    /// Whether it is well now.
    pub repaired: bool,
}
