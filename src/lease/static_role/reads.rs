//! When a static role's password is read: when it is due, when a login is refused, and after a failure. Floor 1.

use std::time::Duration;

use crate::lease::deadline::{Deadline, Deadlines};
use crate::lease::ids::TokenId;
use crate::lease::schedule::{self, Jitter};
use crate::time::Time;

/// Where the reading stands, and what decides on the next read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    state: State,
    /// When the latest read that was answered was sent.
    read_at: Time,
    failures: u32,
    /// Reads that brought nothing new though something new was due.
    polls: u32,
    /// Refused logins make it poll until then.
    urgent_until: Time,
    /// The request in flight was made with an earlier configuration.
    reloaded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Waiting { until: Time },
    LoggingIn,
    InFlight { token: TokenId },
}

/// The wait between the end that Vault names and the first read: Vault's queue ticks in seconds.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a refused login makes the password be read repeatedly.
const URGENT_FOR: Duration = Duration::from_secs(30);
/// The least time between two reads because of refused logins.
const READ_EVERY: Duration = Duration::from_secs(1);
/// The longest wait between two reads while something new is due.
const LONGEST_POLL: Duration = Duration::from_secs(5);

impl Reads {
    /// The first read is due at once.
    pub(super) fn new() -> Self {
        let zero = Time::from_nanos(0);
        Self {
            state: State::Waiting { until: zero },
            read_at: zero,
            failures: 0,
            polls: 0,
            urgent_until: zero,
            reloaded: false,
        }
    }

    /// How often a read has failed since the latest success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether nothing is in flight.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether a login is in flight.
    pub(super) fn is_logging_in(&self) -> bool {
        self.state == State::LoggingIn
    }

    /// The token of the read in flight.
    pub(super) fn token(&self) -> Option<TokenId> {
        match self.state {
            State::InFlight { token } => Some(token),
            State::Waiting { .. } | State::LoggingIn => None,
        }
    }

    /// Whether a read is due now.
    pub(super) fn is_due(&self, now: Time, deadlines: &mut Deadlines) -> bool {
        match self.state {
            State::Waiting { until } if now < until => {
                deadlines.wake(Deadline::Read, until);
                false
            }
            State::Waiting { .. } => true,
            State::LoggingIn | State::InFlight { .. } => false,
        }
    }

    /// A login is sent.
    pub(super) fn log_in(&mut self) {
        self.state = State::LoggingIn;
    }

    /// A read is sent.
    pub(super) fn read(&mut self, token: TokenId) {
        self.state = State::InFlight { token };
    }

    /// The password was read, and is valid for `ttl`. `is_new`: it differs from the known password.
    pub(super) fn answered(&mut self, now: Time, sent_at: Time, ttl: Duration, is_new: bool, jitter: Jitter) {
        self.failures = 0;
        self.reloaded = false;
        self.read_at = sent_at;
        if is_new {
            self.polls = 0;
            self.urgent_until = now;
        }
        let due_at = sent_at + ttl + SETTLE;
        let is_due = ttl.is_zero() || now < self.urgent_until;
        let until = if is_due && (!is_new || ttl.is_zero()) {
            let wait = schedule::back_off(self.polls, READ_EVERY, LONGEST_POLL, jitter);
            self.polls = self.polls.saturating_add(1);
            (now + wait).min(if ttl.is_zero() { Time::NEVER } else { due_at })
        } else {
            self.polls = 0;
            due_at
        };
        self.state = State::Waiting { until };
    }

    /// The login or the read failed. `away`: it may succeed at any moment, since Vault did not refuse. False if the
    /// request was made with an earlier configuration: the password is then read again at once.
    pub(super) fn failed(&mut self, now: Time, away: bool, is_served: bool, jitter: Jitter) -> bool {
        if std::mem::take(&mut self.reloaded) {
            self.state = State::Waiting { until: now };
            return false;
        }
        let is_pressing = !is_served || now < self.urgent_until;
        let most = if is_pressing && away { 3 } else { 30 };
        let first = Duration::from_millis(500);
        let wait = schedule::back_off(self.failures, first, Duration::from_secs(most), jitter);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + wait };
        true
    }

    /// The password does not match the server: it is read soon and often, though less often the longer it stays
    /// refused.
    pub(super) fn retry_now(&mut self, now: Time) {
        self.urgent_until = now + URGENT_FOR;
        if let State::Waiting { until } = self.state
            && self.failures == 0
        {
            let polls = self.polls.saturating_sub(1);
            let wait = schedule::back_off(polls, READ_EVERY, LONGEST_POLL, Jitter::NONE);
            self.state = State::Waiting { until: until.min(now.max(self.read_at + wait)) };
        }
    }

    /// An operator or a new configuration asks for a read, which ends the back-off.
    pub(super) fn end_back_off(&mut self, now: Time) {
        if self.is_waiting() && self.failures > 0 {
            self.state = State::Waiting { until: now };
        }
    }

    /// The configuration has changed: a failure of the request in flight does not count.
    pub(super) fn reload(&mut self) {
        self.reloaded = !self.is_waiting();
    }

    /// Nothing is read any more; what is in flight is waited for.
    pub(super) fn stop(&mut self) {
        self.reloaded = false;
        if self.is_waiting() {
            self.state = State::Waiting { until: Time::NEVER };
        }
    }

    /// Nothing is read any more, and what was in flight is answered.
    pub(super) fn end(&mut self) {
        self.state = State::Waiting { until: Time::NEVER };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenId = TokenId(1);
    const TTL: Duration = Duration::from_secs(60);

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    /// When the next read is due, as of this second.
    fn due_at(reads: &Reads, second: u64) -> Time {
        let mut deadlines = Deadlines::new(at(second));
        if reads.is_due(at(second), &mut deadlines) { at(second) } else { deadlines.next() }
    }

    /// A new password was read at this second.
    fn read_at(second: u64) -> Reads {
        let mut reads = Reads::new();
        assert_eq!(due_at(&reads, second), at(second));
        reads.read(TOKEN);
        assert_eq!((due_at(&reads, second), reads.token()), (Time::NEVER, Some(TOKEN)));
        reads.answered(at(second), at(second), TTL, true, Jitter::NONE);
        reads
    }

    #[test]
    fn a_password_is_read_again_a_second_after_its_end_and_polled_while_it_is_late() {
        let mut reads = read_at(0);
        assert_eq!(due_at(&reads, 1), at(61));
        for wait in [1, 2, 4, 5, 5] {
            reads.answered(at(61), at(61), Duration::ZERO, false, Jitter::NONE);
            assert_eq!(due_at(&reads, 61), at(61 + wait));
        }
        reads.answered(at(90), at(90), TTL, true, Jitter::NONE);
        assert_eq!(due_at(&reads, 90), at(151));
    }

    #[test]
    fn a_refused_login_has_it_read_within_a_second_and_then_less_often() {
        let mut reads = read_at(0);
        reads.retry_now(at(10));
        assert_eq!(due_at(&reads, 10), at(10));
        reads.answered(at(10), at(10), TTL, false, Jitter::NONE);
        assert_eq!(due_at(&reads, 10), at(11));
        reads.answered(at(11), at(11), TTL, false, Jitter::NONE);
        assert_eq!(due_at(&reads, 11), at(13));
        reads.answered(at(41), at(41), TTL, false, Jitter::NONE);
        assert_eq!(due_at(&reads, 41), at(102), "it is urgent no longer");
    }

    #[test]
    fn a_failure_is_waited_out_longer_where_a_password_serves_and_not_after_a_command() {
        let wait_after = |is_served: bool, away: bool| {
            let mut reads = Reads::new();
            for _ in 0..12 {
                reads.log_in();
                assert!(reads.failed(at(0), away, is_served, Jitter::NONE));
            }
            due_at(&reads, 0).since(at(0)).as_secs()
        };
        assert_eq!([wait_after(false, true), wait_after(false, false), wait_after(true, true)], [3, 30, 30]);
        let mut reads = Reads::new();
        reads.failed(at(0), true, true, Jitter::NONE);
        reads.end_back_off(at(0));
        assert_eq!(due_at(&reads, 0), at(0));
    }

    #[test]
    fn after_a_reload_a_failure_says_nothing_once() {
        let mut reads = Reads::new();
        reads.log_in();
        reads.reload();
        assert!(!reads.failed(at(5), false, true, Jitter::NONE));
        assert_eq!(due_at(&reads, 5), at(5));
        assert!(reads.failed(at(5), false, true, Jitter::NONE));
    }

    #[test]
    fn after_the_stop_nothing_is_read() {
        let mut reads = read_at(0);
        reads.stop();
        assert_eq!(due_at(&reads, 1000), Time::NEVER);
        let mut reads = Reads::new();
        reads.read(TOKEN);
        reads.stop();
        assert_eq!(reads.token(), Some(TOKEN), "it is waited for");
        reads.end();
        assert_eq!((due_at(&reads, 1000), reads.is_waiting()), (Time::NEVER, true));
    }
}
