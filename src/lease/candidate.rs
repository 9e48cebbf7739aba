//! A granted credential until it is published: when it is proved, and what follows if no server lets it in. Floor 1.

use std::time::Duration;

use super::ids::GenerationId;
use super::note::Reason;
use super::schedule::{self, Jitter};
use crate::time::Time;

/// A granted credential that is not published yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    reason: Reason,
    number: GenerationId,
    /// The number of proofs after the first.
    tries: u32,
    /// Whether a server refused it in the last proof.
    refused: bool,
    /// When it is proved again; `None` while a proof is in flight.
    again_at: Option<Time>,
}

/// The result of a proof that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproved {
    /// A server refuses the candidate.
    Refused,
    /// The servers that sessions go to do not know it yet.
    Lags,
    /// No server could judge the candidate.
    NotAsked,
}

/// What is considered when a candidate's proof has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// Until then, a server that refuses it may only lag behind.
    pub(super) patience_ends_at: Time,
    /// Whether a credential was lost and has no successor yet.
    pub(super) is_lost: bool,
    /// Whether the route cannot wait for another proof.
    pub(super) presses: bool,
}

/// What follows for a candidate whose proof has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is proved again later. If it `fails_command`, an operator who asked for a rotation does not wait for that.
    ProveLater { fails_command: bool },
    /// An earlier process left it, and it cannot be used: a fresh credential is requested.
    NotTakenUp,
    /// It was requested before another credential was lost, and is refused: a fresh credential is requested at once.
    Abandon,
    /// It is refused finally, and the issuance fails.
    Refused,
    /// An operator asked for it, and does not wait for a server that can judge it: the issuance fails.
    Unprovable,
    /// It is published without a proof.
    Publish,
}

impl Candidate {
    /// A credential that was just granted; its first proof is in flight.
    pub(super) fn new(reason: Reason, number: GenerationId) -> Self {
        Self { reason, number, tries: 0, refused: false, again_at: None }
    }

    /// The reason why it was issued.
    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    /// Its generation.
    pub(super) fn number(&self) -> GenerationId {
        self.number
    }

    /// When it is proved again; `None` while a proof is in flight.
    pub(super) fn again_at(&self) -> Option<Time> {
        self.again_at
    }

    /// Whether it waits for its next proof because a server has refused it.
    pub(super) fn waits_refused(&self) -> bool {
        self.again_at.is_some() && self.refused
    }

    /// Whether it waits for its next proof because no server could judge it.
    pub(super) fn waits_unjudged(&self) -> bool {
        self.again_at.is_some() && !self.refused
    }

    /// The next proof is in flight.
    pub(super) fn prove(&mut self) {
        self.again_at = None;
        self.tries += 1;
    }

    /// It is proved again after a back-off of at most `most`. If it was refused, or requested by hand, this is not
    /// later than `patience_ends_at`.
    pub(super) fn prove_later(
        &mut self,
        now: Time,
        unproved: Unproved,
        most: Duration,
        patience_ends_at: Time,
        jitter: Jitter,
    ) {
        let wait = schedule::back_off(self.tries, Duration::from_millis(500), most, jitter);
        self.refused = unproved == Unproved::Refused;
        let is_bounded = self.refused || (self.reason == Reason::Command && unproved == Unproved::Lags);
        self.again_at = Some((now + wait).min(if is_bounded { patience_ends_at } else { Time::NEVER }));
    }

    /// How long after its grant a server that refuses it may only lag behind. `usable`: how long it could serve at
    /// most.
    pub(super) fn patience(&self, usable: Duration, replica_grace: Duration) -> Duration {
        match self.reason {
            // A fresh credential may help. Only a host that lags may still learn of this credential.
            Reason::TakenUp => replica_grace,
            _ => Duration::from_mins(1).min(usable / 2),
        }
    }

    /// What follows after a proof that failed.
    pub(super) fn not_proved(&self, now: Time, unproved: Unproved, needs: Needs) -> Next {
        let is_over = now >= needs.patience_ends_at;
        if unproved == Unproved::Refused {
            return match self.reason {
                Reason::TakenUp if is_over => Next::NotTakenUp,
                // A candidate for these reasons was issued before the loss: it does not count as the replacement.
                Reason::Schedule
                | Reason::Capped
                | Reason::NotRenewable
                | Reason::Token
                | Reason::Standby
                    if needs.is_lost =>
                {
                    Next::Abandon
                }
                _ if is_over => Next::Refused,
                _ => Next::ProveLater { fails_command: false },
            };
        }
        // An operator waits only for servers that lag.
        let waits = unproved == Unproved::Lags && !is_over;
        if needs.presses {
            Next::Publish
        } else if self.reason == Reason::Command && !waits {
            Next::Unprovable
        } else {
            Next::ProveLater { fails_command: !waits }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G1: GenerationId = GenerationId::FIRST;
    const NEEDS: Needs = Needs { patience_ends_at: at(60), is_lost: false, presses: false };

    const fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    fn next(reason: Reason, second: u64, unproved: Unproved, needs: Needs) -> Next {
        Candidate::new(reason, G1).not_proved(at(second), unproved, needs)
    }

    #[test]
    fn a_refused_candidate_is_proved_again_until_its_patience_ends() {
        let again = Next::ProveLater { fails_command: false };
        assert_eq!(next(Reason::First, 59, Unproved::Refused, NEEDS), again);
        assert_eq!(next(Reason::First, 60, Unproved::Refused, NEEDS), Next::Refused);
        assert_eq!(next(Reason::TakenUp, 59, Unproved::Refused, NEEDS), again);
        assert_eq!(next(Reason::TakenUp, 60, Unproved::Refused, NEEDS), Next::NotTakenUp);
        let presses = Needs { presses: true, ..NEEDS };
        assert_eq!(next(Reason::First, 0, Unproved::Refused, presses), again, "it would let nobody in");
    }

    #[test]
    fn after_a_loss_only_what_was_asked_for_before_is_abandoned() {
        let lost = Needs { is_lost: true, ..NEEDS };
        for reason in [Reason::Schedule, Reason::Capped, Reason::NotRenewable, Reason::Token, Reason::Standby]
        {
            assert_eq!(next(reason, 0, Unproved::Refused, lost), Next::Abandon, "{reason:?}");
            assert_eq!(next(reason, 0, Unproved::Refused, NEEDS), Next::ProveLater { fails_command: false });
        }
        for reason in [Reason::First, Reason::Revoked, Reason::Refused, Reason::Command, Reason::Reload] {
            assert_eq!(next(reason, 60, Unproved::Refused, lost), Next::Refused, "{reason:?}");
        }
    }

    #[test]
    fn a_candidate_that_no_server_could_judge_is_published_once_the_route_cannot_wait() {
        for unproved in [Unproved::Lags, Unproved::NotAsked] {
            let waits = unproved == Unproved::Lags;
            assert_eq!(
                next(Reason::First, 0, unproved, NEEDS),
                Next::ProveLater { fails_command: !waits },
                "{unproved:?}"
            );
            let presses = Needs { presses: true, ..NEEDS };
            assert_eq!(next(Reason::First, 0, unproved, presses), Next::Publish);
            assert_eq!(next(Reason::Command, 0, unproved, presses), Next::Publish);
        }
    }

    #[test]
    fn a_rotation_by_hand_waits_for_servers_that_lag_and_for_nothing_else() {
        let again = Next::ProveLater { fails_command: false };
        assert_eq!(next(Reason::Command, 59, Unproved::Lags, NEEDS), again);
        assert_eq!(next(Reason::Command, 60, Unproved::Lags, NEEDS), Next::Unprovable);
        assert_eq!(next(Reason::Command, 0, Unproved::NotAsked, NEEDS), Next::Unprovable);
    }

    #[test]
    fn the_next_proof_comes_after_a_back_off_and_by_the_end_of_the_patience_if_it_is_refused() {
        let most = Duration::from_secs(30);
        let mut candidate = Candidate::new(Reason::First, G1);
        let mut waits = Vec::new();
        for _ in 0..8 {
            candidate.prove_later(at(10), Unproved::NotAsked, most, at(20), Jitter::NONE);
            assert!(candidate.waits_unjudged() && !candidate.waits_refused());
            waits.push(candidate.again_at().expect("a time").since(at(10)).as_millis());
            candidate.prove();
            assert_eq!(candidate.again_at(), None, "a proof is in flight");
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        candidate.prove_later(at(10), Unproved::Refused, most, at(20), Jitter::NONE);
        assert_eq!((candidate.again_at(), candidate.waits_refused()), (Some(at(20)), true));
    }

    #[test]
    fn what_an_earlier_process_left_is_waited_for_no_longer_than_a_server_may_lag() {
        let (usable, grace) = (Duration::from_secs(100), Duration::from_secs(7));
        assert_eq!(Candidate::new(Reason::TakenUp, G1).patience(usable, grace), grace);
        assert_eq!(Candidate::new(Reason::First, G1).patience(usable, grace), Duration::from_secs(50));
        let weeks = Duration::from_hours(500);
        assert_eq!(Candidate::new(Reason::First, G1).patience(weeks, grace), Duration::from_mins(1));
    }
}
