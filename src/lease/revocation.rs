//! How leases are given back, from the end of the last session until the outcome is known. Floor 1.
//!
//! ```text
//!   Revoking ──revoked, or it has lapsed──────────────────────────────────────────▶ forgotten
//!  (a state of    │ forbidden, and its token is ours                                    ▲
//!  the generation)├──────────────▶ WithToken ──its token could not be revoked───────────┤
//!                 │                    │ its token is revoked                           │
//!                 │ its token is dead  ▼                                                │
//!                 └──────────────▶ Verifying ──seen to be gone, or looked up often enough┘
//! ```
//! Vault answers the revocation of a token at once and revokes its leases afterwards, so the answer does not say
//! whether the lease is revoked. If the database refuses to drop the user, the lease stays, and Vault tries again for
//! some minutes. So the lease is looked up a few times, with the token of the current credential. A lease that was
//! never found missing is not reported as revoked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::deadline::{Deadline, Deadlines};
use super::event::{Action, LeaseLookup};
use super::ids::{GenerationId, TokenId};
use super::note::{Note, Outcome};
use super::schedule::{self, Jitter};
use crate::time::Time;

/// The number of look-ups before a lease that still exists is reported as staying. With the waits between them they
/// take 15 s, in which Vault has usually tried a second time.
const LOOKS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Leases that are or were revoked with their token: their credentials are dropped, their generations not forgotten
/// yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Revocation(BTreeMap<GenerationId, Return>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Return {
    /// It could not be revoked separately, and is revoked with this token.
    WithToken(TokenId),
    /// Its token is revoked, or dead.
    Verifying {
        /// How often it was looked up.
        looks: u32,
        /// `None` while it is being looked up.
        look_at: Option<Time>,
    },
}

impl Revocation {
    /// Whether nothing is left to be given back.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A lease that may not be revoked separately is revoked with this token.
    pub(super) fn go_with(&mut self, token: TokenId, number: GenerationId, actions: &mut Vec<Action>) {
        actions.push(Action::DropCredential(number));
        self.0.insert(number, Return::WithToken(token));
    }

    /// The token of a lease that was being revoked is dead.
    pub(super) fn verify(
        &mut self,
        now: Time,
        number: GenerationId,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::DropCredential(number));
        self.0.insert(number, Return::verifying(now, 0, jitter));
    }

    /// A token is revoked, or left to expire, and its leases with it.
    pub(super) fn token_gone(
        &mut self,
        now: Time,
        token: TokenId,
        outcome: Outcome,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) {
        let with_it = |step: &Return| *step == Return::WithToken(token);
        let owned: Vec<GenerationId> =
            self.0.iter().filter(|(_, step)| with_it(step)).map(|(number, _)| *number).collect();
        for number in owned {
            match outcome {
                Outcome::Token => {
                    self.0.insert(number, Return::verifying(now, 0, jitter));
                }
                outcome => self.finish(number, outcome, actions),
            }
        }
    }

    /// Look-ups that are due, with `asker`, the token of the current credential. Without a current credential, and at
    /// the end of the route (`is_closed`), there is no token for a look-up.
    pub(super) fn look(
        &mut self,
        now: Time,
        asker: Option<TokenId>,
        is_closed: bool,
        deadlines: &mut Deadlines,
        actions: &mut Vec<Action>,
    ) {
        let mut unseen = Vec::new();
        for (number, step) in &mut self.0 {
            let Return::Verifying { look_at, .. } = step else { continue };
            match (asker, *look_at) {
                (None, _) if is_closed => unseen.push(*number),
                (_, None) => {}
                (_, Some(at)) if now < at => deadlines.wake(Deadline::LookUpLease, at),
                (None, Some(_)) => unseen.push(*number),
                (Some(token), Some(_)) => {
                    *look_at = None;
                    actions.push(Action::LookUpLease(*number, token));
                }
            }
        }
        for number in unseen {
            self.finish(number, Outcome::Unverified, actions);
        }
    }

    /// The answer to [`Action::LookUpLease`].
    pub(super) fn looked_up(
        &mut self,
        now: Time,
        number: GenerationId,
        lookup: LeaseLookup,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) {
        let Some(Return::Verifying { looks, look_at: None }) = self.0.get(&number).copied() else {
            return;
        };
        let looks = looks + 1;
        match lookup {
            LeaseLookup::Missing => self.finish(number, Outcome::Token, actions),
            LeaseLookup::Forbidden => self.finish(number, Outcome::Unverified, actions),
            LeaseLookup::Present if looks >= LOOKS => self.finish(number, Outcome::Stays, actions),
            LeaseLookup::Unknown if looks >= LOOKS => self.finish(number, Outcome::Unverified, actions),
            LeaseLookup::Present | LeaseLookup::Unknown => {
                self.0.insert(number, Return::verifying(now, looks, jitter));
            }
        }
    }

    fn finish(&mut self, number: GenerationId, outcome: Outcome, actions: &mut Vec<Action>) {
        self.0.remove(&number);
        actions.push(Action::Note(Note::Returned(number, outcome)));
        actions.push(Action::Forget(number));
    }
}

impl Return {
    fn verifying(now: Time, looks: u32, jitter: Jitter) -> Self {
        let wait = schedule::back_off(looks, FIRST_WAIT, LONGEST_WAIT, jitter);
        Self::Verifying { looks, look_at: Some(now + wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: TokenId = TokenId(1);
    const T2: TokenId = TokenId(2);
    const G1: GenerationId = GenerationId::FIRST;

    fn at(second: u64) -> Time {
        Time::from_nanos(0) + Duration::from_secs(second)
    }

    fn returned(outcome: Outcome) -> [Action; 2] {
        [Action::Note(Note::Returned(G1, outcome)), Action::Forget(G1)]
    }

    fn look(
        revocation: &mut Revocation,
        second: u64,
        asker: Option<TokenId>,
        is_closed: bool,
    ) -> Vec<Action> {
        let (mut deadlines, mut actions) = (Deadlines::new(at(second)), Vec::new());
        revocation.look(at(second), asker, is_closed, &mut deadlines, &mut actions);
        actions
    }

    /// A lease that was revoked with its token at second 0.
    fn verifying() -> Revocation {
        let (mut revocation, mut actions) = (Revocation::default(), Vec::new());
        revocation.go_with(T1, G1, &mut actions);
        revocation.token_gone(at(0), T2, Outcome::Token, Jitter::NONE, &mut actions);
        assert_eq!(look(&mut revocation, 100, Some(T2), false), [], "it waits for its token");
        revocation.token_gone(at(0), T1, Outcome::Token, Jitter::NONE, &mut actions);
        assert_eq!(actions, [Action::DropCredential(G1)]);
        revocation
    }

    #[test]
    fn a_lease_that_went_with_its_token_is_looked_up_until_it_is_gone() {
        let (mut revocation, mut actions) = (verifying(), Vec::new());
        assert_eq!(look(&mut revocation, 0, Some(T2), false), []);
        assert_eq!(look(&mut revocation, 1, Some(T2), false), [Action::LookUpLease(G1, T2)]);
        revocation.looked_up(at(1), G1, LeaseLookup::Present, Jitter::NONE, &mut actions);
        assert_eq!(look(&mut revocation, 2, Some(T2), false), []);
        assert_eq!(look(&mut revocation, 3, Some(T2), false), [Action::LookUpLease(G1, T2)]);
        revocation.looked_up(at(3), G1, LeaseLookup::Missing, Jitter::NONE, &mut actions);
        assert_eq!(actions, returned(Outcome::Token));
        assert!(revocation.is_empty());
    }

    #[test]
    fn a_lease_that_is_there_each_time_stays() {
        let (mut revocation, mut actions) = (verifying(), Vec::new());
        for second in [1, 3, 7, 15] {
            assert_eq!(actions, []);
            assert_eq!(look(&mut revocation, second, Some(T2), false), [Action::LookUpLease(G1, T2)]);
            revocation.looked_up(at(second), G1, LeaseLookup::Present, Jitter::NONE, &mut actions);
        }
        assert_eq!(actions, returned(Outcome::Stays));
    }

    #[test]
    fn without_a_token_to_look_with_it_is_unverified() {
        assert_eq!(look(&mut verifying(), 1, None, false), returned(Outcome::Unverified));
        assert_eq!(
            look(&mut verifying(), 0, None, true),
            returned(Outcome::Unverified),
            "the end does not wait"
        );
    }

    #[test]
    fn a_lease_is_left_to_lapse_with_a_token_that_cannot_be_revoked() {
        let (mut revocation, mut actions) = (Revocation::default(), Vec::new());
        revocation.go_with(T1, G1, &mut actions);
        actions.clear();
        revocation.token_gone(at(0), T1, Outcome::Forbidden, Jitter::NONE, &mut actions);
        assert_eq!(actions, returned(Outcome::Forbidden));
    }
}
