//! A generation: the life of one lease. Floor 1.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Closing, Ending};
use super::ids::TokenId;
use super::lease_term::LeaseTerm;
use super::note::Cause;
use super::schedule::{self, Jitter, Retry};
use super::term::{NotRenewed, Term};
use super::tokens::TokenLimits;
use crate::time::Time;

/// A generation: the life of one lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    token: TokenId,
    issued_at: Time,
    as_issued: Duration,
    lease: LeaseTerm,
    state: State,
    /// Whether a server that sessions go to has let it in.
    is_accepted: bool,
    /// The end that a command has set, earlier than the lease's.
    cut_short: Option<CutShort>,
    /// The latest notice to its sessions.
    last_notice: Option<Ending>,
    /// Whether the driver was asked to end it once it is empty.
    ends_when_empty: bool,
}

/// The part of a generation that outlives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationSnapshot {
    /// The token that owns it.
    pub(crate) token: TokenId,
    issued_at: Time,
    as_issued: Duration,
    term: Term,
    /// Whether the next process should use it: it is current, or else the latest candidate. Others are given back.
    pub(crate) serves: bool,
}

impl GenerationSnapshot {
    /// Whether this snapshot may come from the time before `now`.
    #[must_use]
    pub(crate) fn is_before(&self, now: Time) -> bool {
        self.issued_at <= now && self.term.sent_at() <= now
    }
}

/// An end that a command has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CutShort {
    /// When the drain of its sessions begins.
    pub(crate) from: Time,
    /// When the hard close begins.
    pub(crate) at: Time,
}

/// The state of a generation.
///
/// ```text
///  Candidate ─proved─▶ Current ─successor published─▶ Retiring ─last session gone─▶ Revoking ─▶ forgotten
///     │ refused           │  ▲                            │                            ▲
///     │                   │  └─── current lost, this ─────┤                            │
///     │                   │       one still usable        │                            │
///     │                   └──── hard close, or lost ──────┴──▶ Closing ──sessions gone─┘
///     └────────────────────────────────────────────────────────────────────────────────┘
/// ```
/// A candidate that nothing needs yet is `Standby` between its proof and its publication.
/// "Ended" is not a state: a generation that has ended is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Issued, not yet proved.
    Candidate,
    /// Proved, and published when the current generation cannot go on.
    Standby,
    /// Serves new logins.
    Current {
        /// When it was published.
        published_at: Time,
    },
    /// Serves the sessions that it has.
    Retiring {
        /// When it was published.
        published_at: Time,
        /// When its successor was published; `None` at shutdown, when there is no successor.
        successor_at: Option<Time>,
    },
    /// Its sessions are being closed, even within a transaction.
    Closing { cause: Cause, since: Time },
    /// Its lease is being given back.
    Revoking(Retry),
}

impl Generation {
    /// A lease that Vault has just granted.
    pub(super) fn new(
        token: TokenId,
        sent_at: Time,
        lease: Duration,
        renewable: bool,
        jitter: Jitter,
    ) -> Self {
        Self::candidate(token, sent_at, lease, Term::new(sent_at, Some(lease), renewable, jitter))
    }

    /// A lease that an earlier process left.
    pub(super) fn resumed(now: Time, left: &GenerationSnapshot) -> Self {
        Self::candidate(left.token, left.issued_at, left.as_issued, left.term.resumed(now))
    }

    fn candidate(token: TokenId, issued_at: Time, as_issued: Duration, term: Term) -> Self {
        Self {
            token,
            issued_at,
            as_issued,
            lease: LeaseTerm::new(term),
            state: State::Candidate,
            is_accepted: false,
            cut_short: None,
            last_notice: None,
            ends_when_empty: false,
        }
    }

    /// What the next process needs of it.
    pub(super) fn snapshot(&self, serves: bool) -> GenerationSnapshot {
        let Self { token, issued_at, as_issued, .. } = *self;
        GenerationSnapshot { token, issued_at, as_issued, term: *self.term(), serves }
    }

    /// The end of the lease itself, as Vault said it.
    #[must_use]
    pub(crate) fn lease_ends_at(&self) -> Time {
        self.term().ends_at()
    }

    /// The term of its lease.
    pub(super) fn term(&self) -> &Term {
        self.lease.term()
    }

    /// For the renewal of its lease.
    pub(super) fn lease(&mut self) -> &mut LeaseTerm {
        &mut self.lease
    }

    /// The token that owns its lease.
    #[must_use]
    pub(crate) fn token(&self) -> TokenId {
        self.token
    }

    /// When its creds request was sent.
    #[must_use]
    pub(crate) fn issued_at(&self) -> Time {
        self.issued_at
    }

    /// `lease_duration` of its grant.
    pub(super) fn as_issued(&self) -> Duration {
        self.as_issued
    }

    /// Whether a server that sessions go to has let it in.
    pub(super) fn is_accepted(&self) -> bool {
        self.is_accepted
    }

    /// Whether the end that a command has set has come.
    pub(super) fn is_cut_short(&self, now: Time) -> bool {
        self.cut_short.is_some_and(|cut| now >= cut.at)
    }

    /// How often it has been renewed.
    #[must_use]
    pub(crate) fn renewals(&self) -> u32 {
        self.term().renewals()
    }

    /// Where it stands.
    #[must_use]
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When its renewal will be asked for.
    #[must_use]
    pub(crate) fn renew_at(&self) -> Option<Time> {
        self.term().renews_at()
    }

    /// The moment by which every session must be gone: the end of the lease or of its token, each less its margin.
    #[must_use]
    pub(crate) fn end_at(&self, token: TokenLimits) -> Time {
        let end = self.term().end_at().min(token.end_at);
        self.cut_short.map_or(end, |cut| end.min(cut.at + schedule::CANCEL_LEAD))
    }

    /// When the hard close begins.
    #[must_use]
    pub(crate) fn hard_close_at(&self, token: TokenLimits) -> Time {
        self.end_at(token) - schedule::CANCEL_LEAD
    }

    /// From when on its sessions are drained; `None` without a published successor.
    #[must_use]
    pub(crate) fn drain_at(&self, token: TokenLimits, setting: Option<Duration>) -> Option<Time> {
        let State::Retiring { successor_at: Some(successor_at), .. } = self.state else {
            return None;
        };
        let from = self.cut_short.map_or_else(|| self.would_drain_at(token, setting), |cut| cut.from);
        Some(from.max(successor_at))
    }

    /// When the drain of its sessions would begin if it had a successor.
    ///
    /// Lease and token are renewed each at two thirds of its own usable life, so neither's last quarter is too early.
    pub(super) fn would_drain_at(&self, token: TokenLimits, setting: Option<Duration>) -> Time {
        let drain = schedule::drain(setting, self.as_issued, self.term().usable().min(token.usable));
        self.hard_close_at(token) - drain
    }

    /// Whether sessions may be opened with it, and go on. What a command has ended takes no newcomers.
    pub(super) fn is_usable(&self, now: Time, token: TokenLimits) -> bool {
        matches!(self.state, State::Current { .. } | State::Retiring { .. })
            && self.cut_short.is_none()
            && now < self.hard_close_at(token)
    }

    /// Whether it is retired, and may serve new sessions on servers that do not know its successor yet.
    #[must_use]
    pub(crate) fn may_stand_in(&self) -> bool {
        matches!(self.state, State::Retiring { .. }) && self.cut_short.is_none()
    }

    /// Whether it is renewed: it is current, may become current, or has sessions.
    pub(super) fn is_renewed(&self) -> bool {
        matches!(self.state, State::Standby | State::Current { .. } | State::Retiring { .. })
    }

    /// Whether a renewal at `now` would pass `max_age`.
    pub(super) fn would_pass(&self, now: Time, max_age: Option<Duration>) -> bool {
        max_age.is_some_and(|age| now + self.term().longest() > self.issued_at + age)
    }

    /// Why the state of its renewal makes a successor necessary, and from when on.
    pub(super) fn replace(&self) -> Option<(NotRenewed, Time)> {
        self.term().replace()
    }

    /// What its sessions have to know; `None` if it has no sessions.
    pub(super) fn ending(&self, now: Time, token: TokenLimits, setting: Option<Duration>) -> Option<Ending> {
        let hard_close_at = self.hard_close_at(token);
        match self.state {
            State::Candidate | State::Standby | State::Revoking(_) => None,
            State::Current { .. } | State::Retiring { .. } => {
                let drain_from = self.drain_at(token, setting).filter(|at| *at <= now);
                Some(Ending { hard_close_at, drain_from, closing: None })
            }
            State::Closing { cause, since } => {
                let lease_end = self.lease_ends_at().min(token.ends_at);
                let gone_by = match cause {
                    Cause::LeaseEnd | Cause::CutShort => lease_end.min(since + schedule::GONE_WITHIN),
                    Cause::Lost => since + schedule::GONE_WITHIN,
                };
                let cut_at = (since + schedule::CANCEL_LEAD).min(gone_by);
                let closing = Some(Closing { cause, cut_at, gone_by });
                Some(Ending { hard_close_at, drain_from: None, closing })
            }
        }
    }

    /// Its sessions are notified of this. False if that was the latest notice.
    pub(super) fn notify(&mut self, ending: Ending) -> bool {
        self.last_notice.replace(ending) != Some(ending)
    }

    /// Records whether it may end once no session is in it. False if this was the last record, or if it has no sessions
    /// in its state.
    pub(super) fn end_when_empty(&mut self, may_end: bool) -> bool {
        let has_sessions =
            matches!(self.state, State::Current { .. } | State::Retiring { .. } | State::Closing { .. });
        has_sessions && std::mem::replace(&mut self.ends_when_empty, may_end) != may_end
    }

    /// A server that sessions go to has let it in.
    pub(super) fn accept(&mut self) {
        self.is_accepted = true;
    }

    /// A command sets this end, unless an earlier command has set an earlier end.
    pub(super) fn cut_short(&mut self, cut: CutShort) {
        if self.cut_short.is_none_or(|earlier| cut.at < earlier.at) {
            self.cut_short = Some(cut);
        }
    }

    /// It is proved, and nothing needs it yet.
    pub(super) fn stand_by(&mut self) {
        self.state = State::Standby;
    }

    /// It serves new logins, from `published_at` on.
    pub(super) fn serve(&mut self, published_at: Time) {
        self.state = State::Current { published_at };
    }

    /// It serves no new logins any more, where it did. False if it did not.
    pub(super) fn retire(&mut self, successor_at: Option<Time>) -> bool {
        let State::Current { published_at } = self.state else { return false };
        self.state = State::Retiring { published_at, successor_at };
        true
    }

    /// Its sessions are closed from now on.
    pub(super) fn close(&mut self, now: Time, cause: Cause) {
        self.state = State::Closing { cause, since: now };
    }

    /// Its lease is given back: `retry` says when that is asked for.
    pub(super) fn revoke(&mut self, retry: Retry) {
        self.state = State::Revoking(retry);
    }

    /// Where the revocation of its lease stands; `None` where it is not given back.
    pub(super) fn revoking(&self) -> Option<Retry> {
        match self.state {
            State::Revoking(retry) => Some(retry),
            _ => None,
        }
    }

    /// Whether it is retired, and sessions may still be in it.
    pub(super) fn is_retiring(&self) -> bool {
        matches!(self.state, State::Retiring { .. })
    }

    /// Makes fields equal that no decision depends on, so that the model check recognises a state.
    #[cfg(test)]
    pub(super) fn forget_counts(&mut self) {
        self.lease.forget_counts();
        if self.state != State::Candidate {
            // Only the patience with its proof, and an age that is not set, count from here.
            self.issued_at = Time::NEVER;
        }
        if let State::Current { published_at } | State::Retiring { published_at, .. } = &mut self.state {
            *published_at = Time::NEVER;
        }
    }
}
