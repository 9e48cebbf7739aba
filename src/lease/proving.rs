//! What becomes of a fresh credential until it is published: proved, tried again, given up. Floor 1.

use std::time::Duration;

use super::dynamic_role::DynamicRole;
use super::event::{Action, DrainSpan, NotRotated};
use super::generation::CutShort;
use super::ids::GenerationId;
use super::issuance::{FailureClass, Unproved};
use super::note::{Note, Reason};
use super::{issuance, schedule};
use crate::time::Time;

impl DynamicRole {
    pub(super) fn prove_again(&mut self, number: GenerationId) {
        if let issuance::State::Proving { again_at, tries, .. } = &mut self.issuance.state {
            *again_at = None;
            *tries += 1;
            self.actions.push(Action::Prove(number));
        }
    }

    pub(super) fn proved(&mut self, now: Time, number: GenerationId) {
        self.generations.accept(number);
        match self.issuance.state {
            issuance::State::Proving { reason: Reason::Standby, number: n, .. }
                if n == number
                    && self.generations.current().is_some()
                    && self.awaited.is_none()
                    && self.demand(now).is_err() =>
            {
                self.stand_by(number);
            }
            issuance::State::Proving { number: n, .. } if n == number => self.publish(now, number, true),
            _ => {}
        }
    }

    /// The current credential is lost. What a host has refused is no remedy, and the back-off after such a one was for a
    /// route that is served: a fresh one is asked for, once for each loss, and as far as the bucket allows.
    pub(super) fn replace_lost(&mut self) {
        match self.issuance.state {
            issuance::State::Proving { number, refused: true, again_at: Some(_), .. } => {
                self.abandon(number);
            }
            issuance::State::BackOff { slow: true, .. } => self.issuance.state = issuance::State::Idle,
            _ => {}
        }
    }

    /// Somebody asks for a fresh credential: one that a host has refused already is not waited for.
    pub(super) fn make_way_for_command(&mut self) {
        if let issuance::State::Proving { number, refused: true, again_at: Some(_), .. } = self.issuance.state
        {
            self.abandon(number);
        }
    }

    fn abandon(&mut self, number: GenerationId) {
        self.note(Note::CandidateRefused(number));
        self.give_back(number);
        self.issuance.state = issuance::State::Idle;
    }

    /// A candidate that no host let in: tried again for a while if one refused it, as long as it lives if none could
    /// say, unless it is needed at once.
    pub(super) fn not_proved(&mut self, now: Time, number: GenerationId, unproved: Unproved) {
        let refused_now = unproved == Unproved::Refused;
        let issuance::State::Proving { reason, number: n, .. } = self.issuance.state else {
            return;
        };
        let Some(generation) = self.generations.get(number).filter(|_| n == number) else {
            return;
        };
        let usable = self.hard_close_at(generation).since(generation.issued_at());
        let patience = match reason {
            // A fresh one may be the remedy; only a host that lags may yet learn of this one.
            Reason::TakenUp => self.settings.replica_grace,
            _ => Duration::from_mins(1).min(usable / 2),
        };
        let patience_ends_at = generation.issued_at() + patience;
        if refused_now && now >= patience_ends_at && reason == Reason::TakenUp {
            self.note(Note::NotTakenUp(number));
            self.give_back(number);
            self.issuance.state = issuance::State::Idle;
            return;
        }
        // It was asked for before the loss: none of these reasons is one for another while that is to be made good.
        let before_loss = matches!(
            reason,
            Reason::Schedule | Reason::Capped | Reason::NotRenewable | Reason::Token | Reason::Standby
        );
        if refused_now && self.lost && before_loss {
            self.abandon(number);
            return;
        }
        if refused_now && now >= patience_ends_at {
            self.note(Note::CandidateRefused(number));
            self.give_back(number);
            self.fail(now, FailureClass::ProofRefused, NotRotated::ProofRefused);
            return;
        }
        if refused_now || self.goes_on_unproved(now, number, reason, unproved, patience_ends_at) {
            self.prove_later(now, unproved, patience_ends_at);
        }
    }

    /// No host could say. Whether the candidate is proved again; otherwise it is published as it is, or given up.
    fn goes_on_unproved(
        &mut self,
        now: Time,
        number: GenerationId,
        reason: Reason,
        unproved: Unproved,
        patience_ends_at: Time,
    ) -> bool {
        if now >= self.presses_at(now) {
            self.publish(now, number, false);
            return false;
        }
        // Whoever asked by hand waits for servers that lag, and for nothing else.
        let waits = unproved == Unproved::Lags && now < patience_ends_at;
        if reason == Reason::Command && !waits {
            self.give_back(number);
            self.fail(now, FailureClass::Transient, NotRotated::Unprovable);
            return false;
        }
        if !waits {
            self.fail_command(NotRotated::Unprovable);
        }
        true
    }

    /// The next proof of the candidate, after a back-off.
    fn prove_later(&mut self, now: Time, unproved: Unproved, patience_ends_at: Time) {
        let most = if self.runs_until(now).is_some() { 30 } else { 3 };
        let jitter = self.jitter();
        let issuance::State::Proving { reason, tries, refused, again_at, .. } = &mut self.issuance.state
        else {
            return;
        };
        let wait = schedule::back_off(*tries, Duration::from_millis(500), Duration::from_secs(most), jitter);
        *refused = unproved == Unproved::Refused;
        let is_bounded = *refused || (*reason == Reason::Command && unproved == Unproved::Lags);
        *again_at = Some((now + wait).min(if is_bounded { patience_ends_at } else { Time::NEVER }));
    }

    /// From when on a successor cannot wait for its proof: nothing is usable, or the current one's drain time has come.
    pub(super) fn presses_at(&self, now: Time) -> Time {
        if self.runs_until(now).is_none() {
            return now;
        }
        if matches!(self.issuance.state, issuance::State::Proving { reason: Reason::Standby, .. })
            && self.demand(now).is_err()
        {
            return Time::NEVER;
        }
        self.generations.current().map_or(Time::NEVER, |(_, generation)| {
            generation.would_drain_at(self.bound(generation), self.settings.drain)
        })
    }

    /// A candidate that no host could judge waits for its next proof no longer than until it is needed.
    pub(super) fn retry_standby(&mut self, now: Time) {
        if let issuance::State::Proving { number, again_at: Some(_), refused: false, .. } =
            self.issuance.state
            && now >= self.presses_at(now)
        {
            self.publish(now, number, false);
        }
    }

    fn publish(&mut self, now: Time, number: GenerationId, proved: bool) {
        let issuance::State::Proving { reason, .. } = self.issuance.state else {
            return;
        };
        let reason = match (reason, self.demand(now)) {
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
