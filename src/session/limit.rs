//! How many sessions there may be at once, and how long each part of one may take. Floor 4.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bucket::Bucket;
use crate::time::Time;

/// Bounds on all sessions of a process. Every span is longer than zero, but `login_wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How long a client may take from accept to the whole StartupMessage.
    pub(crate) handshake_timeout: Duration,
    /// How long a login waits for a credential.
    pub(crate) login_wait: Duration,
    /// How long writing a message of the handshake, an error or the close may take.
    pub(crate) send_timeout: Duration,
    /// How many sessions all routes may have together; 0 is no limit.
    pub(crate) max_sessions: usize,
    /// How many clients may be on their way to a whole StartupMessage; 0 is no limit.
    pub(crate) max_handshakes: usize,
    /// How many logins all routes may begin together in a second; 0 is no limit.
    pub(crate) logins_per_second: u32,
}

/// Counts logins against a number a second.
#[derive(Debug)]
pub(crate) struct LoginRate(Option<Mutex<Bucket>>);

impl LoginRate {
    /// So many a second, and as many at once; 0 is no limit.
    #[must_use]
    pub(crate) fn new(per_second: u32) -> Self {
        let bucket = |count| Mutex::new(Bucket::full(count, Duration::from_secs(1) / count));
        Self((per_second > 0).then(|| bucket(per_second)))
    }

    /// Whether a login may begin at `now`; it counts.
    #[must_use]
    pub(crate) fn admit(&self, now: Time) -> bool {
        let bucket = self.0.as_ref().map(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner));
        bucket.is_none_or(|mut bucket| bucket.try_take(now))
    }
}

/// Counts sessions against a limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionLimit(Arc<AtomicUsize>);

impl SessionLimit {
    /// Takes a permit unless that would be more than `limit`; 0 is no limit.
    #[must_use]
    pub(crate) fn take(&self, limit: usize) -> Option<SessionPermit> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < limit).then_some(taken + 1))
            .ok()?;
        Some(SessionPermit(Self(Arc::clone(&self.0))))
    }
}

/// One session, counted until dropped.
#[derive(Debug)]
pub(crate) struct SessionPermit(SessionLimit);

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_let_in_at_their_rate() {
        let (rate, begin) = (LoginRate::new(5), Time::from_nanos(1));
        assert_eq!((0..9).filter(|_| rate.admit(begin)).count(), 5);
        let later = begin + Duration::from_millis(400);
        assert_eq!((0..9).filter(|_| rate.admit(later)).count(), 2);
        let unlimited = LoginRate::new(0);
        assert!((0..10_000).all(|_| unlimited.admit(begin)));
    }

    #[test]
    fn a_permit_is_free_again_when_dropped() {
        let limit = SessionLimit::default();
        let one = limit.take(1);
        assert!(one.is_some());
        assert!(limit.take(1).is_none());
        drop(one);
        assert!(limit.take(1).is_some());
        assert!(limit.take(0).is_some());
    }
}
