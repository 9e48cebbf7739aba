//! What the role does because of the time and of what it holds, after each event. Floor 1.
//!
//! Nothing here is triggered: [`DynamicRole::review`] looks at everything it has and does what is due, so that it does not
//! matter which event brought the moment. Doing it twice does nothing more.

use std::time::Duration;

use super::deadline::{Deadline, Deadlines};
use super::dynamic_role::{DynamicRole, MOST_RETIRING};
use super::event::{Action, Failure, NotRotated};
use super::failure_class::FailureClass;
use super::generation::{Generation, State};
use super::generations::Generations;
use super::ids::{GenerationId, TokenId};
use super::issuance::Issuance;
use super::note::{Cause, Note, Outcome};
use super::schedule::Retry;
use super::term::{NotRenewed, Renewal};
use crate::time::Time;

impl DynamicRole {
    pub(super) fn review(&mut self, now: Time) {
        self.deadlines = Deadlines::new(now);
        self.end_generations(now);
        self.publish_standby(now);
        self.choose_current(now);
        self.retry_standby(now);
        self.end_idle(now);
        self.stagger_renewals(now);
        self.renew_leases(now);
        self.renew_tokens(now);
        self.issue(now);
        self.answer_waiting_logins(now);
        self.give_leases_back(now);
        self.give_tokens_back(now);
        self.verify_revoked(now);
        self.tell(now);
        self.show_requests();
    }

    /// What is under way is the next action.
    fn show_requests(&mut self) {
        self.issuance.show(&mut self.deadlines);
        if self.generations.iter().any(|(_, generation)| generation.term.renewal() == Renewal::InFlight) {
            self.deadlines.is_under_way(Deadline::RenewLease);
        }
    }

    /// Hard closes that are due, and candidates that died unproved.
    pub(super) fn end_generations(&mut self, now: Time) {
        for number in self.generations.numbers() {
            let Some(generation) = self.generations.get(number) else {
                continue;
            };
            let hard_close_at = self.hard_close_at(generation);
            let cut_short = generation.is_cut_short(now);
            match generation.state() {
                State::Current { .. } | State::Retiring { .. } if now >= hard_close_at => {
                    let cause = if cut_short { Cause::CutShort } else { Cause::LeaseEnd };
                    let was_current = self.generations.close(now, number, cause);
                    self.note(Note::Closing(number, cause));
                    if was_current {
                        self.actions.push(Action::Unpublish);
                    }
                }
                State::Candidate if now >= hard_close_at => {
                    self.give_back(number);
                    if self.issuance.is_proving(number) {
                        self.fail(now, FailureClass::Transient, NotRotated::Ended);
                    }
                }
                State::Standby if now >= hard_close_at => self.give_back(number),
                State::Candidate | State::Standby => {
                    self.deadlines.wake(Deadline::UnusedEnd, hard_close_at);
                }
                State::Current { .. } | State::Retiring { .. } => {
                    self.deadlines.wake(Deadline::HardClose, hard_close_at);
                }
                State::Closing { .. } | State::Revoking(_) => {}
            }
        }
    }

    /// Without a current generation the latest that is still usable serves again.
    fn choose_current(&mut self, now: Time) {
        if self.closed || !self.wanted {
            return;
        }
        let is_usable = |generation: &Generation| generation.is_usable(now, self.bound(generation));
        let latest = self.generations.iter().rfind(|(_, generation)| is_usable(generation));
        if let Some(number) = latest.map(|(number, _)| number)
            && let Some(successor_at) = self.generations.recall(number)
        {
            self.actions.push(Action::Publish(number));
            self.note(match successor_at {
                Some(_) => Note::Recalled(number),
                None => Note::WantedAgain(number),
            });
        }
    }

    fn renew_leases(&mut self, now: Time) {
        let retiring: Vec<GenerationId> =
            self.generations().filter(|(_, g)| g.is_retiring()).map(|(number, _)| number).collect();
        let too_many = retiring.len().saturating_sub(MOST_RETIRING);
        for number in self.generations.numbers() {
            let max_age = self.settings.max_age;
            let Some(generation) = self.generations.get_mut(number).filter(|g| g.is_renewed()) else {
                continue;
            };
            let Some(at) = generation.renew_at() else { continue };
            if retiring.iter().take(too_many).any(|n| *n == number) {
                generation.term.over(NotRenewed::Unneeded, now);
            } else if now < at {
                self.deadlines.wake(Deadline::RenewLease, at);
            } else if generation.would_pass(now, max_age) {
                generation.term.over(NotRenewed::MaxAge, now);
            } else {
                self.ask_renewal(number);
            }
        }
    }

    fn renew_tokens(&mut self, now: Time) {
        let is_needed = needed(&self.generations, &self.issuance);
        self.tokens.renew(now, is_needed, &mut self.deadlines, &mut self.actions);
    }

    /// A generation is not served any more, and nobody is in it: its lease goes back.
    pub(super) fn give_back(&mut self, number: GenerationId) {
        if let Some(token) = self.generations.revoke(number) {
            self.actions.push(Action::RevokeLease(number, token));
        }
    }

    /// A lease came without a credential that could be used.
    pub(super) fn lease_left(&mut self, token: TokenId, sent_at: Time, lease: Duration) {
        let jitter = self.jitter();
        let number = self.generations.add(Generation::new(token, sent_at, lease, false, jitter));
        self.actions.push(Action::Store(number));
        self.give_back(number);
    }

    /// Revocations to be tried again, and leases that have lapsed.
    fn give_leases_back(&mut self, now: Time) {
        for number in self.generations.numbers() {
            let Some(generation) = self.generations.get(number) else {
                continue;
            };
            let lapses_at = generation.lease_ends_at().min(self.bound(generation).ends_at);
            if let State::Retiring { successor_at: Some(at), .. } = generation.state() {
                // The driver is asked again whether it is empty.
                self.deadlines.wake(Deadline::ReplicaGrace, at + self.settings.replica_grace);
            }
            let Some(revoking) = generation.revoking() else { continue };
            if now >= lapses_at && revoking.due().is_some() {
                if revoking != Retry::GIVEN_UP {
                    self.note(Note::Returned(number, Outcome::Failed));
                }
                self.forget(number);
                continue;
            }
            self.deadlines.wake(Deadline::Lapse, lapses_at);
            let Some(at) = revoking.due() else {
                continue;
            };
            if now < at {
                self.deadlines.wake(Deadline::RevokeLease, at);
            } else {
                self.give_back(number);
            }
        }
    }

    pub(super) fn returned(&mut self, number: GenerationId, outcome: Outcome) {
        if self.generations.get(number).is_some_and(|g| g.revoking().is_some()) {
            self.note(Note::Returned(number, outcome));
            self.forget(number);
        }
    }

    pub(super) fn lease_revoke_failed(&mut self, now: Time, number: GenerationId, failure: Failure) {
        let jitter = self.jitter();
        let Some(generation) = self.generations.get(number).filter(|g| g.revoking().is_some()) else {
            return;
        };
        let owner = generation.token();
        match failure {
            // Dead tokens take their leases along.
            Failure::TokenDead | Failure::Gone => {
                self.generations.remove(number);
                self.revocation.verify(now, number, jitter, &mut self.actions);
            }
            Failure::Forbidden if self.tokens.is_owned(owner) => {
                self.revocation.go_with(owner, number, &mut self.actions);
                self.generations.remove(number);
            }
            Failure::Forbidden => self.returned(number, Outcome::Forbidden),
            Failure::Transient
            | Failure::TimedOut
            | Failure::CannotExtend
            | Failure::Refused
            | Failure::Unusable => {
                self.generations.revoke_later(now, number, jitter);
            }
        }
    }

    /// Tokens that nothing stands on any more.
    fn give_tokens_back(&mut self, now: Time) {
        let ended = {
            let is_needed = needed(&self.generations, &self.issuance);
            let stands = |id| is_needed(id) || self.generations.stand_on(id);
            self.tokens.revoke(now, stands, &mut self.deadlines, &mut self.actions)
        };
        for id in ended {
            self.token_gone(now, id, Outcome::Failed);
        }
    }

    pub(super) fn token_gone(&mut self, now: Time, id: TokenId, outcome: Outcome) {
        if self.tokens.remove(id) {
            let jitter = self.jitter();
            self.revocation.token_gone(now, id, outcome, jitter, &mut self.actions);
            self.actions.push(Action::ForgetToken(id));
        }
    }

    /// Looks for leases that went with their token, by the token of the credential that serves.
    fn verify_revoked(&mut self, now: Time) {
        let asker = self.generations.current().map(|(_, generation)| generation.token());
        self.revocation.look(now, asker, self.closed, &mut self.deadlines, &mut self.actions);
    }

    /// What sessions have to know, where it has changed.
    fn tell(&mut self, now: Time) {
        for number in self.generations.numbers() {
            let Some(generation) = self.generations.get(number) else {
                continue;
            };
            let (bound, setting) = (self.bound(generation), self.settings.drain);
            if let Some(at) = generation.drain_at(bound, setting) {
                self.deadlines.wake(Deadline::Drain, at);
            }
            if let Some(ending) = generation.ending(now, bound, setting)
                && self.generations.get_mut(number).is_some_and(|generation| generation.notify(ending))
            {
                self.actions.push(Action::NotifySessions(number, ending));
            }
        }
    }

    pub(super) fn forget(&mut self, number: GenerationId) {
        if self.generations.remove(number) {
            self.actions.push(Action::Forget(number));
        }
    }
}

/// Whether a token is renewed: a living generation, or an issuance, stands on it.
fn needed(generations: &Generations, issuance: &Issuance) -> impl Fn(TokenId) -> bool {
    move |id| {
        issuance.needs(id)
            || generations
                .iter()
                .any(|(_, g)| g.token() == id && (g.is_renewed() || g.state() == State::Candidate))
    }
}
