//! One published credential, as sessions see it. Floor 3.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use crate::clock;
use crate::lease::{Cause, Ending, GenerationId};
use crate::metrics::Closed;
use crate::published::Published;
use crate::secret::Secret;
use crate::time::Time;
use crate::vault::Lease;

/// A credential with its lease, shared by the sessions that logged in with it.
///
/// Made by the driver of a route; sessions hold it through a [`Guard`].
pub(crate) struct Generation {
    number: GenerationId,
    username: String,
    password: Secret,
    lease: Lease,
    /// Sessions, and logins on their way. `CLOSED` is added once, when no session may enter any more.
    entered: AtomicUsize,
    /// Some session's upstream did not reach EOF before its guard was dropped.
    open_upstream: AtomicBool,
    /// When the hard close begins, in nanoseconds since boot: that of `ending`, to be read without a lock.
    hard_close_at: AtomicU64,
    /// When it was published first, in nanoseconds since boot; the maximum while it was not.
    published_at: AtomicU64,
    ending: Arc<Published<Ending>>,
    /// Woken when the last guard is dropped.
    left: Arc<Notify>,
    /// Addresses, the latest to be known last.
    accepted_by: Mutex<Vec<String>>,
    /// When the latest of them did, in nanoseconds since boot; 0 while none has.
    accepted_at: AtomicU64,
}

/// Of so many addresses it is remembered that they have let a credential in: those behind a name come and go.
const MOST_ADDRESSES: usize = 64;

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Generation {
    /// A new generation. `left` is notified whenever its last session leaves.
    #[must_use]
    pub(crate) fn new(
        number: GenerationId,
        username: String,
        password: Secret,
        lease: Lease,
        hard_close_at: Time,
        left: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            username,
            password,
            lease,
            entered: AtomicUsize::new(0),
            open_upstream: AtomicBool::new(false),
            hard_close_at: AtomicU64::new(hard_close_at.as_nanos()),
            published_at: AtomicU64::new(Time::NEVER.as_nanos()),
            ending: Published::new(Ending { hard_close_at, drain_from: None, closing: None }),
            left,
            accepted_by: Mutex::new(Vec::new()),
            accepted_at: AtomicU64::new(0),
        })
    }

    /// Counts from 1 per route and process.
    #[must_use]
    pub(crate) fn number(&self) -> GenerationId {
        self.number
    }

    /// The role to log in as.
    #[must_use]
    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    /// Its password.
    #[must_use]
    pub(crate) fn password(&self) -> &Secret {
        &self.password
    }

    /// Its lease. Logs and status show [`Generation::lease_id_tail`].
    #[must_use]
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The last eight characters of the lease_id, for logs and status.
    #[must_use]
    pub(crate) fn lease_id_tail(&self) -> &str {
        self.lease.tail()
    }

    /// Counts a session (or a login on its way) in. `None` once the generation is closed.
    #[must_use]
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Guard> {
        self.entered
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n & CLOSED == 0).then_some(n + 1))
            .ok()?;
        Some(Guard { generation: Arc::clone(self), upstream_open: false })
    }

    /// How many sessions, and logins on their way, it has.
    #[must_use]
    pub(crate) fn sessions(&self) -> usize {
        self.entered.load(Ordering::Acquire) & !CLOSED
    }

    /// Closes it for good if it has no session; afterwards [`Generation::enter`] gives `None`. True once it is closed.
    #[must_use]
    pub(crate) fn close_if_empty(&self) -> bool {
        match self.entered.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(n) => n == CLOSED,
        }
    }

    /// Whether a session's upstream was still open when the session was given up.
    #[must_use]
    pub(crate) fn may_be_open_upstream(&self) -> bool {
        self.open_upstream.load(Ordering::Acquire)
    }

    /// When the hard close begins. It moves with each renewal; compare it at every wake-up.
    #[must_use]
    pub(crate) fn hard_close_at(&self) -> Time {
        Time::from_nanos(self.hard_close_at.load(Ordering::Acquire))
    }

    /// Whether its hard close has not begun.
    #[must_use]
    pub(crate) fn is_usable(&self, now: Time) -> bool {
        now < self.hard_close_at()
    }

    /// When it became the current one first; [`Time::NEVER`] while it was not.
    #[must_use]
    pub(crate) fn published_at(&self) -> Time {
        Time::from_nanos(self.published_at.load(Ordering::Acquire))
    }

    /// The driver has published it. The first time counts.
    pub(crate) fn set_published_at(&self, at: Time) {
        self.published_at.fetch_min(at.as_nanos(), Ordering::AcqRel);
    }

    /// Whether its sessions are being closed, or would be at this time: no session begins with it any more.
    #[must_use]
    pub(crate) fn has_ended(&self, now: Time) -> bool {
        now >= self.hard_close_at() || self.ending.value().closing.is_some()
    }

    /// What sessions have to know of their end. They are not woken where the hard close alone moves.
    #[must_use]
    pub(crate) fn ending(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }

    /// The same for a session's relay.
    #[must_use]
    pub(crate) fn published_ending(&self) -> Arc<Published<Ending>> {
        Arc::clone(&self.ending)
    }

    /// Sets what sessions have to know of their end, and wakes those that have to do something about it: each renewal
    /// moves the hard close of them all.
    pub(crate) fn set_ending(&self, ending: Ending) {
        self.hard_close_at.store(ending.hard_close_at.as_nanos(), Ordering::Release);
        self.ending.send_if_modified(|known| {
            let before = std::mem::replace(known, ending);
            let drains = ending.drain_from.is_some() && before.hard_close_at != ending.hard_close_at;
            drains || (before.drain_from, before.closing) != (ending.drain_from, ending.closing)
        });
    }

    /// The server at this address has let this credential in. A name may lead to several, so no name stands for one.
    pub(crate) fn accepted_by(&self, address: &str) {
        self.accepted_at.fetch_max(clock::now().as_nanos(), Ordering::AcqRel);
        if let Ok(mut addresses) = self.accepted_by.lock()
            && !addresses.iter().any(|known| known == address)
        {
            if addresses.len() == MOST_ADDRESSES {
                addresses.remove(0);
            }
            addresses.push(address.to_owned());
        }
    }

    /// When a server has last let this credential in; `None` while none has.
    #[must_use]
    pub(crate) fn accepted_at(&self) -> Option<Time> {
        let nanos = self.accepted_at.load(Ordering::Acquire);
        (nanos > 0).then(|| Time::from_nanos(nanos))
    }

    /// Whether other addresses have let this credential in, and this one has not.
    #[must_use]
    pub(crate) fn is_accepted_elsewhere(&self, address: &str) -> bool {
        let accepted_by = self.accepted_by.lock();
        accepted_by.is_ok_and(|known| !known.is_empty() && known.iter().all(|known| known != address))
    }
}

impl From<Cause> for Closed {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::LeaseEnd => Self::LeaseEnd,
            Cause::Lost | Cause::CutShort => Self::Revoked,
        }
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .field("sessions", &self.sessions())
            .finish()
    }
}

/// One session, or one login on its way, counted in a generation until dropped.
///
/// Between [`Guard::upstream_opened`] and [`Guard::upstream_gone`] the server may hold a session of this credential;
/// a guard dropped in between marks the generation, so that its lease is left to lapse.
#[derive(Debug)]
pub(crate) struct Guard {
    generation: Arc<Generation>,
    upstream_open: bool,
}

impl Guard {
    /// The generation it counts in.
    #[must_use]
    pub(crate) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// From now on the server may hold a session.
    pub(crate) fn upstream_opened(&mut self) {
        self.upstream_open = true;
    }

    /// The upstream socket has reached EOF, or was never logged in.
    pub(crate) fn upstream_gone(&mut self) {
        self.upstream_open = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.upstream_open {
            self.generation.open_upstream.store(true, Ordering::Release);
        }
        if self.generation.entered.fetch_sub(1, Ordering::AcqRel) & !CLOSED == 1 {
            self.generation.left.notify_one();
        }
    }
}
