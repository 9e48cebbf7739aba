//! Upstream sessions that are logged in before a client needs them, for clients that are equivalent. Floor 4.
//!
//! Clients are equivalent if their StartupMessages are equal byte for byte and their certificates have the same
//! identity: nothing has to be set for the next of them. Each warm session serves one client, and belongs to its
//! generation like any other session. It is closed when its generation is no longer current, when the server sends
//! anything on it, after [`AGE`], and when the process stops.
//!
//! The number of sessions follows demand. A kind of clients gets one more for each client that found none ready, and
//! one fewer for each session that no client took. The route's `warm` limits all kinds together.
//!
//! With `reuse`, a session whose client has left is reset and waits in the same way for the next client, see
//! [`returned`].

mod kinds;
mod returned;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use crate::acceptor::Identity;
use crate::clock;
use crate::credentials::{Guard, Route};
use crate::postgres::protocol::startup::StartupMessage;
use crate::postgres::relay;
use crate::postgres::upstream::UpstreamSession;
use crate::session::end::Stop;
use kinds::Kinds;
pub(super) use returned::Returns;

/// The warm sessions of a route. Dropping this closes them.
pub(crate) struct WarmSessions(Arc<Inner>);

/// An upstream session, and its membership in its generation.
pub(super) type LoggedIn = (Box<UpstreamSession>, Guard);

/// Logs in for clients of a kind. `None`: their route has been removed.
pub(super) type LogIn = Arc<dyn Fn(Arc<Alike>) -> LoggingIn + Send + Sync>;
type LoggingIn = Pin<Box<dyn Future<Output = Option<Result<LoggedIn, Error>>> + Send>>;

struct Inner {
    /// The limit for all kinds together.
    most: usize,
    /// Whether sessions are returned.
    reuse: bool,
    /// The log has said that the server is too old for that.
    is_too_old: AtomicBool,
    credentials: Arc<Route>,
    kinds: Mutex<Kinds>,
    close: CancellationToken,
    /// The number of sessions that are logged in.
    open: watch::Sender<usize>,
}

/// What equivalent clients have in common.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Alike {
    pub(super) startup: StartupMessage,
    identity: Option<Identity>,
    /// The database on the upstream.
    pub(super) database: Vec<u8>,
}

/// The reason why a session does not wait any longer.
enum Left {
    /// A client takes it.
    Asked(oneshot::Sender<LoggedIn>),
    /// No client took it within [`AGE`].
    Old,
    /// The server has sent something on it, or has closed it.
    Spoke,
    /// Its generation is no longer current.
    Superseded,
    /// Warm sessions are not wanted any more.
    Closed,
}

impl Alike {
    /// The kind of a client. `None`: no session may be logged in early for it, since its session replicates, or it asks
    /// for protocol options that this version of leasehold does not know.
    pub(super) fn of(
        startup: &StartupMessage,
        identity: Option<Identity>,
        database: &[u8],
    ) -> Option<Arc<Self>> {
        let plain = startup.parameter(b"replication").is_none() && !startup.has_protocol_options();
        plain.then(|| Arc::new(Self { startup: startup.clone(), identity, database: database.to_vec() }))
    }
}

impl WarmSessions {
    /// Creates a set for at most `most` sessions ahead of need with these credentials; 0 means that there are none.
    /// `reuse`: sessions whose clients have left are kept too.
    pub(crate) fn new(most: usize, reuse: bool, credentials: Arc<Route>) -> Self {
        Self(Arc::new(Inner {
            most,
            reuse,
            is_too_old: AtomicBool::new(false),
            credentials,
            kinds: Mutex::default(),
            close: CancellationToken::new(),
            open: watch::Sender::default(),
        }))
    }

    /// The limit for the sessions ahead of need.
    pub(super) fn ahead(&self) -> usize {
        self.0.most
    }

    /// How many sessions may wait for clients.
    pub(super) fn most(&self) -> usize {
        self.0.most_waiting()
    }

    /// Takes a session for a client of this kind, if one is ready.
    pub(super) async fn take(&self, alike: &Alike) -> Option<LoggedIn> {
        loop {
            let ready = self.0.lock().pop(alike)?;
            let (give, given) = oneshot::channel();
            // A task that has just decided to close its session does not answer.
            if !self.0.credentials.is_current(ready.generation) || ready.ask.send(give).is_err() {
                continue;
            }
            let Ok((session, guard)) = given.await else { continue };
            if guard.generation().has_ended(clock::now()) {
                part(session, guard).await;
            } else if let Ok(session) = session.into_this_runtime() {
                return Some((Box::new(session), guard));
            }
        }
    }

    /// Records that a client of this kind has logged in, either with a warm session (`found`) or with a new one. Logs
    /// in sessions for later clients, until `stop` changes.
    pub(super) fn came(&self, alike: &Arc<Alike>, found: bool, log_in: LogIn, stop: &watch::Receiver<Stop>) {
        self.0.lock().came(alike, self.0.most, found);
        self.0.top_up(alike, log_in, stop);
    }

    /// Closes all sessions to free a connection of a server whose connection limit is reached. Returns true once a
    /// session is closed.
    pub(super) async fn make_room(&self) -> bool {
        let mut open = self.0.open.subscribe();
        let before = *open.borrow_and_update();
        self.0.lock().clear(clock::now() + PAUSE_WHEN_FULL);
        let fewer = open.wait_for(|open| *open < before);
        before > 0 && matches!(tokio::time::timeout(PART_WITHIN, fewer).await, Ok(Ok(_)))
    }
}

impl Drop for WarmSessions {
    fn drop(&mut self) {
        self.0.close.cancel();
    }
}

impl Inner {
    /// How many sessions may wait for clients.
    fn most_waiting(&self) -> usize {
        self.most + if self.reuse { MOST_RETURNED } else { 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs in the missing sessions of this kind, each in its own task.
    fn top_up(self: &Arc<Self>, alike: &Arc<Alike>, log_in: LogIn, stop: &watch::Receiver<Stop>) {
        let missing = self.lock().begin_missing(alike, clock::now());
        for _ in 0..missing {
            let one = Arc::clone(self).keep(Arc::clone(alike), Arc::clone(&log_in), stop.clone());
            // No tracker is needed: the session is a member of its generation, which waits for it.
            tokio::spawn(Box::pin(one));
        }
    }

    /// Runs one session from its login until a client takes it or it is closed.
    async fn keep(self: Arc<Self>, alike: Arc<Alike>, log_in: LogIn, stop: watch::Receiver<Stop>) {
        let logged_in = tokio::select! {
            biased;
            () = self.closed(stop.clone()) => None,
            logged_in = log_in(Arc::clone(&alike)) => logged_in,
        };
        let Some(Ok((mut session, guard))) = logged_in else {
            let pause = match logged_in {
                Some(Err(Error::Refused(refusal))) if refusal.is_full() => PAUSE_WHEN_FULL,
                Some(_) => PAUSE,
                None => Duration::ZERO,
            };
            return self.lock().has_failed(&alike, clock::now() + pause);
        };
        let _open = Counted::one(&self);
        let registered = self.lock().is_ready(&alike, guard.generation().number());
        let Some((id, asked)) = registered else {
            return part(session, guard).await;
        };
        tracing::debug!(
            route = self.credentials.name(),
            lease.generation = guard.generation().number().get(),
            upstream.pid = session.cancel.as_ref().map(|cancel| cancel.request().process_id),
            "an upstream session is ready ahead of need"
        );
        let left = self.wait(&mut session, &guard, asked, stop.clone()).await;
        let (session, guard) = match left {
            Left::Asked(give) => match give.send((session, guard)) {
                Ok(()) => return,
                // The client has gone meanwhile.
                Err(not_taken) => not_taken,
            },
            Left::Old => {
                self.lock().was_not_needed(&alike, id);
                (session, guard)
            }
            Left::Spoke | Left::Superseded | Left::Closed => {
                self.lock().has_left(&alike, id);
                (session, guard)
            }
        };
        self.top_up(&alike, log_in, &stop);
        part(session, guard).await;
    }

    /// Waits until a client asks for the session, or it must be closed.
    async fn wait(
        &self,
        session: &mut UpstreamSession,
        guard: &Guard,
        asked: oneshot::Receiver<oneshot::Sender<LoggedIn>>,
        stop: watch::Receiver<Stop>,
    ) -> Left {
        if !session.rest.is_empty() {
            return Left::Spoke;
        }
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = session.stream.read(&mut byte) => Left::Spoke,
            () = self.closed(stop) => Left::Closed,
            () = self.credentials.superseded(guard.generation().number()) => Left::Superseded,
            () = ended(guard) => Left::Superseded,
            // A dropped sender means that the session is not wanted any more.
            asked = asked => asked.map_or(Left::Closed, Left::Asked),
            () = tokio::time::sleep(AGE.mul_f64(rand::random_range(0.8..1.0))) => Left::Old,
        }
    }

    /// Returns when warm sessions are not wanted any more.
    async fn closed(&self, mut stop: watch::Receiver<Stop>) {
        tokio::select! {
            () = self.close.cancelled() => {}
            // A dropped sender means that the process ends.
            _ = stop.wait_for(|stop| *stop != Stop::Running) => {}
        }
    }
}

/// A logged-in session, counted until it is dropped.
struct Counted(Arc<Inner>);

impl Counted {
    fn one(of: &Arc<Inner>) -> Self {
        of.open.send_modify(|open| *open += 1);
        Self(Arc::clone(of))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Returns at the end of the generation. Each renewal changes the time of that end.
async fn ended(guard: &Guard) {
    let generation = guard.generation();
    let mut ending = generation.ending();
    loop {
        let now = clock::now();
        if generation.has_ended(now) {
            return;
        }
        tokio::select! {
            // Timers do not run while the machine is suspended, so the time is checked again.
            () = tokio::time::sleep(generation.hard_close_at().since(now).min(LOOK_AGAIN)) => {}
            Ok(()) = ending.changed() => {}
        }
    }
}

async fn part(session: Box<UpstreamSession>, guard: Guard) {
    relay::terminate_upstream(session.stream, guard, true, clock::now() + PART_WITHIN).await;
}

/// How many returned sessions of a route wait for clients.
const MOST_RETURNED: usize = 64;
/// About how long a session waits for a client.
const AGE: Duration = Duration::from_secs(300);
/// The wait after a login that the server refused.
const PAUSE: Duration = Duration::from_secs(10);
/// The wait after a login for which the server had no connection left: its connections are for clients.
const PAUSE_WHEN_FULL: Duration = Duration::from_secs(60);
/// How long the server may take to close a session.
const PART_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
