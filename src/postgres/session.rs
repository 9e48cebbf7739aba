//! One client, from its first byte to its last: what it asks for, its login upstream, its relay, its end. Floor 4.
//!
//! ```text
//!   accepted ──▶ Handshake ──▶ Login ──▶ Relay ──▶ closed
//!                  │ CancelRequest │ refused, hung up
//!                  ▼               ▼
//!               cancel          closed
//! ```

mod away;
mod encryption;
mod entry;
mod error;
mod handshake;
mod login;
mod reasons;
mod routes;
mod warm;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::acceptor::Acceptor;
use crate::dial::{Discard, Stream};
use crate::error::Chain;
use crate::metrics::{self, OpenSession};
use crate::postgres::cancel::{Cancels, Registration};
use crate::postgres::protocol::startup::CancelRequest;
use crate::postgres::relay::{self, Relay};
use crate::session::end::Stop;
use crate::session::{Limits, SessionLimit, SessionPermit};
use crate::socket::descriptors::Descriptors;
use crate::socket::{Client, Connections};

pub(crate) use away::turn_away;
use entry::{Entry, Rejected};
use handshake::Request;
pub(crate) use routes::{FAILURES_EVERY, Routes, SessionRoute, UsedDatabases};
pub(crate) use warm::WarmSessions;

/// What all sessions share.
pub(crate) struct Shared {
    routes: RwLock<Arc<Routes>>,
    limits: Limits,
    acceptor: Arc<Acceptor>,
    cancels: Arc<Cancels>,
    stop: watch::Receiver<Stop>,
    session_limit: SessionLimit,
    descriptors: Arc<Descriptors>,
    /// Clients for which there were no descriptors.
    turned_away: Mutex<Connections>,
}

impl Shared {
    /// Makes it for these routes. `stop` is what the process asks of its sessions, `descriptors` counts what its clients
    /// take.
    #[must_use]
    pub(crate) fn new(
        routes: Routes,
        limits: Limits,
        cancels: Cancels,
        stop: watch::Receiver<Stop>,
        descriptors: Descriptors,
    ) -> Arc<Self> {
        let descriptors = Arc::new(descriptors);
        descriptors.keep_for(routes.len(), routes.most_warm());
        let turned_away = descriptors.shares().turned_away;
        Arc::new(Self {
            routes: RwLock::new(Arc::new(routes)),
            limits,
            acceptor: Arc::default(),
            cancels: Arc::new(cancels),
            stop,
            session_limit: SessionLimit::default(),
            descriptors,
            turned_away: Mutex::new(Connections::new(turned_away, turned_away)),
        })
    }

    /// Sets other routes for new sessions; those that exist keep theirs.
    pub(crate) fn set_routes(&self, routes: Routes) {
        self.descriptors.keep_for(routes.len(), routes.most_warm());
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// The certificates that clients are offered TLS with; none at first.
    #[must_use]
    pub(crate) fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// Counts the descriptors of clients.
    #[must_use]
    pub(crate) fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }

    /// Ends `span` after the process has begun to close its sessions.
    async fn closing_for(&self, span: Duration) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop != Stop::Running).await.is_err() {
            // The sender is gone: no stop will come.
            std::future::pending::<()>().await;
        }
        sleep(span).await;
    }

    fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves one client to its end. `id`: no other session of the process has it.
///
/// Not cancel safe: dropped, it leaves the server's session uncounted for. To end it early use [`Stop`].
pub(crate) async fn serve(client: Client, shared: Arc<Shared>, id: u64) {
    // Both are boxed: while a session is idle its task holds two pointers, not the states of its begin and its end.
    let Some(mut open) = Box::pin(begin(client, shared, id)).await else {
        return;
    };
    let done = (&mut *open.relay).await;
    Box::pin(open.close(done)).await;
}

/// A session whose client has had its first ReadyForQuery.
struct Open<C, U> {
    relay: Box<Relay<C, U>>,
    counted: OpenSession,
    send_timeout: Duration,
    /// Held until the server has closed.
    _registration: Option<Registration>,
    permits: (SessionPermit, SessionPermit),
}

impl<C, U> Open<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin + Discard,
{
    async fn close(self, done: relay::RelayExit) {
        let Self { relay, counted, send_timeout, _registration, permits } = self;
        // A client that has gone takes up no place, however long its server takes to notice.
        let _permits = (done != relay::RelayExit::ClientGone).then_some(permits);
        let cause = relay.close(done, send_timeout).await;
        tracing::debug!(cause = cause.as_str(), "session closed");
        counted.closed(cause);
    }
}

async fn begin(client: Client, shared: Arc<Shared>, id: u64) -> Option<Open<Client, Stream>> {
    let Limits { handshake_timeout, send_timeout, .. } = shared.limits;
    let acceptor = shared.acceptor.in_force();
    let request = tokio::select! {
        biased;
        request = encryption::answer(client, acceptor.as_deref(), handshake_timeout, send_timeout) => request,
        () = shared.closing_for(LAST_PACKET_WITHIN) => return None,
    };
    match request {
        Ok((Request::Session(startup), mut client)) => {
            match Entry::log_in(&mut client, &startup, &shared).await {
                Ok(entry) => entry.open(client, &shared, id).await,
                Err(Rejected::Refused(message)) => {
                    relay::close_client(&mut client.stream, &message, send_timeout).await;
                    None
                }
                Err(Rejected::Disconnected) => None,
            }
        }
        Ok((Request::Cancel(cancel), client)) => {
            tokio::select! {
                () = answer_cancel(client.stream, &cancel, &shared) => {}
                () = shared.closing_for(LAST_CANCEL_WITHIN) => {}
            }
            None
        }
        Err(error) => {
            metrics::handshake_failed(error.word());
            tracing::debug!(error = %Chain(&error), "a client did not get as far as its startup message");
            None
        }
    }
}

/// Sends the request on. There is no reply: the close tells the client that the request was delivered.
async fn answer_cancel<C: AsyncWrite + Unpin>(mut client: C, cancel: &CancelRequest, shared: &Shared) {
    shared.cancels.handle(cancel, || shared.routes().upstreams()).await;
    let _ = timeout(shared.limits.send_timeout, client.shutdown()).await;
}

/// How long a handshake may go on once the process closes: what a client has sent by then is read, and it gets an error.
const LAST_PACKET_WITHIN: Duration = Duration::from_millis(250);
/// How long a cancel request may go on then: mostly its session is why the process does not end yet.
const LAST_CANCEL_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::postgres::cancel::Unknown;
    use crate::postgres::protocol::error_response;

    /// A session without any route, and its client's end.
    fn session() -> (impl Future<Output = ()> + Send + 'static, UnixStream, watch::Sender<Stop>) {
        let (near, client) = UnixStream::pair().unwrap();
        let within = Duration::from_secs(5);
        let limits =
            Limits { handshake_timeout: within, login_wait: within, send_timeout: within, max_sessions: 0 };
        let stop = watch::Sender::new(Stop::Running);
        let shared = Shared::new(
            Routes::default(),
            limits,
            Cancels::new(Unknown::Off),
            stop.subscribe(),
            Descriptors::default(),
        );
        (serve(Client::Unix(near), shared, 1), client, stop)
    }

    #[tokio::test]
    async fn the_task_of_a_session_is_small() {
        let (session, ..) = session();
        let bytes = size_of_val(&session);
        assert!(bytes <= 256, "{bytes} bytes");
    }

    #[tokio::test]
    async fn a_client_without_a_route_is_told_so() {
        let (session, mut client, _stop) = session();
        let session = tokio::spawn(session);
        client.write_all(b"\0\0\0\x12\0\x03\0\0user\0app\0\0").await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(error_response::sqlstate(heard.get(5..).unwrap()), Some(&b"28000"[..]));
        drop(client);
        session.await.unwrap();
    }

    #[tokio::test]
    async fn an_unknown_cancel_is_closed_silently() {
        let (session, mut client, _stop) = session();
        let session = tokio::spawn(session);
        client.write_all(&crate::postgres::cancel::tests::CANCEL).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        session.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_does_not_hold_up_a_forced_stop() {
        let (session, mut client, stop) = session();
        let session = tokio::spawn(session);
        stop.send_replace(Stop::Forced);
        session.await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}
