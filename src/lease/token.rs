//! One login's life. Floor 1.
//!
//! A lease dies with the token that asked for it, so a token is kept, and renewed, until its last generation has ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::schedule::{self, Jitter};
use super::term::Term;
use super::{Failure, GenerationId};
use crate::time::Time;

/// Names a token within one route. The driver keeps id → token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TokenId(pub u64);

/// What is known of a token when it is logged in or handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenFacts {
    /// When the request that told was sent.
    pub(crate) sent_at: Time,
    /// Its remaining life; `None` where it has no end, or none is known.
    pub(crate) ttl: Option<Duration>,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// Whether we logged in for it. A token handed to us is never revoked.
    pub(crate) owned: bool,
}

/// How a token bounds the leases that it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenLimits {
    /// Its end.
    pub(crate) ends_at: Time,
    /// Its end, less its own margin.
    pub(crate) end_at: Time,
    /// The usable life of its latest grant.
    pub(crate) usable: Duration,
}

impl TokenLimits {
    /// No bound.
    pub(crate) const NONE: Self = Self { ends_at: Time::NEVER, end_at: Time::NEVER, usable: Duration::MAX };
}

/// A token's life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(super) term: Term,
    pub(super) owned: bool,
    /// Requests that were given up and may yet be granted.
    pub(super) late: u32,
    pub(super) revoking: Option<Revoking>,
    /// Generations whose lease could not be revoked by itself and goes with this token.
    pub(super) owed: Vec<GenerationId>,
}

/// A revocation that is under way, of a token or a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Revoking {
    pub(super) tries: u32,
    /// `None` while it is in flight.
    pub(super) again_at: Option<Time>,
}

impl Revoking {
    /// It failed this time, and is tried again after a back-off.
    pub(super) fn again(self, now: Time, jitter: Jitter) -> Self {
        let wait =
            schedule::back_off(self.tries, Duration::from_millis(500), Duration::from_secs(30), jitter);
        Self { tries: self.tries.saturating_add(1), again_at: Some(now + wait) }
    }
}

impl Token {
    pub(super) fn new(facts: TokenFacts, jitter: Jitter) -> Self {
        Self::with_term(Term::new(facts.sent_at, facts.ttl, facts.renewable, jitter), facts.owned)
    }

    /// As another process left it.
    pub(super) fn resumed(now: Time, term: Term, owned: bool) -> Self {
        Self::with_term(term.resumed(now), owned)
    }

    fn with_term(term: Term, owned: bool) -> Self {
        Self { term, owned, late: 0, revoking: None, owed: Vec::new() }
    }

    /// A later look at a token that we have already. It may have been renewed by somebody else.
    pub(super) fn looked_up(&mut self, facts: TokenFacts, jitter: Jitter) {
        let ends_at = facts.ttl.map_or(Time::NEVER, |ttl| facts.sent_at + ttl);
        if ends_at > self.term.ends_at() + Duration::from_secs(1) {
            self.term = Term::new(facts.sent_at, facts.ttl, facts.renewable, jitter);
        }
    }

    /// Its end.
    #[must_use]
    pub(crate) fn ends_at(&self) -> Time {
        self.term.ends_at()
    }

    /// What it means for the leases that it owns.
    #[must_use]
    pub(crate) fn bound(&self) -> TokenLimits {
        TokenLimits { ends_at: self.term.ends_at(), end_at: self.term.end_at(), usable: self.term.usable() }
    }

    /// From when on it is ending: its renewal was capped, or it cannot be renewed and two thirds of it have passed.
    #[must_use]
    pub(crate) fn ending_at(&self) -> Time {
        self.term.replace_at()
    }

    pub(super) fn failed(&mut self, now: Time, failure: Failure, jitter: Jitter) {
        // A policy that forbids the renewal, or a batch token: it is ending from two thirds of its life on, and the
        // first renewal is asked for no earlier than that.
        self.term.failed(now, failure, jitter);
    }

    /// When it is to be renewed next.
    #[must_use]
    pub(crate) fn renew_at(&self) -> Option<Time> {
        self.term.renews_at()
    }
}
