//! Whether the servers of a route give sessions, by what its logins and proofs have found last. Floor 3.
//!
//! It is for people: nothing is decided by it. That no session can log in until something is changed is the machine's to
//! say, and takes the route out of readiness; a server that is away for a while does not.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::status::LastError;
use super::view;
use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::time::Time;

/// Why no server of a route gives a session, while none does.
pub(super) struct Outage {
    state: Mutex<State>,
    throttle: LogThrottle,
}

#[derive(Default)]
struct State {
    error: Option<LastError>,
    /// Whether it is in the log.
    is_said: bool,
    /// Whether the driver knows of it.
    is_reported: bool,
}

impl Outage {
    /// A login has found no server that gives a session: one line without secrets.
    pub(super) fn go_on(&self, route: &str, reason: String) {
        if let Some(left_out) = self.is_to_be_said(clock::now()) {
            tracing::warn!(route, reason, left_out, "no server gives sessions");
        }
        let error = LastError { at: view::wall_now(), kind: KIND.to_owned(), reason, past: false };
        self.state().error = Some(error);
    }

    /// Whether the outage gets its line now, and how many others got none.
    fn is_to_be_said(&self, now: Time) -> Option<u64> {
        let mut state = self.state();
        let left_out = if state.is_said { None } else { self.throttle.admit(now) };
        state.is_said |= left_out.is_some();
        left_out
    }

    /// Has the driver know of the outage, if it does not yet. False from `report`: it could not be reached.
    pub(super) fn report(&self, report: impl FnOnce() -> bool) {
        let mut state = self.state();
        if !state.is_reported {
            state.is_reported = report();
        }
    }

    /// A server gives sessions.
    pub(super) fn end(&self, route: &str) {
        let was_said = self.state().is_said;
        self.forget();
        if was_said {
            tracing::info!(route, "a server gives sessions again");
        }
    }

    /// Nothing is known of the servers any more: they are others, or no session needs them.
    pub(super) fn forget(&self) {
        *self.state() = State::default();
    }

    /// Why none does; when that was seen last.
    pub(super) fn error(&self) -> Option<LastError> {
        self.state().error.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Outage {
    fn default() -> Self {
        Self { state: Mutex::default(), throttle: LogThrottle::every(SAID_EVERY) }
    }
}

/// The phrase of the latest error.
const KIND: &str = "no server gives sessions";
/// A server at its limit of connections gives some clients a session and others none.
const SAID_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_once_and_its_reason_is_the_latest_until_it_ends() {
        let outage = Outage::default();
        assert!(outage.error().is_none());
        outage.go_on("app", "db: refused".to_owned());
        outage.go_on("app", "db: full".to_owned());
        assert_eq!(outage.error().unwrap().reason, "db: full");
        outage.end("app");
        assert!(outage.error().is_none());
    }

    #[test]
    fn it_has_one_line_and_one_that_begins_soon_after_another_has_it_late() {
        let outage = Outage::default();
        let said = |second: u64| outage.is_to_be_said(Time::from_nanos(second * 1_000_000_000));
        assert_eq!([said(100), said(101), said(200)], [Some(0), None, None]);
        outage.end("app");
        assert_eq!(said(210), Some(0));
        outage.end("app");
        assert_eq!([said(220), said(269), said(270), said(400)], [None, None, Some(2), None]);
    }

    #[test]
    fn the_driver_is_reached_once() {
        let outage = Outage::default();
        let mut reports = 0;
        for reached in [false, true, true] {
            outage.report(|| {
                reports += 1;
                reached
            });
        }
        assert_eq!(reports, 2);
    }
}
