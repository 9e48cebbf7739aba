//! A static role's life: a password that is changed in place, and read again. Floor 1.
//!
//! There is no lease: a rotation harms no session, so nothing is drained, ended or given back except the token of the
//! reads. Vault states the time to the next rotation (`ttl`), but rotates up to some seconds later, and by hand at any
//! time.
//!
//! ```text
//!   Waiting ──due, or a login was refused──▶ LoggingIn (no living token) ──▶ Reading
//!      ▲                                         │ failed                       │
//!      │◀──────────── back-off ──────────────────┴──────────────────────────────┤ failed
//!      │◀──────────── `ttl` and a second ───────────────────────────────────────┤ a new password: published
//!      │◀──────────── 1, 2, 4, 5, 5 … s ────────────────────────────────────────┘ still the old one
//! ```

mod proofs;
mod reading;
mod reads;

use std::collections::BTreeMap;

use super::deadline::{Deadline, Deadlines, NextAction};
use super::doubt::Remedy;
use super::entry::Entry;
use super::event::{Action, Ending, Event, Failure, NotRotated, Verdict};
use super::ids::{GenerationId, TokenId};
use super::note::{Note, Reason};
use super::schedule::Jitter;
use super::tokens::Tokens;
use crate::time::Time;
use proofs::{Found, Proofs};
use reads::Reads;

/// A static role of Vault: one credential, whose password changes in place. It takes the same events as a
/// [`DynamicRole`](super::DynamicRole), and returns the same actions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StaticRole {
    tokens: Tokens,
    /// The token of the reads.
    token: Option<TokenId>,
    reads: Reads,
    proofs: Proofs,
    entry: Entry,
    /// Each password that sessions have logged in with; the last is current.
    generations: BTreeMap<GenerationId, Password>,
    next_number: GenerationId,
    /// The passwords whose refused logins wait for the read in flight.
    awaited: Vec<GenerationId>,
    /// Whether an operator waits for the read in flight.
    commanded: bool,
    closed: bool,
    seed: u64,
    salt: u64,
    deadlines: Deadlines,
    actions: Vec<Action>,
}

/// A password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Password {
    /// When the read was sent.
    pub(crate) read_at: Time,
    /// Whether the driver was asked to end it once it is empty.
    ends_when_empty: bool,
}

impl StaticRole {
    /// A role whose password has not been read. It requests the password at the first event.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            tokens: Tokens::default(),
            token: None,
            reads: Reads::new(),
            proofs: Proofs::new(),
            entry: Entry::default(),
            generations: BTreeMap::new(),
            next_number: GenerationId::FIRST,
            awaited: Vec::new(),
            commanded: false,
            closed: false,
            seed,
            salt: 0,
            deadlines: Deadlines::new(Time::from_nanos(0)),
            actions: Vec::new(),
        }
    }

    /// Handles an event at `now`, and returns the actions in order.
    pub(crate) fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.take_in(now, event);
        self.review(now);
        std::mem::take(&mut self.actions)
    }

    fn take_in(&mut self, now: Time, event: Event) {
        match event {
            Event::LoggedIn(token, facts) => self.logged_in(token, facts),
            Event::LogInFailed(failure) => self.log_in_failed(now, failure),
            Event::Granted { sent_at, lease, .. } => self.was_read(now, sent_at, lease, true),
            Event::Unchanged { sent_at, lease } => self.was_read(now, sent_at, lease, false),
            Event::IssueFailed(failure) => self.read_failed(now, failure),
            Event::TokenRenewed { token, sent_at, ttl, renewable } => {
                let jitter = self.jitter();
                let has_waited = renewable && self.tokens.is_failing(token);
                let jitter = if has_waited { jitter.wide() } else { jitter };
                if self.tokens.renewed(now, token, (sent_at, ttl, renewable), jitter) {
                    self.actions.push(Action::Note(Note::TokenEnding(token)));
                }
            }
            Event::TokenRenewFailed(token, Failure::TokenDead | Failure::Gone) => self.forget_token(token),
            Event::TokenRenewFailed(token, failure) => {
                let jitter = self.jitter();
                self.tokens.renew_failed(now, token, failure, jitter);
            }
            Event::TokenRevoked(token) => self.forget_token(token),
            Event::TokenRevokeFailed(token, failure) => {
                let jitter = self.jitter();
                if self.tokens.revoke_failed(now, token, failure, jitter).is_some() {
                    self.forget_token(token);
                }
            }
            Event::Empty { number, .. } => {
                if self.may_empty(number) && self.generations.remove(&number).is_some() {
                    self.actions.push(Action::Forget(number));
                }
            }
            Event::Suspected(number) => self.suspected(now, number),
            Event::Replace(number) => self.refused(now, number),
            Event::Proved(number) => self.proved(now, number, Found::LetsIn),
            Event::ProofRefused(number) => self.proved(now, number, Found::Refused),
            Event::ProofLags(number) | Event::Unprovable(number) => self.proved(now, number, Found::Nothing),
            Event::Accepted(_) => {
                if self.entry.let_in() {
                    self.actions.push(Action::Unbarred);
                }
            }
            Event::Barred(barrier) => {
                if self.entry.bar(barrier) {
                    self.actions.push(Action::Barred);
                }
            }
            Event::PublishedProofEnded(number) => self.entry.ended(now, number),
            // The password changes in place: there is no other credential.
            Event::Await(number) => self.actions.push(Action::TooEarly(number)),
            Event::Rotate(_) => {
                self.commanded = true;
                self.read_now(now);
            }
            Event::Reload => {
                if !self.closed {
                    self.reads.reload();
                }
                self.read_now(now);
            }
            Event::Close | Event::Retire => self.close(),
            // A static role has no lease to renew or give back; a permission error is about the database only.
            Event::Tick
            | Event::Wanted
            | Event::InUse(_)
            | Event::LeaseLeft { .. }
            | Event::LateReply(_)
            | Event::DenialSeen(_)
            | Event::LeaseRenewed { .. }
            | Event::LeaseRenewFailed(..)
            | Event::LeaseRevoked(_)
            | Event::LeaseRevokeFailed(..)
            | Event::LeaseStays(_)
            | Event::LeaseLookedUp(..) => {}
        }
    }

    fn review(&mut self, now: Time) {
        self.deadlines = Deadlines::new(now);
        if !self.closed && self.reads.is_due(now, &mut self.deadlines) {
            self.begin(now);
        }
        if !self.reads.is_waiting() {
            self.deadlines.is_under_way(Deadline::Read);
        }
        self.prove(now);
        self.end_empty();
        self.keep_tokens(now);
    }

    /// Proves a password that the server refuses, or with which no session can log in. In other cases it does not
    /// matter whether a server has let it in, since there is no other password.
    fn prove(&mut self, now: Time) {
        let current = self.current();
        if let Some(number) = current.filter(|it| self.proofs.is_due(now, *it, &mut self.deadlines)) {
            self.actions.push(Action::Prove(number));
        }
        let accepted = current.map(|number| (number, true));
        if let Some(number) = self.entry.due(now, accepted, &mut self.deadlines) {
            self.actions.push(Action::ProvePublished(number));
        }
    }

    /// Reports which passwords may be forgotten once no session that logged in with them is left.
    fn end_empty(&mut self) {
        let current = self.current();
        for (number, password) in &mut self.generations {
            if current != Some(*number) && !std::mem::replace(&mut password.ends_when_empty, true) {
                self.actions.push(Action::EndWhenEmpty(*number));
            }
        }
    }

    fn publish(&mut self, now: Time, sent_at: Time) {
        let successor = !self.generations.is_empty();
        let number = self.next_number;
        self.next_number = number.next();
        self.generations.insert(number, Password { read_at: sent_at, ends_when_empty: false });
        self.actions.push(Action::Store(number));
        if self.closed {
            return;
        }
        let ending = Ending { hard_close_at: Time::NEVER, drain_from: None, closing: None };
        self.actions.push(Action::NotifySessions(number, ending));
        self.actions.push(Action::Publish(number));
        if self.proofs.published(now, number) {
            self.actions.push(Action::Prove(number));
        }
        let reason = if successor { Reason::Schedule } else { Reason::First };
        self.actions.push(Action::Note(Note::Published { number, reason, proved: true, successor }));
    }

    /// A login with this password was refused. The next read shows whether the password has changed.
    fn suspected(&mut self, now: Time, number: GenerationId) {
        if self.current() != Some(number) {
            self.actions.push(Action::Answer(number, Verdict::Lost));
            return;
        }
        if !self.awaited.contains(&number) {
            self.awaited.push(number);
        }
        self.retry_now(now);
    }

    /// Logins with this password are refused though it has not changed.
    fn refused(&mut self, now: Time, number: GenerationId) {
        if self.current() != Some(number) {
            return;
        }
        let remedy = self.proofs.doubt(now, number);
        self.remedy(now, number, remedy);
    }

    fn remedy(&mut self, now: Time, number: GenerationId, remedy: Remedy) {
        match remedy {
            Remedy::Prove => self.actions.push(Action::Prove(number)),
            Remedy::Wait => {}
            Remedy::LetsIn => self.actions.push(Action::LetsIn(number)),
            Remedy::Replace => self.retry_now(now),
        }
    }

    fn proved(&mut self, now: Time, number: GenerationId, found: Found) {
        let (is_current, jitter) = (self.current() == Some(number), self.jitter());
        let remedy = self.proofs.settle(now, number, found, is_current, jitter);
        self.remedy(now, number, remedy);
    }

    fn close(&mut self) {
        self.closed = true;
        self.actions.push(Action::Unpublish);
        self.reads.stop();
        if self.reads.is_waiting() {
            self.disappoint(NotRotated::Closed);
        }
    }

    fn jitter(&mut self) -> Jitter {
        self.salt = self.salt.wrapping_add(1);
        Jitter::new(self.seed, self.salt)
    }
}

/// The state of the role for others. None of it decides anything.
impl StaticRole {
    /// The latest time of the next [`Event::Tick`].
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Time {
        self.deadlines.next()
    }

    /// The next action of the role by itself, and its time; [`Time::NEVER`] if there is none.
    #[must_use]
    pub(crate) fn next_action(&self) -> (NextAction, Time) {
        self.deadlines.next_action()
    }

    /// The current password.
    #[must_use]
    pub(crate) fn current(&self) -> Option<GenerationId> {
        self.generations.last_key_value().map(|(number, _)| *number).filter(|_| !self.closed)
    }

    /// Whether the server refuses the current password.
    #[must_use]
    pub(crate) fn is_refused(&self) -> bool {
        self.proofs.is_refused()
    }

    /// The passwords, oldest first.
    pub(crate) fn generations(&self) -> impl Iterator<Item = (GenerationId, &Password)> {
        self.generations.iter().map(|(number, password)| (*number, password))
    }

    /// The end of a token.
    #[must_use]
    pub(crate) fn token_ends_at(&self, id: TokenId) -> Option<Time> {
        self.tokens.ends_at(id)
    }

    /// How often a read has failed since the latest success.
    #[must_use]
    pub(crate) fn failures(&self) -> u32 {
        self.reads.failures()
    }

    /// Whether it should have a password.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        !self.closed
    }

    /// Whether nothing is left: no password, no token, nothing in flight.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.generations.is_empty() && self.tokens.is_empty() && self.reads.is_waiting()
    }

    /// Whether this password may be forgotten once no session that logged in with it is left.
    fn may_empty(&self, number: GenerationId) -> bool {
        self.current() != Some(number) && self.generations.contains_key(&number)
    }
}
