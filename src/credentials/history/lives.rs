//! The generations of the last hour, those that are gone included. Floor 3.

use std::collections::VecDeque;

use crate::credentials::Generation;
use crate::credentials::view::GenerationView;
use crate::lease::{Cause, GenerationId, Note, Outcome, Reason};
use crate::time::Time;

/// The generations, in the order of their numbers.
#[derive(Default)]
pub(super) struct Lives {
    lives: VecDeque<Life>,
    /// How many were left out as there were too many.
    left_out: u64,
}

/// One generation.
pub(super) struct Life {
    pub(super) number: GenerationId,
    pub(super) username: Box<str>,
    /// The last eight characters.
    pub(super) lease_id: Box<str>,
    pub(super) state: &'static str,
    pub(super) issued_at: Time,
    /// Why it was issued; it is known once the generation is published.
    pub(super) reason: Option<Reason>,
    pub(super) proved: Option<bool>,
    pub(super) published_at: Option<Time>,
    /// When its successor was published.
    pub(super) retired_at: Option<Time>,
    pub(super) drain_at: Option<Time>,
    /// The hard close.
    pub(super) ends_at: Time,
    pub(super) renewals: u32,
    /// When its sessions were closed, whatever they did, and why.
    pub(super) closed: Option<(Time, Cause)>,
    /// When nothing was kept of its credential any more.
    pub(super) gone_at: Option<Time>,
    pub(super) outcome: Option<Outcome>,
    pub(super) sessions: usize,
}

/// A rotation a minute, and some more.
const LIVES: usize = 64;

impl Lives {
    pub(super) fn see(&mut self, now: Time, generations: &[GenerationView]) {
        for view in generations {
            let number = view.generation.number();
            match self.lives.iter_mut().rev().find(|life| life.number == number) {
                Some(life) => life.see(now, view),
                None => {
                    let mut life = Life::new(now, &view.generation);
                    life.see(now, view);
                    self.add(life);
                }
            }
        }
        let is_held = |number| generations.iter().any(|view| view.generation.number() == number);
        for life in self.lives.iter_mut().filter(|life| life.gone_at.is_none() && !is_held(life.number)) {
            life.gone_at = Some(now);
            life.sessions = 0;
        }
    }

    /// `generation` is the one that it is about, if it is held.
    pub(super) fn note(&mut self, now: Time, note: Note, generation: Option<&Generation>) {
        let (Note::Published { number, .. } | Note::Closing(number, _) | Note::Returned(number, _)) = note
        else {
            return;
        };
        // It may be published in the step in which it was issued, before it is seen.
        if let Some(new) = generation
            && self.lives.back().is_none_or(|latest| latest.number < new.number())
        {
            self.add(Life::new(now, new));
        }
        let Some(life) = self.lives.iter_mut().rev().find(|life| life.number == number) else { return };
        match note {
            Note::Published { reason, proved, .. } => {
                (life.reason, life.proved) = (Some(reason), Some(proved))
            }
            Note::Closing(_, cause) => life.closed = Some((now, cause)),
            Note::Returned(_, outcome) => life.outcome = Some(outcome),
            _ => {}
        }
    }

    /// Of too many the oldest goes whose credential is gone, or else the oldest.
    fn add(&mut self, life: Life) {
        if self.lives.len() == LIVES {
            let oldest = self.lives.iter().position(|life| life.gone_at.is_some());
            self.lives.remove(oldest.unwrap_or(0));
            self.left_out += 1;
        }
        self.lives.push_back(life);
    }

    /// Forgets what was gone by then.
    pub(super) fn forget(&mut self, first: Time) {
        self.lives.retain(|life| life.gone_at.is_none_or(|gone| gone >= first));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Life> {
        self.lives.iter()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What it takes, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let words: usize = self.lives.iter().map(|life| life.username.len() + life.lease_id.len()).sum();
        self.lives.capacity() * size_of::<Life>() + words
    }
}

impl Life {
    fn new(now: Time, generation: &Generation) -> Self {
        Self {
            number: generation.number(),
            username: generation.username().into(),
            lease_id: generation.lease_id_tail().into(),
            state: "",
            issued_at: now,
            reason: None,
            proved: None,
            published_at: None,
            retired_at: None,
            drain_at: None,
            ends_at: Time::NEVER,
            renewals: 0,
            closed: None,
            gone_at: None,
            outcome: None,
            sessions: 0,
        }
    }

    fn see(&mut self, now: Time, view: &GenerationView) {
        let (row, published_at) = (&view.row, view.generation.published_at());
        if row.state != self.state {
            self.retired_at = (row.state == "retiring").then_some(now);
            self.state = row.state;
        }
        self.published_at = (published_at != Time::NEVER).then_some(published_at);
        self.issued_at = row.issued_at;
        // When its sessions are closed, the machine has no more use for it.
        if row.drain_at.is_some() || row.state != "retiring" {
            self.drain_at = row.drain_at;
        }
        self.ends_at = row.ends_at;
        self.renewals = row.renewals;
        self.sessions = view.generation.sessions();
    }
}
