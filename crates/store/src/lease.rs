//! What must stay though no record names it yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ponton_oci::Digest;

/// How many leases hold a thing, by its digest.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    counts: Mutex<HashMap<Digest, usize>>,
}

/// While it lives, what it holds stays: blobs that are written before the record that names them,
/// and layers that a record is going to name. Leases live in memory alone: one data root has one
/// daemon, and with that ends all that it was doing.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
    held: Mutex<Vec<Digest>>,
}

impl Leases {
    /// No thing can come to be held while this lives.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(crate) fn new(leases: Arc<Leases>) -> Self {
        Self { leases, held: Mutex::default() }
    }

    /// Holds a blob or a layer, whether it is there already or is going to be. Waits for a
    /// collection that is under way: what is there afterwards stays.
    pub fn hold(&self, digest: &Digest) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *self.leases.lock().entry(digest.clone()).or_default() += 1;
        held.push(digest.clone());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut counts = self.leases.lock();
        for digest in held {
            if let Some(count) = counts.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&digest);
                }
            }
        }
    }
}
