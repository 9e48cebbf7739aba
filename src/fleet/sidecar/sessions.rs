//! The sessions of a sidecar: a pool that replaces each connection at the end of its lifetime. Floor 6.
//!
//! Only the last session of a generation matters to the machine, so only that is simulated.

use super::{Context, Sidecar, Timer};
use crate::fleet::scenario::Fault;
use crate::lease::{Ending, Event, GenerationId};
use crate::time::Time;

/// A generation as the driver sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) number: GenerationId,
    /// Whether the generation has sessions.
    pub(super) sessions: bool,
    /// Whether it accepts no new sessions.
    pub(super) is_shut: bool,
    /// Whether its sessions have been asked to end.
    pub(super) is_drained: bool,
    pub(super) is_closing: bool,
    pub(super) was_published: bool,
}

impl Held {
    pub(super) fn new(number: GenerationId) -> Self {
        Self {
            number,
            sessions: false,
            is_shut: false,
            is_drained: false,
            is_closing: false,
            was_published: false,
        }
    }
}

impl Sidecar {
    pub(super) fn has_sessions(&self, number: GenerationId) -> bool {
        self.held.iter().any(|held| held.number == number && held.sessions)
    }

    pub(super) fn publish(&mut self, context: &mut Context<'_>, number: GenerationId) {
        let now = context.now;
        if let Some(earlier) = self.published.replace(number).filter(|earlier| *earlier != number) {
            // Each of its connections reaches the end of its lifetime.
            let lifetime = context.scenario.roles.connection;
            let last = now + lifetime - self.dice.of(lifetime / 8);
            self.timers.push((last, Timer::Left(earlier)));
        }
        if !self.has_been_ready {
            self.has_been_ready = true;
            let millis = now.since(self.started_at).as_millis();
            context.tally.ready_after.push(u32::try_from(millis).unwrap_or(u32::MAX));
        }
        // Sessions begin with the next login that PostgreSQL accepts.
        let at = context.scenario.without(Fault::PostgresAway, now);
        if let Some(held) = self.held.iter_mut().find(|held| held.number == number) {
            held.was_published = true;
            held.sessions = context.scenario.lazy.is_none();
        }
        self.timers.push((at, Timer::Accepted(number)));
        if context.scenario.lazy.is_some() {
            self.hear(context, Event::InUse(true));
        }
    }

    /// Notifies the sessions of a generation.
    pub(super) fn tell(&mut self, context: &mut Context<'_>, number: GenerationId, ending: Ending) {
        self.watch_ending(context, number, ending);
        let now = context.now;
        let Some(held) = self.held.iter_mut().find(|held| held.number == number) else { return };
        if let Some(closing) = ending.closing {
            if !std::mem::replace(&mut held.is_closing, true) {
                context.tally.at(now).cut += u32::from(held.sessions);
                let gone_at = now + self.dice.of(closing.gone_by.since(now));
                self.timers.push((gone_at, Timer::Left(number)));
            }
        } else if ending.drain_from.is_some() && !std::mem::replace(&mut held.is_drained, true) {
            let gone_at = now + self.dice.of(ending.hard_close_at.since(now));
            self.timers.push((gone_at, Timer::Left(number)));
        }
    }

    pub(super) fn left(&mut self, number: GenerationId) {
        // A generation that was recalled meanwhile continues.
        let is_over = self.published != Some(number) || self.is_closing;
        if let Some(held) = self.held.iter_mut().find(|held| held.number == number && is_over) {
            held.sessions = false;
        }
    }

    /// All sessions end by this time.
    pub(super) fn end_sessions(&mut self, by: Time) {
        let numbers: Vec<GenerationId> = self.held.iter().map(|held| held.number).collect();
        self.timers.extend(numbers.into_iter().map(|number| (by, Timer::Left(number))));
    }

    /// Ends generations without sessions.
    pub(super) fn let_go(&mut self, context: &mut Context<'_>) {
        if !self.is_running {
            return;
        }
        for index in 0..self.held.len() {
            let Some(held) = self.held.get_mut(index).filter(|held| !held.sessions && !held.is_shut) else {
                continue;
            };
            if self.role.may_empty(context.now, held.number) {
                held.is_shut = true;
                let number = held.number;
                self.hear(context, Event::Empty { number, open_upstream: false });
                return self.let_go(context);
            }
        }
    }

    /// A client of a lazy route comes or goes.
    pub(super) fn use_it(&mut self, context: &mut Context<'_>, begins: bool) {
        let Some(lazy) = context.scenario.lazy else { return };
        let next = if begins { lazy.use_for } else { lazy.every.saturating_sub(lazy.use_for) };
        self.timers.push((context.now + next, Timer::Use(!begins)));
        if begins {
            self.hear(context, Event::Wanted);
        }
        if self.published.is_some() {
            self.hear(context, Event::InUse(begins));
        }
    }
}
