//! How many sessions there may be at once, and how long each part of one may take. Floor 4.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
