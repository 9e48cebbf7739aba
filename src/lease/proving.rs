//! What becomes of a fresh credential until it is published: proved, tried again, given up. Floor 1.

use std::time::Duration;

use super::candidate::{Needs, Next, Unproved};
use super::dynamic_role::DynamicRole;
use super::event::{DrainSpan, NotRotated};
use super::failure_class::FailureClass;
use super::generation::CutShort;
use super::ids::GenerationId;
use super::note::{Note, Reason};
use super::schedule;
use crate::time::Time;

impl DynamicRole {
    pub(super) fn proved(&mut self, now: Time, number: GenerationId) {
        self.generations.accept(number);
        let Some(candidate) = self.issuance.candidate().filter(|it| it.number() == number) else {
            return;
        };
        let is_spare = candidate.reason() == Reason::Standby
            && self.generations.current().is_some()
            && self.awaited.is_none()
            && self.demand(now).is_err();
        if is_spare {
            self.stand_by(number);
        } else {
            self.publish(now, number, true);
        }
    }

    /// The current credential is lost: a candidate that a server has refused is no remedy, and the back-off after a
    /// refusal was for a route that is served. A fresh one is asked for, once each loss, and as far as the limit allows.
    pub(super) fn replace_lost(&mut self) {
        self.make_way_for_command();
        self.issuance.end_slow_back_off();
    }

    /// A fresh credential is asked for by hand: a candidate that a server has refused is not waited for.
    pub(super) fn make_way_for_command(&mut self) {
        if let Some(number) = self.issuance.abandon_refused() {
            self.note(Note::CandidateRefused(number));
            self.give_back(number);
        }
    }

    /// A candidate that no server let in: it is proved again for a while if a server refused it, and as long as it lives
    /// if none could say, unless it is needed at once.
    pub(super) fn not_proved(&mut self, now: Time, number: GenerationId, unproved: Unproved) {
        let candidate = self.issuance.candidate().filter(|it| it.number() == number);
        let (Some(candidate), Some(generation)) = (candidate, self.generations.get(number)) else {
            return;
        };
        let usable = self.hard_close_at(generation).since(generation.issued_at());
        let patience = candidate.patience(usable, self.settings.replica_grace);
        let patience_ends_at = generation.issued_at() + patience;
        let presses = now >= self.presses_at(now);
        let needs = Needs { patience_ends_at, is_lost: self.lost, presses };
        match candidate.not_proved(now, unproved, needs) {
            Next::ProveLater { fails_command } => {
                if fails_command {
                    self.fail_command(NotRotated::Unprovable);
                }
                let most = Duration::from_secs(if self.runs_until(now).is_some() { 30 } else { 3 });
                let jitter = self.jitter();
                self.issuance.prove_later(now, unproved, most, patience_ends_at, jitter);
            }
            Next::NotTakenUp => {
                self.note(Note::NotTakenUp(number));
                self.give_back(number);
                self.issuance.abandon();
            }
            Next::Abandon => {
                self.note(Note::CandidateRefused(number));
                self.give_back(number);
                self.issuance.abandon();
            }
            Next::Refused => {
                self.note(Note::CandidateRefused(number));
                self.give_back(number);
                self.fail(now, FailureClass::ProofRefused, NotRotated::ProofRefused);
            }
            Next::Unprovable => {
                self.give_back(number);
                self.fail(now, FailureClass::Transient, NotRotated::Unprovable);
            }
            Next::Publish => self.publish(now, number, false),
        }
    }

    /// From when on a successor cannot wait for its proof: nothing is usable, or the current one's drain time has come.
    pub(super) fn presses_at(&self, now: Time) -> Time {
        if self.runs_until(now).is_none() {
            return now;
        }
        let is_spare = self.issuance.candidate().is_some_and(|it| it.reason() == Reason::Standby);
        if is_spare && self.demand(now).is_err() {
            return Time::NEVER;
        }
        self.generations.current().map_or(Time::NEVER, |(_, generation)| {
            generation.would_drain_at(self.bound(generation), self.settings.drain)
        })
    }

    /// A candidate that no host could judge waits for its next proof no longer than until it is needed.
    pub(super) fn retry_standby(&mut self, now: Time) {
        if let Some(number) = self.issuance.unjudged()
            && now >= self.presses_at(now)
        {
            self.publish(now, number, false);
        }
    }

    fn publish(&mut self, now: Time, number: GenerationId, proved: bool) {
        let Some(candidate) = self.issuance.candidate() else {
            return;
        };
        let reason = match (candidate.reason(), self.demand(now)) {
            // It was to stand by, and is needed already.
            (Reason::Standby, Ok(needed)) => needed,
            (reason, _) => reason,
        };
        // What was taken up is not what somebody asked a fresh one for.
        let command = if reason == Reason::TakenUp { None } else { self.command.take().flatten() };
        let route_drain = self.settings.drain;
        // A refused login waited for what was to stand by: the next to stand by is issued out of turn.
        self.standby_out_of_turn |= reason == Reason::Standby;
        // It may be older than this one, and is never published after a younger one.
        self.dismiss_standby();
        let successor = self.has_published;
        self.succeed_current(now, number);
        if let Some(drain) = command {
            self.generations.cut_short(|generation| {
                let span = match drain {
                    DrainSpan::For(span) => span,
                    DrainSpan::Default => {
                        schedule::drain(route_drain, generation.as_issued(), generation.term.usable())
                    }
                };
                CutShort { from: now, at: now + span }
            });
        }
        self.note(Note::Published { number, reason, proved, successor });
        self.reload = false;
        self.issuance.succeed();
        // What the command cut short at once ends in this very review.
        self.end_generations(now);
    }
}
