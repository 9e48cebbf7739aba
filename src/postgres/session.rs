//! One client, from its first byte to its last: what it asks for, its login upstream, its relay, its end. Floor 4.
//!
//! ```text
//!   accepted ──▶ Handshake ──▶ Waiting ──▶ Login ──▶ Relay ──▶ closed
//!                  │ CancelRequest       │ refused, hung up
//!                  ▼                     ▼
//!               cancel                closed
//! ```

mod away;
mod encryption;
mod error;
mod handshake;
mod login;
mod reasons;
mod routes;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::acceptor::{Acceptor, Identity};
use crate::clock;
use crate::dial::{Discard, Stream};
use crate::error::{Chain, ClientFacing};
use crate::metrics::{self, Closed, LoginFailure, OpenSession};
use crate::postgres::cancel::{Cancels, Registration};
use crate::postgres::protocol::error_response;
use crate::postgres::protocol::startup::{CancelRequest, StartupMessage};
use crate::postgres::relay::{self, Early, Relay};
use crate::postgres::upstream::UpstreamSession;
use crate::session::end::Stop;
use crate::session::{Limits, SessionLimit, SessionPermit};
use crate::socket::descriptors::Descriptors;
use crate::socket::{Client, Connections};
use crate::time::Time;

pub(crate) use away::turn_away;
use handshake::{Asked, Waiting};
use login::{LoggedIn, Login};
pub(crate) use routes::{FAILURES_EVERY, Routes, SessionRoute, UsedDatabases};

/// What all sessions share.
pub(crate) struct Shared {
    routes: RwLock<Arc<Routes>>,
    limits: Limits,
    acceptor: Arc<Acceptor>,
    cancels: Arc<Cancels>,
    stop: watch::Receiver<Stop>,
    session_limit: SessionLimit,
    descriptors: Arc<Descriptors>,
    /// Clients for which there were none.
    turned_away: Mutex<Connections>,
}

impl Shared {
    /// For these routes. `stop` is what the process asks of its sessions.
    #[must_use]
    pub(crate) fn new(
        routes: Routes,
        limits: Limits,
        cancels: Cancels,
        stop: watch::Receiver<Stop>,
    ) -> Arc<Self> {
        let descriptors = Arc::new(Descriptors::default());
        descriptors.keep_for(routes.len());
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

    /// Other routes for new sessions; those that exist keep theirs.
    pub(crate) fn set_routes(&self, routes: Routes) {
        self.descriptors.keep_for(routes.len());
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// What clients are offered TLS with; nothing at first.
    #[must_use]
    pub(crate) fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// What counts the descriptors of clients.
    #[must_use]
    pub(crate) fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }

    /// Ends so long after the process has begun to let nobody in.
    async fn closing_for(&self, span: Duration) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop != Stop::Running).await.is_err() {
            // Nobody is left to say so.
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
    /// Held until the server has let go.
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
        let _seats = (done != relay::RelayExit::ClientGone).then_some(permits);
        let cause = relay.close(done, send_timeout).await;
        tracing::debug!(cause = cause.as_str(), "session closed");
        counted.closed(cause);
    }
}

async fn begin(client: Client, shared: Arc<Shared>, id: u64) -> Option<Open<Client, Stream>> {
    let Limits { handshake_timeout, send_timeout, .. } = shared.limits;
    let acceptor = shared.acceptor.in_force();
    let asked = tokio::select! {
        biased;
        asked = encryption::answer(client, acceptor.as_deref(), handshake_timeout, send_timeout) => asked,
        () = shared.closing_for(LAST_PACKET_WITHIN) => return None,
    };
    match asked {
        Ok(Asked::Session { client, startup }) => {
            let begun = clock::now();
            let identity = client.stream.identity();
            let mut entering = Entering { client, identity, startup, shared, id, begun };
            match entering.enter().await {
                Ok(entry) => entering.open(entry).await,
                Err(Rejected::Refused(message)) => {
                    let client = &mut entering.client.stream;
                    relay::close_client(client, &message, send_timeout).await;
                    None
                }
                Err(Rejected::Disconnected) => None,
            }
        }
        Ok(Asked::Cancel { client, request }) => {
            tokio::select! {
                () = answer_cancel(client, &request, &shared) => {}
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

/// No reply. The close tells the client that the request was delivered.
async fn answer_cancel<C: AsyncWrite + Unpin>(mut client: C, request: &CancelRequest, shared: &Shared) {
    shared.cancels.handle(request, || shared.routes().upstreams()).await;
    let _ = timeout(shared.limits.send_timeout, client.shutdown()).await;
}

/// A client that has said what it wants.
struct Entering {
    client: Waiting<Client>,
    /// Whom its certificate stands for, where it was asked for one.
    identity: Option<Identity>,
    startup: StartupMessage,
    shared: Arc<Shared>,
    id: u64,
    begun: Time,
}

/// What a client that gets in gets.
struct Entry {
    route: Arc<SessionRoute>,
    logged_in: LoggedIn,
    permits: (SessionPermit, SessionPermit),
}

/// Why a client does not get in.
enum Rejected {
    /// It is told so.
    Refused(bytes::Bytes),
    /// It hung up.
    Disconnected,
}

impl Rejected {
    fn refused(facing: ClientFacing) -> Self {
        Self::Refused(error_response::fatal(&facing.into()).freeze())
    }
}

impl Entering {
    async fn enter(&mut self) -> Result<Entry, Rejected> {
        let user = self.startup.user();
        let named = self.startup.database();
        // PostgreSQL's own rule: a client that names no database means the one of its name.
        let database = named.unwrap_or(user);
        let Some(route) = self.shared.routes().pick(user, database) else {
            metrics::login_failed("", LoginFailure::NoRoute);
            return Err(Rejected::refused(ClientFacing::NoRoute {
                user: user.to_vec(),
                database: database.to_vec(),
            }));
        };
        let database = match (route.upstream.database(), named) {
            (Some(fixed), Some(named)) if fixed.as_bytes() != named => {
                route.metrics.login_failed(LoginFailure::NoRoute);
                return Err(Rejected::refused(ClientFacing::OtherDatabase { named: named.to_vec() }));
            }
            (Some(fixed), _) => fixed.as_bytes(),
            (None, _) => database,
        };
        let permits = self.take_permits(&route)?;
        let wait = self.shared.limits.login_wait;
        let mut login = Login { route: &route, startup: &self.startup, database, wait };
        let outcome = tokio::select! {
            biased;
            outcome = Box::pin(login.run()) => outcome,
            () = self.client.gone() => {
                tracing::debug!("the client hung up during its login");
                return Err(Rejected::Disconnected);
            }
            // It would be closed as soon as it is in.
            () = self.shared.closing_for(Duration::ZERO) => return Err(Rejected::refused(ClientFacing::Stopping)),
        };
        match outcome {
            Ok(logged_in) => {
                route.used_databases.note(database);
                Ok(Entry { route, logged_in, permits })
            }
            Err(failed) => {
                route.metrics.login_failed(failed.error.reason());
                log_failure(&route, &failed);
                Err(Rejected::Refused(failed.error.message()))
            }
        }
    }

    fn take_permits(&self, route: &SessionRoute) -> Result<(SessionPermit, SessionPermit), Rejected> {
        let full = |facing| {
            route.metrics.login_failed(LoginFailure::Limit);
            Rejected::refused(facing)
        };
        let Some(of_route) = route.session_limit.take(route.max_sessions) else {
            return Err(full(ClientFacing::RouteFull));
        };
        let Some(of_all) = self.shared.session_limit.take(self.shared.limits.max_sessions) else {
            return Err(full(ClientFacing::ProcessFull));
        };
        Ok((of_route, of_all))
    }

    /// Lets the client in: it gets all that the server said, and its key is entered before it can know it.
    async fn open(mut self, entry: Entry) -> Option<Open<Client, Stream>> {
        let Entry { route, logged_in, permits } = entry;
        let LoggedIn { leg, guard } = logged_in;
        let UpstreamSession { stream, prologue, rest, cancel, .. } = *leg;
        let cancel = cancel.map(Arc::new);
        // The client is given the server's own key; no more than this line relies on it.
        let registration = cancel.as_ref().map(|target| {
            self.shared.cancels.register(target.request().clone(), Arc::clone(target), self.id)
        });
        let send_timeout = self.shared.limits.send_timeout;
        let letting_in = async {
            self.client.stream.write_all(&prologue).await?;
            self.client.stream.flush().await
        };
        let counted = route.metrics.session_opened();
        if !matches!(timeout(send_timeout, letting_in).await, Ok(Ok(()))) {
            relay::terminate_upstream(stream, guard, true, clock::now() + send_timeout).await;
            counted.closed(Closed::Client);
            return None;
        }
        route.metrics.login_took(clock::now().since(self.begun));
        tracing::debug!(
            route = route.credentials.name(),
            lease.generation = guard.generation().number().get(),
            client.tls = self.client.stream.tls_version(),
            client.identity = self.identity.map(tracing::field::display),
            "session opened"
        );
        let session = relay::Session {
            guard,
            metrics: Arc::clone(&route.metrics),
            denied: Arc::clone(&route.denied),
            cancel,
            stop: self.shared.stop.clone(),
        };
        let early = Early { of_client: boxed(&self.client.early), of_upstream: boxed(&rest) };
        Some(Open {
            relay: Relay::new(self.client.stream, stream, early, session),
            counted,
            send_timeout,
            _registration: registration,
            permits,
        })
    }
}

/// A server's own answer is the client's affair; that nothing can be had from it is the operator's.
fn log_failure(route: &SessionRoute, failed: &error::Failed) {
    let name = route.credentials.name();
    let blame = failed.error.blame().as_str();
    match failed.error {
        error::Error::Refused(_) | error::Error::Startup(_) => {
            tracing::debug!(route = name, error.blame = blame, error = %failed, "login failed");
        }
        error::Error::NoCredential | error::Error::CredentialRefused | error::Error::Upstream(_) => {
            if let Some(left_out) = route.throttle.admit(clock::now()) {
                tracing::warn!(route = name, error.blame = blame, error = %failed, left_out, "login failed");
            }
        }
    }
}

/// Once the process lets nobody in: what a client has sent by then is on its way, and it is told why.
const LAST_PACKET_WITHIN: Duration = Duration::from_millis(250);
/// The same for a cancel request on its way to a server: mostly its session is why the process does not end yet.
const LAST_CANCEL_WITHIN: Duration = Duration::from_secs(1);

fn boxed(bytes: &[u8]) -> Box<[u8]> {
    bytes.to_vec().into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::postgres::cancel::Unknown;

    /// A session without any route, and its client's end.
    fn session() -> (impl Future<Output = ()> + Send + 'static, UnixStream, watch::Sender<Stop>) {
        let (near, client) = UnixStream::pair().unwrap();
        let within = Duration::from_secs(5);
        let limits =
            Limits { handshake_timeout: within, login_wait: within, send_timeout: within, max_sessions: 0 };
        let stop = watch::Sender::new(Stop::Running);
        let shared = Shared::new(Routes::default(), limits, Cancels::new(Unknown::Off), stop.subscribe());
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
