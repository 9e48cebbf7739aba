//! One lease's life. Floor 1.

use std::time::Duration;

use super::event::Ending;
use super::ids::TokenId;
use super::note::Cause;
use super::schedule::{self, Jitter, Retry};
use super::term::{NotRenewed, Renewal, Term};
use super::tokens::TokenLimits;
use crate::time::Time;

/// One lease's life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    pub(super) token: TokenId,
    pub(super) issued_at: Time,
    pub(super) as_issued: Duration,
    pub(super) term: Term,
    pub(super) state: State,
    /// Whether a server that sessions go to has let it in.
    pub(super) accepted: bool,
    /// The end that a command has set, earlier than the lease's.
    pub(super) cut_short: Option<CutShort>,
    /// When a renewal was last asked for as a check.
    pub(super) checked_at: Option<Time>,
    /// The check that the renewal in flight answers.
    pub(super) check: Option<Check>,
    /// What the driver was told last.
    pub(super) last_notice: Option<Ending>,
}

/// A renewal that is asked for to see whether the lease lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    /// What its renewal stood at before.
    pub(crate) before: Renewal,
    /// Whether a login waits for the answer.
    pub(crate) is_awaited: bool,
}

/// An end that a command has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CutShort {
    /// From when on its sessions are drained.
    pub(crate) from: Time,
    /// When the hard close begins.
    pub(crate) at: Time,
}

/// Where a generation stands.
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
    /// Proved, and published when the current one cannot go on.
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
        /// When its successor was; `None` at shutdown, where there is none.
        successor_at: Option<Time>,
    },
    /// Its sessions are being closed, whatever they do.
    Closing { cause: Cause, since: Time },
    /// Its lease is being given back.
    Revoking(Retry),
}

impl Generation {
    pub(super) fn new(
        token: TokenId,
        sent_at: Time,
        lease: Duration,
        renewable: bool,
        jitter: Jitter,
    ) -> Self {
        Self {
            token,
            issued_at: sent_at,
            as_issued: lease,
            term: Term::new(sent_at, Some(lease), renewable, jitter),
            state: State::Candidate,
            accepted: false,
            cut_short: None,
            checked_at: None,
            check: None,
            last_notice: None,
        }
    }

    /// The end of the lease itself, as Vault said it.
    #[must_use]
    pub(crate) fn lease_ends_at(&self) -> Time {
        self.term.ends_at()
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

    /// How often it has been renewed.
    #[must_use]
    pub(crate) fn renewals(&self) -> u32 {
        self.term.renewals()
    }

    /// Where it stands.
    #[must_use]
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When its renewal will be asked for.
    #[must_use]
    pub(crate) fn renew_at(&self) -> Option<Time> {
        self.term.renews_at()
    }

    /// The moment by which every session must be gone: the end of the lease or of its token, each less its margin.
    #[must_use]
    pub(crate) fn end_at(&self, token: TokenLimits) -> Time {
        let end = self.term.end_at().min(token.end_at);
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

    /// From when on its sessions would be drained if it had a successor.
    ///
    /// Lease and token are renewed each at two thirds of its own usable life, so neither's last quarter is too early.
    pub(super) fn would_drain_at(&self, token: TokenLimits, setting: Option<Duration>) -> Time {
        let drain = schedule::drain(setting, self.as_issued, self.term.usable().min(token.usable));
        self.hard_close_at(token) - drain
    }

    /// Whether sessions may be opened with it, and go on. What a command has ended takes no newcomers.
    pub(super) fn is_usable(&self, now: Time, token: TokenLimits) -> bool {
        matches!(self.state, State::Current { .. } | State::Retiring { .. })
            && self.cut_short.is_none()
            && now < self.hard_close_at(token)
    }

    /// Whether it is retired, and may serve newcomers where its successor is not known yet.
    #[must_use]
    pub(crate) fn may_stand_in(&self) -> bool {
        matches!(self.state, State::Retiring { .. }) && self.cut_short.is_none()
    }

    /// Whether it is renewed: it is current, or may become so, or has sessions.
    pub(super) fn is_renewed(&self) -> bool {
        matches!(self.state, State::Standby | State::Current { .. } | State::Retiring { .. })
    }

    /// Whether a renewal at `now` would pass `max_age`.
    pub(super) fn would_pass(&self, now: Time, max_age: Option<Duration>) -> bool {
        max_age.is_some_and(|age| now + self.term.longest() > self.issued_at + age)
    }

    /// Why a successor is needed by its renewal alone, and from when on.
    pub(super) fn replace(&self) -> Option<(NotRenewed, Time)> {
        match self.term.renewal() {
            Renewal::Stopped { why, replace_at } => Some((why, replace_at)),
            Renewal::Scheduled(_) | Renewal::InFlight => None,
        }
    }
}
