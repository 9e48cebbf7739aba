//! How the role gets a fresh credential: it logs in and sends a creds request. `publishing` handles the credential.
//! Floor 1.

use std::time::Duration;

use super::DynamicRole;
use crate::lease::deadline::Deadline;
use crate::lease::event::{Action, Failure, NotRotated, TokenFacts};
use crate::lease::failure_class::FailureClass;
use crate::lease::generation::Generation;
use crate::lease::ids::TokenId;
use crate::lease::issuance::{Due, Received};
use crate::lease::note::{Note, Reason};
use crate::lease::renewal;
use crate::lease::schedule::{self, Jitter};
use crate::time::Time;

/// A renewal that failed is asked again this long before a replacement is, so that it may be answered before.
const RENEWAL_FIRST: Duration = Duration::from_secs(1);

impl DynamicRole {
    /// Goes on with the issuance, or begins one if a credential is needed.
    pub(super) fn issue(&mut self, now: Time) {
        let is_served = self.runs_until(now).is_some();
        let due = self.issuance.due(now, is_served, self.rotation.is_commanded());
        let held = self.holdings(now);
        let (demand, standby) = (self.rotation.demand(held), self.rotation.standby_demand(held));
        match due {
            Due::Nothing => {}
            Due::BackOff(until) => {
                let is_needed = demand.is_ok() || standby.is_ok();
                let deadline = if is_needed { Deadline::Issue } else { Deadline::BackOff };
                self.deadlines.wake(deadline, until);
            }
            Due::ProofAt { at, refused } => {
                let presses_at = self.presses_at(now);
                self.deadlines.wake(Deadline::Proof, at);
                if !refused {
                    self.deadlines.wake(Deadline::PublishUnproved, presses_at);
                }
            }
            Due::Proof(number) => self.actions.push(Action::Prove(number)),
            Due::Free => match (demand, standby) {
                (Ok(reason), _) => self.begin(now, reason),
                (Err(at), standby) => {
                    self.deadlines.wake(Deadline::Rotate, at);
                    match standby {
                        Ok(()) => self.begin(now, Reason::Standby),
                        Err(at) => self.deadlines.wake(Deadline::IssueStandby, at),
                    }
                }
            },
        }
    }

    fn begin(&mut self, now: Time, reason: Reason) {
        let is_out_of_turn = self.rotation.is_out_of_turn(reason);
        if let Some(at) = self.issuance.held_until(now, reason, is_out_of_turn) {
            self.deadlines.wake(Deadline::IssueLimit, at);
            return;
        }
        self.note(Note::Issuing(reason));
        let held = self.holdings(now);
        let within = held.current().map(|current| schedule::patience(current.term().usable()));
        let token = self.issuance.spare().filter(|id| {
            let lives = held.tokens.has(*id) && now < held.tokens.ending_at(*id);
            lives && self.rotation.is_of_use(held, reason, *id)
        });
        self.issuance.begin(reason, token);
        self.actions.push(token.map_or(Action::LogIn { within }, Action::Issue));
    }

    pub(super) fn logged_in(&mut self, now: Time, token: TokenId, facts: TokenFacts) {
        let Some(reason) = self.issuance.logging_in() else { return };
        let jitter = self.issuance_jitter(reason, facts.renewable);
        self.tokens.logged_in(token, facts, jitter);
        let is_of_use = self.rotation.is_of_use(self.holdings(now), reason, token);
        match self.issuance.logged_in(token, facts.owned, self.is_wanted(), is_of_use) {
            Received::Unwanted => {}
            Received::OfNoUse => {
                self.note(Note::TokenOfNoUse(token));
                // The owner of the token may provide another token at any moment.
                let class = if facts.owned { FailureClass::Refused } else { FailureClass::Transient };
                self.fail(now, class, NotRotated::TokenOfNoUse);
            }
            Received::Used => self.actions.push(Action::Issue(token)),
        }
    }

    pub(super) fn log_in_failed(&mut self, now: Time, failure: Failure) {
        let Some(reason) = self.issuance.logging_in() else { return };
        if self.issuance.is_discarded(self.closed) {
            return;
        }
        // A refused login does not end the route while an earlier token lives: the next lease is requested under that
        // token.
        let refused = !matches!(failure, Failure::Transient | Failure::TimedOut);
        let held = self.holdings(now);
        let living = held.tokens.longest_living(now).filter(|_| refused && !self.closed);
        match living.filter(|token| self.rotation.is_of_use(held, reason, *token)) {
            Some(token) => {
                self.issuance.request(reason, token);
                self.actions.push(Action::Issue(token));
            }
            // The logins yield tokens without the right to creds, or with unreadable replies.
            None if matches!(failure, Failure::Forbidden | Failure::Unusable) => {
                self.fail(now, FailureClass::Refused, NotRotated::LogIn(failure));
            }
            // The next login uses the content of the file at that time.
            None => self.fail(now, FailureClass::Transient, NotRotated::LogIn(failure)),
        }
    }

    pub(super) fn granted(&mut self, now: Time, sent_at: Time, lease: Duration, renewable: bool) {
        let Some((reason, token)) = self.issuance.requesting() else { return };
        let jitter = self.issuance_jitter(reason, renewable);
        let generation = Generation::new(token, sent_at, lease, renewable, jitter);
        let usable = self.hard_close_at(&generation).since(sent_at);
        let number = self.generations.add(generation);
        self.actions.push(Action::Store(number));
        let is_out_of_turn = self.rotation.is_out_of_turn(reason);
        match self.issuance.granted(now, number, usable, self.is_wanted(), is_out_of_turn) {
            Received::Unwanted => self.give_back(number),
            Received::OfNoUse => {
                self.note(Note::TooShort(number));
                self.give_back(number);
                self.fail(now, FailureClass::Refused, NotRotated::TooShort);
            }
            Received::Used => self.actions.push(Action::Prove(number)),
        }
    }

    /// The jitter of a fresh lease, or of its token. After several failures others may have waited for Vault, too. A
    /// standby is renewed half a period from the current generation, so its own renewal is not spread.
    fn issuance_jitter(&mut self, reason: Reason, renewable: bool) -> Jitter {
        let has_waited = self.issuance.failures() > 1 && reason != Reason::Standby;
        self.term_jitter(has_waited || reason.is_common(), renewable)
    }

    pub(super) fn issue_failed(&mut self, now: Time, failure: Failure) {
        let Some((_, token)) = self.issuance.requesting() else { return };
        self.issuance.not_granted(now, failure);
        match failure {
            Failure::TokenDead => self.token_dead(now, token),
            // The credential may still be granted. The token is held until this is settled, then revoked with all that
            // it owns.
            Failure::TimedOut | Failure::Unusable => self.tokens.may_be_granted(token),
            _ => {}
        }
        if self.issuance.is_discarded(self.closed) {
            return;
        }
        let class = match failure {
            // A new login replaces a dead token.
            Failure::Transient | Failure::TimedOut | Failure::TokenDead => FailureClass::Transient,
            Failure::Forbidden
            | Failure::Gone
            | Failure::CannotExtend
            | Failure::Refused
            | Failure::Unusable => FailureClass::Refused,
        };
        self.fail(now, class, NotRotated::Issue(failure));
    }

    /// An attempt at a fresh credential failed; `why` is the answer to operators who asked for it.
    pub(super) fn fail(&mut self, now: Time, class: FailureClass, why: NotRotated) {
        let left = self.runs_until(now).map(|until| until.since(now));
        let jitter = self.jitter();
        let until = self.issuance.fail(now, class, left, self.closed, jitter);
        let before = until - RENEWAL_FIRST.min(until.since(now) / 2);
        renewal::ask_again_by(before, &mut self.generations, &mut self.tokens);
        self.fail_command(why);
    }

    pub(super) fn fail_command(&mut self, why: NotRotated) {
        if self.rotation.end_command().is_some() {
            self.actions.push(Action::RotateFailed(why));
        }
    }

    /// The configuration has changed, so results of earlier requests are not used.
    pub(super) fn reload(&mut self) {
        self.rotation.reload(self.closed);
        self.dismiss_standby();
        if let Some(candidate) = self.issuance.reload() {
            self.give_back(candidate);
        }
    }
}
