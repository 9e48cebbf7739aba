//! A dynamic role of Vault, as one route uses it: events go in, actions come out. Floor 1.
//!
//! The role passes each event to a part, and then reviews the parts in order. Decisions that need only one part are in
//! that part.

mod ending;
mod issuing;
mod publishing;
mod refusing;
mod renewing;
mod snapshot;

use std::time::Duration;

use super::candidate::Unproved;
use super::deadline::{Deadline, Deadlines, NextAction};
use super::entry::Entry;
use super::event::{Action, Event, NotRotated};
use super::generation::Generation;
use super::generations::Generations;
use super::holdings::Holdings;
use super::ids::{GenerationId, TokenId};
use super::issuance::Issuance;
use super::lazy::Lazy;
use super::note::{Note, Outcome};
use super::refusals::Refusals;
use super::renewal;
use super::revocation::Revocation;
use super::rotation::Rotation;
use super::schedule::Jitter;
use super::settings::Settings;
use super::tokens::Tokens;
use crate::time::Time;

pub(crate) use snapshot::Snapshot;

/// A suspect lease is checked at most this often.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// A denial causes a check at most this often.
const DENIAL_EVERY: Duration = Duration::from_secs(30);

/// A dynamic role of Vault: the credentials of one route, their tokens, and what is being issued.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DynamicRole {
    settings: Settings,
    tokens: Tokens,
    generations: Generations,
    issuance: Issuance,
    rotation: Rotation,
    refusals: Refusals,
    entry: Entry,
    revocation: Revocation,
    lazy: Lazy,
    closed: bool,
    /// The number of jitter values drawn so far.
    salt: u64,
    deadlines: Deadlines,
    actions: Vec<Action>,
}

impl DynamicRole {
    /// A route without a credential. It requests a credential at the first event.
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            tokens: Tokens::default(),
            generations: Generations::default(),
            issuance: Issuance::new(settings.issue_burst, settings.issue_interval),
            rotation: Rotation::default(),
            refusals: Refusals::new(),
            entry: Entry::default(),
            revocation: Revocation::default(),
            lazy: Lazy::new(settings.lazy.is_some()),
            closed: false,
            salt: 0,
            deadlines: Deadlines::new(Time::from_nanos(0)),
            actions: Vec::new(),
            settings,
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
            // Only a static role's password can be unchanged.
            Event::Tick | Event::Unchanged { .. } => {}
            Event::LoggedIn(token, facts) => self.logged_in(now, token, facts),
            Event::LogInFailed(failure) => self.log_in_failed(now, failure),
            Event::Granted { sent_at, lease, renewable } => self.granted(now, sent_at, lease, renewable),
            Event::IssueFailed(failure) => self.issue_failed(now, failure),
            Event::LeaseLeft { token, sent_at, lease } => self.lease_left(token, sent_at, lease),
            Event::LateReply(token) => self.tokens.settled(token),
            Event::Proved(number)
            | Event::ProofRefused(number)
            | Event::ProofLags(number)
            | Event::Unprovable(number)
                if self.refusals.is_proving(number) =>
            {
                let replaceable = self.is_replaceable(number);
                let lets_in = matches!(event, Event::Proved(_));
                let remedy = self.refusals.settle(now, number, lets_in, replaceable);
                self.remedy(number, remedy);
            }
            Event::Proved(number) => self.proved(now, number),
            Event::ProofRefused(number) => self.not_proved(now, number, Unproved::Refused),
            Event::ProofLags(number) => self.not_proved(now, number, Unproved::Lags),
            Event::Unprovable(number) => self.not_proved(now, number, Unproved::NotAsked),
            Event::Accepted(number) => self.accepted(number),
            Event::Barred(barrier) => {
                if self.entry.bar(barrier) {
                    self.actions.push(Action::Barred);
                }
            }
            Event::PublishedProofEnded(number) => self.entry.ended(now, number),
            Event::LeaseRenewed { number, sent_at, lease, renewable } => {
                self.lease_renewed(now, number, sent_at, lease, renewable);
            }
            Event::LeaseRenewFailed(number, failure) => self.lease_renew_failed(now, number, failure),
            Event::TokenRenewed { token, sent_at, ttl, renewable } => {
                let jitter = self.token_renewal_jitter(token, renewable);
                if self.tokens.renewed(now, token, (sent_at, ttl, renewable), jitter) {
                    self.note(Note::TokenEnding(token));
                }
            }
            Event::TokenRenewFailed(token, failure) => self.token_renew_failed(now, token, failure),
            Event::LeaseRevoked(number) => self.returned(number, Outcome::Lease),
            Event::LeaseRevokeFailed(number, failure) => self.lease_revoke_failed(now, number, failure),
            Event::LeaseStays(number) => self.returned(number, Outcome::Forbidden),
            Event::TokenRevoked(token) if self.tokens.is_revoking(token) => {
                self.token_gone(now, token, Outcome::Token)
            }
            Event::TokenRevoked(_) => {}
            Event::TokenRevokeFailed(token, failure) => {
                let jitter = self.jitter();
                if let Some(outcome) = self.tokens.revoke_failed(now, token, failure, jitter) {
                    self.token_gone(now, token, outcome);
                }
            }
            Event::LeaseLookedUp(number, lookup) => {
                let jitter = self.jitter();
                self.revocation.looked_up(now, number, lookup, jitter, &mut self.actions);
            }
            Event::Empty { number, open_upstream } => self.emptied(now, number, open_upstream),
            Event::Suspected(number) => self.check(now, number, CHECK_EVERY, true),
            Event::DenialSeen(number) => self.check(now, number, DENIAL_EVERY, false),
            Event::Replace(number) if self.is_replaceable(number) => {
                let remedy = self.refusals.refused(now, number);
                self.remedy(number, remedy);
            }
            Event::Replace(_) => {}
            Event::Await(number) if self.generations.is_current(number) => self.refusals.wait(number),
            Event::Await(_) => {}
            Event::Rotate(_) if self.closed => {
                self.actions.push(Action::RotateFailed(NotRotated::Closed));
            }
            Event::Rotate(drain) => {
                // A lazy route without a credential requests one, as for a session.
                self.lazy.want();
                self.give_up_refused_candidate();
                self.rotation.command(drain);
            }
            Event::Wanted => self.lazy.want(),
            Event::InUse(in_use) => self.lazy.use_it(in_use),
            Event::Reload => self.reload(),
            Event::Retire => self.close_route(Some(now)),
            Event::Close => self.close_route(None),
        }
    }

    /// Does what time and state of the role require, after each event.
    ///
    /// Nothing here depends on the event: each pass checks the whole state and does what is due. A second pass does
    /// nothing more.
    fn review(&mut self, now: Time) {
        self.deadlines = Deadlines::new(now);
        self.end_generations(now);
        self.publish_standby(now);
        self.choose_current(now);
        self.publish_unjudged(now);
        self.end_idle(now);
        renewal::stagger(now, &mut self.generations, &mut self.tokens);
        self.renew(now);
        self.issue(now);
        self.prove_published(now);
        self.answer_waiting_logins(now);
        self.give_leases_back(now);
        self.give_tokens_back(now);
        self.verify_revoked(now);
        self.notify_sessions(now);
        self.end_empty(now);
        self.issuance.show(&mut self.deadlines);
        renewal::show(&self.generations, &mut self.deadlines);
    }

    /// Notifies the sessions of each generation, if something has changed for them.
    fn notify_sessions(&mut self, now: Time) {
        let mut next = None;
        while let Some(number) = self.generations.next(next) {
            next = Some(number);
            let held = self.holdings(now);
            let Some(generation) = held.generations.get(number) else { continue };
            let (drain_at, ending) = (held.drain_at(generation), held.ending(generation));
            if let Some(at) = drain_at {
                self.deadlines.wake(Deadline::Drain, at);
            }
            if let Some(ending) = ending.filter(|ending| self.generations.notify(number, *ending)) {
                self.actions.push(Action::NotifySessions(number, ending));
            }
        }
    }

    /// A view of everything that the role holds.
    fn holdings(&self, now: Time) -> Holdings<'_> {
        Holdings {
            now,
            settings: &self.settings,
            tokens: &self.tokens,
            generations: &self.generations,
            is_wanted: self.is_wanted(),
            is_closed: self.closed,
        }
    }

    fn jitter(&mut self) -> Jitter {
        self.salt = self.salt.wrapping_add(1);
        Jitter::new(self.settings.seed, self.salt)
    }

    /// The jitter of a term, which is wide if many processes may have been granted theirs at the same time, and if it
    /// can be renewed.
    fn term_jitter(&mut self, is_common: bool, renewable: bool) -> Jitter {
        let jitter = self.jitter();
        if is_common && renewable { jitter.wide() } else { jitter }
    }

    fn note(&mut self, note: Note) {
        self.actions.push(Action::Note(note));
    }

    /// Uses other settings from now on. [`Event::Reload`] says whether they need a fresh credential.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        if settings.lazy.is_none() {
            self.lazy.want();
        }
        self.settings = settings;
    }

    /// Sets how far a server may lag. It depends on the number of servers, which is learned as they are used.
    pub(crate) fn set_replica_grace(&mut self, grace: Duration) {
        self.settings.replica_grace = grace;
    }
}

/// The state of the role for others. None of it decides anything.
impl DynamicRole {
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

    /// Whether there should be a credential: the role is neither closed nor that of a lazy route without sessions.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        self.lazy.is_wanted() && !self.closed
    }

    /// Whether nothing is left: no credential, no token, nothing in flight.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.generations.is_empty()
            && self.tokens.is_empty()
            && self.revocation.is_empty()
            && self.issuance.is_idle()
    }

    /// The generation that serves new logins.
    #[must_use]
    pub(crate) fn current(&self) -> Option<GenerationId> {
        self.generations.current().map(|(number, _)| number)
    }

    /// The generations, oldest first.
    pub(crate) fn generations(&self) -> impl Iterator<Item = (GenerationId, &Generation)> {
        self.generations.iter()
    }

    /// Whether a login or a creds request is in flight, or a candidate is there.
    #[must_use]
    pub(crate) fn is_issuing(&self) -> bool {
        !self.issuance.is_idle()
    }

    /// How often an issuance has failed since it last succeeded.
    #[must_use]
    pub(crate) fn failures(&self) -> u32 {
        self.issuance.failures()
    }

    /// The end of a token.
    #[must_use]
    pub(crate) fn token_ends_at(&self, id: TokenId) -> Option<Time> {
        self.tokens.ends_at(id)
    }

    /// When the sessions of this generation are closed at the latest.
    #[must_use]
    pub(crate) fn hard_close_at(&self, generation: &Generation) -> Time {
        generation.hard_close_at(self.tokens.limits(generation.token()))
    }

    /// How long a renewal of this generation lasts at most: its lease, or its token's usable life if that is shorter.
    #[must_use]
    pub(crate) fn lease_for(&self, generation: &Generation) -> Duration {
        generation.term().longest().min(self.tokens.limits(generation.token()).usable)
    }

    /// When the sessions of this generation begin to be drained; `None` without a successor.
    #[must_use]
    pub(crate) fn drain_at(&self, generation: &Generation) -> Option<Time> {
        generation.drain_at(self.tokens.limits(generation.token()), self.settings.drain)
    }

    /// The latest hard close of a usable generation, or of the standby.
    #[must_use]
    pub(crate) fn runs_until(&self, now: Time) -> Option<Time> {
        self.holdings(now).runs_until()
    }

    /// Whether this generation may end once no session is in it. [`Action::EndWhenEmpty`] says so.
    #[must_use]
    pub(crate) fn may_empty(&self, now: Time, number: GenerationId) -> bool {
        self.holdings(now).may_empty(number)
    }
}

/// Access for the scripts and the model check.
#[cfg(test)]
impl DynamicRole {
    pub(super) fn issuance(&self) -> super::issuance::State {
        self.issuance.state()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn is_accepted(&self, number: GenerationId) -> bool {
        self.generations.get(number).is_some_and(Generation::is_accepted)
    }

    pub(super) fn is_proving_refused(&self, number: GenerationId) -> bool {
        self.refusals.is_proving(number)
    }

    /// When the current generation would be drained if it had a successor.
    pub(super) fn would_drain_at(&self, now: Time) -> Option<Time> {
        let held = self.holdings(now);
        held.current().map(|current| held.would_drain_at(current))
    }

    /// Replaces the term of a lease, for a bug that is planted on purpose.
    pub(super) fn plant_term(&mut self, number: GenerationId, term: super::term::Term) {
        self.generations.plant_term(number, term);
    }

    /// Makes fields equal that no decision depends on, so that the model check recognises a state.
    pub(super) fn forget_counts(&mut self) {
        self.salt = 0;
        self.generations.forget_counts();
        self.tokens.forget_counts();
    }
}
