//! The proofs of a static role's password. It is published in any case, since there is no other. Floor 1.

use std::time::Duration;

use crate::lease::deadline::{Deadline, Deadlines};
use crate::lease::doubt::{Doubt, Remedy};
use crate::lease::ids::GenerationId;
use crate::lease::schedule::{self, Jitter};
use crate::time::Time;

/// What is known of the current password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proofs {
    doubt: Doubt,
    /// A refused login waits for the proof in flight.
    is_doubted: bool,
    /// The server refuses the current password, as far as is known.
    refused: Option<Refused>,
}

/// A password that the server refuses is proved again until it is accepted, since no login may come that would show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Refused {
    tries: u32,
    again_at: Time,
}

/// What a proof has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The server lets in.
    LetsIn,
    /// The server refuses the password.
    Refused,
    /// No server could say.
    Nothing,
}

/// A password that the server refuses is proved again after so long, then less often.
const PROVE_AFTER: Duration = Duration::from_secs(10);
const LONGEST_PROVE_AFTER: Duration = Duration::from_secs(30);

impl Proofs {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self { doubt: Doubt::Unasked, is_doubted: false, refused: None }
    }

    /// Whether the server refuses the current password.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// A new password is published. True if it is to be proved.
    pub(super) fn published(&mut self, now: Time, number: GenerationId) -> bool {
        self.refused = None;
        self.doubt.ask(now, number) == Remedy::Prove
    }

    /// A login with the current password was refused.
    pub(super) fn doubt(&mut self, now: Time, number: GenerationId) -> Remedy {
        self.is_doubted = true;
        self.doubt.ask(now, number)
    }

    /// A proof has ended. A proof of a password that is not current any more has no effect. A password may have changed
    /// if no server has let it in.
    pub(super) fn settle(
        &mut self,
        now: Time,
        number: GenerationId,
        found: Found,
        is_current: bool,
        jitter: Jitter,
    ) -> Remedy {
        if !self.doubt.settle(now, number, found == Found::LetsIn) || !is_current {
            return Remedy::Wait;
        }
        let is_doubted = std::mem::take(&mut self.is_doubted);
        if found == Found::LetsIn {
            self.refused = None;
            if is_doubted {
                return Remedy::LetsIn;
            }
            // This proof does not count for a login that is refused later.
            self.doubt = Doubt::Unasked;
            return Remedy::Wait;
        }
        if found == Found::Refused || self.refused.is_some() {
            let tries = self.refused.map_or(0, |refused| refused.tries + 1);
            let wait = schedule::back_off(tries, PROVE_AFTER, LONGEST_PROVE_AFTER, jitter);
            self.refused = Some(Refused { tries, again_at: now + wait });
        }
        Remedy::Replace
    }

    /// Whether the current password is proved again now, as the server refuses it.
    pub(super) fn is_due(&mut self, now: Time, number: GenerationId, deadlines: &mut Deadlines) -> bool {
        let Some(Refused { again_at, .. }) = self.refused else { return false };
        if self.doubt.is_proving(number) {
            return false;
        }
        if now < again_at {
            deadlines.wake(Deadline::Proof, again_at);
            return false;
        }
        let is_due = self.doubt.ask(now, number) == Remedy::Prove;
        if !is_due {
            // A login has had it proved a moment ago.
            deadlines.wake(Deadline::Proof, now + PROVE_AFTER);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G1: GenerationId = GenerationId::FIRST;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    fn settle(proofs: &mut Proofs, second: u64, found: Found) -> Remedy {
        proofs.settle(at(second), G1, found, true, Jitter::NONE)
    }

    /// Whether it is proved at this second, and when that is looked at again.
    fn due(proofs: &mut Proofs, second: u64) -> (bool, Time) {
        let mut deadlines = Deadlines::new(at(second));
        (proofs.is_due(at(second), G1, &mut deadlines), deadlines.next())
    }

    #[test]
    fn a_refused_password_is_proved_again_until_it_lets_in() {
        let mut proofs = Proofs::new();
        assert!(proofs.published(at(0), G1));
        let mut now = 0;
        for wait in [10, 20, 30, 30] {
            assert_eq!(due(&mut proofs, now), (false, Time::NEVER), "its proof is in flight");
            assert_eq!(settle(&mut proofs, now, Found::Refused), Remedy::Replace);
            assert_eq!(due(&mut proofs, now), (false, at(now + wait)));
            now += wait;
            assert_eq!(due(&mut proofs, now), (true, Time::NEVER));
        }
        assert_eq!(settle(&mut proofs, now, Found::LetsIn), Remedy::Wait);
        assert!(!proofs.is_refused());
    }

    #[test]
    fn a_login_that_waits_learns_that_the_password_is_good() {
        let mut proofs = Proofs::new();
        proofs.published(at(0), G1);
        assert_eq!(settle(&mut proofs, 0, Found::LetsIn), Remedy::Wait);
        assert_eq!(proofs.doubt(at(1), G1), Remedy::Prove, "an earlier proof does not count");
        assert_eq!(settle(&mut proofs, 1, Found::LetsIn), Remedy::LetsIn);
        assert_eq!(proofs.doubt(at(2), G1), Remedy::LetsIn);
    }

    #[test]
    fn a_password_that_no_server_could_judge_is_not_refused_and_an_old_one_does_not_matter() {
        let mut proofs = Proofs::new();
        proofs.published(at(0), G1);
        assert_eq!(settle(&mut proofs, 0, Found::Nothing), Remedy::Replace);
        assert!(!proofs.is_refused());
        proofs.published(at(10), G1);
        let remedy = proofs.settle(at(10), G1, Found::Refused, false, Jitter::NONE);
        assert_eq!((remedy, proofs.is_refused()), (Remedy::Wait, false));
    }
}
