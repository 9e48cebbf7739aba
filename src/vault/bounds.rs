//! The bounds and the priority of a request to Vault. Floor 2.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The priority of a request, by what it protects. Where requests wait for their turn, the least one goes first. `T` is a
/// point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority<T = Instant> {
    /// The renewal of a lease or token that carries sessions. Without it they end at this time.
    Sessions(T),
    /// A renewal without sessions, or a successor. Without it no session gets in from this time on.
    Logins(T),
    /// The revocation of a lease or token, which ends by itself at this time.
    GivingBack(T),
    /// A credential where none is usable, after so many attempts that failed.
    First(u32),
}

impl<T> Priority<T> {
    /// The priority of a fresh credential, and of the login for it: until when one is usable, or after how many failures.
    #[must_use]
    pub(crate) fn of_issuance(runs_until: Option<T>, failures: u32) -> Self {
        runs_until.map_or(Self::First(failures), Self::Logins)
    }

    /// The priority of a renewal, without which the lease or token ends at this time.
    #[must_use]
    pub(crate) fn of_renewal(ends_at: T, has_sessions: bool) -> Self {
        if has_sessions { Self::Sessions(ends_at) } else { Self::Logins(ends_at) }
    }

    /// When it is of no use any more to wait for a turn.
    pub(crate) fn moot_at(self) -> Option<T> {
        match self {
            Self::Sessions(at) | Self::GivingBack(at) => Some(at),
            Self::Logins(_) | Self::First(_) => None,
        }
    }
}

/// How long a request may take from its sending on, and its place among those that wait for their turn.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    within: Duration,
    priority: Priority,
    withdrawn: CancellationToken,
    sent: Arc<watch::Sender<Option<Duration>>>,
}

impl Bounds {
    /// A wait for the turn is not part of `within`; it has a bound of its own.
    #[must_use]
    pub(crate) fn new(priority: Priority, within: Duration) -> Self {
        let (sent, _) = watch::channel(None);
        Self { within, priority, withdrawn: CancellationToken::new(), sent: Arc::new(sent) }
    }

    /// While it waits for its turn it is given up once this is cancelled. After its sending that changes nothing.
    #[must_use]
    pub(crate) fn withdrawn_by(self, withdrawn: CancellationToken) -> Self {
        Self { withdrawn, ..self }
    }

    /// Waits until the first request for it is sent. Cancel safe.
    pub(crate) async fn sent(&self) {
        // This side holds the sender too, so the channel is open.
        let _ = self.sent.subscribe().wait_for(Option::is_some).await;
    }

    /// What [`Bounds::sent`] waits for, in a script.
    #[cfg(test)]
    pub(crate) fn mark_sent(&self) {
        self.sent.send_replace(Some(Duration::ZERO));
    }

    /// How long it waited before its first request was sent; zero before that.
    #[must_use]
    pub(crate) fn waited(&self) -> Duration {
        self.sent.borrow().unwrap_or_default()
    }
}

/// A request beside which nothing waits, such as one of a command of its own.
impl From<Duration> for Bounds {
    fn from(within: Duration) -> Self {
        Self::new(Priority::First(0), within)
    }
}

/// Bounds that are in force: their time runs, except while a turn is waited for.
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

    /// Part of a request: waits included it takes no longer than this.
    pub(super) fn part(&self, within: Duration) -> Self {
        let now = Instant::now();
        let ends_at = (now + within).min(self.ends_at());
        let bounds = Bounds { within: ends_at.saturating_duration_since(now), ..self.bounds.clone() };
        let holds_login = AtomicBool::new(self.holds_login.load(Ordering::Relaxed));
        Self { turns_end_at: Some(ends_at), holds_login, ..Self::new(bounds) }
    }

    /// By when all has to be done.
    pub(super) fn ends_at(&self) -> Instant {
        self.began + self.bounds.within + self.waited()
    }

    /// Until when a turn is waited for.
    pub(super) fn turn_by(&self) -> Instant {
        let all = [self.turns_end_at, self.priority().moot_at()];
        all.into_iter().flatten().fold(Instant::now() + WAIT_MOST, Instant::min)
    }

    /// Others wait for the login that is in hand, whatever it is for, so it goes first among what lets sessions in.
    pub(super) fn has_login_in_hand(&self) {
        self.holds_login.store(true, Ordering::Relaxed);
    }

    pub(super) fn priority(&self) -> Priority {
        let own = self.bounds.priority;
        if self.holds_login.load(Ordering::Relaxed) { own.min(Priority::Logins(self.began)) } else { own }
    }

    /// Cancelled where it is not wanted any more, unless it was sent.
    pub(super) fn withdrawn(&self) -> &CancellationToken {
        &self.bounds.withdrawn
    }

    /// The time of this wait does not count.
    pub(super) async fn wait<T>(&self, turn: impl Future<Output = T>) -> T {
        let from = Instant::now();
        let turn = turn.await;
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner) += from.elapsed();
        turn
    }

    /// A request is sent now.
    pub(super) fn is_sent(&self) {
        let waited = self.waited();
        self.bounds.sent.send_if_modified(|sent| sent.replace(sent.unwrap_or(waited)).is_none());
    }

    fn waited(&self) -> Duration {
        *self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn comes in seconds, unless what is more urgent takes all of them. A request that has none by then fails.
pub(crate) const WAIT_MOST: Duration = Duration::from_mins(1);
