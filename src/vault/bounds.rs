//! The time limit and the priority of a request to Vault. Floor 2.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The priority of a request, by what it protects. Among waiting requests, the smallest value goes first. `T` is a
/// point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority<T = Instant> {
    /// The renewal of a lease or token that has sessions. Without it they end at this time.
    Sessions(T),
    /// A renewal without sessions, or a successor credential. Without it no session can log in from this time on.
    Logins(T),
    /// The revocation of a lease or token, which expires at this time anyway.
    GivingBack(T),
    /// A credential when none is usable, after this number of failed attempts.
    First(u32),
}

impl<T> Priority<T> {
    /// The priority of a new credential and of the login for it. Given is the time until which a credential is usable,
    /// or the number of failed attempts.
    #[must_use]
    pub(crate) fn of_issuance(runs_until: Option<T>, failures: u32) -> Self {
        runs_until.map_or(Self::First(failures), Self::Logins)
    }

    /// The priority of a renewal, without which the lease or token ends at this time.
    #[must_use]
    pub(crate) fn of_renewal(ends_at: T, has_sessions: bool) -> Self {
        if has_sessions { Self::Sessions(ends_at) } else { Self::Logins(ends_at) }
    }

    /// The time from which it is useless to wait for a turn.
    pub(crate) fn moot_at(self) -> Option<T> {
        match self {
            Self::Sessions(at) | Self::GivingBack(at) => Some(at),
            Self::Logins(_) | Self::First(_) => None,
        }
    }
}

/// The time limit of a request from its sending on, and its priority while it waits for its turn.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    within: Duration,
    priority: Priority,
    withdrawn: CancellationToken,
    sent: Arc<watch::Sender<Option<Duration>>>,
}

impl Bounds {
    /// The time that a request waits for its turn is not part of `within`; that wait has its own limit.
    #[must_use]
    pub(crate) fn new(priority: Priority, within: Duration) -> Self {
        let (sent, _) = watch::channel(None);
        Self { within, priority, withdrawn: CancellationToken::new(), sent: Arc::new(sent) }
    }

    /// A cancelled token ends the wait for the turn. It has no effect after the request was sent.
    #[must_use]
    pub(crate) fn withdrawn_by(self, withdrawn: CancellationToken) -> Self {
        Self { withdrawn, ..self }
    }

    /// Waits until the first request with these bounds is sent. Cancel safe.
    pub(crate) async fn sent(&self) {
        // `self` holds the sender as well, so the channel is open.
        let _ = self.sent.subscribe().wait_for(Option::is_some).await;
    }

    /// Marks the request as sent, for tests that wait for [`Bounds::sent`].
    #[cfg(test)]
    pub(crate) fn mark_sent(&self) {
        self.sent.send_replace(Some(Duration::ZERO));
    }

    /// How long the first request waited before it was sent; zero until then.
    #[must_use]
    pub(crate) fn waited(&self) -> Duration {
        self.sent.borrow().unwrap_or_default()
    }
}

/// The bounds of a request that competes with no other, such as that of a command.
impl From<Duration> for Bounds {
    fn from(within: Duration) -> Self {
        Self::new(Priority::First(0), within)
    }
}

/// The bounds of a running request. Their time does not run during a wait for a turn.
pub(super) struct Limit {
    bounds: Bounds,
    began: Instant,
    waited: Mutex<Duration>,
    turns_end_at: Option<Instant>,
    holds_login: AtomicBool,
}

impl Limit {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            began: Instant::now(),
            waited: Mutex::default(),
            turns_end_at: None,
            holds_login: AtomicBool::new(false),
        }
    }

    /// The limit of a part of a request: it waits for turns for `within` at most, and takes as long beside that.
    pub(super) fn part(&self, within: Duration) -> Self {
        let now = Instant::now();
        let ends_at = (now + within).min(self.ends_at());
        let bounds = Bounds { within: ends_at.saturating_duration_since(now), ..self.bounds.clone() };
        let holds_login = AtomicBool::new(self.holds_login.load(Ordering::Relaxed));
        Self { turns_end_at: Some(ends_at), holds_login, ..Self::new(bounds) }
    }

    /// The limit of what follows the request, however long that has taken: it waits for turns for `within` at most, and takes
    /// as long beside that.
    pub(super) fn afterwards(&self, within: Duration) -> Self {
        let turns_end_at = Some(Instant::now() + within);
        Self { turns_end_at, ..Self::new(Bounds::new(self.priority(), within)) }
    }

    /// The time by which the request must be done.
    pub(super) fn ends_at(&self) -> Instant {
        self.began + self.bounds.within + self.waited()
    }

    /// The time until which a turn is waited for.
    pub(super) fn turn_by(&self) -> Instant {
        let all = [self.turns_end_at, self.priority().moot_at()];
        all.into_iter().flatten().fold(Instant::now() + WAIT_MOST, Instant::min)
    }

    /// Raises the priority of a running login: other requests wait for it, so it goes first among the requests that let
    /// sessions log in.
    pub(super) fn has_login_in_hand(&self) {
        self.holds_login.store(true, Ordering::Relaxed);
    }

    pub(super) fn priority(&self) -> Priority {
        let own = self.bounds.priority;
        if self.holds_login.load(Ordering::Relaxed) { own.min(Priority::Logins(self.began)) } else { own }
    }

    /// This token is cancelled if the request is not wanted any more and was not sent.
    pub(super) fn withdrawn(&self) -> &CancellationToken {
        &self.bounds.withdrawn
    }

    /// Waits, without counting the time of the wait.
    pub(super) async fn wait<T>(&self, turn: impl Future<Output = T>) -> T {
        let from = Instant::now();
        let turn = turn.await;
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner) += from.elapsed();
        turn
    }

    /// Records that the request is sent now.
    pub(super) fn is_sent(&self) {
        let waited = self.waited();
        self.bounds.sent.send_if_modified(|sent| sent.replace(sent.unwrap_or(waited)).is_none());
    }

    fn waited(&self) -> Duration {
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn usually comes within seconds, unless more urgent requests take all turns. A request without a turn by then
/// fails.
pub(crate) const WAIT_MOST: Duration = Duration::from_mins(1);
