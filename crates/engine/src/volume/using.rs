//! Who has a volume in hand now, in memory: what is being made keeps its volumes from being removed, and
//! volumes that are file systems stay mounted while a container runs that sees them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use super::local;
use crate::engine::Engine;
use crate::error::{Error, Result, chain};

/// The volumes that somebody has in hand, by name.
#[derive(Default)]
pub(crate) struct Volumes {
    slots: Mutex<HashMap<String, Weak<Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// What changes a volume's files or directory is done by one at a time.
    turn: Mutex<()>,
    /// For whom it is mounted.
    users: Mutex<BTreeSet<String>>,
    /// It is being restored, which takes as long as the client likes.
    restoring: AtomicBool,
}

/// How often somebody looks whether it is his turn.
const TURN_INTERVAL: Duration = Duration::from_millis(5);

/// Keeps a volume from being removed.
pub(crate) struct Hold {
    slot: Arc<Slot>,
}

impl Volumes {
    /// Takes a volume in hand, whether it is there or not.
    pub(crate) fn hold(&self, name: &str) -> Hold {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(name).and_then(Weak::upgrade) {
            return Hold { slot };
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot::default());
        slots.insert(name.to_owned(), Arc::downgrade(&slot));
        Hold { slot }
    }

    /// Does something while nobody has the volume in hand, nor can take it; `None` where somebody has.
    pub(super) fn unless_held<T>(&self, name: &str, work: impl FnOnce() -> T) -> Option<T> {
        let slots = lock(&self.slots);
        let is_held = slots.get(name).is_some_and(|slot| slot.strong_count() > 0);
        if is_held { None } else { Some(work()) }
    }
}

impl Hold {
    /// Waits for the turn to change the volume.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.slot.turn)
    }

    /// The same, to fill the volume: not after a restoration, whose client may let us wait for ever.
    pub(super) fn turn_to_fill(&self, name: &str) -> Result<MutexGuard<'_, ()>> {
        loop {
            if self.slot.restoring.load(Ordering::Acquire) {
                return Err(Error::conflict(format!("volume {name} is being restored")));
            }
            match self.slot.turn.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(TURN_INTERVAL),
            }
        }
    }

    /// Says that the volume is being restored, until what is returned is dropped; `None` if it is already.
    pub(super) fn begin_restoring(&self) -> Option<Restoring<'_>> {
        let was = self.slot.restoring.swap(true, Ordering::AcqRel);
        (!was).then(|| Restoring { slot: &self.slot })
    }

    /// Whether it is mounted for several.
    pub(super) fn is_shared(&self) -> bool {
        lock(&self.slot.users).len() > 1
    }

    /// Whether it is mounted for somebody.
    pub(super) fn is_mounted(&self) -> bool {
        !lock(&self.slot.users).is_empty()
    }
}

/// The volume is being restored.
pub(super) struct Restoring<'a> {
    slot: &'a Slot,
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        self.slot.restoring.store(false, Ordering::Release);
    }
}

/// A volume that stays mounted until [`Using::end`]; also when this is only dropped, for the containers
/// that outlive the daemon.
pub(crate) struct Using {
    hold: Hold,
    user: String,
    /// Where something is mounted for it.
    mount: Option<PathBuf>,
}

impl Using {
    /// Ends it, and unmounts the volume where it was the last.
    pub(crate) fn end(self) {
        let Some(path) = &self.mount else { return };
        let mut users = lock(&self.hold.slot.users);
        users.remove(&self.user);
        if users.is_empty()
            && let Err(error) = local::unmount(path)
        {
            tracing::warn!(error = chain(&error), "unmount volume");
        }
    }
}

/// Volumes that are used for as long as this lives.
#[derive(Default)]
pub(crate) struct Temporary(pub(crate) Vec<Using>);

impl Drop for Temporary {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Using::end);
    }
}

impl Engine {
    /// Takes a volume into use for `user`: one that is a file system is mounted if it is not.
    pub(crate) fn use_volume(&self, name: &str, user: &str) -> Result<Using> {
        let hold = self.volumes.hold(name);
        let options = self.volume_options(name)?;
        let user = user.to_owned();
        if !local::is_mounted_volume(&options) {
            return Ok(Using { hold, user, mount: None });
        }
        let path = self.volume_data(name);
        {
            let mut users = lock(&hold.slot.users);
            if !local::is_mount_point(&path) {
                local::mount(&options, &path)?;
            }
            users.insert(user.clone());
        }
        Ok(Using { hold, user, mount: Some(path) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_not_touched() {
        let volumes = Volumes::default();
        let one = volumes.hold("data");
        let other = volumes.hold("data");
        assert_eq!(volumes.unless_held("data", || ()), None);
        assert_eq!(volumes.unless_held("more", || ()), Some(()));
        drop(one);
        assert_eq!(volumes.unless_held("data", || ()), None);
        drop(other);
        assert_eq!(volumes.unless_held("data", || ()), Some(()));
    }
}
