//! How often Vault is asked while things go wrong. Floor 2.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

/// Lets requests pass at once while all goes well, and from a failure on at most [`MOST`] within each [`WINDOW`].
///
/// A success does not say that the failure is over: a login succeeds, and what is asked for with its token is refused,
/// again and again and on every route. So the bound stays until a success comes [`CALM`] after the latest failure.
/// Silence does not lift it, as a Vault that answers nobody is silent.
pub(super) struct Pace {
    /// Those who wait for their turn, in order.
    queue: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the latest failure became known, while its bound stays.
    failed_at: Option<Instant>,
    /// When the latest requests were sent, oldest first; at most [`MOST`].
    sent: VecDeque<Instant>,
    /// Paths that Vault asked to be left alone with, and until when.
    resting: BTreeMap<String, Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { queue: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    /// Waits until a request for this path may be sent, which is to be done at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// Says why it may not be sent before the deadline.
    pub(super) async fn turn(&self, path: &str, deadline: Instant) -> Result<(), &'static str> {
        if self.state().resting.get(path).is_some_and(|until| Instant::now() < *until) {
            return Err("not sent: Vault asked to be left alone with it for a while");
        }
        let too_late = "not sent: Vault fails, and no turn came in time";
        let Ok(_first) = timeout_at(deadline, self.queue.lock()).await else {
            return Err(too_late);
        };
        let slot = self.state().slot();
        if let Some(slot) = slot {
            if slot >= deadline {
                return Err(too_late);
            }
            sleep_until(slot).await;
        }
        self.state().send(Instant::now());
        Ok(())
    }

    /// Tells how the latest request went.
    pub(super) fn went(&self, well: bool) {
        let now = Instant::now();
        let mut state = self.state();
        if !well {
            state.failed_at = Some(now);
        } else if state.failed_at.is_some_and(|failed_at| now >= failed_at + CALM) {
            state.failed_at = None;
        }
    }

    /// Requests for this path are not to be sent for so long.
    pub(super) fn rest(&self, path: &str, span: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        state.resting.retain(|_, until| now < *until);
        state.resting.insert(path.to_owned(), now + span);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When the next request may be sent, if not at once.
    fn slot(&self) -> Option<Instant> {
        let oldest = self.sent.front().filter(|_| self.failed_at.is_some() && self.sent.len() == MOST)?;
        Some(*oldest + WINDOW)
    }

    fn send(&mut self, now: Instant) {
        if self.sent.len() == MOST {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
    }
}

/// So many a second are promised.
const MOST: usize = 5;

/// A quarter more than the second: requests that were sent apart may arrive closer together.
const WINDOW: Duration = Duration::from_millis(1250);

/// Longer than the longest back-off of what fails for Vault's sake, so that a failure that comes again finds the bound in
/// place.
const CALM: Duration = Duration::from_secs(35);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// So many callers at once, each of which sends as often as it can for this long; how their requests went is told by
    /// `well`. When each was sent.
    async fn sent(callers: u32, span: Duration, well: fn(usize) -> bool) -> Vec<Instant> {
        let pace = Arc::new(Pace::new());
        let sent = Arc::new(Mutex::new(Vec::new()));
        let until = Instant::now() + span;
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let (pace, sent) = (Arc::clone(&pace), Arc::clone(&sent));
                tokio::spawn(async move {
                    while Instant::now() < until && pace.turn("x", until).await.is_ok() {
                        let number = {
                            let mut sent = sent.lock().unwrap();
                            sent.push(Instant::now());
                            sent.len()
                        };
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        pace.went(well(number));
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        sent.lock().unwrap().clone()
    }

    fn most_in_a_second(sent: &[Instant]) -> usize {
        let within = |from: &Instant| sent.iter().filter(|at| (*from..*from + SECOND).contains(at)).count();
        sent.iter().map(within).max().unwrap_or(0)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn requests_are_free_while_vault_answers() {
        let sent = sent(4, SECOND, |_| true).await;
        assert_eq!(sent.len(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_succeeds_in_between_a_failing_vault_gets_five_requests_a_second() {
        for well in [|_| false, |number| number % 2 == 0, |number| number % 10 != 0] {
            let sent = sent(4, Duration::from_secs(60), well).await;
            // Four were on their way before any failure was known; up to ten with the last pattern.
            assert_eq!(most_in_a_second(&sent[12..]), MOST);
            assert!(sent.len() > 4 * 59, "and not much less than that: {}", sent.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_the_failure_counts() {
        let pace = Pace::new();
        let began = Instant::now();
        for _ in 0..20 {
            pace.turn("x", began + LONG).await.unwrap();
        }
        pace.went(false);
        pace.turn("x", began + LONG).await.unwrap();
        assert_eq!(began.elapsed(), WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_lifts_the_bound_when_no_failure_came_for_a_while() {
        let free = async |pace: &Pace| {
            let began = Instant::now();
            for _ in 0..20 {
                pace.turn("x", began + LONG).await.unwrap();
            }
            began.elapsed().is_zero()
        };
        let pace = Pace::new();
        pace.went(false);
        tokio::time::sleep(CALM).await;
        assert!(!free(&pace).await, "silence is no success");
        pace.went(false);
        pace.went(true);
        assert!(!free(&pace).await, "it may fail again at once");
        pace.went(false);
        tokio::time::sleep(CALM).await;
        pace.went(true);
        assert!(free(&pace).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_beyond_the_deadline_is_not_waited_for() {
        let pace = Pace::new();
        pace.went(false);
        let began = Instant::now();
        for _ in 0..MOST {
            pace.turn("x", began + LONG).await.unwrap();
        }
        assert!(pace.turn("x", began + WINDOW).await.is_err());
        assert!(began.elapsed().is_zero());
        pace.turn("x", began + LONG).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_rests_as_long_as_vault_asks_for_and_others_do_not() {
        let pace = Pace::new();
        let deadline = Instant::now() + LONG;
        pace.rest("x", Duration::from_secs(7));
        pace.turn("y", deadline).await.unwrap();
        tokio::time::sleep(Duration::from_millis(6900)).await;
        assert!(pace.turn("x", deadline).await.is_err());
        tokio::time::sleep(Duration::from_millis(100)).await;
        pace.turn("x", deadline).await.unwrap();
    }
}
