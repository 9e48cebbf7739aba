//! The leases and roles of a sidecar that Vault and PostgreSQL really have, whatever its machine assumes. Floor 6.

use std::time::Duration;

use super::asking::Ask;
use super::{Context, Timer};
use crate::fleet::scenario::Scenario;
use crate::fleet::tally::Tally;
use crate::lease::{Event, Failure, GenerationId, LeaseLookup, TokenFacts, TokenId};
use crate::time::Time;

/// A lease that Vault has made, and its role.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) id: u32,
    /// The number in the machine, once the machine knows the lease.
    pub(super) number: Option<GenerationId>,
    pub(super) token: TokenId,
    pub(super) ends_at: Time,
    max_ends_at: Time,
    /// When it was revoked, or expired.
    pub(super) gone_at: Option<Time>,
    /// Whether its role is dropped, or is being dropped.
    pub(super) is_dropped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    id: TokenId,
    ends_at: Time,
    revoked_at: Option<Time>,
}

impl Token {
    fn ends_at(&self) -> Time {
        self.revoked_at.unwrap_or(self.ends_at).min(self.ends_at)
    }
}

/// The tokens and leases of one sidecar.
#[derive(Debug)]
pub(super) struct Truth {
    tokens: Vec<Token>,
    leases: Vec<Lease>,
    next: u32,
    /// When Vault's next lease expires; `None` if that has to be computed anew.
    expires_at: Option<Time>,
    /// The number of roles in PostgreSQL.
    pub(super) roles: u32,
}

/// Vault rounds a TTL to whole seconds, so the stated TTL may be longer than the real TTL.
const ROUNDING: Duration = Duration::from_millis(500);

impl Truth {
    /// A sidecar that never had a lease.
    pub(super) fn new() -> Self {
        let (tokens, leases) = (Vec::with_capacity(4), Vec::with_capacity(4));
        Self { tokens, leases, next: 0, expires_at: None, roles: 0 }
    }

    pub(super) fn make_token(&mut self, now: Time, world: &Scenario) -> TokenId {
        self.expires_at = None;
        self.next += 1;
        let id = TokenId(u64::from(self.next));
        self.tokens.push(Token { id, ends_at: now + world.roles.token, revoked_at: None });
        id
    }

    pub(super) fn facts(&self, id: TokenId, sent_at: Time, world: &Scenario) -> TokenFacts {
        debug_assert!(self.tokens.iter().any(|token| token.id == id));
        TokenFacts { sent_at, ttl: Some(world.roles.token), renewable: true, owned: true }
    }

    pub(super) fn token_of(&self, ask: Ask) -> Option<TokenId> {
        match ask {
            Ask::LogIn => None,
            Ask::Issue(token)
            | Ask::RenewLease(_, token)
            | Ask::RenewToken(token)
            | Ask::RevokeLease(_, token)
            | Ask::RevokeToken(token)
            | Ask::LookUpLease(_, token) => Some(token),
        }
    }

    fn token_ends_at(&self, id: TokenId) -> Time {
        let token = self.tokens.iter().find(|token| token.id == id);
        token.map_or(Time::from_nanos(0), Token::ends_at)
    }

    pub(super) fn token_lives(&self, id: TokenId, at: Time) -> bool {
        at < self.token_ends_at(id)
    }

    /// When the lease of a generation ends or has ended, by itself or with its token.
    pub(super) fn ends_at(&self, number: GenerationId) -> Time {
        let lease = self.leases.iter().rev().find(|lease| lease.number == Some(number));
        lease.map_or(Time::from_nanos(0), |lease| self.true_end(lease))
    }

    fn true_end(&self, lease: &Lease) -> Time {
        lease.gone_at.unwrap_or(Time::NEVER).min(lease.ends_at).min(self.token_ends_at(lease.token))
    }

    /// Assigns this generation to the latest lease.
    pub(super) fn name(&mut self, number: GenerationId) {
        if let Some(lease) = self.leases.iter_mut().rev().find(|lease| lease.number.is_none()) {
            lease.number = Some(number);
        }
    }

    /// A new process does not know the existing leases.
    pub(super) fn orphan(&mut self) {
        for lease in &mut self.leases {
            lease.number = None;
        }
    }

    /// Carries out a request at `now`, and returns the event for the machine.
    pub(super) fn perform(&mut self, context: &mut Context<'_>, ask: Ask, sent_at: Time, now: Time) -> Event {
        self.expires_at = None;
        let lives = self.token_of(ask).is_some_and(|token| self.token_lives(token, now));
        let dead = Failure::TokenDead;
        match ask {
            // A successful login is reported by `Sidecar::logged_in`.
            Ask::LogIn => Event::LogInFailed(Failure::Refused),
            Ask::Issue(_) if !lives => Event::IssueFailed(dead),
            Ask::Issue(token) => self.make_lease(context, token, sent_at, now),
            Ask::RenewLease(number, _) if !lives => Event::LeaseRenewFailed(number, dead),
            Ask::RenewLease(number, _) => self.renew(context.scenario, number, sent_at, now),
            Ask::RenewToken(token) if !lives => Event::TokenRenewFailed(token, dead),
            Ask::RenewToken(token) => {
                let ttl = context.scenario.roles.token;
                if let Some(held) = self.tokens.iter_mut().find(|held| held.id == token) {
                    held.ends_at = now + ttl;
                }
                Event::TokenRenewed { token, sent_at, ttl: Some(ttl), renewable: true }
            }
            Ask::RevokeLease(number, _) => Event::LeaseRevokeFailed(number, dead),
            Ask::RevokeToken(token) if !lives => Event::TokenRevokeFailed(token, dead),
            Ask::RevokeToken(token) => {
                if let Some(held) = self.tokens.iter_mut().find(|held| held.id == token) {
                    held.revoked_at = Some(now);
                }
                Event::TokenRevoked(token)
            }
            Ask::LookUpLease(number, _) => {
                let lives = self.leases.iter().any(|lease| lease.number == Some(number) && !lease.is_dropped);
                let lookup = if lives { LeaseLookup::Present } else { LeaseLookup::Missing };
                Event::LeaseLookedUp(number, lookup)
            }
        }
    }

    fn make_lease(&mut self, context: &mut Context<'_>, token: TokenId, sent_at: Time, now: Time) -> Event {
        let roles = &context.scenario.roles;
        self.next += 1;
        let ends_at = now + roles.lease - ROUNDING;
        let max_ends_at = now + roles.max_lease;
        let lease = Lease {
            id: self.next,
            number: None,
            token,
            ends_at,
            max_ends_at,
            gone_at: None,
            is_dropped: false,
        };
        self.leases.push(lease);
        self.roles += 1;
        context.tally.most_roles = context.tally.most_roles.max(self.roles);
        context.tally.at(now).roles += 1;
        Event::Granted { sent_at, lease: roles.lease, renewable: true }
    }

    fn renew(&mut self, world: &Scenario, number: GenerationId, sent_at: Time, now: Time) -> Event {
        let failed = |failure| Event::LeaseRenewFailed(number, failure);
        let lease = self.leases.iter_mut().find(|lease| lease.number == Some(number));
        let Some(lease) = lease.filter(|lease| lease.gone_at.is_none() && now < lease.ends_at) else {
            return failed(Failure::Gone);
        };
        let span = world.roles.lease.min(lease.max_ends_at.since(now));
        let span = Duration::from_secs(span.as_secs());
        if span.is_zero() {
            return failed(Failure::CannotExtend);
        }
        lease.ends_at = lease.ends_at.max(now + span - ROUNDING);
        Event::LeaseRenewed { number, sent_at, lease: span, renewable: true }
    }

    /// When Vault's next lease expires.
    pub(super) fn next_expiry(&mut self) -> Time {
        if let Some(at) = self.expires_at {
            return at;
        }
        let living = self.leases.iter().filter(|lease| lease.gone_at.is_none());
        let at = living.map(|lease| self.true_end(lease)).min().unwrap_or(Time::NEVER);
        self.expires_at = Some(at);
        at
    }

    /// The leases that have expired by `now`, which Vault must revoke.
    pub(super) fn expire(&mut self, now: Time) -> Vec<u32> {
        self.expires_at = None;
        let ended: Vec<(u32, Time)> = self
            .leases
            .iter()
            .filter(|lease| lease.gone_at.is_none())
            .map(|lease| (lease.id, self.true_end(lease)))
            .filter(|(_, end)| *end <= now)
            .collect();
        for (id, end) in &ended {
            if let Some(lease) = self.leases.iter_mut().find(|lease| lease.id == *id) {
                lease.gone_at = Some(*end);
            }
        }
        ended.into_iter().map(|(id, _)| id).collect()
    }

    /// Drops the role of a lease at this time.
    pub(super) fn dropped(&mut self, tally: &mut Tally, id: u32, at: Time) {
        if let Some(lease) = self.leases.iter_mut().find(|lease| lease.id == id && !lease.is_dropped) {
            lease.is_dropped = true;
            self.roles = self.roles.saturating_sub(1);
            tally.at(at).roles -= 1;
        }
    }

    /// Removes leases and tokens that are not needed any more.
    pub(super) fn forget(&mut self, is_held: impl Fn(GenerationId) -> bool, now: Time) {
        if self.leases.len() <= 1 && self.tokens.len() <= 1 {
            return;
        }
        self.expires_at = None;
        self.leases.retain(|lease| !lease.is_dropped || lease.number.is_some_and(&is_held));
        let leases = &self.leases;
        self.tokens.retain(|token| {
            now < token.ends_at() + KEPT_FOR || leases.iter().any(|lease| lease.token == token.id)
        });
    }

    /// Whether the lease of a generation lives, and its revocation was not requested.
    pub(super) fn is_left(&self, number: GenerationId, now: Time) -> bool {
        let lease = self.leases.iter().find(|lease| lease.number == Some(number));
        lease.is_some_and(|lease| lease.gone_at.is_none() && now < self.true_end(lease))
    }
}

/// No request with a token takes longer than this.
const KEPT_FOR: Duration = Duration::from_mins(10);

/// The event for the revocation of the expired lease with this id.
pub(super) fn expiry(id: u32) -> Timer {
    Timer::Expire(id)
}
