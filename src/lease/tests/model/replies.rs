//! The possible replies to a request, and the state of the world after them.

use std::time::Duration;

use super::super::known::Request;
use super::super::world::{Lease, Token};
use super::state::State;
use crate::lease::{Action, Event, Failure, GenerationId, LeaseLookup, TokenFacts, TokenId};
use crate::time::Time;

/// A lease of 60 s is usable for 56 s: it is renewed at second 37.3, and drained from second 50 on.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// It ends before a lease that was granted with it, unless it is renewed, at second 28.
const TOKEN: Duration = Duration::from_secs(45);
/// The grant of a capped renewal.
const CAPPED: Duration = Duration::from_secs(20);
/// The most tokens and leases that Vault makes.
pub(super) const MOST: usize = 2;

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reply {
    Done,
    Capped,
    Forbidden,
    Refused,
    Transient,
    TimedOut,
    Unprovable,
    CannotExtend,
    /// The lease is gone, or the token is dead.
    Dead,
    /// The lease that should have been revoked with its token still exists.
    Stays,
}

impl State {
    /// The possible replies. A grant counts from the sending of the request, the earliest time at which Vault can have
    /// made it.
    pub(super) fn replies(&self, request: &Request) -> &'static [Reply] {
        use Reply::*;
        let vault = &self.watch.vault;
        if self.watch.now >= request.give_up_at {
            return if matches!(request.action, Action::Prove(_)) { &[Unprovable] } else { &[TimedOut] };
        }
        let asks = match request.action {
            Action::Issue(id)
            | Action::RenewLease(_, id, _)
            | Action::RenewToken(id, _)
            | Action::RevokeLease(_, id)
            | Action::RevokeToken(id)
            | Action::LookUpLease(_, id) => Some(id),
            _ => None,
        };
        if asks.is_some_and(|id| !vault.token_lives(id, request.sent_at)) {
            return &[Dead, Transient];
        }
        match request.action {
            Action::LogIn { .. } if vault.tokens.len() == MOST => &[Refused, Transient],
            Action::LogIn { .. } => &[Done, Refused, Transient],
            Action::Issue(_) if vault.leases.len() == MOST => &[Refused],
            Action::Issue(_) => &[Done, Refused],
            Action::Prove(number) if !self.lives(number, request.sent_at) => &[Refused, Unprovable],
            Action::Prove(_) => &[Done, Refused, Unprovable],
            Action::RenewLease(number, ..) | Action::RevokeLease(number, _)
                if !self.lives(number, request.sent_at) =>
            {
                &[Dead, Transient]
            }
            Action::RenewLease(number, ..) => {
                renewals(vault.leases[self.watch.held[&number].lease].max_ends_at, request.sent_at)
            }
            Action::RenewToken(id, _) => {
                renewals(vault.tokens[id.0 as usize - 1].max_ends_at, request.sent_at)
            }
            Action::LookUpLease(..) => &[Done, Stays, Forbidden, Transient],
            _ => &[Done, Forbidden, Transient],
        }
    }

    fn lives(&self, number: GenerationId, when: Time) -> bool {
        self.watch.held.get(&number).is_some_and(|held| self.watch.vault.lease_lives(held.lease, when))
    }

    pub(super) fn grant(&mut self, token: TokenId, sent_at: Time) -> usize {
        let max_ends_at = Time::NEVER;
        let lease = Lease { token, ends_at: sent_at + LEASE, max_ends_at, dead: false, killed: false };
        self.watch.vault.leases.push(lease);
        self.watch.vault.leases.len() - 1
    }

    /// The answer as an event, with the index of a granted lease. Updates the state of the world.
    pub(super) fn answer(&mut self, request: &Request, reply: Reply) -> (Event, Option<usize>) {
        let Request { action, sent_at, .. } = *request;
        let failure = match reply {
            Reply::Done | Reply::Capped | Reply::Stays => return self.done(request, reply),
            Reply::Forbidden => Failure::Forbidden,
            Reply::Refused => Failure::Refused,
            Reply::Transient | Reply::Unprovable => Failure::Transient,
            Reply::TimedOut => Failure::TimedOut,
            Reply::CannotExtend => Failure::CannotExtend,
            Reply::Dead => Failure::TokenDead,
        };
        let event = match (action, failure) {
            (Action::Prove(number), Failure::Refused) => Event::ProofRefused(number),
            (Action::Prove(number), _) => Event::Unprovable(number),
            // The death of the token is examined first.
            (Action::RenewLease(_, id, _) | Action::RevokeLease(_, id), Failure::TokenDead)
                if self.watch.vault.token_lives(id, sent_at) =>
            {
                request.failed(Failure::Gone)
            }
            (Action::Issue(token), Failure::TimedOut) => {
                self.watch.unsettled.push(token);
                request.failed(failure)
            }
            (Action::RevokeToken(_), Failure::Forbidden) => {
                self.lapses = true;
                request.failed(failure)
            }
            _ => request.failed(failure),
        };
        (event, None)
    }

    fn done(&mut self, request: &Request, reply: Reply) -> (Event, Option<usize>) {
        let Request { action, sent_at, .. } = *request;
        let vault = &mut self.watch.vault;
        let renewable = true;
        let event = match action {
            Action::LogIn { .. } => {
                let (ends_at, max_ends_at) = (sent_at + TOKEN, Time::NEVER);
                vault.tokens.push(Token { ends_at, max_ends_at, dead: false, killed: false });
                let facts = TokenFacts { sent_at, ttl: Some(TOKEN), renewable, owned: true };
                Event::LoggedIn(TokenId(vault.tokens.len() as u64), facts)
            }
            Action::Issue(token) => {
                let lease = self.grant(token, sent_at);
                return (Event::Granted { sent_at, lease: LEASE, renewable }, Some(lease));
            }
            Action::Prove(number) => Event::Proved(number),
            Action::RenewLease(number, ..) => {
                let held = &mut vault.leases[self.watch.held[&number].lease];
                let lease = renew(&mut held.ends_at, &mut held.max_ends_at, sent_at, LEASE, reply);
                Event::LeaseRenewed { number, sent_at, lease, renewable }
            }
            Action::RenewToken(token, _) => {
                let held = vault.token(token);
                let ttl = Some(renew(&mut held.ends_at, &mut held.max_ends_at, sent_at, TOKEN, reply));
                Event::TokenRenewed { token, sent_at, ttl, renewable }
            }
            Action::RevokeLease(number, _) => {
                vault.leases[self.watch.held[&number].lease].dead = true;
                Event::LeaseRevoked(number)
            }
            Action::RevokeToken(token) => {
                vault.token(token).dead = true;
                Event::TokenRevoked(token)
            }
            Action::LookUpLease(number, _) => {
                let lookup = if reply == Reply::Stays { LeaseLookup::Present } else { LeaseLookup::Missing };
                Event::LeaseLookedUp(number, lookup)
            }
            other => unreachable!("{other:?}"),
        };
        (event, None)
    }
}

/// The possible replies to a renewal that was sent at this time.
fn renewals(max_ends_at: Time, sent_at: Time) -> &'static [Reply] {
    use Reply::*;
    if max_ends_at == Time::NEVER {
        &[Done, Capped, Forbidden, Transient]
    } else if max_ends_at > sent_at {
        &[Capped, Forbidden, Transient]
    } else {
        &[CannotExtend, Forbidden, Transient]
    }
}

/// Extends a lease or token that lives, as far as possible. Returns for how long.
fn renew(
    ends_at: &mut Time,
    max_ends_at: &mut Time,
    sent_at: Time,
    full: Duration,
    reply: Reply,
) -> Duration {
    if reply == Reply::Capped {
        *max_ends_at = (*max_ends_at).min(sent_at + CAPPED);
    }
    *ends_at = (sent_at + full).min(*max_ends_at);
    ends_at.since(sent_at)
}
