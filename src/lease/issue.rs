//! How the role comes to a fresh credential: what for, log in, ask. What becomes of it is `proving`'s. Floor 1.

use std::time::Duration;

use super::deadline::Deadline;
use super::dynamic_role::DynamicRole;
use super::event::{Action, Failure, NotRotated, TokenFacts};
use super::failure_class::FailureClass;
use super::generation::Generation;
use super::ids::TokenId;
use super::issuance::{Due, Granted, LoggedIn};
use super::note::{Note, Reason};
use super::schedule;
use super::term::NotRenewed;
use crate::time::Time;

impl DynamicRole {
    /// What a fresh credential is needed for: now, or else from when on.
    pub(super) fn demand(&self, now: Time) -> Result<Reason, Time> {
        if self.closed {
            return Err(Time::NEVER);
        }
        if self.command.is_some() {
            return Ok(Reason::Command);
        }
        if self.reload && self.wanted {
            return Ok(Reason::Reload);
        }
        let Some((number, generation)) = self.generations.current() else {
            if !self.wanted {
                return Err(Time::NEVER);
            }
            return Ok(match (self.lost, self.has_published) {
                (true, _) => Reason::Revoked,
                (false, true) => Reason::Schedule,
                (false, false) => Reason::First,
            });
        };
        if self.lost {
            // An earlier generation stands in for a lost one.
            return Ok(Reason::Revoked);
        }
        if self.refused == Some(number) {
            return Ok(Reason::Refused);
        }
        let draining_at = generation.would_drain_at(self.bound(generation), self.settings.drain);
        let by_age = self.settings.rotate_after.map(|age| (generation.issued_at() + age, Reason::Schedule));
        let by_renewal = generation.replace().map(|(why, at)| match why {
            NotRenewed::Capped | NotRenewed::Unneeded => (at, Reason::Capped),
            NotRenewed::NotRenewable => (at, Reason::NotRenewable),
            NotRenewed::MaxAge | NotRenewed::Endless => (at, Reason::Schedule),
        });
        // Renewals that keep failing while the end draws near: a fresh lease may come where a longer one does not.
        let lease_failing = generation.term.is_failing().then_some((draining_at, Reason::NotRenewable));
        let token_failing =
            self.tokens.is_failing(generation.token()).then_some((draining_at, Reason::Token));
        let by_token = Some((self.tokens.ending_at(generation.token()), Reason::Token));
        let all = [by_age, by_renewal, lease_failing, by_token, token_failing];
        let due = all.iter().flatten().find(|(at, _)| *at <= now);
        match due {
            Some((_, reason)) => Ok(*reason),
            None => Err(all.iter().flatten().map(|(at, _)| *at).min().unwrap_or(Time::NEVER)),
        }
    }

    pub(super) fn issue(&mut self, now: Time) {
        let is_served = self.runs_until(now).is_some();
        match self.issuance.due(now, is_served, self.command.is_some()) {
            Due::Nothing => return,
            Due::BackOff(until) => {
                let is_needed = self.demand(now).is_ok() || self.standby_demand(now).is_ok();
                let deadline = if is_needed { Deadline::Issue } else { Deadline::BackOff };
                self.deadlines.wake(deadline, until);
                return;
            }
            Due::ProofAt { at, refused } => {
                self.deadlines.wake(Deadline::Proof, at);
                if !refused {
                    self.deadlines.wake(Deadline::PublishUnproved, self.presses_at(now));
                }
                return;
            }
            Due::Proof(number) => {
                self.actions.push(Action::Prove(number));
                return;
            }
            Due::Free => {}
        }
        match self.demand(now) {
            Ok(reason) => self.begin(now, reason),
            Err(at) => {
                self.deadlines.wake(Deadline::Rotate, at);
                match self.standby_demand(now) {
                    Ok(()) => self.begin(now, Reason::Standby),
                    Err(at) => self.deadlines.wake(Deadline::IssueStandby, at),
                }
            }
        }
    }

    fn begin(&mut self, now: Time, reason: Reason) {
        let is_out_of_turn = self.is_out_of_turn(reason);
        if let Some(at) = self.issuance.held_until(now, reason, is_out_of_turn) {
            self.deadlines.wake(Deadline::IssueLimit, at);
            return;
        }
        self.note(Note::Issuing(reason));
        let current = self.generations.current();
        let within = current.map(|(_, generation)| schedule::patience(generation.term.usable()));
        let mut issuance = self.issuance.clone();
        let token = issuance.begin(reason, |id| {
            self.tokens.has(id) && now < self.tokens.ending_at(id) && self.is_of_use(now, reason, id)
        });
        self.issuance = issuance;
        self.actions.push(token.map_or(Action::LogIn { within }, Action::Issue));
    }

    pub(super) fn granted(&mut self, now: Time, sent_at: Time, lease: Duration, renewable: bool) {
        let Some((reason, token)) = self.issuance.requesting() else {
            return;
        };
        let jitter = self.jitter();
        let generation = Generation::new(token, sent_at, lease, renewable, jitter);
        let usable = self.hard_close_at(&generation).since(sent_at);
        let number = self.generations.add(generation);
        self.actions.push(Action::Store(number));
        let (is_wanted, is_out_of_turn) = (self.is_wanted(), self.is_out_of_turn(reason));
        match self.issuance.granted(now, number, usable, is_wanted, is_out_of_turn) {
            Granted::Unwanted => self.give_back(number),
            Granted::TooShort => {
                self.note(Note::TooShort(number));
                self.give_back(number);
                self.fail(now, FailureClass::Refused, NotRotated::TooShort);
            }
            Granted::Prove => self.actions.push(Action::Prove(number)),
        }
    }

    pub(super) fn logged_in(&mut self, now: Time, token: TokenId, facts: TokenFacts) {
        let Some(reason) = self.issuance.logging_in() else {
            return;
        };
        let jitter = self.jitter();
        self.tokens.logged_in(token, facts, jitter);
        let (is_wanted, is_of_use) = (self.is_wanted(), self.is_of_use(now, reason, token));
        match self.issuance.logged_in(token, facts.owned, is_wanted, is_of_use) {
            LoggedIn::Unwanted => {}
            LoggedIn::NoUse => {
                self.note(Note::TokenOfNoUse(token));
                // Another one may be handed over at any moment.
                let class = if facts.owned { FailureClass::Refused } else { FailureClass::Transient };
                self.fail(now, class, NotRotated::TokenOfNoUse);
            }
            LoggedIn::Request => self.actions.push(Action::Issue(token)),
        }
    }

    /// Whether a grant for this reason comes out of turn, so that it is limited.
    fn is_out_of_turn(&self, reason: Reason) -> bool {
        match reason {
            Reason::Revoked | Reason::Refused => true,
            Reason::Standby => self.standby_out_of_turn,
            _ => false,
        }
    }

    /// Whether a lease under this token would end later than the current one, where that is what it is issued for. One
    /// that was handed to us must have life left in any case: each lease under it would be made to lapse unused.
    fn is_of_use(&self, now: Time, reason: Reason, id: TokenId) -> bool {
        let (Some(token_ends_at), Some(left)) = (self.tokens.ends_at(id), self.tokens.usable_for(now, id))
        else {
            return true;
        };
        if !self.tokens.is_owned(id) && left < schedule::LEAST_USABLE {
            return false;
        }
        let Some((_, current)) = self.generations.current() else {
            return true;
        };
        let owner_ends_at = self.bound(current).ends_at;
        let ends_at = match reason {
            _ if self.command.is_some() => return true,
            Reason::Standby => return self.may_stand_by(now, id),
            Reason::Token => owner_ends_at,
            // A lease that its token cuts short is capped, or not renewable, because of that token.
            Reason::Capped | Reason::NotRenewable => owner_ends_at.min(current.lease_ends_at()),
            Reason::First
            | Reason::Schedule
            | Reason::Revoked
            | Reason::Refused
            | Reason::Command
            | Reason::Reload
            | Reason::TakenUp => {
                return true;
            }
        };
        token_ends_at > ends_at + schedule::LEAST_USABLE
    }

    pub(super) fn log_in_failed(&mut self, now: Time, failure: Failure) {
        let Some(reason) = self.issuance.logging_in() else {
            return;
        };
        if self.issuance.is_discarded(self.closed) {
            return;
        }
        // A login that is refused does not end the route while an earlier token lives: its lease comes under that one.
        let refused = !matches!(failure, Failure::Transient | Failure::TimedOut);
        match self.tokens.longest_living(now) {
            Some(token) if refused && !self.closed && self.is_of_use(now, reason, token) => {
                self.issuance.request(reason, token);
                self.actions.push(Action::Issue(token));
            }
            // It gives tokens that may not do it, or cannot be read.
            _ if matches!(failure, Failure::Forbidden | Failure::Unusable) => {
                self.fail(now, FailureClass::Refused, NotRotated::LogIn(failure));
            }
            // The next login is made with what is in the file by then.
            _ => self.fail(now, FailureClass::Transient, NotRotated::LogIn(failure)),
        }
    }

    pub(super) fn issue_failed(&mut self, now: Time, failure: Failure) {
        let Some((_, token)) = self.issuance.requesting() else {
            return;
        };
        self.issuance.not_granted(now, failure);
        match failure {
            Failure::TokenDead => self.token_dead(now, token),
            // It may be granted yet: the token is held until that is settled, then revoked with what it owns.
            Failure::TimedOut | Failure::Unusable => self.tokens.may_be_granted(token),
            _ => {}
        }
        if self.issuance.is_discarded(self.closed) {
            return;
        }
        self.fail(
            now,
            match failure {
                // A fresh login is the remedy for a dead token.
                Failure::Transient | Failure::TimedOut | Failure::TokenDead => FailureClass::Transient,
                Failure::Forbidden
                | Failure::Gone
                | Failure::CannotExtend
                | Failure::Refused
                | Failure::Unusable => FailureClass::Refused,
            },
            NotRotated::Issue(failure),
        );
    }

    /// An attempt at a fresh credential failed; `why` is for those who asked for one.
    pub(super) fn fail(&mut self, now: Time, class: FailureClass, why: NotRotated) {
        let left = self.runs_until(now).map(|until| until.since(now));
        let jitter = self.jitter();
        self.issuance.fail(now, class, left, self.closed, jitter);
        self.fail_command(why);
    }

    pub(super) fn fail_command(&mut self, why: NotRotated) {
        if self.command.take().is_some() {
            self.actions.push(Action::RotateFailed(why));
        }
    }
}
