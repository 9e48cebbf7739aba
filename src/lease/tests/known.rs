//! The driver's knowledge of its tokens and generations, and the requests in flight.

use std::time::Duration;

use super::script::secs;
use super::watch::{Watch, promise};
use crate::lease::Ending;
use crate::lease::{Action, Event, Failure, GenerationId, LeaseLookup, TokenId};
use crate::time::Time;

#[derive(Clone, Copy, Default, Hash)]
pub(super) struct Known {
    /// Its end, as the driver knows it.
    pub(super) ends_at: Option<Time>,
    pub(super) longest: Duration,
    pub(super) capped: bool,
}

/// A generation as the driver and the checks know it.
#[derive(Clone, Copy, Hash)]
pub(super) struct Held {
    /// The index of its lease in Vault.
    pub(super) lease: usize,
    pub(super) token: TokenId,
    pub(super) issued_at: Time,
    pub(super) known: Known,
    pub(super) told: Option<Ending>,
    pub(super) published_at: Option<Time>,
    pub(super) proved: bool,
    pub(super) unprovable: bool,
    pub(super) cut: bool,
    /// Closed to newcomers.
    pub(super) shut: bool,
    pub(super) open_upstream: bool,
    /// Whether it must end once it is empty.
    pub(super) ends_when_empty: bool,
    /// Whether a forced close leaves a server session behind.
    pub(super) strays: bool,
    /// The number of logins that wait to learn whether its lease lives.
    pub(super) asked: u32,
}

/// A request to Vault or the database without an answer.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Request {
    pub(super) action: Action,
    pub(super) sent_at: Time,
    pub(super) give_up_at: Time,
}

/// The kinds of requests of which at most one may be in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Subject {
    Credential,
    Proof(GenerationId),
    LeaseRenewal(GenerationId),
    TokenRenewal(TokenId),
    LeaseRevocation(GenerationId),
    TokenRevocation(TokenId),
    LeaseLook(GenerationId),
}

impl Watch {
    /// Records what a reply says.
    pub(super) fn learn(&mut self, event: Event) -> Result<(), String> {
        let subject = match event {
            Event::LoggedIn(id, facts) => {
                let ends_at = facts.ttl.map_or(Time::NEVER, |ttl| facts.sent_at + ttl);
                let known = self.tokens.entry(id).or_default();
                if known.ends_at.is_none_or(|earlier| ends_at > earlier + secs(1.0)) {
                    *known = Known {
                        ends_at: Some(ends_at),
                        longest: facts.ttl.unwrap_or_default(),
                        capped: false,
                    };
                }
                Subject::Credential
            }
            Event::LogInFailed(_) | Event::Granted { .. } | Event::IssueFailed(_) => Subject::Credential,
            Event::Proved(number) | Event::ProofRefused(number) | Event::Unprovable(number) => {
                if let Some(held) = self.held.get_mut(&number) {
                    held.proved = matches!(event, Event::Proved(_));
                    held.unprovable = matches!(event, Event::Unprovable(_));
                }
                Subject::Proof(number)
            }
            Event::LeaseRenewed { number, sent_at, lease, .. } => {
                if let Some(held) = self.held.get_mut(&number) {
                    held.known.ends_at = Some(sent_at + lease);
                    held.known.capped |= lease + secs(1.0) < held.known.longest;
                    held.known.longest = held.known.longest.max(lease);
                }
                Subject::LeaseRenewal(number)
            }
            Event::LeaseRenewFailed(number, failure) => {
                if let Some(held) = self.held.get_mut(&number).filter(|_| failure == Failure::CannotExtend) {
                    held.known.capped = true;
                }
                Subject::LeaseRenewal(number)
            }
            Event::TokenRenewed { token, sent_at, ttl, .. } => {
                if let Some(known) = self.tokens.get_mut(&token) {
                    let ttl = ttl.unwrap_or(Duration::MAX);
                    known.ends_at = Some(sent_at + ttl);
                    known.capped |= ttl + secs(1.0) < known.longest;
                }
                Subject::TokenRenewal(token)
            }
            Event::TokenRenewFailed(token, _) => Subject::TokenRenewal(token),
            Event::LeaseRevoked(number) | Event::LeaseRevokeFailed(number, _) => {
                Subject::LeaseRevocation(number)
            }
            Event::TokenRevoked(token) | Event::TokenRevokeFailed(token, _) => {
                Subject::TokenRevocation(token)
            }
            Event::LeaseLookedUp(number, _) => Subject::LeaseLook(number),
            _ => return Ok(()),
        };
        let asked = self.pending.iter().position(|request| request.subject() == subject);
        self.pending.remove(asked.ok_or_else(|| format!("the world answers {subject:?} twice"))?);
        Ok(())
    }

    pub(super) fn grant(
        &mut self,
        number: GenerationId,
        lease: usize,
        sent_at: Time,
        span: Duration,
    ) -> Result<(), String> {
        self.hold(number, lease, sent_at, span);
        if let Some(count) = &mut self.lost_and_granted {
            *count += 1;
            promise!(*count <= 1, "P5: {count} issuances for one lost lease");
        }
        Ok(())
    }

    /// The role has another generation.
    pub(super) fn hold(&mut self, number: GenerationId, lease: usize, sent_at: Time, span: Duration) {
        let known = Known { ends_at: Some(sent_at + span), longest: span, capped: false };
        let held = Held {
            lease,
            token: self.vault.leases[lease].token,
            issued_at: sent_at,
            known,
            told: None,
            published_at: None,
            proved: false,
            unprovable: false,
            cut: false,
            shut: false,
            open_upstream: false,
            ends_when_empty: false,
            strays: false,
            asked: 0,
        };
        self.held.insert(number, held);
    }
}

impl Held {
    /// Whether its sessions were notified that the hard close has begun.
    pub(super) fn is_closing(&self) -> bool {
        self.told.is_some_and(|told| told.closing.is_some())
    }
}

impl Request {
    pub(super) fn subject(&self) -> Subject {
        match self.action {
            Action::LogIn { .. } | Action::Issue(_) => Subject::Credential,
            Action::Prove(number) => Subject::Proof(number),
            Action::RenewLease(number, ..) => Subject::LeaseRenewal(number),
            Action::RenewToken(id, _) => Subject::TokenRenewal(id),
            Action::RevokeLease(number, _) => Subject::LeaseRevocation(number),
            Action::RevokeToken(id) => Subject::TokenRevocation(id),
            Action::LookUpLease(number, _) => Subject::LeaseLook(number),
            other => unreachable!("no request: {other:?}"),
        }
    }

    /// The event that reports its failure.
    pub(super) fn failed(&self, failure: Failure) -> Event {
        match self.action {
            Action::LogIn { .. } => Event::LogInFailed(failure),
            Action::Issue(_) => Event::IssueFailed(failure),
            Action::RenewLease(number, ..) => Event::LeaseRenewFailed(number, failure),
            Action::RenewToken(id, _) => Event::TokenRenewFailed(id, failure),
            Action::RevokeLease(number, _) => Event::LeaseRevokeFailed(number, failure),
            Action::RevokeToken(id) => Event::TokenRevokeFailed(id, failure),
            Action::LookUpLease(number, _) => match failure {
                Failure::Transient | Failure::TimedOut => Event::LeaseLookedUp(number, LeaseLookup::Unknown),
                _ => Event::LeaseLookedUp(number, LeaseLookup::Forbidden),
            },
            other => unreachable!("{other:?}"),
        }
    }
}
