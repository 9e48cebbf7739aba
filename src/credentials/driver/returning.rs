//! What became of leases that were given back is counted and logged, and looked up where Vault has not said it. Floor 3.

use std::collections::HashMap;

use super::Driver;
use super::reporting::Area;
use crate::credentials::requests::meaning;
use crate::credentials::{Generation, Lease};
use crate::lease::{Event, Failure, GenerationId, LeaseLookup, Outcome, TokenId};
use crate::{metrics, vault};

/// Leases whose credential is dropped, until it is known what became of them.
#[derive(Default)]
pub(super) struct PendingRevocations(HashMap<GenerationId, PendingRevocation>);

/// All that is kept of a generation: its password is gone.
struct PendingRevocation {
    lease: Lease,
    username: String,
}

impl PendingRevocations {
    pub(super) fn add(&mut self, generation: &Generation) {
        let pending = PendingRevocation {
            lease: generation.lease().clone(),
            username: generation.username().to_owned(),
        };
        self.0.insert(generation.number(), pending);
    }

    pub(super) fn remove(&mut self, number: GenerationId) {
        self.0.remove(&number);
    }
}

impl Driver {
    pub(super) fn look_up_lease(&mut self, number: GenerationId, id: TokenId) {
        match (self.pending_revocations.0.get(&number), self.tokens.get(&id)) {
            (Some(pending), Some(token)) if !self.counted.contains(&id) => {
                let priority = self.for_giving_back(number);
                self.requests.look_up_lease(priority, number, token.clone(), pending.lease.clone());
            }
            _ => self.step(Event::LeaseLookedUp(number, LeaseLookup::Forbidden)),
        }
    }

    pub(super) fn lease_looked_up(&mut self, number: GenerationId, answer: Result<bool, vault::Failure>) {
        let lookup = match answer.map_err(|failure| meaning(&failure)) {
            Ok(true) => LeaseLookup::Present,
            Ok(false) => LeaseLookup::Missing,
            Err(Failure::Transient | Failure::TimedOut) => LeaseLookup::Unknown,
            Err(_) => LeaseLookup::Forbidden,
        };
        self.step(Event::LeaseLookedUp(number, lookup));
    }

    pub(super) fn lease_revoke_failed(&mut self, number: GenerationId, failure: &vault::Failure) {
        if meaning(failure) != Failure::Forbidden {
            self.failed("revoke", Some(number), failure);
        }
        let is_elsewhere = self.generations.get(&number).is_some_and(|g| g.lease().is_elsewhere());
        self.step(match meaning(failure) {
            Failure::Forbidden if is_elsewhere => Event::LeaseStays(number),
            failure => Event::LeaseRevokeFailed(number, failure),
        });
    }

    pub(super) fn returned(&mut self, number: GenerationId, outcome: Outcome) {
        let counted = match outcome {
            Outcome::Lease => metrics::Revocation::Lease,
            Outcome::Token => metrics::Revocation::Token,
            Outcome::Unverified => metrics::Revocation::Unverified,
            Outcome::Forbidden => metrics::Revocation::Forbidden,
            Outcome::Failed | Outcome::Stays => metrics::Revocation::Failed,
        };
        self.metrics.revocation(counted);
        let (lease, user) = self.lease_of(number);
        match outcome {
            Outcome::Lease | Outcome::Token => {
                tracing::info!(
                    lease.generation = number.get(),
                    db.user = user,
                    by = counted.as_str(),
                    "revoked"
                );
                self.works_again(Area::Revocation);
            }
            Outcome::Unverified => tracing::info!(
                lease.generation = number.get(),
                lease.id = lease,
                db.user = user,
                "its token is revoked; whether the lease went with it could not be seen"
            ),
            Outcome::Forbidden | Outcome::Failed => tracing::warn!(
                lease.generation = number.get(),
                lease.id = lease,
                db.user = user,
                why = counted.as_str(),
                "left to lapse"
            ),
            Outcome::Stays => {
                tracing::warn!(
                    lease.generation = number.get(),
                    lease.id = lease,
                    db.user = user,
                    "its token is revoked, and yet Vault cannot revoke the lease: the database user is still there. \
                     Vault tries a few times more; look for what the user owns or was granted"
                );
                self.remember("revoke: the lease stays, and its database user with it");
            }
        }
    }

    /// The end of the lease_id, and the user.
    pub(super) fn lease_of(&self, number: GenerationId) -> (&str, &str) {
        let held = self.generations.get(&number).map(|g| (g.lease_id_tail(), g.username()));
        held.or_else(|| {
            self.pending_revocations
                .0
                .get(&number)
                .map(|pending| (pending.lease.tail(), pending.username.as_str()))
        })
        .unwrap_or_default()
    }

    /// The user.
    pub(super) fn user_of(&self, number: GenerationId) -> &str {
        self.lease_of(number).1
    }
}
