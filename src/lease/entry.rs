//! Whether sessions can log in with the published credential, by its proofs and by logins. Floor 1.
//!
//! A credential that was published without a proof is proved again until a server has let it in, so a route without
//! logins also learns that the previous credential is not needed any more. A credential with which no session can log
//! in is proved again until a session can; so is one that no server gives a session for a while.

use std::time::Duration;

use super::deadline::{Deadline, Deadlines};
use super::event::Barrier;
use super::ids::GenerationId;
use crate::time::Time;

/// The state of the servers that sessions go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    servers: Availability,
    /// Whether a server has ever let in a credential of this route.
    has_let_in: bool,
    proof: Option<Proof>,
}

/// Whether the servers give sessions, as was seen last.
///
/// ```text
///              passing                  unsuitable, lasting
///   Available ──────────▶ Unavailable ──────────────────────▶ Barred
///       ▲──────────────────────┴──────────── let in ────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Availability {
    /// As far as is known.
    #[default]
    Available,
    /// Not at present.
    Unavailable,
    /// Not until something is changed.
    Barred,
}

/// The proof of a published generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Proof {
    number: GenerationId,
    /// How often it was proved, up to [`LONGEST_PAUSE_AFTER`].
    tries: u32,
    /// `None` while it is in flight.
    at: Option<Time>,
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The pause grows up to half a minute.
const LONGEST_PAUSE_AFTER: u32 = 5;

impl Entry {
    /// A proof or a login has found that no session can log in. False if this does not last, as far as is known: the reason
    /// passes by itself, or a credential was let in before, and will be again without a change here.
    pub(super) fn bar(&mut self, barrier: Barrier) -> bool {
        let lasts = match barrier {
            Barrier::Unsuitable => true,
            Barrier::Lasting => !self.has_let_in,
            Barrier::Passing => false,
        };
        if lasts {
            self.servers = Availability::Barred;
        } else if self.servers == Availability::Available {
            self.servers = Availability::Unavailable;
        }
        lasts
    }

    /// A server has let a credential in. True if no session could log in before until something was changed.
    pub(super) fn let_in(&mut self) -> bool {
        self.has_let_in = true;
        std::mem::take(&mut self.servers) == Availability::Barred
    }

    /// The generation whose proof is due. `current`: the published generation, and whether a server has let it in.
    pub(super) fn due(
        &mut self,
        now: Time,
        current: Option<(GenerationId, bool)>,
        deadlines: &mut Deadlines,
    ) -> Option<GenerationId> {
        if self.proof.is_some_and(|proof| proof.at.is_none()) {
            // There is only one proof at a time.
            return None;
        }
        let unproved =
            current.filter(|(_, is_accepted)| self.servers != Availability::Available || !is_accepted);
        let Some((number, _)) = unproved else {
            self.proof = None;
            return None;
        };
        if self.proof.is_none_or(|proof| proof.number != number) {
            self.proof = Some(Proof { number, tries: 0, at: Some(now + FIRST_PAUSE) });
        }
        let proof = self.proof.as_mut()?;
        match proof.at {
            Some(at) if now < at => {
                deadlines.wake(Deadline::ProvePublished, at);
                None
            }
            _ => {
                proof.at = None;
                Some(number)
            }
        }
    }

    /// The proof in flight has ended, whatever it found.
    pub(super) fn ended(&mut self, now: Time, number: GenerationId) {
        if let Some(proof) = self.proof.as_mut().filter(|proof| proof.number == number && proof.at.is_none())
        {
            proof.at = Some(now + FIRST_PAUSE * 2_u32.saturating_pow(proof.tries));
            proof.tries = (proof.tries + 1).min(LONGEST_PAUSE_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G1: GenerationId = GenerationId::FIRST;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    /// What is proved at this second, and when it is looked at again.
    fn due(
        entry: &mut Entry,
        second: u64,
        current: Option<(GenerationId, bool)>,
    ) -> (Option<GenerationId>, Time) {
        let mut deadlines = Deadlines::new(at(second));
        (entry.due(at(second), current, &mut deadlines), deadlines.next())
    }

    #[test]
    fn what_is_published_unproved_is_proved_less_and_less_often_until_it_is_let_in() {
        let mut entry = Entry::default();
        let mut now = 0;
        for pause in [1, 1, 2, 4, 8, 16, 32, 32] {
            assert_eq!(due(&mut entry, now, Some((G1, false))), (None, at(now + pause)));
            now += pause;
            assert_eq!(due(&mut entry, now, Some((G1, false))), (Some(G1), Time::NEVER));
            assert_eq!(due(&mut entry, now + 1, Some((G1, false))), (None, Time::NEVER), "one at a time");
            entry.ended(at(now), G1);
        }
        assert_eq!(due(&mut entry, now, Some((G1, true))), (None, Time::NEVER));
        assert_eq!(due(&mut entry, now, Some((G1, false))), (None, at(now + 1)), "it begins anew");
    }

    #[test]
    fn a_successor_is_proved_after_the_proof_in_flight() {
        let mut entry = Entry::default();
        let second = G1.next();
        due(&mut entry, 0, Some((G1, false)));
        assert_eq!(due(&mut entry, 1, Some((G1, false))).0, Some(G1));
        assert_eq!(due(&mut entry, 2, Some((second, false))), (None, Time::NEVER));
        entry.ended(at(3), second);
        assert_eq!(due(&mut entry, 3, Some((second, false))), (None, Time::NEVER), "it was not that one");
        entry.ended(at(4), G1);
        assert_eq!(due(&mut entry, 4, Some((second, false))), (None, at(5)));
        assert_eq!(due(&mut entry, 9, None), (None, Time::NEVER));
    }

    #[test]
    fn where_no_session_can_log_in_the_credential_is_proved_until_a_server_lets_one_in() {
        let mut entry = Entry::default();
        assert!(entry.bar(Barrier::Lasting));
        assert_eq!(due(&mut entry, 0, Some((G1, true))), (None, at(1)));
        assert!(entry.let_in() && !entry.let_in());
        assert_eq!(due(&mut entry, 0, Some((G1, true))), (None, Time::NEVER));
        assert!(!entry.bar(Barrier::Lasting), "it has let in before");
        assert!(entry.bar(Barrier::Unsuitable));
    }

    #[test]
    fn while_servers_are_away_the_credential_is_proved_and_nothing_is_barred() {
        for passing in [Barrier::Passing, Barrier::Lasting] {
            let mut entry = Entry::default();
            entry.let_in();
            assert!(!entry.bar(passing));
            assert_eq!(due(&mut entry, 0, Some((G1, true))), (None, at(1)), "{passing:?}");
            assert!(!entry.let_in(), "it was not barred");
            assert_eq!(due(&mut entry, 0, Some((G1, true))), (None, Time::NEVER));
        }
        let mut entry = Entry::default();
        entry.bar(Barrier::Unsuitable);
        entry.bar(Barrier::Passing);
        assert!(entry.let_in(), "a server that is away unbars nothing");
    }
}
