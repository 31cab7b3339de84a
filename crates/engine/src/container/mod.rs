//! Containers: what is kept of each, and the one task that changes it.
//!
//! ```text
//!   request ──► Container::change(job) ──► queue ──► Task: lifecycle::next ──► effects
//!   request ◄── Container::view() ◄──────────────── what the task published last
//! ```

mod archive;
mod attach;
mod bundle;
mod checkpoint;
mod commit;
mod create;
mod diff;
mod exit;
mod explain;
mod export;
mod files;
mod health;
mod inspect;
mod link;
mod list;
mod mounts;
mod plan;
mod process;
mod recover;
mod remove;
mod root;
mod settings;
mod shm;
mod sources;
mod start;
mod stats;
mod stop;
mod task;
mod top;
mod unmount;
mod update;
mod usage;
mod wait;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::exec::Execs;
use crate::health::Health;
use crate::lifecycle::Life;

pub(crate) use attach::{detach_keys, write_all};
pub(crate) use checkpoint::drop_half_made;
pub(crate) use exit::route;
pub(crate) use mounts::volumes;
pub(crate) use process::resize;
pub(crate) use recover::remove_group;
pub(crate) use root::mount_snapshot;
pub(crate) use settings::{Saved, Settings};
pub(crate) use start::{is_of_directory, size, split};
pub(crate) use stats::{Sampler, sample};
pub(crate) use task::{Task, emit};
pub(crate) use usage::memory_total;

/// One change, made by the container's task.
type Job = Box<dyn for<'a> FnOnce(&'a mut Task) -> BoxFuture<'a, ()> + Send>;

/// A container, as others see it.
pub(crate) struct Container {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    queue: mpsc::UnboundedSender<Job>,
    view: watch::Receiver<Arc<View>>,
    /// Its further processes.
    pub(crate) execs: Execs,
}

/// What a container's task has published.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Without a slash.
    pub(crate) name: String,
    pub(crate) settings: Arc<Settings>,
    pub(crate) life: Life,
    /// `None` before its first start, and where health is not tested.
    pub(crate) health: Option<Arc<Health>>,
    pub(crate) endpoint: Option<ponton_network::EndpointRecord>,
    /// The path of the control group of the present run, or of the last.
    pub(crate) cgroup: Option<String>,
    /// How many runs have ended since the engine was opened.
    pub(crate) exits: u64,
    /// It is gone.
    pub(crate) removed: bool,
}

impl Container {
    /// What is known of it now.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// To see each change that comes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Has its task do something, and waits for the outcome. The task does it to the end, also
    /// when nobody waits any more.
    pub(crate) async fn change<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Task) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let (reply, answered) = oneshot::channel();
        self.tell(move |task| {
            Box::pin(async move {
                // Who asked may have gone.
                let _ = reply.send(work(task).await);
            })
        });
        answered.await.unwrap_or_else(|_| Err(Error::no_such_container(&self.id)))
    }

    /// Has its task do something.
    pub(crate) fn tell<F>(&self, work: F)
    where
        F: for<'a> FnOnce(&'a mut Task) -> BoxFuture<'a, ()> + Send + 'static,
    {
        // A task that has ended belongs to a container that is removed.
        let _ = self.queue.send(Box::new(work));
    }

    /// Waits until `wanted` is true of it; `None` when its task ended before.
    pub(crate) async fn wait_until(&self, mut wanted: impl FnMut(&View) -> bool) -> Option<Arc<View>> {
        let mut watch = self.watch();
        match watch.wait_for(|view| wanted(view)).await {
            Ok(view) => Some(Arc::clone(&view)),
            Err(_) => None,
        }
    }
}
