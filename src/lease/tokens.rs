//! The tokens of a role: each is renewed while generations or an issuance need it, and revoked afterwards. Floor 1.
//!
//! A lease ends with the token that requested it, so a token is kept until its last generation has ended.
//!
//! ```text
//!   held ──nothing stands on it──▶ revoking ──revoked, refused, or ended──▶ removed
//!    │                                │  ▲ transient failure: back-off
//!    └── not ours to revoke, or ended ─┴──┘──▶ removed
//! ```

#[cfg(test)]
mod tests;

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

/// The part of a token that outlives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenSnapshot {
    term: Term,
    /// Whether it comes from our login. A token that was given to us is never revoked.
    owned: bool,
}

impl TokenSnapshot {
    /// Whether this snapshot may come from the time before `now`.
    #[must_use]
    pub(crate) fn is_before(&self, now: Time) -> bool {
        self.term.sent_at() <= now
    }
}

/// The tokens of one role, in the order of their logins. There are few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tokens(Vec<(TokenId, Token)>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Token {
    term: Term,
    owned: bool,
    /// Creds requests with unknown outcome that may still be granted.
    unsettled: u32,
    /// Until then Vault may still process a creds request of an earlier process. A lease that it makes after the
    /// token's revocation is unknown to every process, and stays until its own end.
    settles_at: Time,
    revoking: Option<Retry>,
}

/// How long Vault may process a request whose client has died.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

impl Tokens {
    /// The tokens that an earlier process left.
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

    /// Whether there is no token.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this token exists.
    pub(super) fn has(&self, id: TokenId) -> bool {
        self.get(id).is_some()
    }

    /// The result of a login. A token that is known already may have been renewed by another process.
    pub(super) fn logged_in(&mut self, id: TokenId, facts: TokenFacts, jitter: Jitter) {
        let term = Term::new(facts.sent_at, facts.ttl, facts.renewable, jitter);
        match self.get_mut(id) {
            None => {
                self.0.push((id, Token::new(term, facts.owned)));
            }
            // Both ends are rounded to seconds.
            Some(held) if term.ends_at() > held.term.ends_at() + Duration::from_secs(1) => held.term = term,
            Some(_) => {}
        }
    }

    /// How it bounds the leases that it owns. An unknown token sets no bound.
    pub(super) fn limits(&self, id: TokenId) -> TokenLimits {
        self.get(id).map_or(TokenLimits::NONE, |Token { term, .. }| TokenLimits {
            ends_at: term.ends_at(),
            end_at: term.end_at(),
            usable: term.usable(),
        })
    }

    fn get(&self, id: TokenId) -> Option<&Token> {
        self.0.iter().find(|(held, _)| *held == id).map(|(_, token)| token)
    }

    fn get_mut(&mut self, id: TokenId) -> Option<&mut Token> {
        self.0.iter_mut().find(|(held, _)| *held == id).map(|(_, token)| token)
    }

    /// Its end.
    pub(super) fn ends_at(&self, id: TokenId) -> Option<Time> {
        self.get(id).map(|token| token.term.ends_at())
    }

    /// The time from which it is ending: its renewal was capped, or it cannot be renewed and two thirds of its life are
    /// over. Never, as long as it can be renewed, or if it is unknown.
    pub(super) fn ending_at(&self, id: TokenId) -> Time {
        self.get(id).map_or(Time::NEVER, |token| token.term.replace_at())
    }

    /// How long a grant under it would be usable at most; `None` if it is unknown.
    pub(super) fn usable_for(&self, now: Time, id: TokenId) -> Option<Duration> {
        self.get(id).map(|token| token.usable_for(now))
    }

    /// Whether it comes from our login, so that leasehold may revoke it.
    pub(super) fn is_owned(&self, id: TokenId) -> bool {
        self.get(id).is_some_and(|token| token.owned)
    }

    /// Whether its latest renewal failed, and is tried again.
    pub(super) fn is_failing(&self, id: TokenId) -> bool {
        self.get(id).is_some_and(|token| token.term.is_failing())
    }

    /// Its term.
    pub(super) fn term(&self, id: TokenId) -> Option<&Term> {
        self.get(id).map(|token| &token.term)
    }

    /// The token that lives longest, of those under which a grant would be usable.
    pub(super) fn longest_living(&self, now: Time) -> Option<TokenId> {
        let is_of_use =
            |token: &Token| token.revoking.is_none() && token.usable_for(now) >= schedule::LEAST_USABLE;
        let living = self.0.iter().filter(|(_, token)| is_of_use(token));
        living.max_by_key(|(_, token)| token.term.ends_at()).map(|(id, _)| *id)
    }

    /// Requests the renewals that are due, of the tokens that are needed.
    pub(super) fn renew(
        &mut self,
        now: Time,
        is_needed: impl Fn(TokenId) -> bool,
        deadlines: &mut Deadlines,
        actions: &mut Vec<Action>,
    ) {
        for (id, token) in self.0.iter_mut().filter(|(id, token)| token.revoking.is_none() && is_needed(*id))
        {
            match token.term.renews_at() {
                Some(at) if now < at => deadlines.wake(Deadline::RenewToken, at),
                Some(_) => {
                    token.term.renewal_sent();
                    let within = schedule::patience(token.term.usable());
                    actions.push(Action::RenewToken(*id, within));
                }
                None => {}
            }
        }
    }

    /// If the renewal is planned for later, it is requested at this time.
    pub(super) fn renew_by(&mut self, id: TokenId, at: Time) {
        if let Some(token) = self.get_mut(id) {
            token.term.renew_by(at);
        }
    }

    /// If its latest renewal failed, or Vault refused it, it is asked again by this time.
    pub(super) fn ask_again_by(&mut self, id: TokenId, at: Time) {
        if let Some(token) = self.get_mut(id) {
            token.term.ask_again_by(at);
        }
    }

    /// It was renewed. True if the grant was shorter than before, so that this was the last renewal. `ttl` is `None` if
    /// it has no end.
    pub(super) fn renewed(
        &mut self,
        now: Time,
        id: TokenId,
        (sent_at, ttl, renewable): (Time, Option<Duration>, bool),
        jitter: Jitter,
    ) -> bool {
        self.get_mut(id).is_some_and(|token| token.term.renewed(now, sent_at, ttl, renewable, jitter))
    }

    /// Its renewal failed, and it is not known to be dead. True if this failure is why it is not renewed any more.
    ///
    /// If a policy forbids the renewal, or it is a batch token, it is ending after two thirds of its life, and the
    /// first renewal is not requested before that.
    pub(super) fn renew_failed(&mut self, now: Time, id: TokenId, failure: Failure, jitter: Jitter) -> bool {
        self.get_mut(id).is_some_and(|token| {
            let was_refused = token.term.refused().is_some();
            token.term.failed(now, failure, jitter);
            token.term.renews_at().is_none() && !was_refused
        })
    }

    /// It has ended early.
    pub(super) fn expired(&mut self, now: Time, id: TokenId) {
        if let Some(token) = self.get_mut(id) {
            token.term.expired(now);
        }
    }

    /// A creds request under it may still be granted: it is kept until this is settled, then revoked with all that it
    /// owns.
    pub(super) fn may_be_granted(&mut self, id: TokenId) {
        if let Some(token) = self.get_mut(id) {
            token.unsettled += 1;
        }
    }

    /// A creds request with unknown outcome is settled.
    pub(super) fn settled(&mut self, id: TokenId) {
        if let Some(token) = self.get_mut(id) {
            token.unsettled = token.unsettled.saturating_sub(1);
        }
    }

    /// Revokes the tokens that are not needed. Returns the tokens that have ended, or that leasehold may not revoke:
    /// the caller removes them.
    pub(super) fn revoke(
        &mut self,
        now: Time,
        stands: impl Fn(TokenId) -> bool,
        deadlines: &mut Deadlines,
        actions: &mut Vec<Action>,
    ) -> Vec<TokenId> {
        let mut ended = Vec::new();
        for (id, token) in self.0.iter_mut().filter(|(id, token)| token.unsettled == 0 && !stands(*id)) {
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
        self.get(id).is_some_and(|token| token.revoking.is_some())
    }

    /// Its revocation failed. It is tried again, or else its outcome is returned.
    pub(super) fn revoke_failed(
        &mut self,
        now: Time,
        id: TokenId,
        failure: Failure,
        jitter: Jitter,
    ) -> Option<Outcome> {
        let revoking = self.get_mut(id)?.revoking.as_mut()?;
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

    /// It is revoked, or left to expire. False if it is unknown.
    pub(super) fn remove(&mut self, id: TokenId) -> bool {
        let index = self.0.iter().position(|(held, _)| *held == id);
        index.map(|index| self.0.remove(index)).is_some()
    }

    /// Makes fields equal that no decision depends on, so that the model check recognises a state.
    #[cfg(test)]
    pub(super) fn forget_counts(&mut self) {
        for (_, token) in &mut self.0 {
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
