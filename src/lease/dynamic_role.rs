//! A dynamic role of Vault, as one route uses it: what has happened goes in, what is to be done comes out. Floor 1.

use std::time::Duration;

use super::candidate::Unproved;
use super::deadline::{Deadline, Deadlines, NextAction};
use super::doubt::{Doubt, ReplaceGate};
use super::event::{Action, DrainSpan, Event, NotRotated};
use super::generation::{Generation, State};
use super::generations::Generations;
use super::ids::{GenerationId, TokenId};
use super::issuance::Issuance;
use super::note::{Cause, Note, Outcome};
use super::revocation::Revocation;
use super::schedule::Jitter;
use super::settings::Settings;
use super::tokens::{TokenLimits, Tokens};
use crate::time::Time;

/// At most this many generations are kept for their sessions.
pub(super) const MOST_RETIRING: usize = 8;
/// A suspect lease is checked at most this often.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// A denial makes a check at most this often.
const DENIAL_EVERY: Duration = Duration::from_secs(30);

/// A dynamic role of Vault: the credentials of one route, their tokens, and what is being issued.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DynamicRole {
    pub(super) settings: Settings,
    pub(super) tokens: Tokens,
    pub(super) generations: Generations,
    pub(super) revocation: Revocation,
    pub(super) issuance: Issuance,
    /// A rotation was asked for.
    pub(super) command: Option<Option<DrainSpan>>,
    /// The current generation is refused and has to be replaced.
    pub(super) refused: Option<GenerationId>,
    pub(super) gate: ReplaceGate,
    pub(super) doubt: Doubt,
    /// A login with the current generation was refused, and waits for the issuance under way.
    pub(super) awaited: Option<GenerationId>,
    /// A current lease was lost and has no successor yet.
    pub(super) lost: bool,
    /// The credential that stands by is replaced out of turn: it was lost, or took a lost one's place.
    pub(super) standby_out_of_turn: bool,
    pub(super) has_published: bool,
    pub(super) closed: bool,
    /// Somebody needs a credential; false only for a lazy route without sessions.
    pub(super) wanted: bool,
    /// Whether the current generation has sessions.
    in_use: bool,
    /// Since when a lazy route has had a credential and no session.
    pub(super) idle_since: Option<Time>,
    /// The configuration has changed since the latest publication.
    pub(super) reload: bool,
    pub(super) salt: u64,
    pub(super) deadlines: Deadlines,
    pub(super) actions: Vec<Action>,
}

impl DynamicRole {
    /// A route without a credential. It asks for one at the first event.
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        let issuance = Issuance::new(settings.issue_burst, settings.issue_interval);
        let wanted = settings.lazy.is_none();
        Self {
            settings,
            tokens: Tokens::default(),
            generations: Generations::default(),
            revocation: Revocation::default(),
            issuance,
            command: None,
            refused: None,
            gate: ReplaceGate::new(),
            doubt: Doubt::Unasked,
            awaited: None,
            lost: false,
            standby_out_of_turn: false,
            has_published: false,
            closed: false,
            wanted,
            in_use: false,
            idle_since: None,
            reload: false,
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

    /// Whether there should be a credential; not for a lazy route without sessions.
    #[must_use]
    pub(crate) fn needs_credential(&self) -> bool {
        self.wanted && !self.closed
    }

    /// The current generation.
    #[must_use]
    pub(crate) fn current(&self) -> Option<GenerationId> {
        self.generations.current().map(|(number, _)| number)
    }

    /// The generations, oldest first.
    pub(crate) fn generations(&self) -> impl Iterator<Item = (GenerationId, &Generation)> {
        self.generations.iter()
    }

    /// Where the issuance stands.
    #[must_use]
    #[cfg(test)]
    pub(super) fn issuance(&self) -> super::issuance::State {
        self.issuance.state()
    }

    /// How often an issuance has failed since the latest that did not.
    #[must_use]
    pub(crate) fn failures(&self) -> u32 {
        self.issuance.failures()
    }

    /// The end of a token.
    #[must_use]
    pub(crate) fn token_ends_at(&self, id: TokenId) -> Option<Time> {
        self.tokens.ends_at(id)
    }

    /// What the role does next by itself, and when; [`Time::NEVER`] where it does nothing.
    #[must_use]
    pub(crate) fn next_action(&self) -> (NextAction, Time) {
        self.deadlines.next_action()
    }

    /// How the token that owns this generation's lease bounds it.
    pub(super) fn bound(&self, generation: &Generation) -> TokenLimits {
        self.tokens.limits(generation.token())
    }

    /// When the sessions of this generation are closed at the latest.
    #[must_use]
    pub(crate) fn hard_close_at(&self, generation: &Generation) -> Time {
        generation.hard_close_at(self.bound(generation))
    }

    /// When the sessions of this generation begin to be drained; `None` without a successor.
    #[must_use]
    pub(crate) fn drain_at(&self, generation: &Generation) -> Option<Time> {
        generation.drain_at(self.bound(generation), self.settings.drain)
    }

    /// The latest hard close of a usable generation, or of one that stands by.
    #[must_use]
    pub(crate) fn runs_until(&self, now: Time) -> Option<Time> {
        self.generations
            .iter()
            .filter(|(_, generation)| {
                generation.state() == State::Standby || generation.is_usable(now, self.bound(generation))
            })
            .map(|(_, generation)| self.hard_close_at(generation))
            .filter(|hard_close_at| *hard_close_at > now)
            .max()
    }

    /// Whether this generation may end once nobody is in it: the driver then closes it to newcomers and says
    /// [`Event::Empty`].
    #[must_use]
    pub(crate) fn may_empty(&self, now: Time, number: GenerationId) -> bool {
        self.generations.get(number).is_some_and(|generation| match generation.state() {
            State::Closing { .. } => true,
            State::Retiring { successor_at, .. } => {
                self.grace_over(now, successor_at) && !self.is_fallback(now, number, generation)
            }
            State::Candidate | State::Standby | State::Current { .. } | State::Revoking(_) => false,
        })
    }

    /// Whether a server that sessions go to has let this generation in.
    #[must_use]
    pub(crate) fn is_accepted(&self, number: GenerationId) -> bool {
        self.generations.get(number).is_some_and(Generation::is_accepted)
    }

    /// Whether this retired generation is the one to fall back on: no server that sessions go to has let a later one in.
    fn is_fallback(&self, now: Time, number: GenerationId, generation: &Generation) -> bool {
        let has_successor = matches!(generation.state(), State::Retiring { successor_at: Some(_), .. });
        let mut later = self.generations.after(number);
        has_successor
            && !self.closed
            && generation.is_usable(now, self.bound(generation))
            && !later.any(|later| later.is_accepted() && later.is_usable(now, self.bound(later)))
    }

    /// With several upstream addresses a lagging one may still need the previous credential.
    pub(super) fn grace_over(&self, now: Time, successor_at: Option<Time>) -> bool {
        self.closed || successor_at.is_none_or(|at| now >= at + self.settings.replica_grace)
    }

    pub(super) fn jitter(&mut self) -> Jitter {
        self.salt = self.salt.wrapping_add(1);
        Jitter::new(self.settings.seed, self.salt)
    }

    pub(super) fn note(&mut self, note: Note) {
        self.actions.push(Action::Note(note));
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
                if self.doubt.is_proving(number) =>
            {
                self.doubt_settled(now, number, matches!(event, Event::Proved(_)));
            }
            Event::Proved(number) => self.proved(now, number),
            Event::ProofRefused(number) => self.not_proved(now, number, Unproved::Refused),
            Event::ProofLags(number) => self.not_proved(now, number, Unproved::Lags),
            Event::Unprovable(number) => self.not_proved(now, number, Unproved::NotAsked),
            Event::Accepted(number) => self.generations.accept(number),
            Event::LeaseRenewed { number, sent_at, lease, renewable } => {
                self.lease_renewed(now, number, sent_at, lease, renewable);
            }
            Event::LeaseRenewFailed(number, failure) => self.lease_renew_failed(now, number, failure),
            Event::TokenRenewed { token, sent_at, ttl, renewable } => {
                let jitter = self.jitter();
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
            Event::Empty { number, stray } => self.emptied(now, number, stray),
            Event::Suspected(number) => self.check(now, number, CHECK_EVERY, true),
            Event::DenialSeen(number) => self.check(now, number, DENIAL_EVERY, false),
            Event::Replace(number) => self.replace(now, number),
            Event::Await(number) if self.generations.is_current(number) => self.awaited = Some(number),
            Event::Await(_) => {}
            Event::Rotate(drain) => {
                if self.closed {
                    self.actions.push(Action::RotateFailed(NotRotated::Closed));
                } else {
                    // A lazy route that has nothing yet takes one, as for a session.
                    self.wanted = true;
                    self.make_way_for_command();
                    self.command = Some(drain.or_else(|| self.command.flatten()));
                }
            }
            Event::Wanted => self.wanted = true,
            Event::InUse(in_use) => self.in_use = in_use,
            Event::Reload => self.reload(),
            Event::Retire => self.close_route(Some(now)),
            Event::Close => self.close_route(None),
        }
    }

    fn emptied(&mut self, now: Time, number: GenerationId, stray: bool) {
        let Some(generation) = self.generations.get(number) else {
            return;
        };
        match generation.state() {
            State::Closing { cause: Cause::Lost, .. } => self.forget(number),
            State::Closing { .. } | State::Retiring { .. } if stray => {
                // A server session may still be open: the lease is left to lapse, and its token with it.
                self.generations.leave_to_lapse(number);
                self.note(Note::Returned(number, Outcome::Failed));
            }
            State::Closing { .. } | State::Retiring { .. } if now < generation.lease_ends_at() => {
                self.give_back(number);
            }
            State::Closing { .. } | State::Retiring { .. } => self.forget(number),
            // Recalled in the moment in which the driver closed it to newcomers.
            State::Current { .. } => {
                self.actions.push(Action::Unpublish);
                self.give_back(number);
            }
            State::Candidate | State::Standby | State::Revoking(_) => {}
        }
    }

    fn close_route(&mut self, successor_at: Option<Time>) {
        self.closed = true;
        self.stop(successor_at);
        self.fail_command(NotRotated::Closed);
    }

    /// A lazy route that has had no session for long enough gives its credential back. A rotation that was asked for is
    /// not broken off.
    pub(super) fn end_idle(&mut self, now: Time) {
        let Some(idle_after) =
            self.settings.lazy.filter(|_| self.generations.current().is_some() && !self.in_use)
        else {
            self.idle_since = None;
            return;
        };
        let idle_at = *self.idle_since.get_or_insert(now) + idle_after;
        if now < idle_at {
            self.deadlines.wake(Deadline::Idle, idle_at);
        } else if self.command.is_none() {
            self.idle_since = None;
            self.wanted = false;
            self.lost = false;
            self.refused = None;
            self.reload = false;
            self.stop(None);
        }
    }

    /// What was asked for by the old configuration is of no use.
    fn reload(&mut self) {
        self.reload = self.has_published && !self.closed;
        self.dismiss_standby();
        if let Some(candidate) = self.issuance.reload() {
            self.give_back(candidate);
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

    /// Other settings from now on; [`Event::Reload`] says whether a fresh credential is needed for it.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        self.wanted |= settings.lazy.is_none();
        self.settings = settings;
    }

    /// From now on a server may lag this far behind: it depends on how many there are, which is learned as they are used.
    pub(crate) fn set_replica_grace(&mut self, grace: Duration) {
        self.settings.replica_grace = grace;
    }

    /// Whether it is meant to have a credential: it is neither closed nor a lazy route that nobody uses.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted && !self.closed
    }

    /// Whether nothing is left: no credential, no token, nothing in flight.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.generations.is_empty()
            && self.tokens.is_empty()
            && self.revocation.is_empty()
            && self.issuance.is_idle()
    }
}
