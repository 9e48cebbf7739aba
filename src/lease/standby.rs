//! The credential that stands by: issued and proved ahead of need, renewed in antiphase with the current one. Floor 1.
//!
//! It is always younger than the current one, and never serves before it is published. While it is there, Vault can be
//! away in any moment and about two thirds of a lease are still to come.

use std::time::Duration;

use super::dynamic_role::DynamicRole;
use super::event::Action;
use super::generation::Generation;
use super::ids::{GenerationId, TokenId};
use super::note::{Note, Reason};
use super::schedule;
use super::term::{Renewal, Term};
use crate::time::Time;

impl DynamicRole {
    /// Whether a credential to stand by is needed: now, or else from when on. What [`DynamicRole::demand`] says comes first.
    pub(super) fn standby_demand(&self, now: Time) -> Result<(), Time> {
        let current = self.generations.current();
        let Some((_, current)) = current.filter(|_| self.settings.standby && !self.closed && self.wanted)
        else {
            return Err(Time::NEVER);
        };
        let at = match self.generations.standby() {
            Some((_, standby)) => self.replace_standby_at(standby),
            None => match self.ending_at(current) {
                // It is renewed for ever, as far as anybody knows.
                Time::NEVER => now,
                // One that is issued a third of a life before has two thirds left when it is needed.
                at => at - current.term.usable().min(self.bound(current).usable) / 3,
            },
        };
        if at <= now { Ok(()) } else { Err(at) }
    }

    /// From when on a generation cannot be renewed any more: its lease, or its token.
    fn ending_at(&self, generation: &Generation) -> Time {
        let token = self.tokens.ending_at(generation.token());
        generation.replace().map_or(token, |(_, at)| at.min(token))
    }

    fn replace_standby_at(&self, standby: &Generation) -> Time {
        let failing = standby.term.is_failing() || self.tokens.is_failing(standby.token());
        let at = self.ending_at(standby);
        if failing { at.min(standby.would_drain_at(self.bound(standby), self.settings.drain)) } else { at }
    }

    /// Whether a lease under this token would be of use to stand by: it can be kept, or ends later than the one that
    /// does.
    pub(super) fn may_stand_by(&self, now: Time, token: TokenId) -> bool {
        let Some(token_ends_at) = self.tokens.ends_at(token) else {
            return true;
        };
        match self.generations.standby() {
            None => now < self.tokens.ending_at(token),
            Some((_, standby)) => {
                let ends_at = standby.lease_ends_at().min(self.bound(standby).ends_at);
                token_ends_at > ends_at + schedule::LEAST_USABLE
            }
        }
    }

    /// A proved candidate that nothing needs yet stands by, in place of an earlier one.
    pub(super) fn stand_by(&mut self, number: GenerationId) {
        self.dismiss_standby();
        self.generations.stand_by(number);
        self.issuance.succeed();
        self.standby_out_of_turn = false;
        self.note(Note::StandsBy(number));
    }

    /// Gives back what stands by.
    pub(super) fn dismiss_standby(&mut self) {
        if let Some((number, _)) = self.generations.standby() {
            self.give_back(number);
        }
    }

    /// Publishes what stands by if the current generation is gone, or is to be replaced for a reason that Vault's absence
    /// must not delay. A rotation by age or on command asks for a fresh credential.
    pub(super) fn publish_standby(&mut self, now: Time) {
        let Some((number, standby)) = self.generations.standby().filter(|_| !self.closed && self.wanted)
        else {
            return;
        };
        if !self.settings.standby {
            return self.give_back(number);
        }
        let current = self.generations.current().map(|(_, current)| current);
        let is_longer = |current: &Generation| {
            self.hard_close_at(standby) > self.hard_close_at(current) + schedule::LEAST_USABLE
        };
        let out_of_turn = match (current, self.demand(now)) {
            (None, _) => self.lost,
            (Some(_), Ok(Reason::Revoked | Reason::Refused)) => true,
            (Some(current), Ok(Reason::Capped | Reason::NotRenewable | Reason::Token))
                if is_longer(current) =>
            {
                false
            }
            _ => return,
        };
        self.standby_out_of_turn |= out_of_turn;
        self.succeed_current(now, number);
        self.note(Note::Published { number, reason: Reason::Standby, proved: true, successor: true });
    }

    /// The current generation retires and this one takes its place.
    pub(super) fn succeed_current(&mut self, now: Time, number: GenerationId) {
        self.generations.publish(now, number);
        self.actions.push(Action::Publish(number));
        self.has_published = true;
        self.idle_since = None;
        self.lost = false;
        self.refused = None;
        self.awaited = None;
    }

    /// Has what stands by renewed half a period off the current one, and each lease together with its token: a generation
    /// lives as long as the one of the two that was renewed first.
    pub(super) fn stagger_renewals(&mut self, now: Time) {
        let (Some((current, _)), Some((standby, _))) =
            (self.generations.current(), self.generations.standby())
        else {
            return;
        };
        let (Some(of_current), Some(of_standby)) = (self.beat(current), self.beat(standby)) else {
            return;
        };
        self.advance(current, of_current, of_current.at);
        let at = schedule::antiphase(of_current.at, of_standby.at, of_standby.usable * 2 / 3);
        self.advance(standby, of_standby, at.map_or(of_standby.at, |at| at.max(now)));
    }

    /// When what bounds this generation is renewed; nothing while a renewal is under way, or fails, or there is none.
    fn beat(&self, number: GenerationId) -> Option<RenewalPhase> {
        let generation = self.generations.get(number)?;
        let (lease, lease_at) = (&generation.term, generation.term.renews_at()?);
        if lease.is_failing() {
            return None;
        }
        let by_lease = RenewalPhase { at: lease_at, usable: lease.usable(), lease: true, token: false };
        let token = self.tokens.term(generation.token());
        // One that is not renewed has an end of its own, or none.
        let Some(token) = token.filter(|token| !matches!(token.renewal(), Renewal::Stopped { .. })) else {
            return Some(by_lease);
        };
        let token_at = token.renews_at().filter(|_| !token.is_failing())?;
        let owned = |other: &Generation| other.token() == generation.token() && other.is_renewed();
        let is_shared = self.generations.iter().any(|(n, other)| n != number && owned(other));
        // The longer of two such has always more to come than the shorter one at its best.
        let is_twice = |longer: &Term, shorter: &Term| longer.usable() >= shorter.usable() * 2;
        Some(if is_twice(token, lease) {
            by_lease
        } else if is_shared {
            // No generation is drawn to its sibling's renewal by their token.
            RenewalPhase { token: true, ..by_lease }
        } else if is_twice(lease, token) {
            RenewalPhase { at: token_at, usable: token.usable(), lease: false, token: true }
        } else {
            let (at, usable) = (lease_at.min(token_at), lease.usable().min(token.usable()));
            RenewalPhase { at, usable, lease: true, token: true }
        })
    }

    fn advance(&mut self, number: GenerationId, beat: RenewalPhase, at: Time) {
        let Some(generation) = self.generations.get_mut(number) else { return };
        if beat.lease {
            generation.term.renew_by(at);
        }
        if beat.token {
            self.tokens.renew_by(generation.token(), at);
        }
    }
}

/// When a generation is renewed.
#[derive(Clone, Copy)]
struct RenewalPhase {
    at: Time,
    /// How long a renewal is of use.
    usable: Duration,
    /// Whether its lease goes with it.
    lease: bool,
    /// Whether its token does.
    token: bool,
}
