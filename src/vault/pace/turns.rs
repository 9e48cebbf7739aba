//! The order of requests: the decisions of the [`RateLimiter`](super::RateLimiter), without a clock or a task. Floor 2.
//!
//! `P` is the type of paths, `T` that of times. Real requests use text and tokio's clock; the simulation of a fleet
//! uses its own types.

use std::collections::VecDeque;
use std::ops::Add;
use std::time::Duration;

use crate::lease::schedule::Jitter;
use crate::vault::bounds::Priority;

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    /// Vault did what was asked.
    Well,
    /// Vault answered with a refusal.
    Refused,
    /// Vault answered that it gets too many requests (a quota).
    Busy,
    /// There was no answer, or an answer about the server's state.
    Trouble,
}

/// The state of the rate limiter.
pub(crate) struct Turns<P, T> {
    failing: bool,
    outcomes: Outcomes,
    /// When the latest requests without a good answer were sent, oldest first; at most [`MOST`].
    sent: VecDeque<(u64, T)>,
    /// In the order of their places. There are few.
    pub(super) waiting: Vec<(Place<T>, Waiting<P>)>,
    /// One for each role that credentials are issued from, and a few of Vault's own.
    pub(super) paths: Vec<(P, Path<T>)>,
    next: u64,
    /// The seed of the jitter; 0 means no jitter.
    seed: u64,
}

/// For each of the latest requests, at most [`OUTCOMES`], whether it met trouble.
#[derive(Clone, Copy, Default)]
struct Outcomes {
    /// One bit for each, the latest is the lowest.
    bits: u16,
    all: u32,
}

impl Outcomes {
    fn push(&mut self, trouble: bool) {
        self.bits = (self.bits << 1) | u16::from(trouble);
        self.all = (self.all + 1).min(OUTCOMES);
    }

    fn troubles(self) -> u32 {
        self.bits.count_ones()
    }
}

/// A place in the queue: by priority, then by arrival.
pub(crate) type Place<T> = (Priority<T>, u64);

/// A request that waits for its turn.
pub(crate) struct Waiting<P> {
    path: Option<P>,
    /// Whether it needs the path alone, whatever was answered there. Its turn sends nothing by itself.
    alone: bool,
}

/// The state of a path.
pub(crate) struct Path<T> {
    pub(super) in_flight: u32,
    /// Whether the latest answer was a refusal.
    slow: bool,
    /// Whether the latest answer could not be used. The path then stays slow until an answer can be used.
    of_no_use: bool,
    /// The number of refusals in a row.
    refusals: u32,
    /// The time of the next request after a refusal.
    again_at: T,
    /// Vault asked for no request for the path before this time.
    rests_until: T,
}

impl<T: Copy + Ord + Add<Duration, Output = T>> Path<T> {
    fn new(now: T) -> Self {
        Self { in_flight: 0, slow: false, of_no_use: false, refusals: 0, again_at: now, rests_until: now }
    }

    fn refused(&mut self, now: T) {
        if !self.slow && now >= self.again_at + FORGIVEN_AFTER {
            self.refusals = 0;
        }
        self.wait(now, LONGEST_WAIT, Jitter::NONE);
    }

    /// Delays the path, with jitter: many processes get the same answer, and should come back at different times and at
    /// growing intervals.
    fn pushed_back(&mut self, now: T, jitter: Jitter) {
        self.wait(now, LONGEST_BUSY, jitter);
    }

    fn wait(&mut self, now: T, most: Duration, jitter: Jitter) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.refusals.min(10)).min(most);
        self.refusals = self.refusals.saturating_add(1);
        self.again_at = now + (wait - jitter.of(wait / 2));
        self.slow = true;
    }

    /// Whether the path needs no state any more.
    fn is_idle(&self, now: T) -> bool {
        self.in_flight == 0 && now >= self.rests_until && now >= self.again_at + FORGIVEN_AFTER
    }
}

/// A request that may be sent, or was sent.
pub(crate) struct Sent<P> {
    path: Option<P>,
    alone: bool,
    pub(super) number: u64,
}

impl<P, T> Default for Turns<P, T> {
    fn default() -> Self {
        Self {
            failing: false,
            outcomes: Outcomes::default(),
            sent: VecDeque::new(),
            waiting: Vec::new(),
            paths: Vec::new(),
            next: 0,
            seed: 0,
        }
    }
}

impl<P: Clone + Eq, T: Copy + Ord + Add<Duration, Output = T>> Turns<P, T> {
    /// Creates the state with a jitter of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Takes a place in the queue. Without a path, it is a further request of a turn. `alone`: no other request may be
    /// in flight on the path, and the turn sends nothing.
    pub(crate) fn queue(&mut self, priority: Priority<T>, path: Option<P>, alone: bool) -> Place<T> {
        self.next += 1;
        let place = (priority, self.next);
        let index = self.waiting.partition_point(|(other, _)| *other < place);
        self.waiting.insert(index, (place, Waiting { path, alone }));
        place
    }

    /// Gives up a place.
    pub(crate) fn leave(&mut self, place: Place<T>) {
        if let Ok(index) = self.find(place) {
            self.waiting.remove(index);
        }
    }

    /// The index of a place in the queue.
    fn find(&self, place: Place<T>) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&place, |(place, _)| *place)
    }

    /// Takes the turn, if it has come.
    ///
    /// # Errors
    ///
    /// The time to check again if nothing changes before.
    pub(crate) fn take(&mut self, place: Place<T>, now: T) -> Result<Sent<P>, Option<T>> {
        let Ok(index) = self.find(place) else { return Err(None) };
        self.may_go(index, now)?;
        let (_, Waiting { path, alone }) = self.waiting.remove(index);
        if let Some(path) = &path {
            self.path(path, now).in_flight += 1;
        }
        if !alone {
            self.send(place.1, now);
        }
        Ok(Sent { path, alone, number: place.1 })
    }

    /// Records the result of a request. `slows` says whether the answer is about its path.
    pub(crate) fn went(&mut self, sent: &Sent<P>, went: Went, slows: bool, now: T) {
        if !sent.alone {
            if !matches!(went, Went::Trouble | Went::Busy) {
                self.sent.retain(|(number, _)| *number != sent.number);
            }
            self.note(matches!(went, Went::Trouble | Went::Busy));
        }
        let Some(path) = &sent.path else { return };
        match went {
            Went::Busy => {
                let jitter = Jitter::new(self.seed, sent.number);
                self.path(path, now).pushed_back(now, jitter);
            }
            Went::Refused | Went::Trouble if slows => self.path(path, now).refused(now),
            Went::Well => {
                let path = self.path(path, now);
                path.slow = path.of_no_use;
            }
            Went::Refused | Went::Trouble => {}
        }
    }

    /// Lets the next request for the path go.
    pub(crate) fn done(&mut self, sent: &Sent<P>) {
        if let Some(path) = sent.path.as_ref().and_then(|path| self.known_mut(path)) {
            path.in_flight = path.in_flight.saturating_sub(1);
        }
    }

    /// Records whether the answer to a request for this path could be used. True if other requests may go because of
    /// this.
    pub(crate) fn of_use(&mut self, path: &P, of_use: bool, now: T) -> bool {
        if !of_use {
            let path = self.path(path, now);
            path.of_no_use = true;
            path.refused(now);
        } else if let Some(path) = self.known_mut(path) {
            (path.of_no_use, path.slow) = (false, false);
            return true;
        }
        false
    }

    /// Records that Vault asked for no request for this path before `until`.
    pub(crate) fn rest(&mut self, path: &P, until: T, now: T) {
        self.path(path, now).rests_until = until;
    }

    /// Ends the wait after refusals of this path.
    pub(crate) fn retry_now(&mut self, path: &P, now: T) {
        if let Some(path) = self.known_mut(path) {
            path.again_at = now;
            path.refusals = 0;
        }
    }

    /// Whether the request in this place may be sent. The error is the time to check again if nothing changes before.
    fn may_go(&self, index: usize, now: T) -> Result<(), Option<T>> {
        let Some((ahead, (_, this))) = self.waiting.get(..index).zip(self.waiting.get(index)) else {
            return Err(None);
        };
        self.is_open(this, now)?;
        let has_rivals_on_path = this.alone || self.is_slow(this);
        let is_ahead = |other: &Waiting<P>| {
            let is_rival = (self.failing && !this.alone && !other.alone)
                || (has_rivals_on_path && other.path == this.path);
            is_rival && self.is_open(other, now).is_ok()
        };
        if ahead.iter().any(|(_, other)| is_ahead(other)) {
            return Err(None);
        }
        match self.sent.front() {
            Some((_, oldest))
                if self.failing && !this.alone && self.sent.len() >= MOST && now < *oldest + WINDOW =>
            {
                Err(Some(*oldest + WINDOW))
            }
            _ => Ok(()),
        }
    }

    /// Whether the request's path lets it go.
    fn is_open(&self, waiting: &Waiting<P>, now: T) -> Result<(), Option<T>> {
        let Some(path) = waiting.path.as_ref().and_then(|path| self.known(path)) else { return Ok(()) };
        if (path.slow || waiting.alone) && path.in_flight > 0 {
            return Err(None);
        }
        let again_at = if path.slow { path.again_at.max(path.rests_until) } else { path.rests_until };
        if now < again_at { Err(Some(again_at)) } else { Ok(()) }
    }

    fn is_slow(&self, waiting: &Waiting<P>) -> bool {
        waiting.path.as_ref().and_then(|path| self.known(path)).is_some_and(|path| path.slow)
    }

    fn send(&mut self, number: u64, now: T) {
        if self.sent.len() >= MOST {
            self.sent.pop_front();
        }
        self.sent.push_back((number, now));
    }

    fn note(&mut self, trouble: bool) {
        self.outcomes.push(trouble);
        let Outcomes { all, .. } = self.outcomes;
        let troubles = self.outcomes.troubles();
        self.failing = if self.failing { troubles * 4 > all } else { trouble && troubles * 2 >= all };
    }

    fn known(&self, path: &P) -> Option<&Path<T>> {
        self.paths.iter().find(|(known, _)| known == path).map(|(_, state)| state)
    }

    fn known_mut(&mut self, path: &P) -> Option<&mut Path<T>> {
        self.paths.iter_mut().find(|(known, _)| known == path).map(|(_, state)| state)
    }

    /// The state of this path. When a path is new, those that need no state any more are forgotten.
    fn path(&mut self, path: &P, now: T) -> &mut Path<T> {
        let index = self.paths.iter().position(|(known, _)| known == path).unwrap_or_else(|| {
            self.paths.retain(|(_, path)| !path.is_idle(now));
            self.paths.push((path.clone(), Path::new(now)));
            self.paths.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the index was found, or is that of the last")]
        &mut self.paths[index].1
    }
}

/// The promised maximum of requests a second.
pub(super) const MOST: usize = 5;

/// A quarter longer than a second, since requests may arrive closer together than they were sent.
pub(super) const WINDOW: Duration = Duration::from_millis(1250);

/// The number of outcomes that decide whether Vault fails as a whole, or only something that some routes need.
const OUTCOMES: u32 = u16::BITS;

/// The wait between a first refusal and the next request for the path. It is for many routes with the same path; each
/// route also has its own back-off, which may be longer.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait after refusals. It is short, since only the next request shows that Vault was repaired.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The longest wait for a Vault with too many requests. A path that has waited for a minute waits two more.
const LONGEST_BUSY: Duration = Duration::from_mins(2);

/// After this time without a refusal a path begins with [`FIRST_WAIT`] again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);
