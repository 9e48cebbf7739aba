//! Leases that went with their token: are they gone? Floor 1.
//!
//! Vault answers for a token at once and revokes what it owned afterwards, so its answer says nothing of the lease. Where
//! the database does not let go of the user, the lease stays, and Vault tries again for some minutes. So the lease is looked
//! up, a few times, under the token of the credential that serves now. What was not seen to be gone is not counted as gone.

use std::time::Duration;

use super::dynamic_role::DynamicRole;
use super::event::{Action, LeaseLookup, Note, Outcome};
use super::{GenerationId, TokenId, schedule};
use crate::time::Time;

/// Looks before a lease that is still there counts as one that stays. With the waits between them they take 15 s, so that
/// Vault has mostly tried a second time.
const LOOKS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// A lease whose token was revoked, until it is known what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRevocation {
    looks: u32,
    /// `None` while it is being looked up.
    look_at: Option<Time>,
}

impl DynamicRole {
    /// Its token is revoked, or dead.
    pub(super) fn revoked_with_token(&mut self, now: Time, number: GenerationId) {
        let look_at = Some(self.next_look(now, 0));
        self.pending_revocations.insert(number, PendingRevocation { looks: 0, look_at });
    }

    /// Whether it is not yet known, or not yet said, what became of this generation's lease at its end.
    #[must_use]
    pub(crate) fn owes(&self, number: GenerationId) -> bool {
        self.pending_revocations.contains_key(&number)
            || self.tokens.values().any(|token| token.owed.contains(&number))
    }

    /// Looks that are due. At the end of the route, and without a credential, nobody is there who could look.
    pub(super) fn verify_revoked(&mut self, now: Time) {
        let asker = self.asker();
        let numbers: Vec<GenerationId> = self.pending_revocations.keys().copied().collect();
        for number in numbers {
            let Some(pending_revocation) = self.pending_revocations.get_mut(&number) else { continue };
            match (asker, pending_revocation.look_at) {
                (None, _) if self.closed => self.finish_revocation(number, Outcome::Unverified),
                (_, None) => {}
                (_, Some(at)) if now < at => self.wake(now, at),
                (None, Some(_)) => self.finish_revocation(number, Outcome::Unverified),
                (Some(token), Some(_)) => {
                    pending_revocation.look_at = None;
                    self.actions.push(Action::LookUpLease(number, token));
                }
            }
        }
    }

    pub(super) fn looked_up(&mut self, now: Time, number: GenerationId, lookup: LeaseLookup) {
        let Some(PendingRevocation { looks, look_at: None }) = self.pending_revocations.get(&number).copied()
        else {
            return;
        };
        let looks = looks + 1;
        match lookup {
            LeaseLookup::Missing => self.finish_revocation(number, Outcome::Token),
            LeaseLookup::Forbidden => self.finish_revocation(number, Outcome::Unverified),
            LeaseLookup::Present if looks >= LOOKS => self.finish_revocation(number, Outcome::Stays),
            LeaseLookup::Unknown if looks >= LOOKS => self.finish_revocation(number, Outcome::Unverified),
            LeaseLookup::Present | LeaseLookup::Unknown => {
                let look_at = Some(self.next_look(now, looks));
                self.pending_revocations.insert(number, PendingRevocation { looks, look_at });
            }
        }
    }

    fn finish_revocation(&mut self, number: GenerationId, outcome: Outcome) {
        self.pending_revocations.remove(&number);
        self.note(Note::Returned(number, outcome));
    }

    fn next_look(&mut self, now: Time, looks: u32) -> Time {
        now + schedule::back_off(looks, FIRST_WAIT, LONGEST_WAIT, self.jitter())
    }

    /// The token of the credential that serves.
    fn asker(&self) -> Option<TokenId> {
        self.current.and_then(|number| self.generations.get(&number)).map(|generation| generation.token)
    }
}
