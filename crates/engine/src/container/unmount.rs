//! Letting the root of a container go that has ended.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use crate::engine::Engine;

/// The mount of a root that nobody needs any more. The kernel writes the whole file system below it back
/// when it goes, which may take long on a busy disk: it goes in the background, one after another.
pub(crate) struct Leaving {
    /// Empty when it is going.
    root: Arc<Mutex<Option<OwnedFd>>>,
    gone: JoinHandle<()>,
}

impl Leaving {
    /// Has it go when it is its turn.
    pub(crate) fn begin(engine: &Arc<Engine>, root: OwnedFd) -> Self {
        let root = Arc::new(Mutex::new(Some(root)));
        let (engine, slot) = (Arc::clone(engine), Arc::clone(&root));
        let gone = tokio::spawn(async move {
            let _turn = engine.unmounting.lock().await;
            if let Some(root) = take(&slot) {
                close(root).await;
            }
        });
        Self { root, gone }
    }

    /// Returns when it is gone, which does not wait for those of other containers.
    pub(crate) async fn finish(self) {
        match take(&self.root) {
            Some(root) => close(root).await,
            // It has begun, or is done; a panic in there was logged.
            None => drop(self.gone.await),
        }
    }
}

fn take(slot: &Mutex<Option<OwnedFd>>) -> Option<OwnedFd> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

async fn close(root: OwnedFd) {
    // Closing cannot fail.
    let _ = tokio::task::spawn_blocking(move || drop(root)).await;
}
