//! How generations and tokens end: closed, lost, given back, forgotten. Floor 1.

use std::time::Duration;

use super::DynamicRole;
use crate::lease::deadline::Deadline;
use crate::lease::event::{Action, Failure, NotRotated};
use crate::lease::failure_class::FailureClass;
use crate::lease::generation::{Generation, State};
use crate::lease::ids::{GenerationId, TokenId};
use crate::lease::note::{Cause, Note, Outcome};
use crate::lease::schedule::Retry;
use crate::time::Time;

impl DynamicRole {
    /// Hard closes that are due, and credentials that end without having been published.
    pub(super) fn end_generations(&mut self, now: Time) {
        let mut next = None;
        while let Some(number) = self.generations.next(next) {
            next = Some(number);
            let Some(generation) = self.generations.get(number) else { continue };
            let hard_close_at = self.hard_close_at(generation);
            let is_due = now >= hard_close_at;
            match generation.state() {
                State::Candidate | State::Standby if is_due => {
                    self.give_back(number);
                    self.fail_ended_candidate(now, number);
                }
                State::Current { .. } | State::Retiring { .. } if is_due => {
                    let is_cut = generation.is_cut_short(now);
                    self.close(now, number, if is_cut { Cause::CutShort } else { Cause::LeaseEnd });
                }
                State::Candidate | State::Standby => self.deadlines.wake(Deadline::UnusedEnd, hard_close_at),
                State::Current { .. } | State::Retiring { .. } => {
                    self.deadlines.wake(Deadline::HardClose, hard_close_at);
                }
                State::Closing { .. } | State::Revoking(_) => {}
            }
        }
    }

    /// The sessions of this generation are closed. True if it was current.
    fn close(&mut self, now: Time, number: GenerationId, cause: Cause) -> bool {
        let was_current = self.generations.close(now, number, cause);
        self.note(Note::Closing(number, cause));
        if was_current {
            self.actions.push(Action::Unpublish);
        }
        was_current
    }

    fn fail_ended_candidate(&mut self, now: Time, number: GenerationId) {
        if self.issuance.is_proving(number) {
            self.fail(now, FailureClass::Transient, NotRotated::Ended);
        }
    }

    /// A lease is gone before its end.
    pub(super) fn lose(&mut self, now: Time, number: GenerationId) {
        match self.generations.get(number).map(Generation::state) {
            Some(State::Candidate) => {
                self.forget(number);
                self.fail_ended_candidate(now, number);
            }
            Some(State::Standby) => {
                self.note(Note::Lost(number));
                self.forget(number);
                self.rotation.lose_standby();
            }
            Some(State::Revoking(_)) => self.forget(number),
            Some(State::Current { .. } | State::Retiring { .. }) => {
                self.note(Note::Lost(number));
                if self.close(now, number, Cause::Lost) {
                    self.rotation.lose_current();
                    // A candidate that a server has refused does not replace the lost credential, and the back-off
                    // after a refusal assumed that a credential serves the route. So a fresh credential is requested:
                    // once for each loss, within the limit.
                    self.give_up_refused_candidate();
                    self.issuance.end_slow_back_off();
                }
            }
            Some(State::Closing { .. }) | None => {}
        }
    }

    /// A token is dead, and every lease that it owned.
    pub(super) fn token_dead(&mut self, now: Time, token: TokenId) {
        for number in self.generations.owned_by(token) {
            self.lose(now, number);
        }
        self.issuance.drop_spare(token);
        self.tokens.expired(now, token);
        let jitter = self.jitter();
        self.revocation.token_gone(now, token, Outcome::Token, jitter, &mut self.actions);
    }

    /// Says which generations may end once no session is in them, where that has changed.
    pub(super) fn end_empty(&mut self, now: Time) {
        let mut next = None;
        while let Some(number) = self.generations.next(next) {
            next = Some(number);
            let may_end = self.may_empty(now, number);
            if self.generations.end_when_empty(number, may_end) {
                self.actions.push(if may_end {
                    Action::EndWhenEmpty(number)
                } else {
                    Action::KeepWhenEmpty(number)
                });
            }
        }
    }

    /// No session is in this generation any more, and none can come. `open_upstream`: a session may still be open on the
    /// server.
    pub(super) fn emptied(&mut self, now: Time, number: GenerationId, open_upstream: bool) {
        let Some(generation) = self.generations.get(number) else { return };
        match generation.state() {
            State::Closing { cause: Cause::Lost, .. } => self.forget(number),
            State::Closing { .. } | State::Retiring { .. } if open_upstream => {
                // The lease is left to lapse, and its token with it.
                self.generations.leave_to_lapse(number);
                self.note(Note::Returned(number, Outcome::Failed));
            }
            State::Closing { .. } | State::Retiring { .. } if now < generation.lease_ends_at() => {
                self.give_back(number);
            }
            State::Closing { .. } | State::Retiring { .. } => self.forget(number),
            // It was recalled in the moment in which the driver closed it to newcomers.
            State::Current { .. } => {
                self.actions.push(Action::Unpublish);
                self.give_back(number);
            }
            State::Candidate | State::Standby | State::Revoking(_) => {}
        }
    }

    /// Nothing is issued any more. `successor_at`: the sessions are drained as though a successor had been published then.
    pub(super) fn close_route(&mut self, successor_at: Option<Time>) {
        self.closed = true;
        self.stop(successor_at);
        self.fail_command(NotRotated::Closed);
    }

    /// A lazy route that has had no session for long enough gives its credential back. A rotation that was asked for is
    /// not broken off.
    pub(super) fn end_idle(&mut self, now: Time) {
        let is_served = self.generations.current().is_some();
        match self.lazy.idle_at(now, self.settings.lazy, is_served) {
            Some(idle_at) if now < idle_at => self.deadlines.wake(Deadline::Idle, idle_at),
            Some(_) if !self.rotation.is_commanded() => {
                self.lazy.rest();
                self.rotation.rest();
                self.stop(None);
            }
            _ => {}
        }
    }

    /// Ends the current generation's service, and whatever is being issued.
    fn stop(&mut self, successor_at: Option<Time>) {
        if self.generations.retire_current(successor_at).is_some() {
            self.actions.push(Action::Unpublish);
        }
        self.dismiss_standby();
        if let Some(candidate) = self.issuance.stop() {
            self.give_back(candidate);
        }
    }

    /// No session is in this generation, and none can come: its lease goes back.
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
    pub(super) fn give_leases_back(&mut self, now: Time) {
        let mut next = None;
        while let Some(number) = self.generations.next(next) {
            next = Some(number);
            let held = self.holdings(now);
            let Some(generation) = held.generations.get(number) else { continue };
            let (state, lapses_at) = (generation.state(), held.lapses_at(generation));
            if let State::Retiring { successor_at: Some(at), .. } = state {
                // The driver is asked again whether it is empty.
                self.deadlines.wake(Deadline::ReplicaGrace, at + self.settings.replica_grace);
            }
            let State::Revoking(retry) = state else { continue };
            let due = retry.due();
            if now >= lapses_at && due.is_some() {
                if retry != Retry::GIVEN_UP {
                    self.note(Note::Returned(number, Outcome::Failed));
                }
                self.forget(number);
                continue;
            }
            self.deadlines.wake(Deadline::Lapse, lapses_at);
            match due {
                Some(at) if now < at => self.deadlines.wake(Deadline::RevokeLease, at),
                Some(_) => self.give_back(number),
                None => {}
            }
        }
    }

    /// It is known what became of a lease that was being revoked.
    pub(super) fn returned(&mut self, number: GenerationId, outcome: Outcome) {
        if self.generations.get(number).is_some_and(|generation| generation.revoking().is_some()) {
            self.note(Note::Returned(number, outcome));
            self.forget(number);
        }
    }

    pub(super) fn lease_revoke_failed(&mut self, now: Time, number: GenerationId, failure: Failure) {
        let jitter = self.jitter();
        let Some(generation) = self.generations.get(number).filter(|it| it.revoking().is_some()) else {
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
                self.generations.remove(number);
                self.revocation.go_with(owner, number, &mut self.actions);
            }
            Failure::Forbidden => self.returned(number, Outcome::Forbidden),
            Failure::Transient
            | Failure::TimedOut
            | Failure::CannotExtend
            | Failure::Refused
            | Failure::Unusable => self.generations.revoke_later(now, number, jitter),
        }
    }

    /// Tokens on which nothing stands any more.
    pub(super) fn give_tokens_back(&mut self, now: Time) {
        let Self { tokens, generations, issuance, deadlines, actions, .. } = self;
        let stands = |id| issuance.needs(id) || generations.stand_on(id);
        let ended = tokens.revoke(now, stands, deadlines, actions);
        for id in ended {
            self.token_gone(now, id, Outcome::Failed);
        }
    }

    /// A token is gone, or left to lapse.
    pub(super) fn token_gone(&mut self, now: Time, id: TokenId, outcome: Outcome) {
        if self.tokens.remove(id) {
            let jitter = self.jitter();
            self.revocation.token_gone(now, id, outcome, jitter, &mut self.actions);
            self.actions.push(Action::ForgetToken(id));
        }
    }

    /// Looks for leases that went with their token, by the token of the credential that serves.
    pub(super) fn verify_revoked(&mut self, now: Time) {
        let asker = self.generations.current().map(|(_, generation)| generation.token());
        self.revocation.look(now, asker, self.closed, &mut self.deadlines, &mut self.actions);
    }

    fn forget(&mut self, number: GenerationId) {
        if self.generations.remove(number) {
            self.actions.push(Action::Forget(number));
        }
    }
}
