//! How many sessions there may be at once, of a route, of a listener and of the process, and how long each part of one may
//! take. Floor 4.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bucket::Bucket;
use crate::error::Limited;
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

/// Bounds on the clients of one listener, within those of the process. Counts of 0 are no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerLimits {
    /// In place of the process's, and longer than zero.
    pub(crate) handshake_timeout: Option<Duration>,
    /// How many sessions its clients may have.
    pub(crate) max_sessions: usize,
    /// How many of its clients may be on their way to a whole StartupMessage.
    pub(crate) max_handshakes: usize,
    /// How many logins its clients may begin in a second.
    pub(crate) logins_per_second: u32,
}

/// Lets the clients of one listener in.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: ListenerLimits,
    handshakes: SessionLimit,
    sessions: SessionLimit,
    login_rate: LoginRate,
}

impl Admission {
    /// `handshakes` and `sessions`: those of the process, of which the listener has a part.
    #[must_use]
    pub(crate) fn new(limits: ListenerLimits, handshakes: SessionLimit, sessions: SessionLimit) -> Self {
        let login_rate = LoginRate::new(limits.logins_per_second);
        Self { limits, handshakes, sessions, login_rate }
    }

    /// How long a client may take to its whole StartupMessage, where it may take so long at the other listeners.
    #[must_use]
    pub(crate) fn handshake_timeout(&self, of_process: Duration) -> Duration {
        self.limits.handshake_timeout.unwrap_or(of_process)
    }

    /// Takes a permit for a client's handshake.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(crate) fn begin_handshake(&self) -> Result<SessionPermit, Limited> {
        self.handshakes.take(self.limits.max_handshakes)
    }

    /// Takes a permit for a session.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(crate) fn begin_session(&self) -> Result<SessionPermit, Limited> {
        self.sessions.take(self.limits.max_sessions)
    }

    /// Bounds how many of its clients' logins begin in a second.
    #[must_use]
    pub(crate) fn login_rate(&self) -> &LoginRate {
        &self.login_rate
    }
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
#[derive(Clone, Debug)]
pub(crate) struct SessionLimit(Arc<Count>);

#[derive(Debug)]
struct Count {
    whose: Limited,
    taken: AtomicUsize,
    /// What else counts them, and how many that may be. A permit of both is one word, which a session keeps as long as it
    /// lives.
    whole: Option<(SessionLimit, usize)>,
}

impl SessionLimit {
    /// Counts those of a route or of the process.
    #[must_use]
    pub(crate) fn of(whose: Limited) -> Self {
        Self(Arc::new(Count { whose, taken: AtomicUsize::default(), whole: None }))
    }

    /// Counts those of a listener, each of which is one of `whole` too, of which there may be `most`; 0 is no limit.
    #[must_use]
    pub(crate) fn of_listener(whole: Self, most: usize) -> Self {
        let (whose, taken, whole) = (Limited::Listener, AtomicUsize::default(), Some((whole, most)));
        Self(Arc::new(Count { whose, taken, whole }))
    }

    /// Takes a permit; 0 is no limit.
    ///
    /// # Errors
    /// It would be more than `limit`, or than the whole may have: nothing is taken of either.
    pub(crate) fn take(&self, limit: usize) -> Result<SessionPermit, Limited> {
        self.0.add(limit)?;
        Ok(SessionPermit(self.clone()))
    }
}

impl Count {
    fn add(&self, limit: usize) -> Result<(), Limited> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let one_more = |taken| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).map_err(|_| self.whose)?;
        let of_whole = self.whole.as_ref().map_or(Ok(()), |(whole, most)| whole.0.add(*most));
        of_whole.inspect_err(|_| {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        })
    }

    fn remove(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some((whole, _)) = &self.whole {
            whole.0.remove();
        }
    }
}

/// One session, counted until dropped.
#[derive(Debug)]
pub(crate) struct SessionPermit(SessionLimit);

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.0.remove();
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
        let limit = SessionLimit::of(Limited::Route);
        let one = limit.take(1);
        assert!(one.is_ok());
        assert_eq!(limit.take(1).err(), Some(Limited::Route));
        drop(one);
        assert!(limit.take(1).is_ok());
        assert!(limit.take(0).is_ok());
    }

    #[test]
    fn what_a_listener_takes_is_taken_of_the_whole_and_what_is_refused_of_neither() {
        let whole = SessionLimit::of(Limited::Process);
        let [tcp, unix] = [(); 2].map(|()| SessionLimit::of_listener(whole.clone(), 3));
        let both: Vec<_> = (0..2).map(|_| tcp.take(2).unwrap()).collect();
        assert_eq!(tcp.take(2).err(), Some(Limited::Listener));
        let third = unix.take(0).unwrap();
        assert_eq!(unix.take(0).err(), Some(Limited::Process));
        assert_eq!(tcp.take(5).err(), Some(Limited::Process));
        drop((both, third));
        let again: Vec<_> = (0..3).map_while(|_| unix.take(3).ok()).collect();
        assert_eq!(again.len(), 3, "none is left behind");
        drop(again);
        let all: Vec<_> = (0..3).map_while(|_| whole.take(3).ok()).collect();
        assert_eq!(all.len(), 3, "nor of the whole");
    }
}
