//! What of a route's credentials can outlive its process. Floor 1.
//!
//! The driver writes it down as it changes; after a crash [`DynamicRole::resume`] goes on from it. Times mean the same to both
//! processes as long as the machine has not been booted in between, which the driver has to see to.

use super::DynamicRole;
use crate::lease::event::Action;
use crate::lease::generation::{Generation, GenerationSnapshot, State};
use crate::lease::ids::{GenerationId, TokenId};
use crate::lease::note::{Cause, Reason};
use crate::lease::schedule;
use crate::lease::settings::Settings;
use crate::lease::tokens::{TokenSnapshot, Tokens};
use crate::time::Time;

/// Every token and every lease that is not known to be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The tokens; one on which no generation stands may own a lease whose grant never came.
    pub(crate) tokens: Vec<(TokenId, TokenSnapshot)>,
    /// The generations, oldest first.
    pub(crate) generations: Vec<(GenerationId, GenerationSnapshot)>,
}

impl DynamicRole {
    /// What the next process needs if this one ends now.
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

    /// A route whose earlier process has left this behind, its generations numbered anew from 1 in this order. The last
    /// one, if it serves and has time left, is proved and published in place of a fresh one; everything else is given
    /// back. It all begins at the first event.
    #[must_use]
    pub(crate) fn resume(settings: Settings, now: Time, left: &Snapshot) -> Self {
        let mut role = Self::new(settings);
        role.tokens = Tokens::resume(now, &left.tokens);
        for (_, kept) in &left.generations {
            role.generations.add(Generation::resumed(now, kept));
        }
        let numbers = role.generations.numbers();
        for (number, (_, kept)) in numbers.iter().zip(&left.generations) {
            let serves = kept.serves && numbers.last() == Some(number);
            role.settle(now, *number, serves);
        }
        role
    }

    fn settle(&mut self, now: Time, number: GenerationId, serves: bool) {
        let Some(generation) = self.generations.get(number) else { return };
        if now >= self.holdings(now).lapses_at(generation) {
            // It has lapsed; the first review forgets it.
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
