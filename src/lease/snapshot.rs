//! What of a route's credentials can outlive its process. Floor 1.
//!
//! The driver writes it down as it changes; after a crash [`DynamicRole::resume`] goes on from it. Times mean the same to both
//! processes as long as the machine has not been booted in between, which the driver has to see to.

use serde::{Deserialize, Serialize};

use super::dynamic_role::DynamicRole;
use super::event::Action;
use super::generation::{Generation, State};
use super::ids::{GenerationId, TokenId};
use super::note::{Cause, Reason};
use super::schedule::Retry;
use super::settings::Settings;
use super::term::Term;
use super::tokens::{TokenSnapshot, Tokens};
use super::{issuance, schedule};
use crate::time::Time;

/// Every token and every lease that is not known to be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The tokens; one on which no generation stands may own a lease whose grant never came.
    pub(crate) tokens: Vec<(TokenId, TokenSnapshot)>,
    /// The generations, oldest first.
    pub(crate) generations: Vec<(GenerationId, GenerationSnapshot)>,
}

/// One lease's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationSnapshot {
    /// The token that owns it.
    pub(crate) token: TokenId,
    issued_at: Time,
    as_issued: std::time::Duration,
    term: Term,
    /// Whether it is to serve again: the current one, or else the latest candidate. Others are given back.
    pub(crate) serves: bool,
}

impl GenerationSnapshot {
    /// Whether this could be of the time before `now`.
    #[must_use]
    pub(crate) fn is_before(&self, now: Time) -> bool {
        self.issued_at <= now && self.term.sent_at() <= now
    }
}

impl DynamicRole {
    /// What the next process needs if this one ends now.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Snapshot {
        let candidate = || self.generations().filter(|(_, g)| g.state == State::Candidate).last();
        let serves = self.current.or_else(|| candidate().map(|(number, _)| number));
        let lives =
            |generation: &Generation| !matches!(generation.state, State::Closing { cause: Cause::Lost, .. });
        Snapshot {
            tokens: self.tokens.snapshot(),
            generations: self
                .generations()
                .filter(|(_, generation)| lives(generation))
                .map(|(number, generation)| {
                    let kept = GenerationSnapshot {
                        token: generation.token,
                        issued_at: generation.issued_at,
                        as_issued: generation.as_issued,
                        term: generation.term,
                        serves: serves == Some(number),
                    };
                    (number, kept)
                })
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
            let number = role.next_number;
            role.next_number = number.next();
            role.generations.insert(number, Generation::resumed(now, kept));
        }
        let numbers: Vec<GenerationId> = role.generations.keys().copied().collect();
        for (number, (_, kept)) in numbers.iter().zip(&left.generations) {
            let serves = kept.serves && numbers.last() == Some(number);
            role.settle(now, *number, serves);
        }
        role
    }

    fn settle(&mut self, now: Time, number: GenerationId, serves: bool) {
        let Some(generation) = self.generations.get(&number) else { return };
        let bound = self.bound(generation);
        if now >= generation.lease_ends_at().min(bound.ends_at) {
            // It has lapsed; the first review forgets it.
            self.set_state(number, State::Revoking(Retry::GIVEN_UP));
            return;
        }
        if serves && self.hard_close_at(generation).since(now) >= schedule::LEAST_USABLE {
            self.wanted = true;
            self.issuance.state = issuance::State::Proving {
                reason: Reason::TakenUp,
                number,
                tries: 0,
                refused: false,
                again_at: None,
            };
            self.actions.push(Action::Prove(number));
        } else {
            self.give_back(number);
        }
    }
}

impl Generation {
    fn resumed(now: Time, kept: &GenerationSnapshot) -> Self {
        Self {
            token: kept.token,
            issued_at: kept.issued_at,
            as_issued: kept.as_issued,
            term: kept.term.resumed(now),
            state: State::Candidate,
            accepted: false,
            cut_short: None,
            checked_at: None,
            check: None,
            last_notice: None,
        }
    }
}
