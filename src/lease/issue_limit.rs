//! The rate limit of grants out of turn: each leaves an unplanned role in the database. Floor 1.

use std::time::Duration;

use super::note::Reason;
use crate::bucket::Bucket;
use crate::time::Time;

/// Counts grants out of turn, and requests that may have made a credential without returning it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct IssueLimit {
    bucket: Bucket,
    /// Whether the next request is limited for any reason. The latest request may have made a credential that leasehold
    /// does not have, or that no server accepts while no other is usable.
    is_for_all: bool,
}

impl IssueLimit {
    /// `burst` grants may come at once, then one in each `interval`.
    pub(super) fn new(burst: u32, interval: Duration) -> Self {
        Self { bucket: Bucket::full(burst, interval), is_for_all: false }
    }

    /// Until when a request for this reason is delayed; `None` if it may be sent.
    pub(super) fn held_until(&mut self, now: Time, reason: Reason, is_out_of_turn: bool) -> Option<Time> {
        // Another request may leave another role in the database. An operator who asks for it accepts that.
        let is_limited = self.is_for_all && !matches!(reason, Reason::Command | Reason::Reload);
        if is_out_of_turn || is_limited { self.bucket.ready_at(now) } else { None }
    }

    /// A request was answered with a credential, or with a refusal that made none.
    pub(super) fn answered(&mut self) {
        self.is_for_all = false;
    }

    /// A credential was granted out of turn.
    pub(super) fn granted_out_of_turn(&mut self, now: Time) {
        self.bucket.take(now);
    }

    /// A request made a useless credential, or may have. The next request is limited for any reason.
    pub(super) fn granted_for_nothing(&mut self, now: Time) {
        self.bucket.take(now);
        self.is_for_all = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn grants_out_of_turn_are_limited_and_others_are_not() {
        let mut limit = IssueLimit::new(2, Duration::from_mins(1));
        for _ in 0..2 {
            assert_eq!(limit.held_until(at(0), Reason::Revoked, true), None);
            limit.granted_out_of_turn(at(0));
        }
        assert_eq!(limit.held_until(at(0), Reason::Revoked, true), Some(at(60)));
        assert_eq!(limit.held_until(at(0), Reason::Schedule, false), None);
        assert_eq!(limit.held_until(at(60), Reason::Revoked, true), None);
    }

    #[test]
    fn after_a_grant_for_nothing_only_an_operator_is_not_held_back() {
        let mut limit = IssueLimit::new(1, Duration::from_mins(1));
        limit.granted_for_nothing(at(0));
        assert_eq!(limit.held_until(at(0), Reason::Schedule, false), Some(at(60)));
        for by_hand in [Reason::Command, Reason::Reload] {
            assert_eq!(limit.held_until(at(0), by_hand, false), None);
        }
        limit.answered();
        assert_eq!(limit.held_until(at(0), Reason::Schedule, false), None);
    }
}
