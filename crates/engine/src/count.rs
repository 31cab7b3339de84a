//! What the engine counts of itself, for those who watch it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    /// How often it took at most as long as the bound of the same place, and longer than the one before.
    buckets: [Count; Self::BOUNDS.len()],
    longer: Count,
    sum_ns: Count,
}

impl Timer {
    /// The bounds in seconds that Prometheus' clients have when nobody chooses.
    pub(crate) const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    /// It took from `begun` until now.
    pub(crate) fn since(&self, begun: Instant) {
        self.took(begun.elapsed());
    }

    fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = Self::BOUNDS.iter().position(|bound| seconds <= *bound);
        bucket.and_then(|bucket| self.buckets.get(bucket)).unwrap_or(&self.longer).add(1);
        self.sum_ns.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How often it took at most as long as each bound, how often at all, and how many seconds together.
    pub(crate) fn read(&self) -> ([u64; Self::BOUNDS.len()], u64, f64) {
        let mut total = 0;
        let upto = std::array::from_fn(|bucket| {
            total += self.buckets[bucket].get();
            total
        });
        (upto, total + self.longer.get(), Duration::from_nanos(self.sum_ns.get()).as_secs_f64())
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Probes of health.
    pub(crate) health_checks: Count,
    /// Those of them that could not be run.
    pub(crate) health_checks_failed: Count,
    /// What is done to containers.
    pub(crate) changes: Timer,
    pub(crate) commit: Timer,
    pub(crate) create: Timer,
    pub(crate) delete: Timer,
    pub(crate) start: Timer,
    /// What is done to find out about the host.
    pub(crate) system_info: Timer,
    pub(crate) system_version: Timer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_their_bounds() {
        let timer = Timer::default();
        for milliseconds in [5, 6, 60_000] {
            timer.took(Duration::from_millis(milliseconds));
        }
        let (upto, all, sum) = timer.read();
        assert_eq!((upto[0], upto[1], upto[10], all), (1, 2, 2, 3));
        assert!((sum - 60.011).abs() < 1e-9);
    }
}
