//! Failed logins in the log: one line a second a route, and the number of those that were left out. Floor 4.
//!
//! While a server is away every client of every pool retries; a line each would be a second fault beside the first.
//! The metrics count them all.

use crate::time::Time;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// When a route's last line was written, and what has been left out since.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    made_at: Option<Time>,
    left_out: u64,
}

impl LogThrottle {
    /// How many have been left out since the last line. `None`: this one is left out too.
    pub(super) fn make(&self, now: Time) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.made_at.is_some_and(|at| now.since(at) < EVERY) {
            state.left_out += 1;
            return None;
        }
        state.made_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

/// Often enough to see that it goes on, and no burden to whoever keeps the log.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_line_and_the_next_one_counts_the_rest() {
        let throttle = LogThrottle::default();
        let start = crate::clock::now();
        let made: Vec<_> = [0, 1, 999, 1_000, 1_500, 2_600]
            .map(|at| throttle.make(start + Duration::from_millis(at)))
            .into_iter()
            .collect();
        assert_eq!(made, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
