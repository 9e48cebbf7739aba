//! How the role comes to a fresh credential: what for, log in, ask. What becomes of it is `proving`'s. Floor 1.

use std::time::Duration;

use super::deadline::Deadline;
use super::dynamic_role::DynamicRole;
use super::event::{Action, Failure, NotRotated, TokenFacts};
use super::generation::Generation;
use super::ids::TokenId;
use super::issuance::FailureClass;
use super::note::{Note, Reason};
use super::term::NotRenewed;
use super::{issuance, schedule};
use crate::time::Time;

/// The longest waits while no credential is usable: for what Vault misses, and for what somebody has to mend.
const LONGEST_UNSERVED_ABSENCE: Duration = Duration::from_secs(3);
const LONGEST_UNSERVED_REFUSAL: Duration = Duration::from_secs(30);

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
        match self.issuance.state {
            issuance::State::Idle => {}
            issuance::State::BackOff { until, slow } => {
                let most = if slow { LONGEST_UNSERVED_REFUSAL } else { LONGEST_UNSERVED_ABSENCE };
                let until = if self.runs_until(now).is_some() { until } else { until.min(now + most) };
                if now < until && self.command.is_none() {
                    self.issuance.state = issuance::State::BackOff { until, slow };
                    let is_needed = self.demand(now).is_ok() || self.standby_demand(now).is_ok();
                    let deadline = if is_needed { Deadline::Issue } else { Deadline::BackOff };
                    self.deadlines.wake(deadline, until);
                    return;
                }
                self.issuance.state = issuance::State::Idle;
            }
            issuance::State::Proving { number, again_at: Some(at), refused, .. } => {
                if now < at {
                    self.deadlines.wake(Deadline::Proof, at);
                    if !refused {
                        self.deadlines.wake(Deadline::PublishUnproved, self.presses_at(now));
                    }
                } else {
                    self.prove_again(number);
                }
                return;
            }
            issuance::State::LoggingIn { .. }
            | issuance::State::Requesting { .. }
            | issuance::State::Proving { again_at: None, .. } => return,
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
        // Another request may leave another role behind; somebody who asks by hand takes that upon himself.
        let awaits_bucket =
            self.issuance.awaits_bucket && !matches!(reason, Reason::Command | Reason::Reload);
        if (self.draws_on_the_bucket(reason) || awaits_bucket)
            && let Some(at) = self.issuance.bucket.ready_at(now)
        {
            self.deadlines.wake(Deadline::IssueLimit, at);
            return;
        }
        self.note(Note::Issuing(reason));
        let spare = self.spare.filter(|id| {
            self.tokens.has(*id) && now < self.tokens.ending_at(*id) && self.is_of_use(now, reason, *id)
        });
        if let Some(token) = spare {
            self.request(reason, token);
            return;
        }
        self.spare = None;
        let current = self.generations.current();
        let within = current.map(|(_, generation)| schedule::patience(generation.term.usable()));
        self.issuance.state = issuance::State::LoggingIn { reason };
        self.actions.push(Action::LogIn { within });
    }

    pub(super) fn granted(&mut self, now: Time, sent_at: Time, lease: Duration, renewable: bool) {
        let issuance::State::Requesting { reason, token } = self.issuance.state else {
            return;
        };
        self.issuance.awaits_bucket = false;
        let jitter = self.jitter();
        let generation = Generation::new(token, sent_at, lease, renewable, jitter);
        let usable = self.hard_close_at(&generation).since(sent_at);
        let number = self.generations.add(generation);
        self.actions.push(Action::Store(number));
        if self.spare == Some(token) {
            self.spare = None;
        }
        if self.draws_on_the_bucket(reason) {
            self.issuance.bucket.take(now);
        }
        if self.closed || !self.wanted || std::mem::take(&mut self.discard) {
            self.issuance.state = issuance::State::Idle;
            self.give_back(number);
        } else if usable < schedule::LEAST_USABLE {
            self.note(Note::TooShort(number));
            self.give_back(number);
            self.fail(now, FailureClass::Refused, NotRotated::TooShort);
        } else {
            self.issuance.state =
                issuance::State::Proving { reason, number, tries: 0, refused: false, again_at: None };
            self.actions.push(Action::Prove(number));
        }
    }

    pub(super) fn logged_in(&mut self, now: Time, token: TokenId, facts: TokenFacts) {
        let issuance::State::LoggingIn { reason } = self.issuance.state else {
            return;
        };
        let jitter = self.jitter();
        self.tokens.logged_in(token, facts, jitter);
        if self.spare != Some(token) && facts.owned {
            self.spare = Some(token);
        }
        if self.closed || !self.wanted || std::mem::take(&mut self.discard) {
            self.spare = None;
            self.discard = false;
            self.issuance.state = issuance::State::Idle;
        } else if !self.is_of_use(now, reason, token) {
            self.spare = None;
            self.note(Note::TokenOfNoUse(token));
            // Another one may be handed over at any moment.
            let class = if facts.owned { FailureClass::Refused } else { FailureClass::Transient };
            self.fail(now, class, NotRotated::TokenOfNoUse);
        } else {
            self.request(reason, token);
        }
    }

    /// Whether a grant for this reason draws on the bucket.
    fn draws_on_the_bucket(&self, reason: Reason) -> bool {
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

    pub(super) fn request(&mut self, reason: Reason, token: TokenId) {
        self.issuance.state = issuance::State::Requesting { reason, token };
        self.actions.push(Action::Issue(token));
    }

    pub(super) fn log_in_failed(&mut self, now: Time, failure: Failure) {
        let issuance::State::LoggingIn { reason } = self.issuance.state else {
            return;
        };
        if self.was_for_earlier_configuration() {
            return;
        }
        // A login that is refused does not end the route while an earlier token lives: its lease comes under that one.
        let refused = !matches!(failure, Failure::Transient | Failure::TimedOut);
        match self.tokens.longest_living(now) {
            Some(token) if refused && !self.closed && self.is_of_use(now, reason, token) => {
                self.request(reason, token);
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
        let issuance::State::Requesting { token, .. } = self.issuance.state else {
            return;
        };
        self.issuance.awaits_bucket = matches!(failure, Failure::TimedOut | Failure::Unusable);
        match failure {
            Failure::TokenDead => self.token_dead(now, token),
            Failure::TimedOut | Failure::Unusable => {
                self.issuance.bucket.take(now);
                // It may be granted yet: the token is held until that is settled, then revoked with what it owns.
                if self.spare == Some(token) {
                    self.spare = None;
                }
                self.tokens.may_be_granted(token);
            }
            // A policy that is put right in the login's role counts for tokens made since.
            Failure::Forbidden if self.spare == Some(token) => self.spare = None,
            _ => {}
        }
        if self.was_for_earlier_configuration() {
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

    /// What failed was asked for by an earlier configuration, which says nothing of this one: it is tried at once.
    fn was_for_earlier_configuration(&mut self) -> bool {
        let discarded = std::mem::take(&mut self.discard) && !self.closed;
        if discarded {
            self.issuance.state = issuance::State::Idle;
        }
        discarded
    }

    /// An attempt at a fresh credential failed; `why` is for those who asked for one.
    pub(super) fn fail(&mut self, now: Time, class: FailureClass, why: NotRotated) {
        let left = self.runs_until(now).map(|until| until.since(now));
        let most = match (class, left) {
            (FailureClass::ProofRefused, Some(_)) => Duration::from_mins(5),
            (FailureClass::Transient | FailureClass::Refused, Some(left)) => schedule::longest_wait(left),
            (FailureClass::Transient, None) => LONGEST_UNSERVED_ABSENCE,
            (FailureClass::Refused | FailureClass::ProofRefused, None) => LONGEST_UNSERVED_REFUSAL,
        };
        if class == FailureClass::ProofRefused && left.is_none() {
            // The next one is made out of turn, and probably for nothing.
            self.issuance.bucket.take(now);
            self.issuance.awaits_bucket = true;
        }
        let jitter = self.jitter();
        self.discard = false;
        self.issuance.fail(now, class, most, jitter);
        if self.closed {
            self.issuance.state = issuance::State::Idle;
        }
        self.fail_command(why);
    }

    pub(super) fn fail_command(&mut self, why: NotRotated) {
        if self.command.take().is_some() {
            self.actions.push(Action::RotateFailed(why));
        }
    }
}
