//! The rate limiter for requests to Vault. It decides how many are sent while Vault fails, in which order, and which
//! paths get fewer requests. Floor 2.

pub(in crate::vault) mod turns;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::bounds::{Limit, Priority};
pub(super) use turns::Went;
use turns::{Place, Sent, Turns};

/// Sends requests at once while Vault answers.
///
/// While Vault fails as a whole, at most [`MOST`] requests without a good answer are sent within each [`WINDOW`], and
/// waiting requests go by their priority. Vault counts as failing from the moment that half of the latest [`OUTCOMES`]
/// are trouble (no answer, or an answer about the server's state) until no more than a quarter are. A good answer gives
/// its turn back, so that all requests go at once to a Vault that has recovered, however long it was away.
///
/// A refusal of one path says nothing about other paths: only that path is limited to one request in flight, with waits
/// between.
pub(super) struct RateLimiter {
    state: Mutex<Turns<String, Instant>>,
    changed: Notify,
}

impl RateLimiter {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(Turns::new(rand::random())), changed: Notify::new() }
    }

    /// Waits until a request for this path may be sent. The caller must send it at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// The reason why the request is not sent.
    pub(super) async fn turn(self: &Arc<Self>, path: &str, limit: &Limit) -> Result<Turn, &'static str> {
        self.wait(Some(path.to_owned()), false, limit).await
    }

    /// Waits until no other request for this path is in flight. The turn sends nothing, so it does not count for the
    /// rate. Cancel safe.
    ///
    /// # Errors
    ///
    /// The reason why the turn did not come.
    pub(super) async fn alone(self: &Arc<Self>, path: &str, limit: &Limit) -> Result<Turn, &'static str> {
        self.wait(Some(path.to_owned()), true, limit).await
    }

    /// Records whether the answer to a request for this path could be used. An answer that could not counts as a
    /// refusal.
    pub(super) fn of_use(&self, path: &str, of_use: bool) {
        if self.state().of_use(&path.to_owned(), of_use, Instant::now()) {
            self.changed.notify_waiters();
        }
    }

    /// Records that Vault asked for no request for this path during `span`.
    pub(super) fn rest(&self, path: &str, span: Duration) {
        let now = Instant::now();
        self.state().rest(&path.to_owned(), now + span, now);
    }

    /// Ends the wait after refusals of this path, because a request is wanted now.
    pub(super) fn retry_now(&self, path: &str) {
        self.state().retry_now(&path.to_owned(), Instant::now());
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
                    // No notification is missed from here on.
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

    fn state(&self) -> MutexGuard<'_, Turns<String, Instant>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, given up on drop.
struct Queued<'a> {
    pace: &'a Arc<RateLimiter>,
    place: Place<Instant>,
}

impl<'a> Queued<'a> {
    fn new(pace: &'a Arc<RateLimiter>, path: Option<String>, alone: bool, priority: Priority) -> Self {
        let place = pace.state().queue(priority, path, alone);
        Self { pace, place }
    }

    /// The turn, if it has come. Otherwise the time to check again if nothing changes before.
    fn take(&self) -> Result<Turn, Option<Instant>> {
        let sent = self.pace.state().take(self.place, Instant::now())?;
        Ok(Turn { pace: Arc::clone(self.pace), sent })
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.pace.state().leave(self.place);
        self.pace.changed.notify_waiters();
    }
}

/// A request that may be sent, or was sent. Dropping it lets the next request for the path go.
pub(super) struct Turn {
    pace: Arc<RateLimiter>,
    sent: Sent<String>,
}

impl Turn {
    /// Waits until the same request may be sent to a further address. Cancel safe.
    ///
    /// # Errors
    ///
    /// The reason why the request is not sent.
    pub(super) async fn further(&mut self, limit: &Limit) -> Result<(), &'static str> {
        // This turn has the path already.
        let further = self.pace.wait(None, false, limit).await?;
        self.sent.number = further.sent.number;
        Ok(())
    }

    /// Records the result of the request. `slows` says whether the answer is about this path.
    pub(super) fn went(&self, went: Went, slows: bool) {
        self.pace.state().went(&self.sent, went, slows, Instant::now());
        self.pace.changed.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pace.state().done(&self.sent);
        self.pace.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
