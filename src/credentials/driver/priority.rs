//! What a request to Vault is for, so that those that wait for their turn go in order. Floor 3.
//!
//! It reads the machine for how urgent a request is, which decides on nothing but that order.

use std::time::Duration;

use tokio::time::Instant;

use super::Driver;
use crate::clock;
use crate::lease::{GenerationId, TokenId};
use crate::time::Time;
use crate::vault::Priority;

impl Driver {
    /// A fresh credential, and the login for it.
    pub(super) fn for_issuance(&self) -> Priority {
        Priority::of_issuance(self.machine.runs_until(clock::now()).map(instant), self.machine.failures())
    }

    /// A renewal that each of these generations stands on.
    pub(super) fn for_renewal(&self, numbers: &[GenerationId]) -> Priority {
        let generations = numbers.iter().filter_map(|number| self.generations.get(number));
        generations
            .map(|generation| {
                Priority::of_renewal(instant(generation.hard_close_at()), generation.sessions() > 0)
            })
            .min()
            .unwrap_or_else(|| Priority::Logins(instant(Time::NEVER)))
    }

    /// The revocation of a lease, which is of no use once it has lapsed.
    pub(super) fn for_giving_back(&self, number: GenerationId) -> Priority {
        Priority::GivingBack(instant(self.machine.lease_ends_at(number).unwrap_or(Time::NEVER)))
    }

    pub(super) fn for_giving_back_token(&self, id: TokenId) -> Priority {
        Priority::GivingBack(instant(self.machine.token_ends_at(id).unwrap_or(Time::NEVER)))
    }
}

/// The same moment for tokio. Only a suspend of the machine puts the two apart, and then the moment comes too late.
fn instant(at: Time) -> Instant {
    Instant::now() + at.since(clock::now()).min(FAR)
}

/// Farther than any end, and near enough for an [`Instant`].
const FAR: Duration = Duration::from_hours(24 * 365 * 10);
