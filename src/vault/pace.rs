//! How often Vault is asked while things go wrong. Floor 2.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hands out the times at which requests may be sent: at once while the latest answer was a success, otherwise
/// [`SPACING`] apart, so that Vault never gets more than five requests a second out of a failure.
pub(super) struct Pace(Mutex<State>);

struct State {
    failing: bool,
    /// The earliest time of the next request while failing.
    next_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { failing: false, next_at: now }))
    }

    /// Takes the next slot and says when it is; `None`, and nothing taken, if that is not before `deadline`.
    pub(super) fn reserve(&self, now: Instant, deadline: Instant) -> Option<Instant> {
        let mut state = self.lock();
        let slot = if state.failing { now.max(state.next_at) } else { now };
        if slot >= deadline {
            return None;
        }
        state.next_at = slot + SPACING;
        Some(slot)
    }

    /// Tells how the latest request went.
    pub(super) fn went(&self, well: bool) {
        self.lock().failing = !well;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Five requests a second.
const SPACING: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_free_while_vault_answers() {
        let now = Instant::now();
        let pace = Pace::new(now);
        let deadline = now + Duration::from_secs(9);
        for _ in 0..3 {
            assert_eq!(pace.reserve(now, deadline), Some(now));
        }
    }

    #[test]
    fn requests_are_spaced_after_a_failure() {
        let now = Instant::now();
        let pace = Pace::new(now);
        let deadline = now + Duration::from_secs(9);
        assert_eq!(pace.reserve(now, deadline), Some(now));
        pace.went(false);
        assert_eq!(pace.reserve(now, deadline), Some(now + SPACING));
        assert_eq!(pace.reserve(now, deadline), Some(now + 2 * SPACING));
        pace.went(true);
        assert_eq!(pace.reserve(now, deadline), Some(now));
    }

    #[test]
    fn a_slot_beyond_the_deadline_is_not_taken() {
        let now = Instant::now();
        let pace = Pace::new(now);
        pace.went(false);
        assert!(pace.reserve(now, now + SPACING).is_some());
        assert_eq!(pace.reserve(now, now + SPACING), None);
        assert_eq!(pace.reserve(now, now + Duration::from_secs(9)), Some(now + SPACING));
    }
}
