//! Whether a lazy route has a credential: from the first session that waits for it until the idle time without sessions
//! is over. Floor 1.

use std::time::Duration;

use crate::time::Time;

/// Whether there should be a credential. Only a lazy route without sessions should have none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lazy {
    is_wanted: bool,
    /// Whether the current generation has sessions.
    is_in_use: bool,
    /// Since when there has been a credential and no session.
    idle_since: Option<Time>,
}

impl Lazy {
    /// A lazy route begins without a credential.
    pub(super) fn new(is_lazy: bool) -> Self {
        Self { is_wanted: !is_lazy, is_in_use: false, idle_since: None }
    }

    /// Whether there should be a credential.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// A session waits for a credential, or an operator asks for it.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether the current generation has sessions.
    pub(super) fn use_it(&mut self, is_in_use: bool) {
        self.is_in_use = is_in_use;
    }

    /// A generation is published: its idle time starts again.
    pub(super) fn published(&mut self) {
        self.idle_since = None;
    }

    /// When the credential is given back because there are no sessions. `None` if the route is not lazy, has no
    /// credential (`is_served`), or has sessions.
    pub(super) fn idle_at(
        &mut self,
        now: Time,
        idle_after: Option<Duration>,
        is_served: bool,
    ) -> Option<Time> {
        match idle_after.filter(|_| is_served && !self.is_in_use) {
            Some(idle_after) => Some(*self.idle_since.get_or_insert(now) + idle_after),
            None => {
                self.idle_since = None;
                None
            }
        }
    }

    /// The credential is given back because there are no sessions.
    pub(super) fn rest(&mut self) {
        self.idle_since = None;
        self.is_wanted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Option<Duration> = Some(Duration::from_secs(10));

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_lazy_route_wants_nothing_until_a_session_comes_and_after_it_rests() {
        assert!(Lazy::new(false).is_wanted());
        let mut lazy = Lazy::new(true);
        assert!(!lazy.is_wanted());
        lazy.want();
        assert!(lazy.is_wanted());
        lazy.rest();
        assert!(!lazy.is_wanted());
    }

    #[test]
    fn idle_time_counts_from_the_last_session_or_the_publication() {
        let mut lazy = Lazy::new(true);
        assert_eq!(lazy.idle_at(at(0), AFTER, false), None, "there is no credential");
        assert_eq!(lazy.idle_at(at(1), None, true), None, "it is not lazy");
        assert_eq!(lazy.idle_at(at(2), AFTER, true), Some(at(12)));
        assert_eq!(lazy.idle_at(at(5), AFTER, true), Some(at(12)));
        lazy.use_it(true);
        assert_eq!(lazy.idle_at(at(6), AFTER, true), None);
        lazy.use_it(false);
        assert_eq!(lazy.idle_at(at(7), AFTER, true), Some(at(17)));
        lazy.published();
        assert_eq!(lazy.idle_at(at(8), AFTER, true), Some(at(18)));
    }
}
