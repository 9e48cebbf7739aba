//! What a session does now: written by its relay alone, read by anyone, without a lock. Floor 4.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::metrics::Direction;
use crate::time::Time;

/// The state of a session, in the words of `pg_stat_activity.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SessionState {
    /// Between transactions: the server owes no answer.
    #[serde(rename = "idle")]
    Idle,
    /// The server owes an answer.
    #[serde(rename = "active")]
    Active,
    /// In a transaction, failed or not; the server waits for the client.
    #[serde(rename = "idle in transaction")]
    IdleInTransaction,
    /// The session is being closed: by its client, its server or leasehold.
    #[serde(rename = "closing")]
    Closing,
}

impl SessionState {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Idle, Self::Active, Self::IdleInTransaction, Self::Closing];

    /// The word of the document.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::IdleInTransaction => "idle in transaction",
            Self::Closing => "closing",
        }
    }

    /// The state of this word; `-` and `_` may stand in place of a space.
    #[must_use]
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        let word = word.replace(['-', '_'], " ");
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    fn bits(self) -> u64 {
        match self {
            Self::Idle => 0,
            Self::Active => 1,
            Self::IdleInTransaction => 2,
            Self::Closing => 3,
        }
    }

    fn of_bits(packed: u64) -> Self {
        match packed & STATE {
            0 => Self::Idle,
            1 => Self::Active,
            2 => Self::IdleInTransaction,
            _ => Self::Closing,
        }
    }
}

/// One session's activity. One task writes it; a reader may see a new state with the transaction of the one before it.
#[derive(Debug)]
pub(crate) struct Activity {
    /// The state in the two lowest bits, and in the others since when, in nanoseconds since boot.
    state: AtomicU64,
    /// When the transaction began, in nanoseconds since boot; 0 between transactions.
    transaction_since: AtomicU64,
    to_upstream: AtomicU64,
    to_client: AtomicU64,
}

/// An activity as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The state.
    pub(crate) state: SessionState,
    /// Since when it has been in that state.
    pub(crate) since: Time,
    /// When its transaction began; `None` between transactions.
    pub(crate) transaction_since: Option<Time>,
    /// Bytes from the client, behind its StartupMessage.
    pub(crate) to_upstream: u64,
    /// Bytes from the server, behind its first ReadyForQuery.
    pub(crate) to_client: u64,
}

impl Activity {
    /// Idle since `now`.
    #[must_use]
    pub(crate) fn new(now: Time) -> Self {
        Self {
            state: AtomicU64::new(packed(SessionState::Idle, now)),
            transaction_since: AtomicU64::new(0),
            to_upstream: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
        }
    }

    /// The session's state is now this one. `has_ended_one`: a transaction has ended since the last call, so what runs now
    /// is another.
    pub(crate) fn note(&self, now: Time, state: SessionState, has_ended_one: bool) {
        let before = SessionState::of_bits(self.state.load(Ordering::Relaxed));
        if before == state && !has_ended_one {
            return;
        }
        if state == SessionState::Idle {
            self.transaction_since.store(0, Ordering::Relaxed);
        } else if before == SessionState::Idle || has_ended_one {
            self.transaction_since.store(now.as_nanos(), Ordering::Relaxed);
        }
        self.state.store(packed(state, now), Ordering::Relaxed);
    }

    /// The session is being closed. What was last known of its transaction stays.
    pub(crate) fn closing(&self, now: Time) {
        self.state.store(packed(SessionState::Closing, now), Ordering::Relaxed);
    }

    /// Bytes were relayed.
    pub(crate) fn relayed(&self, direction: Direction, bytes: u64) {
        let count = match direction {
            Direction::Upstream => &self.to_upstream,
            Direction::Client => &self.to_client,
        };
        // With one writer this loses nothing, and needs no locked instruction.
        count.store(count.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    /// The activity of now.
    #[must_use]
    pub(crate) fn seen(&self) -> Seen {
        let state = self.state.load(Ordering::Relaxed);
        let transaction_since = self.transaction_since.load(Ordering::Relaxed);
        Seen {
            state: SessionState::of_bits(state),
            since: Time::from_nanos(state & !STATE),
            transaction_since: (transaction_since > 0).then(|| Time::from_nanos(transaction_since)),
            to_upstream: self.to_upstream.load(Ordering::Relaxed),
            to_client: self.to_client.load(Ordering::Relaxed),
        }
    }
}

/// Three nanoseconds more or less are of no interest.
fn packed(state: SessionState, since: Time) -> u64 {
    (since.as_nanos() & !STATE) | state.bits()
}

const STATE: u64 = 0b11;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds << 30)
    }

    #[test]
    fn a_transaction_lasts_from_leaving_idle_to_the_return() {
        let activity = Activity::new(at(1));
        activity.note(at(2), SessionState::Active, false);
        activity.note(at(3), SessionState::IdleInTransaction, false);
        activity.note(at(4), SessionState::IdleInTransaction, false);
        let seen = activity.seen();
        assert_eq!((seen.state, seen.since), (SessionState::IdleInTransaction, at(3)));
        assert_eq!(seen.transaction_since, Some(at(2)));
        activity.note(at(5), SessionState::Idle, true);
        assert_eq!((activity.seen().since, activity.seen().transaction_since), (at(5), None));
    }

    #[test]
    fn a_transaction_that_follows_at_once_is_another() {
        let activity = Activity::new(at(1));
        activity.note(at(2), SessionState::Active, false);
        activity.note(at(7), SessionState::Active, true);
        let seen = activity.seen();
        assert_eq!((seen.since, seen.transaction_since), (at(7), Some(at(7))));
    }

    #[test]
    fn bytes_add_up_each_way() {
        let activity = Activity::new(at(1));
        activity.relayed(Direction::Upstream, 3);
        activity.relayed(Direction::Client, 5);
        activity.relayed(Direction::Client, 6);
        assert_eq!((activity.seen().to_upstream, activity.seen().to_client), (3, 11));
    }

    #[test]
    fn each_state_is_found_by_its_word() {
        for state in SessionState::ALL {
            assert_eq!(SessionState::of_word(state.as_str()), Some(state));
            assert_eq!(SessionState::of_bits(packed(state, at(9))), state);
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(SessionState::of_word("idle-in-transaction"), Some(SessionState::IdleInTransaction));
        assert_eq!(SessionState::of_word("busy"), None);
    }
}
