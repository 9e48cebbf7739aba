//! A static role's life: a password that is changed in place, and read again. Floor 1.
//!
//! There is no lease: a rotation harms no session, so nothing is drained, ended or given back but the token that reads.
//! Vault says how long a password has to live (`ttl`) but changes it up to some seconds later, and by hand at any time.
//!
//! ```text
//!   Waiting ──due, or a login was refused──▶ LoggingIn (no living token) ──▶ Reading
//!      ▲                                         │ failed                       │
//!      │◀──────────── back-off ──────────────────┴──────────────────────────────┤ failed
//!      │◀──────────── `ttl` and a second ───────────────────────────────────────┤ a new password: published
//!      │◀──────────── 1, 2, 4, 5, 5 … s ────────────────────────────────────────┘ still the old one
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::deadline::{Deadline, Deadlines, NextAction};
use super::doubt::{Answer, Doubt};
use super::event::{Action, Ending, Event, Failure, NotRotated, TokenFacts, Verdict};
use super::ids::{GenerationId, TokenId};
use super::note::{Note, Reason};
use super::schedule::{self, Jitter};
use super::tokens::Tokens;
use crate::time::Time;

/// A static role of Vault: one credential, whose password changes in place. It takes the same events as a [`DynamicRole`](super::DynamicRole), and gives the same actions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StaticRole {
    tokens: Tokens,
    /// The one that reads.
    token: Option<TokenId>,
    reading: Reading,
    /// Every password that sessions have logged in with; the last one is current.
    generations: BTreeMap<GenerationId, Password>,
    next_number: GenerationId,
    /// When the latest read that was answered was sent.
    read_at: Time,
    failures: u32,
    /// Reads that brought nothing new though something new was due.
    polls: u32,
    /// Refused logins make it poll until then.
    urgent_until: Time,
    /// A check, or somebody who asked for a rotation, waits for the read in flight.
    awaited: Vec<GenerationId>,
    commanded: bool,
    /// What is in flight was asked for by an earlier configuration.
    reloaded: bool,
    doubt: Doubt,
    /// A refused login waits for the proof in flight.
    is_doubted: bool,
    /// The server refuses the current password, as far as is known.
    refused: Option<Refused>,
    closed: bool,
    seed: u64,
    salt: u64,
    deadlines: Deadlines,
    actions: Vec<Action>,
}

/// One password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Password {
    /// When it was asked for.
    pub(crate) read_at: Time,
}

/// A password that the server refuses is proved again until it lets in: nobody may log in meanwhile who would show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Refused {
    tries: u32,
    again_at: Time,
}

/// Where the reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    Waiting { until: Time },
    LoggingIn,
    InFlight { token: TokenId },
}

/// After the end that Vault names, until the first look: its queue ticks in seconds.
const SETTLE: Duration = Duration::from_secs(1);
/// A refused login makes it look again and again for so long.
const URGENT_FOR: Duration = Duration::from_secs(30);
/// A read at the word of a refused login comes at most this often.
const READ_EVERY: Duration = Duration::from_secs(1);
/// A password that the server refuses is proved again after so long, then less often.
const PROVE_AFTER: Duration = Duration::from_secs(10);
const LONGEST_PROVE_AFTER: Duration = Duration::from_secs(30);
/// The longest wait between two reads while something new is due.
const LONGEST_POLL: Duration = Duration::from_secs(5);

impl StaticRole {
    /// A role whose password has not been read. It asks for it at the first event.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            tokens: Tokens::default(),
            token: None,
            reading: Reading::Waiting { until: Time::from_nanos(0) },
            generations: BTreeMap::new(),
            next_number: GenerationId::FIRST,
            read_at: Time::from_nanos(0),
            failures: 0,
            polls: 0,
            urgent_until: Time::from_nanos(0),
            awaited: Vec::new(),
            commanded: false,
            reloaded: false,
            doubt: Doubt::Unasked,
            is_doubted: false,
            refused: None,
            closed: false,
            seed,
            salt: 0,
            deadlines: Deadlines::new(Time::from_nanos(0)),
            actions: Vec::new(),
        }
    }

    /// Takes in what has happened by `now`, and gives what is to be done, in order.
    pub(crate) fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.take_in(now, event);
        self.review(now);
        std::mem::take(&mut self.actions)
    }

    /// When to come back with [`Event::Tick`] at the latest.
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Time {
        self.deadlines.next()
    }

    /// The current password.
    #[must_use]
    pub(crate) fn current(&self) -> Option<GenerationId> {
        self.generations.last_key_value().map(|(number, _)| *number).filter(|_| !self.closed)
    }

    /// Whether the server refuses the current password.
    #[must_use]
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
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

    /// How often a read has failed since the latest that did not.
    #[must_use]
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether this password may be forgotten once no session that logged in with it is left.
    #[must_use]
    pub(crate) fn may_empty(&self, number: GenerationId) -> bool {
        self.current() != Some(number) && self.generations.contains_key(&number)
    }

    /// Whether it is meant to have a password.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        !self.closed
    }

    /// Whether nothing is left: no password, no token, nothing in flight.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.generations.is_empty()
            && self.tokens.is_empty()
            && matches!(self.reading, Reading::Waiting { .. })
    }

    /// What the role does next by itself, and when; [`Time::NEVER`] where it does nothing.
    #[must_use]
    pub(crate) fn next_action(&self) -> (NextAction, Time) {
        self.deadlines.next_action()
    }

    fn take_in(&mut self, now: Time, event: Event) {
        match event {
            Event::LoggedIn(token, facts) => self.logged_in(token, facts),
            Event::LogInFailed(failure) => self.log_in_failed(now, failure),
            Event::Granted { sent_at, lease, .. } => self.read(now, sent_at, lease, true),
            Event::Unchanged { sent_at, lease } => self.read(now, sent_at, lease, false),
            Event::IssueFailed(failure) => {
                if let Reading::InFlight { token } = self.reading {
                    match failure {
                        Failure::TokenDead => self.drop_token(token),
                        // A policy that is put right in the login's role counts for tokens made since.
                        Failure::Forbidden => self.token = None,
                        _ => {}
                    }
                    let away = matches!(failure, Failure::Transient | Failure::TimedOut | Failure::TokenDead);
                    self.fail(now, away, NotRotated::Issue(failure));
                }
            }
            Event::TokenRenewed { token, sent_at, ttl, renewable } => {
                let jitter = self.jitter();
                if self.tokens.renewed(now, token, (sent_at, ttl, renewable), jitter) {
                    self.actions.push(Action::Note(Note::TokenEnding(token)));
                }
            }
            Event::TokenRenewFailed(token, Failure::TokenDead | Failure::Gone) => self.drop_token(token),
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
            Event::Suspected(number) => {
                if self.current() == Some(number) {
                    if !self.awaited.contains(&number) {
                        self.awaited.push(number);
                    }
                    self.retry_now(now);
                } else {
                    self.actions.push(Action::Answer(number, Verdict::Lost));
                }
            }
            Event::Replace(number) => {
                if self.current() == Some(number) {
                    self.is_doubted = true;
                    match self.doubt.ask(now, number) {
                        Answer::Prove => self.actions.push(Action::Prove(number)),
                        Answer::Wait => {}
                        Answer::LetsIn => self.actions.push(Action::LetsIn(number)),
                        Answer::Refused => self.retry_now(now),
                    }
                }
            }
            Event::Proved(number)
            | Event::ProofRefused(number)
            | Event::ProofLags(number)
            | Event::Unprovable(number) => {
                self.proof(now, number, event);
            }
            // Its password is changed in place: there is no other.
            Event::Await(number) => self.actions.push(Action::TooEarly(number)),
            Event::Rotate(_) => {
                self.commanded = true;
                self.retry_now(now);
                self.end_back_off(now);
            }
            Event::Reload => {
                self.reloaded = !matches!(self.reading, Reading::Waiting { .. });
                self.retry_now(now);
                self.end_back_off(now);
            }
            Event::Close | Event::Retire => self.close(),
            // A static role has no lease to renew or give back; a denial is the database's own.
            Event::Tick
            | Event::Wanted
            | Event::InUse(_)
            | Event::LeaseLeft { .. }
            | Event::LateReply(_)
            | Event::DenialSeen(_)
            | Event::Accepted(_)
            | Event::LeaseRenewed { .. }
            | Event::LeaseRenewFailed(..)
            | Event::LeaseRevoked(_)
            | Event::LeaseRevokeFailed(..)
            | Event::LeaseStays(_)
            | Event::LeaseLookedUp(..) => {}
        }
    }

    fn logged_in(&mut self, token: TokenId, facts: TokenFacts) {
        if self.reading != Reading::LoggingIn {
            return;
        }
        let jitter = self.jitter();
        self.tokens.logged_in(token, facts, jitter);
        self.token = Some(token);
        if self.closed {
            self.reading = Reading::Waiting { until: Time::NEVER };
            self.disappoint(NotRotated::Closed);
        } else {
            self.ask(token);
        }
    }

    fn log_in_failed(&mut self, now: Time, failure: Failure) {
        if self.reading != Reading::LoggingIn {
            return;
        }
        // A login that is refused is of no matter while the last token lives.
        match self.token.filter(|id| self.tokens.ends_at(*id).is_some_and(|ends_at| now < ends_at)) {
            Some(token) if !self.closed => self.ask(token),
            _ => self.fail(now, true, NotRotated::LogIn(failure)),
        }
    }

    fn ask(&mut self, token: TokenId) {
        self.reading = Reading::InFlight { token };
        self.actions.push(Action::Issue(token));
    }

    fn read(&mut self, now: Time, sent_at: Time, ttl: Duration, is_new: bool) {
        if !matches!(self.reading, Reading::InFlight { .. }) {
            return;
        }
        self.failures = 0;
        self.reloaded = false;
        self.read_at = sent_at;
        if is_new {
            let successor = !self.generations.is_empty();
            let number = self.next_number;
            self.next_number = number.next();
            self.generations.insert(number, Password { read_at: sent_at });
            self.actions.push(Action::Store(number));
            self.polls = 0;
            self.urgent_until = now;
            if !self.closed {
                let ending = Ending { hard_close_at: Time::NEVER, drain_from: None, closing: None };
                self.actions.push(Action::NotifySessions(number, ending));
                self.actions.push(Action::Publish(number));
                // It is published in any case, since it is the only one. What the server makes of it is for the status.
                self.refused = None;
                if self.doubt.ask(now, number) == Answer::Prove {
                    self.actions.push(Action::Prove(number));
                }
                let reason = if successor { Reason::Schedule } else { Reason::First };
                self.actions.push(Action::Note(Note::Published { number, reason, proved: true, successor }));
            }
        } else if self.commanded
            && let Some((number, _)) = self.generations.last_key_value()
        {
            self.actions.push(Action::RotateDone(*number));
        }
        self.commanded = false;
        let verdict = if is_new { Verdict::Lost } else { Verdict::Alive };
        for number in std::mem::take(&mut self.awaited) {
            self.actions.push(Action::Answer(number, verdict));
        }
        let due_at = sent_at + ttl + SETTLE;
        let is_due = ttl.is_zero() || now < self.urgent_until;
        let until = if is_due && (!is_new || ttl.is_zero()) {
            let jitter = self.jitter();
            let wait = schedule::back_off(self.polls, READ_EVERY, LONGEST_POLL, jitter);
            self.polls = self.polls.saturating_add(1);
            (now + wait).min(if ttl.is_zero() { Time::NEVER } else { due_at })
        } else {
            self.polls = 0;
            due_at
        };
        self.reading = Reading::Waiting { until };
    }

    /// Somebody asks for it by hand, or by another configuration: what has failed so far is not waited out.
    fn end_back_off(&mut self, now: Time) {
        if let Reading::Waiting { .. } = self.reading
            && self.failures > 0
            && !self.closed
        {
            self.reading = Reading::Waiting { until: now };
        }
    }

    /// What the server makes of a password.
    fn proof(&mut self, now: Time, number: GenerationId, found: Event) {
        let lets_in = matches!(found, Event::Proved(_));
        if !self.doubt.settle(now, number, lets_in) || self.current() != Some(number) {
            return;
        }
        let is_doubted = std::mem::take(&mut self.is_doubted);
        if lets_in {
            self.refused = None;
            if is_doubted {
                self.actions.push(Action::LetsIn(number));
            } else {
                // It says nothing of a login that is refused later.
                self.doubt = Doubt::Unasked;
            }
            return;
        }
        if matches!(found, Event::ProofRefused(_)) || self.refused.is_some() {
            let tries = self.refused.map_or(0, |refused| refused.tries + 1);
            let jitter = self.jitter();
            let wait = schedule::back_off(tries, PROVE_AFTER, LONGEST_PROVE_AFTER, jitter);
            self.refused = Some(Refused { tries, again_at: now + wait });
        }
        self.retry_now(now);
    }

    fn prove_again(&mut self, now: Time) {
        let (Some(Refused { again_at, .. }), Some(number)) = (self.refused, self.current()) else { return };
        if self.doubt.is_proving(number) {
            return;
        }
        if now < again_at {
            self.deadlines.wake(Deadline::Proof, again_at);
        } else if self.doubt.ask(now, number) == Answer::Prove {
            self.actions.push(Action::Prove(number));
        } else {
            // A login has had it proved a moment ago.
            self.deadlines.wake(Deadline::Proof, now + PROVE_AFTER);
        }
    }

    /// `away`: it may work at any moment; Vault did not say no.
    fn fail(&mut self, now: Time, away: bool, why: NotRotated) {
        if std::mem::take(&mut self.reloaded) && !self.closed {
            self.reading = Reading::Waiting { until: now };
            return;
        }
        let is_pressing = self.current().is_none() || now < self.urgent_until;
        let most = if is_pressing && away { 3 } else { 30 };
        let jitter = self.jitter();
        let first = Duration::from_millis(500);
        let wait = schedule::back_off(self.failures, first, Duration::from_secs(most), jitter);
        self.failures = self.failures.saturating_add(1);
        self.reading = Reading::Waiting { until: if self.closed { Time::NEVER } else { now + wait } };
        self.disappoint(why);
    }

    /// Whoever waits for a read learns that none comes.
    fn disappoint(&mut self, why: NotRotated) {
        for number in std::mem::take(&mut self.awaited) {
            self.actions.push(Action::Answer(number, Verdict::Silent));
        }
        if std::mem::take(&mut self.commanded) {
            self.actions.push(Action::RotateFailed(why));
        }
    }

    /// Something does not fit: look soon, and often, though less and less so while a password stays refused.
    fn retry_now(&mut self, now: Time) {
        if self.closed {
            self.urgent_until = now;
            self.disappoint(NotRotated::Closed);
            return;
        }
        self.urgent_until = now + URGENT_FOR;
        if let Reading::Waiting { until } = self.reading
            && self.failures == 0
        {
            let wait =
                schedule::back_off(self.polls.saturating_sub(1), READ_EVERY, LONGEST_POLL, Jitter::NONE);
            self.reading = Reading::Waiting { until: until.min(now.max(self.read_at + wait)) };
        }
    }

    fn review(&mut self, now: Time) {
        self.deadlines = Deadlines::new(now);
        if let Reading::Waiting { until } = self.reading
            && !self.closed
        {
            if now < until {
                self.deadlines.wake(Deadline::Read, until);
            } else {
                self.begin(now);
            }
        }
        if !matches!(self.reading, Reading::Waiting { .. }) {
            self.deadlines.is_under_way(Deadline::Read);
        }
        self.prove_again(now);
        self.keep_tokens(now);
    }

    fn begin(&mut self, now: Time) {
        let living = self.token.filter(|id| self.tokens.has(*id) && now < self.tokens.ending_at(*id));
        if let Some(token) = living {
            self.ask(token);
        } else {
            self.reading = Reading::LoggingIn;
            self.actions.push(Action::LogIn { within: None });
        }
    }

    fn keep_tokens(&mut self, now: Time) {
        let in_flight = match self.reading {
            Reading::InFlight { token } => Some(token),
            Reading::Waiting { .. } | Reading::LoggingIn => None,
        };
        let held = self.token.filter(|_| !self.closed);
        let is_needed = |id| in_flight == Some(id) || held == Some(id);
        self.tokens.renew(now, is_needed, &mut self.deadlines, &mut self.actions);
        let lives = |tokens: &Tokens, id| tokens.ends_at(id).is_some_and(|ends_at| now < ends_at);
        let living: Vec<TokenId> =
            in_flight.into_iter().chain(held).filter(|id| lives(&self.tokens, *id)).collect();
        let stands = |id| living.contains(&id);
        for id in self.tokens.revoke(now, stands, &mut self.deadlines, &mut self.actions) {
            self.forget_token(id);
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.actions.push(Action::Unpublish);
        if let Reading::Waiting { .. } = self.reading {
            self.reading = Reading::Waiting { until: Time::NEVER };
            self.disappoint(NotRotated::Closed);
        }
    }

    fn drop_token(&mut self, token: TokenId) {
        if self.token == Some(token) {
            self.token = None;
        }
        self.forget_token(token);
    }

    fn forget_token(&mut self, token: TokenId) {
        if self.tokens.remove(token) {
            self.actions.push(Action::ForgetToken(token));
        }
        if self.token == Some(token) {
            self.token = None;
        }
    }

    fn jitter(&mut self) -> Jitter {
        self.salt = self.salt.wrapping_add(1);
        Jitter::new(self.seed, self.salt)
    }
}
