//! How often something is tried, and how long is waited in between.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use crate::config::Limits;
use crate::error::{Error, Result};

/// Errors that tell of a server that can't be reached, or is silent, are seldom cured by asking again at once.
const ATTEMPTS_IN_SILENCE: u32 = 2;

/// Attempts at one thing.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    limits: &'a Limits,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, failed: 0 }
    }

    /// Continues counting after so many failures.
    pub(crate) fn after(limits: &'a Limits, failed: u32) -> Self {
        Self { limits, failed }
    }

    /// Waits until it is time to try again; gives the error back if it is final.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<()> {
        self.failed += 1;
        match pause(self.limits, self.failed, &error) {
            None => Err(error),
            Some(pause) => {
                tracing::debug!(%error, failed = self.failed, ?pause, "try again");
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }
}

/// The pause before the next attempt; `None` if there is none.
fn pause(limits: &Limits, failed: u32, error: &Error) -> Option<Duration> {
    let attempts = match error {
        Error::Lost { .. } | Error::TooManyRequests { .. } => limits.attempts,
        Error::Status { status: 408 | 500 | 502..=504, .. } => limits.attempts,
        Error::Connect { .. } | Error::Timeout { .. } => limits.attempts.min(ATTEMPTS_IN_SILENCE),
        _ => 1,
    };
    if failed >= attempts {
        return None;
    }
    if let Error::TooManyRequests { retry_after: Some(asked), .. }
    | Error::Status { retry_after: Some(asked), .. } = error
    {
        return (*asked <= limits.backoff_max).then_some(*asked);
    }
    let doubled = limits.backoff.saturating_mul(1 << failed.saturating_sub(1).min(16));
    // Up to a quarter more, so that those who failed together don't come back together.
    let random = RandomState::new().build_hasher().finish() % 256;
    let pause = doubled.saturating_add(doubled / 1024 * random as u32);
    Some(pause.min(limits.backoff_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_many(after: Option<u64>) -> Error {
        let retry_after = after.map(Duration::from_secs);
        Error::TooManyRequests { what: String::new(), message: String::new(), retry_after }
    }

    #[test]
    fn pauses_grow_and_end() {
        let limits = Limits { backoff: Duration::from_secs(1), ..Limits::default() };
        let lost = Error::Lost { what: String::new(), reason: String::new() };
        for (failed, least, most) in [(1, 1.0, 1.25), (2, 2.0, 2.5), (4, 8.0, 10.0)] {
            let pause = pause(&limits, failed, &lost).unwrap().as_secs_f32();
            assert!((least..=most).contains(&pause), "{failed}: {pause}");
        }
        assert_eq!(pause(&limits, 5, &lost), None);
        let limits = Limits { attempts: 100, ..limits };
        assert_eq!(pause(&limits, 99, &lost), Some(limits.backoff_max));
    }

    #[test]
    fn a_registry_says_when_to_come_again() {
        let limits = Limits::default();
        assert_eq!(pause(&limits, 1, &too_many(Some(7))), Some(Duration::from_secs(7)));
        assert_eq!(pause(&limits, 1, &too_many(Some(3600))), None);
        assert!(pause(&limits, 1, &too_many(None)).is_some());
        let denied = Error::Denied { what: String::new(), message: String::new() };
        assert_eq!(pause(&limits, 1, &denied), None);
    }
}
