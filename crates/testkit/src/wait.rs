//! Waiting for a condition, bounded, and never by a fixed time.

use std::time::{Duration, Instant};

/// Longer than anything takes on a slow machine that is busy with something else; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls `condition` until it gives a value; panics with `what` when patience ends.
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, condition)
}

/// As [`until`], for what is known to take longer.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
