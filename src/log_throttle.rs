//! A line of the log that would be written over and over: once in a span, with the number of those that were left out.
//! Floor 0.
//!
//! While a server is away every client of every pool retries; a line each would be a second fault beside the first.
//! What is left out here is still counted by the metrics.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Time;

/// When the last line was written, and what has been left out since.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    written_at: Option<Time>,
    left_out: u64,
}

impl LogThrottle {
    /// One line in this span.
    #[must_use]
    pub(crate) fn every(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// How many have been left out since the last line. `None`: this one is left out too.
    pub(crate) fn admit(&self, now: Time) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.written_at.is_some_and(|at| now.since(at) < self.every) {
            state.left_out += 1;
            return None;
        }
        state.written_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_one_line_and_the_next_one_counts_the_rest() {
        let throttle = LogThrottle::every(Duration::from_secs(1));
        let start = Time::from_nanos(7);
        let admitted =
            [0, 1, 999, 1_000, 1_500, 2_600].map(|at| throttle.admit(start + Duration::from_millis(at)));
        assert_eq!(admitted, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
