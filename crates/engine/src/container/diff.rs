//! `diff`: what a container changed in the files of its image.

use std::path::Path;
use std::sync::Arc;

use ponton_api::container::Change;
use ponton_snapshot::ChangeKind;

use crate::engine::{Engine, blocking};
use crate::error::Result;

impl Engine {
    /// What changed in the file system, by path. What the engine makes so that it can be mounted over
    /// is none of the container's changes.
    pub async fn changes(self: &Arc<Self>, name: &str) -> Result<Vec<Change>> {
        let begun = std::time::Instant::now();
        let container = self.find(name)?;
        let engine = Arc::clone(self);
        let changes = blocking(move || Ok(engine.snapshotter.diff(&container.id)?)).await?;
        self.counts.changes.since(begun);
        Ok(changes
            .into_iter()
            .map(|change| Change {
                path: api_path(&change.path),
                kind: match change.kind {
                    ChangeKind::Modified => 0,
                    ChangeKind::Added => 1,
                    ChangeKind::Deleted => 2,
                },
            })
            .collect())
    }
}

/// JSON has no bytes that are not UTF-8; they are shown as Docker shows them.
fn api_path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
