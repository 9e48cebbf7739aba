//! When a fresh credential is needed, and for what reason. Floor 1.
//!
//! A standby credential is issued and proved before it is needed. It is always younger than the current credential, and
//! never serves before it is published. While it exists, Vault can fail at any moment, and about two thirds of a lease
//! are left.

#[cfg(test)]
mod tests;

use super::event::DrainSpan;
use super::generation::Generation;
use super::holdings::Holdings;
use super::ids::{GenerationId, TokenId};
use super::note::Reason;
use super::schedule;
use super::term::NotRenewed;
use crate::time::Time;

/// The reasons for a successor of the current credential, other than its age and its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rotation {
    /// An operator asked for a rotation, with this drain.
    command: Option<Option<DrainSpan>>,
    /// The configuration has changed since the latest publication.
    reload: bool,
    /// The current generation is refused, and must be replaced.
    refused: Option<GenerationId>,
    /// A current lease was lost and has no successor yet.
    lost: bool,
    /// The standby is replaced out of turn: it was lost, or replaced a lost credential.
    standby_out_of_turn: bool,
    has_published: bool,
}

/// What to do with the standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standby {
    /// It continues to stand by, or there is none.
    Waits,
    /// It is published. If this is `out_of_turn`, the next standby is issued out of turn.
    Publish { number: GenerationId, out_of_turn: bool },
    /// The settings have no standby any more, so it is given back.
    GiveBack(GenerationId),
}

impl Rotation {
    /// The reason for which a fresh credential is needed now, or else the time from which it is needed.
    pub(super) fn demand(&self, held: Holdings<'_>) -> Result<Reason, Time> {
        if !held.is_wanted {
            return Err(Time::NEVER);
        }
        if self.command.is_some() {
            return Ok(Reason::Command);
        }
        if self.reload {
            return Ok(Reason::Reload);
        }
        match held.generations.current() {
            // An earlier generation may replace a lost generation.
            _ if self.lost => Ok(Reason::Revoked),
            None if self.has_published => Ok(Reason::Schedule),
            None => Ok(Reason::First),
            Some((number, _)) if self.refused == Some(number) => Ok(Reason::Refused),
            Some((_, current)) => demand_of(held, current),
        }
    }

    /// Whether a standby is needed now, or else the time from which it is needed. The result of [`Rotation::demand`]
    /// takes precedence.
    pub(super) fn standby_demand(&self, held: Holdings<'_>) -> Result<(), Time> {
        let Some(current) = held.current().filter(|_| held.settings.standby && held.is_wanted) else {
            return Err(Time::NEVER);
        };
        let at = match held.generations.standby() {
            Some((_, standby)) => replace_standby_at(held, standby),
            None => match held.ending_at(current) {
                // As far as is known, it can be renewed without limit.
                Time::NEVER => held.now,
                // A standby issued a third of a life earlier has two thirds left when it is needed.
                at => at - current.term().usable().min(held.limits(current).usable) / 3,
            },
        };
        if at <= held.now { Ok(()) } else { Err(at) }
    }

    /// Whether a grant for this reason comes out of turn, so that it is limited.
    pub(super) fn is_out_of_turn(&self, reason: Reason) -> bool {
        match reason {
            Reason::Revoked | Reason::Refused => true,
            Reason::Standby => self.standby_out_of_turn,
            _ => false,
        }
    }

    /// Whether a lease under this token would end later than the current lease, if that is the reason of the issuance.
    /// A token that was given to us must have life left in any case: otherwise each lease under it would expire unused.
    pub(super) fn is_of_use(&self, held: Holdings<'_>, reason: Reason, id: TokenId) -> bool {
        let tokens = held.tokens;
        let (Some(token_ends_at), Some(left)) = (tokens.ends_at(id), tokens.usable_for(held.now, id)) else {
            return true;
        };
        if !tokens.is_owned(id) && left < schedule::LEAST_USABLE {
            return false;
        }
        let Some(current) = held.current() else {
            return true;
        };
        let ends_at = match reason {
            _ if self.command.is_some() => return true,
            Reason::Standby => return held.may_stand_by(id),
            Reason::Token => held.limits(current).ends_at,
            // A lease that its token limits is capped, or not renewable, because of that token.
            Reason::Capped | Reason::NotRenewable => held.lapses_at(current),
            Reason::First
            | Reason::Schedule
            | Reason::Revoked
            | Reason::Refused
            | Reason::Command
            | Reason::Reload
            | Reason::TakenUp => return true,
        };
        token_ends_at > ends_at + schedule::LEAST_USABLE
    }

    /// The time from which a successor cannot wait for its proof: nothing is usable, or the drain of the current
    /// generation is due. `proving`: the reason of the candidate.
    pub(super) fn presses_at(&self, held: Holdings<'_>, proving: Option<Reason>) -> Time {
        if held.runs_until().is_none() {
            return held.now;
        }
        if proving == Some(Reason::Standby) && self.demand(held).is_err() {
            return Time::NEVER;
        }
        held.current().map_or(Time::NEVER, |current| held.would_drain_at(current))
    }

    /// Publishes the standby if the current generation is gone, or must be replaced for a reason that must not wait for
    /// Vault. A rotation by age or on command needs a fresh credential.
    pub(super) fn choose_standby(&self, held: Holdings<'_>) -> Standby {
        let Some((number, standby)) = held.generations.standby().filter(|_| held.is_wanted) else {
            return Standby::Waits;
        };
        if !held.settings.standby {
            return Standby::GiveBack(number);
        }
        let is_longer = |current: &Generation| {
            held.hard_close_at(standby) > held.hard_close_at(current) + schedule::LEAST_USABLE
        };
        let out_of_turn = match (held.current(), self.demand(held)) {
            (None, _) => self.lost,
            (Some(_), Ok(Reason::Revoked | Reason::Refused)) => true,
            (Some(current), Ok(Reason::Capped | Reason::NotRenewable | Reason::Token))
                if is_longer(current) =>
            {
                false
            }
            _ => return Standby::Waits,
        };
        Standby::Publish { number, out_of_turn }
    }

    /// Whether an operator asked for a rotation.
    pub(super) fn is_commanded(&self) -> bool {
        self.command.is_some()
    }

    /// An operator asks for a rotation. Without a drain, the drain of an earlier command stays.
    pub(super) fn command(&mut self, drain: Option<DrainSpan>) {
        self.command = Some(drain.or_else(|| self.command.flatten()));
    }

    /// The rotation on command has ended. Returns whether there was a command, and its drain.
    pub(super) fn end_command(&mut self) -> Option<Option<DrainSpan>> {
        self.command.take()
    }

    /// The configuration has changed. Before the first publication nothing has to be replaced.
    pub(super) fn reload(&mut self, is_closed: bool) {
        self.reload = self.has_published && !is_closed;
    }

    /// The current generation was lost.
    pub(super) fn lose_current(&mut self) {
        self.lost = true;
    }

    /// The generation that stood by was lost.
    pub(super) fn lose_standby(&mut self) {
        self.standby_out_of_turn = true;
    }

    /// Whether a current lease was lost and has no successor yet.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// This generation is refused, and has to be replaced.
    pub(super) fn refuse(&mut self, number: GenerationId) {
        self.refused = Some(number);
    }

    /// Whether this generation is refused, and is being replaced.
    pub(super) fn is_refused(&self, number: GenerationId) -> bool {
        self.refused == Some(number)
    }

    /// A candidate stands by.
    pub(super) fn stood_by(&mut self) {
        self.standby_out_of_turn = false;
    }

    /// The standby, or the candidate for it, replaces a lost or refused credential: the next standby is issued out of
    /// turn.
    pub(super) fn took_standby(&mut self) {
        self.standby_out_of_turn = true;
    }

    /// Whether a credential was ever published.
    pub(super) fn has_published(&self) -> bool {
        self.has_published
    }

    /// A successor is published.
    pub(super) fn published(&mut self) {
        self.has_published = true;
        self.lost = false;
        self.refused = None;
    }

    /// The candidate that is published was issued for the present configuration.
    pub(super) fn reloaded(&mut self) {
        self.reload = false;
    }

    /// Nothing is needed until a session comes.
    pub(super) fn rest(&mut self) {
        self.lost = false;
        self.refused = None;
        self.reload = false;
    }
}

/// The reason for which the current generation itself needs a successor.
fn demand_of(held: Holdings<'_>, current: &Generation) -> Result<Reason, Time> {
    let draining_at = held.would_drain_at(current);
    let by_age = held.settings.rotate_after.map(|age| (current.issued_at() + age, Reason::Schedule));
    let by_renewal = current.replace().map(|(why, at)| match why {
        NotRenewed::Capped | NotRenewed::Unneeded => (at, Reason::Capped),
        NotRenewed::NotRenewable | NotRenewed::Refused => (at, Reason::NotRenewable),
        NotRenewed::MaxAge | NotRenewed::Endless => (at, Reason::Schedule),
    });
    // Renewals keep failing and the end is near: a fresh lease may be granted although renewals fail.
    let lease_failing = current.term().is_failing().then_some((draining_at, Reason::NotRenewable));
    let token_failing = held.tokens.is_failing(current.token()).then_some((draining_at, Reason::Token));
    let by_token = Some((held.tokens.ending_at(current.token()), Reason::Token));
    let all = [by_age, by_renewal, lease_failing, by_token, token_failing];
    match all.iter().flatten().find(|(at, _)| *at <= held.now) {
        Some((_, reason)) => Ok(*reason),
        None => Err(all.iter().flatten().map(|(at, _)| *at).min().unwrap_or(Time::NEVER)),
    }
}

fn replace_standby_at(held: Holdings<'_>, standby: &Generation) -> Time {
    let is_failing = standby.term().is_failing() || held.tokens.is_failing(standby.token());
    let at = held.ending_at(standby);
    if is_failing { at.min(held.would_drain_at(standby)) } else { at }
}
