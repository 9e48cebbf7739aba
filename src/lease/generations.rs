//! The generations of a dynamic role: which exist, which is current, and each change of their states. Floor 1.
//!
//! The current generation and the standby are those in these states. There is at most one of each, since each change to
//! such a state takes the earlier generation out of it.

use super::event::Ending;
use super::generation::{CutShort, Generation, State};
use super::ids::{GenerationId, TokenId};
use super::note::Cause;
use super::schedule::{Jitter, Retry};
use crate::time::Time;

/// The generations that have not ended, and the number of the next generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Generations {
    /// Oldest first. There are few.
    held: Vec<(GenerationId, Generation)>,
    next: GenerationId,
}

impl Default for Generations {
    fn default() -> Self {
        Self { held: Vec::new(), next: GenerationId::FIRST }
    }
}

impl Generations {
    /// Adds a candidate. It gets the next number, and numbers are never reused.
    pub(super) fn add(&mut self, generation: Generation) -> GenerationId {
        let number = self.next;
        self.next = number.next();
        self.held.push((number, generation));
        number
    }

    /// Forgets a generation. False if it did not exist.
    pub(super) fn remove(&mut self, number: GenerationId) -> bool {
        let index = self.held.iter().position(|(held, _)| *held == number);
        index.map(|index| self.held.remove(index)).is_some()
    }

    /// Whether there is no generation.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// This generation, if it has not ended.
    pub(super) fn get(&self, number: GenerationId) -> Option<&Generation> {
        self.iter().find(|(held, _)| *held == number).map(|(_, generation)| generation)
    }

    /// All generations, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (GenerationId, &Generation)> {
        self.held.iter().map(|(number, generation)| (*number, generation))
    }

    /// The number after this one; the oldest, for `None`. For a walk over all that changes them.
    pub(super) fn next(&self, number: Option<GenerationId>) -> Option<GenerationId> {
        self.held.iter().map(|(held, _)| *held).find(|held| number.is_none_or(|number| *held > number))
    }

    /// The generations that are younger than this generation, oldest first.
    pub(super) fn after(&self, number: GenerationId) -> impl Iterator<Item = &Generation> {
        self.iter().filter(move |(held, _)| *held > number).map(|(_, generation)| generation)
    }

    /// The generation that serves new logins.
    pub(super) fn current(&self) -> Option<(GenerationId, &Generation)> {
        self.iter().find(|(_, generation)| matches!(generation.state(), State::Current { .. }))
    }

    /// Whether this generation serves new logins.
    pub(super) fn is_current(&self, number: GenerationId) -> bool {
        self.get(number).is_some_and(|generation| matches!(generation.state(), State::Current { .. }))
    }

    /// The generation that is proved, and was not needed yet.
    pub(super) fn standby(&self) -> Option<(GenerationId, &Generation)> {
        self.iter().find(|(_, generation)| generation.state() == State::Standby)
    }

    /// Whether this token owns the lease of a generation.
    pub(super) fn stand_on(&self, token: TokenId) -> bool {
        self.iter().any(|(_, generation)| generation.token() == token)
    }

    /// The generations whose leases this token owns.
    pub(super) fn owned_by(&self, token: TokenId) -> Vec<GenerationId> {
        self.iter().filter(|(_, generation)| generation.token() == token).map(|(number, _)| number).collect()
    }

    /// The generation, to renew its lease.
    pub(super) fn get_mut(&mut self, number: GenerationId) -> Option<&mut Generation> {
        self.held.iter_mut().find(|(held, _)| *held == number).map(|(_, generation)| generation)
    }

    /// A proved candidate becomes the standby. The caller gives back an earlier standby before.
    pub(super) fn stand_by(&mut self, number: GenerationId) {
        if let Some(generation) = self.get_mut(number) {
            generation.stand_by();
        }
    }

    /// This generation serves new logins, and the previous one retires.
    pub(super) fn publish(&mut self, now: Time, number: GenerationId) {
        self.retire_current(Some(now));
        if let Some(generation) = self.get_mut(number) {
            generation.serve(now);
        }
    }

    /// The current generation retires. `successor_at` is `None` if it has no successor. Returns its number, if there
    /// was a current generation.
    pub(super) fn retire_current(&mut self, successor_at: Option<Time>) -> Option<GenerationId> {
        let mut all = self.held.iter_mut();
        all.find_map(|(number, generation)| generation.retire(successor_at).then_some(*number))
    }

    /// A retired generation serves new logins again, if no other does. Returns when its successor was published, if it
    /// had a successor; `None` if it was not retired.
    pub(super) fn recall(&mut self, number: GenerationId) -> Option<Option<Time>> {
        if self.current().is_some() {
            return None;
        }
        let generation = self.get_mut(number)?;
        let State::Retiring { published_at, successor_at } = generation.state() else { return None };
        generation.serve(published_at);
        Some(successor_at)
    }

    /// The sessions of this generation are closed from now on. True if it was current.
    pub(super) fn close(&mut self, now: Time, number: GenerationId, cause: Cause) -> bool {
        let was_current = self.is_current(number);
        if let Some(generation) = self.get_mut(number) {
            generation.close(now, cause);
        }
        was_current
    }

    /// The revocation of its lease is in flight. Returns the token to revoke it with.
    pub(super) fn revoke(&mut self, number: GenerationId) -> Option<TokenId> {
        let generation = self.get_mut(number)?;
        generation.revoke(generation.revoking().map_or(Retry::IN_FLIGHT, Retry::again));
        Some(generation.token())
    }

    /// The revocation of its lease failed, and is asked for again after a back-off.
    pub(super) fn revoke_later(&mut self, now: Time, number: GenerationId, jitter: Jitter) {
        if let Some(generation) = self.get_mut(number)
            && let Some(retry) = generation.revoking()
        {
            generation.revoke(retry.failed(now, jitter));
        }
    }

    /// Its lease is not revoked, and lapses.
    pub(super) fn leave_to_lapse(&mut self, number: GenerationId) {
        if let Some(generation) = self.get_mut(number) {
            generation.revoke(Retry::GIVEN_UP);
        }
    }

    /// The sessions of this generation are notified. False if the latest notice was the same.
    pub(super) fn notify(&mut self, number: GenerationId, ending: Ending) -> bool {
        self.get_mut(number).is_some_and(|generation| generation.notify(ending))
    }

    /// Records whether this generation may end once no session is in it. False if this was the last record.
    pub(super) fn end_when_empty(&mut self, number: GenerationId, may_end: bool) -> bool {
        self.get_mut(number).is_some_and(|generation| generation.end_when_empty(may_end))
    }

    /// A server that sessions go to has let this generation in.
    pub(super) fn accept(&mut self, number: GenerationId) {
        if let Some(generation) = self.get_mut(number) {
            generation.accept();
        }
    }

    /// A command ends all retired generations early, each by what `cut` returns for it.
    pub(super) fn cut_short(&mut self, cut: impl Fn(&Generation) -> CutShort) {
        for generation in self.held.iter_mut().map(|(_, it)| it).filter(|it| it.is_retiring()) {
            let cut = cut(generation);
            generation.cut_short(cut);
        }
    }

    /// Replaces the term, for a bug that is planted on purpose.
    #[cfg(test)]
    pub(super) fn plant_term(&mut self, number: GenerationId, term: super::term::Term) {
        if let Some(generation) = self.get_mut(number) {
            generation.lease().plant(term);
        }
    }

    /// See [`Generation::forget_counts`].
    #[cfg(test)]
    pub(super) fn forget_counts(&mut self) {
        self.held.iter_mut().for_each(|(_, generation)| generation.forget_counts());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const T1: TokenId = TokenId(1);
    const T2: TokenId = TokenId(2);

    fn at(second: u64) -> Time {
        Time::from_nanos(0) + Duration::from_secs(second)
    }

    fn add(generations: &mut Generations, token: TokenId) -> GenerationId {
        generations.add(Generation::new(token, at(0), Duration::from_secs(100), true, Jitter::NONE))
    }

    fn current(generations: &Generations) -> Option<GenerationId> {
        generations.current().map(|(number, _)| number)
    }

    fn state(generations: &Generations, number: GenerationId) -> State {
        generations.get(number).expect("a generation").state()
    }

    #[test]
    fn the_latest_publication_is_current_and_the_one_before_retires() {
        let mut generations = Generations::default();
        let (first, second) = (add(&mut generations, T1), add(&mut generations, T1));
        assert_eq!((current(&generations), state(&generations, first)), (None, State::Candidate));
        generations.publish(at(1), first);
        assert_eq!(current(&generations), Some(first));
        generations.publish(at(2), second);
        assert_eq!(current(&generations), Some(second));
        let retired = State::Retiring { published_at: at(1), successor_at: Some(at(2)) };
        assert_eq!(state(&generations, first), retired);
    }

    #[test]
    fn what_ends_is_not_current_any_more() {
        for how in 0..4 {
            let mut generations = Generations::default();
            let number = add(&mut generations, T1);
            generations.publish(at(1), number);
            match how {
                0 => assert!(generations.close(at(2), number, Cause::Lost), "it was current"),
                1 => assert_eq!(generations.retire_current(None), Some(number)),
                2 => assert_eq!(generations.revoke(number), Some(T1)),
                _ => assert!(generations.remove(number)),
            }
            assert_eq!(current(&generations), None);
        }
    }

    #[test]
    fn a_retired_one_is_recalled_only_where_no_other_is_current() {
        let mut generations = Generations::default();
        let (first, second) = (add(&mut generations, T1), add(&mut generations, T1));
        generations.publish(at(1), first);
        generations.publish(at(2), second);
        assert_eq!(generations.recall(first), None);
        assert!(generations.close(at(3), second, Cause::LeaseEnd));
        assert_eq!(generations.recall(second), None, "it is being closed");
        assert_eq!(generations.recall(first), Some(Some(at(2))));
        assert_eq!(state(&generations, first), State::Current { published_at: at(1) });
    }

    #[test]
    fn a_number_is_given_once() {
        let mut generations = Generations::default();
        let first = add(&mut generations, T1);
        assert!(generations.remove(first) && !generations.remove(first));
        assert_eq!(add(&mut generations, T1), first.next());
    }

    #[test]
    fn a_revocation_is_asked_for_again_after_longer_and_longer_waits() {
        let mut generations = Generations::default();
        let number = add(&mut generations, T2);
        let due = |generations: &Generations| generations.get(number)?.revoking()?.due();
        assert_eq!(generations.revoke(number), Some(T2));
        assert_eq!(due(&generations), None, "it is in flight");
        generations.revoke_later(at(10), number, Jitter::NONE);
        assert_eq!(due(&generations), Some(at(10) + Duration::from_millis(500)));
        generations.revoke(number);
        generations.revoke_later(at(20), number, Jitter::NONE);
        assert_eq!(due(&generations), Some(at(21)));
        generations.leave_to_lapse(number);
        assert_eq!(due(&generations), Some(Time::NEVER));
    }

    #[test]
    fn a_command_ends_retired_ones_and_the_earliest_end_counts() {
        let mut generations = Generations::default();
        let (first, second) = (add(&mut generations, T1), add(&mut generations, T2));
        generations.publish(at(1), first);
        generations.publish(at(2), second);
        for second in [30, 40, 20] {
            generations.cut_short(|_| CutShort { from: at(2), at: at(second) });
            assert!(
                generations.get(first).is_some_and(|g| g.is_cut_short(at(30)) && !g.is_cut_short(at(19)))
            );
        }
        assert!(generations.get(first).is_some_and(|g| g.is_cut_short(at(20))));
        assert!(generations.get(second).is_some_and(|g| !g.is_cut_short(at(1000))));
    }

    #[test]
    fn whether_one_may_end_when_it_is_empty_is_said_where_it_has_changed() {
        let mut generations = Generations::default();
        let number = add(&mut generations, T1);
        assert!(!generations.end_when_empty(number, true), "a candidate has no sessions");
        generations.publish(at(1), number);
        assert!(!generations.end_when_empty(number, false), "none may before it is said");
        assert!(generations.end_when_empty(number, true) && !generations.end_when_empty(number, true));
        assert!(generations.end_when_empty(number, false), "it is withdrawn");
        generations.revoke(number);
        assert!(!generations.end_when_empty(number, true));
    }

    #[test]
    fn they_are_found_by_the_token_that_owns_their_leases() {
        let mut generations = Generations::default();
        let (first, second) = (add(&mut generations, T1), add(&mut generations, T2));
        let third = add(&mut generations, T1);
        assert_eq!(generations.owned_by(T1), [first, third]);
        assert!(generations.remove(second) && !generations.stand_on(T2));
    }
}
