//! Work that is done for a few at once, and that others wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ponton_registry::Cancel;

use crate::fetch::LOOK_INTERVAL;
use crate::{Error, Result};

/// How many are at work.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<usize>,
    given: Condvar,
}

/// The right to work, until it is dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits until fewer than `at_once` are at work, or `cancel` is cancelled; tells it with `waiting` if
    /// it must.
    pub(crate) fn wait(&self, at_once: usize, cancel: &Cancel, waiting: impl FnOnce()) -> Result<Turn<'_>> {
        let mut taken = self.lock();
        if *taken >= at_once {
            waiting();
        }
        while *taken >= at_once {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            taken = self.given.wait_timeout(taken, LOOK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += 1;
        Ok(Turn(self))
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.given.notify_one();
    }
}
