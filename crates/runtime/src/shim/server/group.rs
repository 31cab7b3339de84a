//! The end of a container's control group.

use std::time::{Duration, Instant};

use ponton_cgroup::{Cgroup, Layout};

/// How often removal is tried before it is given up and said so.
const ATTEMPTS_MAX: u32 = 100;

/// Control groups that are to be removed when there is nothing better to do: while the kernel still
/// takes a process down its group is busy.
#[derive(Debug, Default)]
pub(super) struct Removals {
    waiting: Vec<Removal>,
}

#[derive(Debug)]
struct Removal {
    path: String,
    attempts: u32,
    due: Instant,
}

impl Removals {
    /// Removes the group soon.
    pub(super) fn add(&mut self, path: String, now: Instant) {
        self.waiting.push(Removal { path, attempts: 0, due: now });
    }

    /// How long until something is to be done.
    pub(super) fn next_due(&self, now: Instant) -> Option<Duration> {
        self.waiting.iter().map(|removal| removal.due.saturating_duration_since(now)).min()
    }

    /// Removes one group that is due.
    pub(super) fn run_one(&mut self, layout: &Layout, now: Instant) {
        if let Some(at) = self.waiting.iter().position(|removal| removal.due <= now) {
            self.attempt(at, layout, now);
        }
    }

    /// Removes the group now if it waits to be: another one of the same name is to be made. While it
    /// is busy, [`Removals::is_waiting`] says so.
    pub(super) fn hurry(&mut self, path: &str, layout: &Layout, now: Instant) {
        if let Some(at) = self.waiting.iter().position(|removal| removal.path == path) {
            self.attempt(at, layout, now);
        }
    }

    /// Whether the group is still to be removed.
    pub(super) fn is_waiting(&self, path: &str) -> bool {
        self.waiting.iter().any(|removal| removal.path == path)
    }

    fn attempt(&mut self, at: usize, layout: &Layout, now: Instant) {
        let mut removal = self.waiting.swap_remove(at);
        if let Err(error) = Cgroup::new(layout, &removal.path).remove() {
            removal.attempts += 1;
            if removal.attempts >= ATTEMPTS_MAX {
                eprintln!("shim: remove cgroup {}: {error}", removal.path);
                return;
            }
            removal.due = now + Duration::from_millis(u64::from(removal.attempts));
            self.waiting.push(removal);
        }
    }
}
