//! The tokens that a role holds: each is renewed while something stands on it, and revoked afterwards. Floor 1.
//!
//! A lease dies with the token that asked for it, so a token is kept until its last generation has ended.
//!
//! ```text
//!   held ──nothing stands on it──▶ revoking ──revoked, refused, or ended──▶ removed
//!    │                                │  ▲ transient failure: back-off
//!    └── not ours to revoke, or ended ─┴──┘──▶ removed
//! ```

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deadline::{Deadline, Deadlines};
use super::event::{Action, Failure, TokenFacts};
use super::ids::TokenId;
use super::note::Outcome;
use super::schedule::{self, Jitter, Retry};
use super::term::Term;
use crate::time::Time;

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

/// What of a token can outlive its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenSnapshot {
    term: Term,
    /// Whether we logged in for it; one that was handed to us is never revoked.
    owned: bool,
}

impl TokenSnapshot {
    /// Whether this could be of the time before `now`.
    #[must_use]
    pub(crate) fn is_before(&self, now: Time) -> bool {
        self.term.sent_at() <= now
    }
}

/// The tokens of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tokens(BTreeMap<TokenId, Token>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Token {
    term: Term,
    owned: bool,
    /// Creds requests whose outcome is unknown, and that may yet be granted.
    unsettled: u32,
    /// Until then Vault may still be at work on a creds request of an earlier process. A lease that it makes after the
    /// token's revocation is in no process's hands, and stays until its own end.
    settles_at: Time,
    revoking: Option<Retry>,
}

/// How long Vault may take over a request whose client has died.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

impl Tokens {
    /// As an earlier process left them.
    pub(super) fn resume(now: Time, left: &[(TokenId, TokenSnapshot)]) -> Self {
        let token = |kept: &TokenSnapshot| Token {
            settles_at: now + SETTLES_WITHIN,
            ..Token::new(kept.term.resumed(now), kept.owned)
        };
        Self(left.iter().map(|(id, kept)| (*id, token(kept))).collect())
    }

    /// What the next process needs of them.
    pub(super) fn snapshot(&self) -> Vec<(TokenId, TokenSnapshot)> {
        let kept = |token: &Token| TokenSnapshot { term: token.term, owned: token.owned };
        self.0.iter().map(|(id, token)| (*id, kept(token))).collect()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one is there.
    pub(super) fn has(&self, id: TokenId) -> bool {
        self.0.contains_key(&id)
    }

    /// A login has brought it. A token that is there already may have been renewed by another process.
    pub(super) fn logged_in(&mut self, id: TokenId, facts: TokenFacts, jitter: Jitter) {
        let term = Term::new(facts.sent_at, facts.ttl, facts.renewable, jitter);
        match self.0.get_mut(&id) {
            None => {
                self.0.insert(id, Token::new(term, facts.owned));
            }
            // Both ends are rounded to seconds.
            Some(held) if term.ends_at() > held.term.ends_at() + Duration::from_secs(1) => held.term = term,
            Some(_) => {}
        }
    }

    /// How it bounds the leases that it owns; one that is not there does not.
    pub(super) fn limits(&self, id: TokenId) -> TokenLimits {
        self.0.get(&id).map_or(TokenLimits::NONE, |Token { term, .. }| TokenLimits {
            ends_at: term.ends_at(),
            end_at: term.end_at(),
            usable: term.usable(),
        })
    }

    /// Its end.
    pub(super) fn ends_at(&self, id: TokenId) -> Option<Time> {
        self.0.get(&id).map(|token| token.term.ends_at())
    }

    /// From when on it is ending: its renewal was capped, or it cannot be renewed and two thirds of it have passed. Never,
    /// as long as it can be renewed, or where it is not there.
    pub(super) fn ending_at(&self, id: TokenId) -> Time {
        self.0.get(&id).map_or(Time::NEVER, |token| token.term.replace_at())
    }

    /// How long a grant under it would be of use at most; `None` where it is not there.
    pub(super) fn usable_for(&self, now: Time, id: TokenId) -> Option<Duration> {
        self.0.get(&id).map(|token| token.usable_for(now))
    }

    /// Whether we logged in for it, so that it is ours to revoke.
    pub(super) fn is_owned(&self, id: TokenId) -> bool {
        self.0.get(&id).is_some_and(|token| token.owned)
    }

    /// Whether its latest renewal failed, and is tried again.
    pub(super) fn is_failing(&self, id: TokenId) -> bool {
        self.0.get(&id).is_some_and(|token| token.term.is_failing())
    }

    /// Its term.
    pub(super) fn term(&self, id: TokenId) -> Option<&Term> {
        self.0.get(&id).map(|token| &token.term)
    }

    /// The one that lives longest, of those under which a grant would be of use.
    pub(super) fn longest_living(&self, now: Time) -> Option<TokenId> {
        let is_of_use =
            |token: &Token| token.revoking.is_none() && token.usable_for(now) >= schedule::LEAST_USABLE;
        let living = self.0.iter().filter(|(_, token)| is_of_use(token));
        living.max_by_key(|(_, token)| token.term.ends_at()).map(|(id, _)| *id)
    }

    /// Asks for the renewals that are due, of those that are needed.
    pub(super) fn renew(
        &mut self,
        now: Time,
        is_needed: impl Fn(TokenId) -> bool,
        deadlines: &mut Deadlines,
        actions: &mut Vec<Action>,
    ) {
        for (id, token) in self.0.iter_mut().filter(|(id, token)| token.revoking.is_none() && is_needed(**id))
        {
            match token.term.renews_at() {
                Some(at) if now < at => deadlines.wake(Deadline::RenewToken, at),
                Some(_) => {
                    token.term.asked();
                    let within = schedule::patience(token.term.usable());
                    actions.push(Action::RenewToken(*id, within));
                }
                None => {}
            }
        }
    }

    /// A renewal that is planned for later is asked for at this time.
    pub(super) fn renew_by(&mut self, id: TokenId, at: Time) {
        if let Some(token) = self.0.get_mut(&id) {
            token.term.renew_by(at);
        }
    }

    /// It was renewed. True if that was the last time, as less was granted than before. `ttl` is `None` where it has no
    /// end.
    pub(super) fn renewed(
        &mut self,
        now: Time,
        id: TokenId,
        (sent_at, ttl, renewable): (Time, Option<Duration>, bool),
        jitter: Jitter,
    ) -> bool {
        self.0.get_mut(&id).is_some_and(|token| token.term.renewed(now, sent_at, ttl, renewable, jitter))
    }

    /// Its renewal failed, and it is not known to be dead. True if it is not renewed any more.
    ///
    /// A policy that forbids the renewal, or a batch token: it is ending from two thirds of its life on, and the first
    /// renewal is asked for no earlier than that.
    pub(super) fn renew_failed(&mut self, now: Time, id: TokenId, failure: Failure, jitter: Jitter) -> bool {
        self.0.get_mut(&id).is_some_and(|token| {
            token.term.failed(now, failure, jitter);
            token.term.renews_at().is_none()
        })
    }

    /// It is dead before its end.
    pub(super) fn died(&mut self, now: Time, id: TokenId) {
        if let Some(token) = self.0.get_mut(&id) {
            token.term.died(now);
        }
    }

    /// A creds request under it may yet be granted: it is kept until that is settled, then revoked with what it owns.
    pub(super) fn may_be_granted(&mut self, id: TokenId) {
        if let Some(token) = self.0.get_mut(&id) {
            token.unsettled += 1;
        }
    }

    /// Such a request is settled.
    pub(super) fn settled(&mut self, id: TokenId) {
        if let Some(token) = self.0.get_mut(&id) {
            token.unsettled = token.unsettled.saturating_sub(1);
        }
    }

    /// Revokes those that nothing stands on. Gives those that have ended, or are not ours to revoke: they are to be
    /// removed.
    pub(super) fn revoke(
        &mut self,
        now: Time,
        stands: impl Fn(TokenId) -> bool,
        deadlines: &mut Deadlines,
        actions: &mut Vec<Action>,
    ) -> Vec<TokenId> {
        let mut ended = Vec::new();
        for (id, token) in self.0.iter_mut().filter(|(id, token)| token.unsettled == 0 && !stands(**id)) {
            let ends_at = token.term.ends_at();
            if !token.owned || now >= ends_at {
                ended.push(*id);
                continue;
            }
            match token.revoking.get_or_insert_with(|| Retry::at(now.max(token.settles_at))).due() {
                Some(at) if now < at => deadlines.wake(Deadline::RevokeToken, at.min(ends_at)),
                Some(_) => {
                    token.revoking = token.revoking.map(Retry::again);
                    actions.push(Action::RevokeToken(*id));
                }
                None => {}
            }
        }
        ended
    }

    /// Whether it is being revoked.
    pub(super) fn is_revoking(&self, id: TokenId) -> bool {
        self.0.get(&id).is_some_and(|token| token.revoking.is_some())
    }

    /// Its revocation failed: it is tried again, or else what became of it.
    pub(super) fn revoke_failed(
        &mut self,
        now: Time,
        id: TokenId,
        failure: Failure,
        jitter: Jitter,
    ) -> Option<Outcome> {
        let revoking = self.0.get_mut(&id)?.revoking.as_mut()?;
        match failure {
            Failure::TokenDead | Failure::Gone => Some(Outcome::Token),
            Failure::Forbidden | Failure::Refused | Failure::Unusable | Failure::CannotExtend => {
                Some(Outcome::Forbidden)
            }
            Failure::Transient | Failure::TimedOut => {
                *revoking = revoking.failed(now, jitter);
                None
            }
        }
    }

    /// It is gone, or left to lapse. False if it was not there.
    pub(super) fn remove(&mut self, id: TokenId) -> bool {
        self.0.remove(&id).is_some()
    }

    /// What no decision hangs on is made equal, so that the model check knows a state again.
    #[cfg(test)]
    pub(super) fn forget_counts(&mut self) {
        for token in self.0.values_mut() {
            token.term.renewals = 0;
        }
    }
}

impl Token {
    fn new(term: Term, owned: bool) -> Self {
        Self { term, owned, unsettled: 0, settles_at: Time::from_nanos(0), revoking: None }
    }

    fn usable_for(&self, now: Time) -> Duration {
        schedule::usable(self.term.ends_at().since(now), self.term.margin())
    }
}
