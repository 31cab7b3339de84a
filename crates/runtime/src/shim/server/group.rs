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
        let Some(at) = self.waiting.iter().position(|removal| removal.due <= now) else { return };
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

    /// Removes the group now if it waits to be: another one of the same name is to be made.
    pub(super) fn finish(&mut self, path: &str, layout: &Layout) {
        while let Some(at) = self.waiting.iter().position(|removal| removal.path == path) {
            let due = self.waiting[at].due;
            let wait = due.saturating_duration_since(Instant::now());
            std::thread::sleep(wait.min(Duration::from_millis(10)));
            self.waiting.swap(0, at);
            self.waiting[0].due = Instant::now();
            self.run_one(layout, Instant::now());
        }
    }
}
