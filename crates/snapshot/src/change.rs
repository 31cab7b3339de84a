//! What a snapshot changed.

use std::path::PathBuf;

/// A path that a snapshot changed in the layers below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute, in the snapshot's root. A deleted directory stands for all that was in it.
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Its contents or metadata; of a directory, or what is in it.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}
