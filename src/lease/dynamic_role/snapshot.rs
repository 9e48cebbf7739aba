//! The part of a route's credentials that outlives its process. Floor 1.
//!
//! The driver writes it down as it changes; after a crash [`DynamicRole::resume`] continues from it. Times mean the
//! same in both processes unless the machine was booted in between, which the driver has to check.

use super::DynamicRole;
use crate::lease::event::Action;
use crate::lease::generation::{Generation, GenerationSnapshot, State};
use crate::lease::ids::{GenerationId, TokenId};
use crate::lease::note::{Cause, Reason};
use crate::lease::schedule;
use crate::lease::settings::Settings;
use crate::lease::tokens::{TokenSnapshot, Tokens};
use crate::time::Time;

/// Each token and each lease that may still exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The tokens. A token without a generation may own a lease whose grant never arrived.
    pub(crate) tokens: Vec<(TokenId, TokenSnapshot)>,
    /// The generations, oldest first.
    pub(crate) generations: Vec<(GenerationId, GenerationSnapshot)>,
}

impl DynamicRole {
    /// What the next process needs if this process ends now.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Snapshot {
        let candidate = || self.generations().filter(|(_, g)| g.state() == State::Candidate).last();
        let serves = self.current().or_else(|| candidate().map(|(number, _)| number));
        let lives = |generation: &Generation| {
            !matches!(generation.state(), State::Closing { cause: Cause::Lost, .. })
        };
        Snapshot {
            tokens: self.tokens.snapshot(),
            generations: self
                .generations()
                .filter(|(_, generation)| lives(generation))
                .map(|(number, generation)| (number, generation.snapshot(serves == Some(number))))
                .collect(),
        }
    }

    /// A route that continues from the snapshot of an earlier process. Its generations are numbered from 1 in this
    /// order. The last generation, if it serves and has time left, is proved and published instead of a fresh
    /// credential; everything else is given back. All this begins at the first event.
    #[must_use]
    pub(crate) fn resume(settings: Settings, now: Time, left: &Snapshot) -> Self {
        let mut role = Self::new(settings);
        role.tokens = Tokens::resume(now, &left.tokens);
        let add = |(_, kept): &(GenerationId, _)| role.generations.add(Generation::resumed(now, kept));
        let numbers: Vec<GenerationId> = left.generations.iter().map(add).collect();
        for (number, (_, kept)) in numbers.iter().zip(&left.generations) {
            let serves = kept.serves && numbers.last() == Some(number);
            role.settle(now, *number, serves);
        }
        role
    }

    fn settle(&mut self, now: Time, number: GenerationId, serves: bool) {
        let Some(generation) = self.generations.get(number) else { return };
        if now >= self.holdings(now).lapses_at(generation) {
            // The lease has expired; the first review forgets it.
            self.generations.leave_to_lapse(number);
            return;
        }
        if serves && self.hard_close_at(generation).since(now) >= schedule::LEAST_USABLE {
            self.lazy.want();
            self.issuance.prove(Reason::TakenUp, number);
            self.actions.push(Action::Prove(number));
        } else {
            self.give_back(number);
        }
    }
}
