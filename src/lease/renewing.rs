//! What renewals come to, and the check of a lease, which is one before its time: extended, failed, lost. Floor 1.

use std::time::Duration;

use super::dynamic_role::DynamicRole;
use super::event::{Action, Failure, NotRotated, Verdict};
use super::failure_class::FailureClass;
use super::generation::{Check, State};
use super::ids::{GenerationId, TokenId};
use super::note::{Cause, Note, Outcome};
use super::schedule;
use super::term::Renewal;
use crate::time::Time;

impl DynamicRole {
    pub(super) fn lease_renewed(
        &mut self,
        now: Time,
        number: GenerationId,
        sent_at: Time,
        lease: Duration,
        renewable: bool,
    ) {
        let jitter = self.jitter();
        let Some(generation) = self.generations.get_mut(number) else {
            return;
        };
        let check = generation.check.take();
        let capped = generation.term.renewed(now, sent_at, Some(lease), renewable, jitter);
        let before =
            check.map(|check| check.before).filter(|before| matches!(before, Renewal::Stopped { .. }));
        if let Some(before) = before {
            generation.term.restore(before);
        }
        self.note(Note::Renewed { number, lease, capped: capped && before.is_none() });
        self.answer(number, check, Verdict::Alive);
    }

    pub(super) fn lease_renew_failed(&mut self, now: Time, number: GenerationId, failure: Failure) {
        let jitter = self.jitter();
        let Some(generation) = self.generations.get_mut(number) else {
            return;
        };
        let owner = generation.token();
        let check = generation.check.take();
        match (failure, check.map(|check| check.before)) {
            (Failure::Gone | Failure::TokenDead, _) => {}
            (_, Some(before @ Renewal::Stopped { .. })) => generation.term.restore(before),
            // A check that came to nothing before the renewal's time is no failed renewal; at its time it was that too.
            (Failure::Transient | Failure::TimedOut, Some(before @ Renewal::Scheduled(at))) if now < at => {
                generation.term.restore(before);
            }
            (failure, _) => generation.term.failed(now, failure, jitter),
        }
        match failure {
            Failure::TokenDead => self.token_dead(now, owner),
            Failure::Gone => self.lose(now, number),
            _ => {}
        }
        let verdict = match failure {
            Failure::Gone | Failure::TokenDead => Verdict::Lost,
            Failure::CannotExtend => Verdict::Alive,
            Failure::Transient
            | Failure::TimedOut
            | Failure::Forbidden
            | Failure::Refused
            | Failure::Unusable => Verdict::Silent,
        };
        self.answer(number, check, verdict);
    }

    fn answer(&mut self, number: GenerationId, check: Option<Check>, verdict: Verdict) {
        if check.is_some_and(|check| check.is_awaited) {
            self.actions.push(Action::Answer(number, verdict));
        }
    }

    pub(super) fn token_renew_failed(&mut self, now: Time, token: TokenId, failure: Failure) {
        let jitter = self.jitter();
        match failure {
            Failure::TokenDead | Failure::Gone => self.token_dead(now, token),
            failure => {
                if self.tokens.renew_failed(now, token, failure, jitter) {
                    self.note(Note::TokenEnding(token));
                }
            }
        }
    }

    /// A token is dead, and every lease that it owned.
    pub(super) fn token_dead(&mut self, now: Time, token: TokenId) {
        for number in self.generations.owned_by(token) {
            self.lose(now, number);
        }
        self.issuance.drop_spare(token);
        self.tokens.died(now, token);
        let jitter = self.jitter();
        self.revocation.token_gone(now, token, Outcome::Token, jitter, &mut self.actions);
    }

    /// A lease is gone before its end.
    pub(super) fn lose(&mut self, now: Time, number: GenerationId) {
        let Some(generation) = self.generations.get(number) else {
            return;
        };
        match generation.state() {
            State::Candidate => {
                self.forget(number);
                if self.issuance.is_proving(number) {
                    self.fail(now, FailureClass::Transient, NotRotated::Ended);
                }
            }
            State::Standby => {
                self.note(Note::Lost(number));
                self.forget(number);
                self.standby_out_of_turn = true;
            }
            State::Revoking(_) => self.forget(number),
            State::Current { .. } | State::Retiring { .. } => {
                let was_current = self.generations.close(now, number, Cause::Lost);
                self.note(Note::Lost(number));
                self.note(Note::Closing(number, Cause::Lost));
                if was_current {
                    self.lost = true;
                    self.actions.push(Action::Unpublish);
                    self.replace_lost();
                }
            }
            State::Closing { .. } => {}
        }
    }

    pub(super) fn check(&mut self, now: Time, number: GenerationId, every: Duration, answer: bool) {
        let max_age = self.settings.max_age;
        let Some(generation) = self.generations.get_mut(number).filter(|g| g.is_renewed()) else {
            if answer {
                self.actions.push(Action::Answer(number, Verdict::Lost));
            }
            return;
        };
        if generation.term.renewal() == Renewal::InFlight {
            let renewal = Check { before: Renewal::InFlight, is_awaited: false };
            generation.check.get_or_insert(renewal).is_awaited |= answer;
            return;
        }
        let asked_lately = generation.checked_at.is_some_and(|at| now < at + every);
        if asked_lately || generation.would_pass(now, max_age) {
            if answer {
                self.actions.push(Action::Answer(number, Verdict::Silent));
            }
            return;
        }
        generation.checked_at = Some(now);
        generation.check = Some(Check { before: generation.term.renewal(), is_awaited: answer });
        self.ask_renewal(number);
    }

    pub(super) fn ask_renewal(&mut self, number: GenerationId) {
        let Some(generation) = self.generations.get_mut(number) else {
            return;
        };
        generation.term.asked();
        let within = schedule::patience(generation.term.usable());
        self.actions.push(Action::RenewLease(number, generation.token(), within));
    }
}
