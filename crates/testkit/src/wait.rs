//! Waiting for a condition, bounded, and never by a fixed time.

use std::time::{Duration, Instant};

/// How many times slower than a processor the machine is: `PONTON_TEST_SLOWNESS`, which is set under
/// emulation.
fn slowness() -> u32 {
    std::env::var("PONTON_TEST_SLOWNESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Polls `condition` until it gives a value; panics with `what` after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    let limit = limit * slowness();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
