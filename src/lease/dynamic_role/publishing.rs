//! What follows for a fresh credential: it is proved, stands by, is published, or is given up. Floor 1.

use std::time::Duration;

use super::DynamicRole;
use crate::lease::candidate::{Needs, Next, Unproved};
use crate::lease::event::{Action, DrainSpan, NotRotated};
use crate::lease::failure_class::FailureClass;
use crate::lease::generation::CutShort;
use crate::lease::ids::GenerationId;
use crate::lease::note::{Note, Reason};
use crate::lease::rotation::Standby;
use crate::lease::schedule;
use crate::time::Time;

impl DynamicRole {
    pub(super) fn proved(&mut self, now: Time, number: GenerationId) {
        self.accepted(number);
        let Some(candidate) = self.issuance.candidate().filter(|it| it.number() == number) else { return };
        let is_needed = self.generations.current().is_none()
            || self.refusals.is_awaited()
            || self.rotation.demand(self.holdings(now)).is_ok();
        if candidate.reason() != Reason::Standby || is_needed {
            return self.publish(now, number, true);
        }
        // The new standby replaces the earlier standby.
        self.dismiss_standby();
        self.generations.stand_by(number);
        self.issuance.succeed();
        self.rotation.stood_by();
        self.note(Note::StandsBy(number));
    }

    /// A server that sessions go to has let this generation in.
    pub(super) fn accepted(&mut self, number: GenerationId) {
        self.generations.accept(number);
        if self.entry.let_in() {
            self.actions.push(Action::Unbarred);
        }
    }

    /// Proves the published credential while no server is known to let it in.
    pub(super) fn prove_published(&mut self, now: Time) {
        let current = self.generations.current().map(|(number, current)| (number, current.is_accepted()));
        if let Some(number) = self.entry.due(now, current, &mut self.deadlines) {
            self.actions.push(Action::ProvePublished(number));
        }
    }

    /// No server has let the candidate in.
    pub(super) fn not_proved(&mut self, now: Time, number: GenerationId, unproved: Unproved) {
        let candidate = self.issuance.candidate().filter(|it| it.number() == number);
        let (Some(candidate), Some(generation)) = (candidate, self.generations.get(number)) else {
            return;
        };
        let usable = self.hard_close_at(generation).since(generation.issued_at());
        let patience = candidate.patience(usable, self.settings.replica_grace);
        let patience_ends_at = generation.issued_at() + patience;
        let presses = now >= self.presses_at(now);
        let needs = Needs { patience_ends_at, is_lost: self.rotation.is_lost(), presses };
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

    /// Requests a fresh credential at once, without waiting for a candidate that a server has refused.
    pub(super) fn give_up_refused_candidate(&mut self) {
        if let Some(number) = self.issuance.abandon_refused() {
            self.note(Note::CandidateRefused(number));
            self.give_back(number);
        }
    }

    /// The time from which a successor cannot wait for its proof.
    pub(super) fn presses_at(&self, now: Time) -> Time {
        let proving = self.issuance.candidate().map(|candidate| candidate.reason());
        self.rotation.presses_at(self.holdings(now), proving)
    }

    /// A candidate that no server could judge waits for its next proof only until it is needed.
    pub(super) fn publish_unjudged(&mut self, now: Time) {
        if let Some(number) = self.issuance.unjudged()
            && now >= self.presses_at(now)
        {
            self.publish(now, number, false);
        }
    }

    fn publish(&mut self, now: Time, number: GenerationId, proved: bool) {
        let Some(candidate) = self.issuance.candidate() else { return };
        let reason = match (candidate.reason(), self.rotation.demand(self.holdings(now))) {
            // It was to stand by, and is needed already.
            (Reason::Standby, Ok(needed)) => needed,
            (reason, _) => reason,
        };
        // A credential of an earlier process is not the fresh credential that a rotation by hand asks for.
        let is_fresh = reason != Reason::TakenUp;
        let command = if is_fresh { self.rotation.end_command().flatten() } else { None };
        if reason == Reason::Standby {
            self.rotation.took_standby();
        }
        // The standby may be older than this generation, and is never published after a younger generation.
        self.dismiss_standby();
        let successor = self.rotation.has_published();
        self.succeed_current(now, number);
        if let Some(drain) = command {
            let route_drain = self.settings.drain;
            self.generations.cut_short(|generation| {
                let span = match drain {
                    DrainSpan::For(span) => span,
                    DrainSpan::Default => {
                        schedule::drain(route_drain, generation.as_issued(), generation.term().usable())
                    }
                };
                CutShort { from: now, at: now + span }
            });
        }
        self.note(Note::Published { number, reason, proved, successor });
        self.rotation.reloaded();
        self.issuance.succeed();
        // Generations that the command ends at once end in this review.
        self.end_generations(now);
    }

    /// Publishes the standby if the current generation is gone, or must be replaced.
    pub(super) fn publish_standby(&mut self, now: Time) {
        match self.rotation.choose_standby(self.holdings(now)) {
            Standby::Waits => {}
            Standby::GiveBack(number) => self.give_back(number),
            Standby::Publish { number, out_of_turn } => {
                if out_of_turn {
                    self.rotation.took_standby();
                }
                self.succeed_current(now, number);
                let (reason, proved, successor) = (Reason::Standby, true, true);
                self.note(Note::Published { number, reason, proved, successor });
            }
        }
    }

    /// Gives back the standby.
    pub(super) fn dismiss_standby(&mut self) {
        if let Some((number, _)) = self.generations.standby() {
            self.give_back(number);
        }
    }

    /// The current generation retires, and this generation takes its place.
    fn succeed_current(&mut self, now: Time, number: GenerationId) {
        self.generations.publish(now, number);
        self.rotation.published();
        self.refusals.published();
        self.lazy.published();
        self.actions.push(Action::Publish(number));
    }

    /// Without a current generation, the latest usable generation serves again.
    pub(super) fn choose_current(&mut self, now: Time) {
        let held = self.holdings(now);
        let latest = if held.is_wanted { held.latest_usable() } else { None };
        if let Some(number) = latest
            && let Some(successor_at) = self.generations.recall(number)
        {
            self.actions.push(Action::Publish(number));
            self.note(match successor_at {
                Some(_) => Note::Recalled(number),
                None => Note::WantedAgain(number),
            });
        }
    }
}
