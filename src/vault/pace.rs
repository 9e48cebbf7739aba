//! When a request may be sent to Vault: how many there are while Vault fails, in which order, and which paths are slowed
//! alone. Floor 2.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::bounds::{Limit, Priority};

/// Lets requests pass at once while Vault answers.
///
/// While Vault fails as a whole, at most [`MOST`] requests that come to nothing are sent within each [`WINDOW`]; those
/// that wait go by their priority. It fails as a whole from the moment that half of the latest [`OUTCOMES`] are trouble
/// (no answer, or one that speaks of the server's state) until no more than a quarter are. A request that is answered well
/// gives its turn back, so that a Vault that is back is asked by everybody at once, however long it was away.
///
/// An answer that refuses one path says nothing of others: that path alone has one request in flight, and waits between.
pub(super) struct RateLimiter {
    state: Mutex<State>,
    changed: Notify,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It did what it was sent for.
    Well,
    /// Vault is there, and says no.
    Refused,
    /// No answer, or one that speaks of the server's state.
    Trouble,
}

#[derive(Default)]
struct State {
    failing: bool,
    /// Whether the latest requests met trouble; at most [`OUTCOMES`].
    outcomes: VecDeque<bool>,
    /// When the latest requests were sent that have not been answered well, oldest first; at most [`MOST`].
    sent: VecDeque<(u64, Instant)>,
    waiting: BTreeMap<Place, Waiting>,
    paths: BTreeMap<String, Path>,
    next: u64,
}

/// A place in the queue: by priority, then in the order of coming.
type Place = (Priority, u64);

/// What waits for its turn.
struct Waiting {
    path: Option<String>,
    /// Whether it goes alone on its path whatever was answered there. Such a turn sends nothing by itself.
    alone: bool,
}

/// What is known of a path.
struct Path {
    in_flight: u32,
    /// Whether the latest answer was a refusal.
    slow: bool,
    /// Whether what it gave last was of no use: then it stays slow until something is.
    of_no_use: bool,
    /// Refusals in a row.
    refusals: u32,
    /// After a refusal: when the next request may be sent.
    again_at: Instant,
    /// Vault asked to be left alone with it until then.
    rests_until: Instant,
}

impl Path {
    fn new(now: Instant) -> Self {
        Self { in_flight: 0, slow: false, of_no_use: false, refusals: 0, again_at: now, rests_until: now }
    }

    fn refused(&mut self, now: Instant) {
        if !self.slow && now >= self.again_at + FORGIVEN_AFTER {
            self.refusals = 0;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << self.refusals.min(10)).min(LONGEST_WAIT);
        self.refusals = self.refusals.saturating_add(1);
        self.again_at = now + wait;
        self.slow = true;
    }

    /// Whether it can be forgotten.
    fn is_idle(&self, now: Instant) -> bool {
        self.in_flight == 0 && now >= self.rests_until && now >= self.again_at + FORGIVEN_AFTER
    }
}

impl RateLimiter {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changed: Notify::new() }
    }

    /// Waits until a request for this path may be sent, which is to be done at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// Says why it is not sent.
    pub(super) async fn turn(self: &Arc<Self>, path: &str, limit: &Limit) -> Result<Turn, &'static str> {
        self.wait(Some(path.to_owned()), false, limit).await
    }

    /// Waits until no other request is on this path. The turn sends nothing, so it takes nothing from the rate. Cancel safe.
    ///
    /// # Errors
    ///
    /// Says why it did not come to that.
    pub(super) async fn alone(self: &Arc<Self>, path: &str, limit: &Limit) -> Result<Turn, &'static str> {
        self.wait(Some(path.to_owned()), true, limit).await
    }

    /// Whether what came of a request for this path is of use. What is not is as good as a refusal.
    pub(super) fn of_use(&self, path: &str, of_use: bool) {
        let now = Instant::now();
        let mut state = self.state();
        if !of_use {
            let path = state.path(path, now);
            path.of_no_use = true;
            path.refused(now);
        } else if let Some(path) = state.paths.get_mut(path) {
            (path.of_no_use, path.slow) = (false, false);
            self.changed.notify_waiters();
        }
    }

    /// Vault asks to be left alone with this path for so long.
    pub(super) fn rest(&self, path: &str, span: Duration) {
        let now = Instant::now();
        self.state().path(path, now).rests_until = now + span;
    }

    /// Forgets the wait after refusals of this path, as a try is wanted now.
    pub(super) fn retry_now(&self, path: &str) {
        if let Some(path) = self.state().paths.get_mut(path) {
            path.again_at = Instant::now();
            path.refusals = 0;
        }
        self.changed.notify_waiters();
    }

    async fn wait(
        self: &Arc<Self>,
        path: Option<String>,
        alone: bool,
        limit: &Limit,
    ) -> Result<Turn, &'static str> {
        let queued = Queued::new(self, path, alone, limit.priority());
        let until = limit.turn_by();
        limit
            .wait(async {
                loop {
                    let changed = self.changed.notified();
                    tokio::pin!(changed);
                    // From here on no change is missed.
                    changed.as_mut().enable();
                    let wake = match queued.take() {
                        Ok(turn) => return Ok(turn),
                        Err(at) => at.unwrap_or(until).min(until),
                    };
                    tokio::select! {
                        () = changed => {}
                        () = limit.withdrawn().cancelled() => return Err("not sent: it is not wanted any more"),
                        () = sleep_until(wake) => if Instant::now() >= until {
                            return Err("not sent: no turn came in time");
                        },
                    }
                }
            })
            .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, left when it is dropped.
struct Queued<'a> {
    pace: &'a Arc<RateLimiter>,
    place: Place,
}

impl<'a> Queued<'a> {
    fn new(pace: &'a Arc<RateLimiter>, path: Option<String>, alone: bool, priority: Priority) -> Self {
        let mut state = pace.state();
        state.next += 1;
        let place = (priority, state.next);
        state.waiting.insert(place, Waiting { path, alone });
        Self { pace, place }
    }

    /// The turn, if it has come; else when to look again, if no change comes before.
    fn take(&self) -> Result<Turn, Option<Instant>> {
        let now = Instant::now();
        let mut state = self.pace.state();
        state.may_go(self.place, now)?;
        let Some(Waiting { path, alone }) = state.waiting.remove(&self.place) else { return Err(None) };
        if let Some(path) = &path {
            state.path(path, now).in_flight += 1;
        }
        if !alone {
            state.send(self.place.1, now);
        }
        Ok(Turn { pace: Arc::clone(self.pace), path, alone, sent: self.place.1 })
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.pace.state().waiting.remove(&self.place);
        self.pace.changed.notify_waiters();
    }
}

/// A request that may be sent, or was. Dropping it leaves the path to the next one.
pub(super) struct Turn {
    pace: Arc<RateLimiter>,
    path: Option<String>,
    alone: bool,
    sent: u64,
}

impl Turn {
    /// Waits until the same request may be sent to a further address. Cancel safe.
    ///
    /// # Errors
    ///
    /// Says why it is not sent.
    pub(super) async fn further(&mut self, limit: &Limit) -> Result<(), &'static str> {
        // The path is ours already.
        self.sent = self.pace.wait(None, false, limit).await?.sent;
        Ok(())
    }

    /// Records how the request went. `slows`: the answer is about this path.
    pub(super) fn went(&self, went: Went, slows: bool) {
        let now = Instant::now();
        let mut state = self.pace.state();
        if !self.alone {
            if went != Went::Trouble {
                state.sent.retain(|(number, _)| *number != self.sent);
            }
            state.note(went == Went::Trouble);
        }
        if let Some(path) = &self.path {
            match went {
                Went::Refused | Went::Trouble if slows => state.path(path, now).refused(now),
                Went::Well => {
                    let path = state.path(path, now);
                    path.slow = path.of_no_use;
                }
                Went::Refused | Went::Trouble => {}
            }
        }
        drop(state);
        self.pace.changed.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        if let Some(path) = self.path.as_ref().and_then(|path| state.paths.get_mut(path)) {
            path.in_flight = path.in_flight.saturating_sub(1);
        }
        drop(state);
        self.pace.changed.notify_waiters();
    }
}

impl State {
    /// Whether the request in this place may be sent; else when to look again, if no change comes before.
    fn may_go(&self, place: Place, now: Instant) -> Result<(), Option<Instant>> {
        let Some(this) = self.waiting.get(&place) else { return Err(None) };
        self.is_open(this, now)?;
        let has_rivals_on_path = this.alone || self.is_slow(this);
        let is_ahead = |other: &Waiting| {
            let is_rival = (self.failing && !this.alone && !other.alone)
                || (has_rivals_on_path && other.path == this.path);
            is_rival && self.is_open(other, now).is_ok()
        };
        if self.waiting.range(..place).any(|(_, other)| is_ahead(other)) {
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

    /// Whether its path lets it go.
    fn is_open(&self, waiting: &Waiting, now: Instant) -> Result<(), Option<Instant>> {
        let Some(path) = waiting.path.as_ref().and_then(|path| self.paths.get(path)) else { return Ok(()) };
        if (path.slow || waiting.alone) && path.in_flight > 0 {
            return Err(None);
        }
        let again_at = if path.slow { path.again_at.max(path.rests_until) } else { path.rests_until };
        if now < again_at { Err(Some(again_at)) } else { Ok(()) }
    }

    fn is_slow(&self, waiting: &Waiting) -> bool {
        waiting.path.as_ref().and_then(|path| self.paths.get(path)).is_some_and(|path| path.slow)
    }

    fn send(&mut self, number: u64, now: Instant) {
        if self.sent.len() >= MOST {
            self.sent.pop_front();
        }
        self.sent.push_back((number, now));
    }

    fn note(&mut self, trouble: bool) {
        if self.outcomes.len() >= OUTCOMES {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(trouble);
        let (all, troubles) = (self.outcomes.len(), self.outcomes.iter().filter(|trouble| **trouble).count());
        self.failing = if self.failing { troubles * 4 > all } else { trouble && troubles * 2 >= all };
    }

    fn path(&mut self, path: &str, now: Instant) -> &mut Path {
        if !self.paths.contains_key(path) {
            self.paths.retain(|_, path| !path.is_idle(now));
        }
        self.paths.entry(path.to_owned()).or_insert_with(|| Path::new(now))
    }
}

/// How many requests a second are promised at most.
const MOST: usize = 5;

/// A quarter more than a second, since requests may arrive closer together than they were sent.
const WINDOW: Duration = Duration::from_millis(1250);

/// How many outcomes decide whether Vault fails as a whole, or only something that some routes need.
const OUTCOMES: usize = 16;

/// The wait after a first refusal until the next request for the path. Each route has a back-off of its own, which may be
/// longer; this one is for many routes on the same path.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait. It is short, since a repair in Vault is noticed only by the next request.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// After so long without a refusal a path begins with [`FIRST_WAIT`] again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
