//! The view of a dynamic role's tokens, generations and settings from which decisions are made. Floor 1.

use super::event::Ending;
use super::generation::{Generation, State};
use super::generations::Generations;
use super::ids::{GenerationId, TokenId};
use super::schedule;
use super::settings::Settings;
use super::tokens::{TokenLimits, Tokens};
use crate::time::Time;

/// Everything that a role holds, as of `now`.
#[derive(Clone, Copy)]
pub(super) struct Holdings<'a> {
    pub(super) now: Time,
    pub(super) settings: &'a Settings,
    pub(super) tokens: &'a Tokens,
    pub(super) generations: &'a Generations,
    /// Whether there should be a credential.
    pub(super) is_wanted: bool,
    /// Whether nothing is issued any more.
    pub(super) is_closed: bool,
}

impl<'a> Holdings<'a> {
    /// The generation that serves new logins.
    pub(super) fn current(self) -> Option<&'a Generation> {
        self.generations.current().map(|(_, generation)| generation)
    }

    /// How the token that owns this generation's lease bounds it.
    pub(super) fn limits(self, generation: &Generation) -> TokenLimits {
        self.tokens.limits(generation.token())
    }

    /// When the hard close of this generation begins.
    pub(super) fn hard_close_at(self, generation: &Generation) -> Time {
        generation.hard_close_at(self.limits(generation))
    }

    /// When the drain of this generation begins; `None` without a successor.
    pub(super) fn drain_at(self, generation: &Generation) -> Option<Time> {
        generation.drain_at(self.limits(generation), self.settings.drain)
    }

    /// When the drain of this generation would begin if it had a successor.
    pub(super) fn would_drain_at(self, generation: &Generation) -> Time {
        generation.would_drain_at(self.limits(generation), self.settings.drain)
    }

    /// What the sessions of this generation have to know; `None` if it has no sessions.
    pub(super) fn ending(self, generation: &Generation) -> Option<Ending> {
        generation.ending(self.now, self.limits(generation), self.settings.drain)
    }

    /// Whether sessions may be opened with this generation, and go on.
    pub(super) fn is_usable(self, generation: &Generation) -> bool {
        generation.is_usable(self.now, self.limits(generation))
    }

    /// The end of this generation's lease, or of its token, whichever comes first.
    pub(super) fn lapses_at(self, generation: &Generation) -> Time {
        generation.lease_ends_at().min(self.limits(generation).ends_at)
    }

    /// From when on this generation cannot be renewed any more: its lease, or its token.
    pub(super) fn ending_at(self, generation: &Generation) -> Time {
        let token = self.tokens.ending_at(generation.token());
        generation.replace().map_or(token, |(_, at)| at.min(token))
    }

    /// The latest hard close of a usable generation, or of the standby.
    pub(super) fn runs_until(self) -> Option<Time> {
        let serves = |it: &Generation| it.state() == State::Standby || self.is_usable(it);
        let all = self.generations.iter().filter(|(_, generation)| serves(generation));
        let hard_closes = all.map(|(_, generation)| self.hard_close_at(generation));
        hard_closes.filter(|at| *at > self.now).max()
    }

    /// The youngest generation with which sessions may be opened.
    pub(super) fn latest_usable(self) -> Option<GenerationId> {
        let latest = self.generations.iter().rfind(|(_, generation)| self.is_usable(generation));
        latest.map(|(number, _)| number)
    }

    /// Whether this generation may end once no session is in it.
    pub(super) fn may_empty(self, number: GenerationId) -> bool {
        self.generations.get(number).is_some_and(|generation| match generation.state() {
            State::Closing { .. } => true,
            State::Retiring { successor_at, .. } => {
                self.grace_is_over(successor_at) && !self.is_fallback(number, generation)
            }
            State::Candidate | State::Standby | State::Current { .. } | State::Revoking(_) => false,
        })
    }

    /// Whether no server lags behind a publication any more. With several upstream addresses a server may still need
    /// the previous credential.
    fn grace_is_over(self, successor_at: Option<Time>) -> bool {
        self.is_closed || successor_at.is_none_or(|at| self.now >= at + self.settings.replica_grace)
    }

    /// Whether this retired generation is the fallback: no server that sessions go to has let a later generation in.
    fn is_fallback(self, number: GenerationId, generation: &Generation) -> bool {
        let has_successor = matches!(generation.state(), State::Retiring { successor_at: Some(_), .. });
        let mut later = self.generations.after(number);
        has_successor
            && !self.is_closed
            && self.is_usable(generation)
            && !later.any(|later| later.is_accepted() && self.is_usable(later))
    }

    /// Whether a lease under this token could stand by: it can be renewed, or ends later than the present standby.
    pub(super) fn may_stand_by(self, token: TokenId) -> bool {
        let Some(token_ends_at) = self.tokens.ends_at(token) else {
            return true;
        };
        match self.generations.standby() {
            None => self.now < self.tokens.ending_at(token),
            Some((_, standby)) => token_ends_at > self.lapses_at(standby) + schedule::LEAST_USABLE,
        }
    }
}
