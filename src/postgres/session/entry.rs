//! From a client's StartupMessage to its open session: the route, the login upstream, the first answer. Floor 4.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::error::{Error, Failed};
use super::handshake::gone;
use super::login::Login;
use super::routes::SessionRoute;
use super::warm::{Alike, LogIn, TOO_MANY_CONNECTIONS};
use super::{Open, Shared};
use crate::acceptor::Identity;
use crate::clock;
use crate::credentials::Guard;
use crate::dial::Stream;
use crate::error::ClientFacing;
use crate::metrics::{self, Closed, LoginFailure};
use crate::postgres::protocol::error_response;
use crate::postgres::protocol::startup::StartupMessage;
use crate::postgres::relay::{self, Relay};
use crate::postgres::upstream::UpstreamSession;
use crate::session::{Buffered, SessionPermit};
use crate::socket::Client;
use crate::time::Time;

/// What a session is made of once its login upstream is done.
pub(super) struct Entry {
    route: Arc<SessionRoute>,
    upstream: Box<UpstreamSession>,
    guard: Guard,
    permits: (SessionPermit, SessionPermit),
    /// When the StartupMessage was whole.
    begun: Time,
}

/// Why a client gets no session.
pub(super) enum Rejected {
    /// It gets this ErrorResponse.
    Refused(Bytes),
    /// It has hung up.
    Disconnected,
}

impl Rejected {
    fn refused(facing: ClientFacing) -> Self {
        Self::Refused(error_response::fatal(&facing.into()).freeze())
    }
}

impl Entry {
    /// Finds the client's route and logs in for it. A client that hangs up meanwhile is not waited for.
    pub(super) async fn log_in(
        client: &mut Buffered<Client>,
        startup: &StartupMessage,
        shared: &Shared,
    ) -> Result<Self, Rejected> {
        let begun = clock::now();
        let (route, database) = route(startup, shared)?;
        let permits = take_permits(&route, shared)?;
        let identity = client.stream.identity();
        let logging_in = log_in_or_take(&route, startup, identity, &database, shared);
        let outcome = tokio::select! {
            biased;
            outcome = Box::pin(logging_in) => outcome,
            () = gone(client) => {
                tracing::debug!("the client hung up during its login");
                return Err(Rejected::Disconnected);
            }
            // The session would be closed as soon as it is open.
            () = shared.closing_for(Duration::ZERO) => return Err(Rejected::refused(ClientFacing::Stopping)),
        };
        match outcome {
            Ok((upstream, guard)) => {
                if !startup.replicates_cluster() {
                    route.used_databases.note(&database);
                }
                Ok(Self { route, upstream, guard, permits, begun })
            }
            Err(failed) => {
                route.metrics.login_failed(failed.error.reason());
                log_failure(&route, &failed);
                Err(Rejected::Refused(failed.error.message()))
            }
        }
    }

    /// Sends the client all that the server has said, and opens the session. The cancel key is registered before the client
    /// can know it.
    pub(super) async fn open(
        self,
        mut client: Buffered<Client>,
        shared: &Shared,
        id: u64,
    ) -> Option<Open<Client, Stream>> {
        let Self { route, upstream, guard, permits, begun } = self;
        let UpstreamSession { stream, prologue, rest, cancel, .. } = *upstream;
        let cancel = cancel.map(Arc::new);
        // The client is given the server's own key; no more than this line relies on it.
        let registration = cancel
            .as_ref()
            .map(|target| shared.cancels.register(target.request().clone(), Arc::clone(target), id));
        let send_timeout = shared.limits.send_timeout;
        let letting_in = async {
            client.stream.write_all(&prologue).await?;
            client.stream.flush().await
        };
        let counted = route.metrics.session_opened();
        if !matches!(timeout(send_timeout, letting_in).await, Ok(Ok(()))) {
            relay::terminate_upstream(stream, guard, true, clock::now() + send_timeout).await;
            counted.closed(Closed::Client);
            return None;
        }
        route.metrics.login_took(clock::now().since(begun));
        tracing::debug!(
            route = route.credentials.name(),
            lease.generation = guard.generation().number().get(),
            client.tls = client.stream.tls_version(),
            client.identity = client.stream.identity().map(tracing::field::display),
            "session opened"
        );
        let session = relay::Session {
            guard,
            metrics: Arc::clone(&route.metrics),
            denied: Arc::clone(&route.denied),
            cancel,
            stop: shared.stop.clone(),
        };
        Some(Open {
            relay: Relay::new(client, Buffered { stream, buffer: rest }, session),
            counted,
            send_timeout,
            _registration: registration,
            permits,
        })
    }
}

/// A session that was logged in ahead of need, or a fresh one.
async fn log_in_or_take(
    route: &Arc<SessionRoute>,
    startup: &StartupMessage,
    identity: Option<Identity>,
    database: &[u8],
    shared: &Shared,
) -> Result<(Box<UpstreamSession>, Guard), Failed> {
    let mut login = Login { route, startup, database, wait: shared.limits.login_wait };
    if route.warm.most() == 0 {
        return login.run().await;
    }
    let alike = Alike::of(startup, identity, database);
    let ready = match &alike {
        Some(alike) => route.warm.take(alike).await,
        None => None,
    };
    let found = ready.is_some();
    let logged_in = match ready {
        Some(ready) => ready,
        None => match login.run().await {
            Err(Failed { error: Error::Refused(refusal), .. })
                if refusal.sqlstate == TOO_MANY_CONNECTIONS && route.warm.make_room().await =>
            {
                login.run().await?
            }
            outcome => outcome?,
        },
    };
    if let Some(alike) = alike {
        route.warm.came(&alike, found, log_in_ahead(route), &shared.stop);
    }
    Ok(logged_in)
}

/// Logs in for clients to come, as long as there is the route.
fn log_in_ahead(route: &Arc<SessionRoute>) -> LogIn {
    let route = Arc::downgrade(route);
    Arc::new(move |alike| {
        let route = Weak::clone(&route);
        Box::pin(async move {
            let route = route.upgrade()?;
            // Nobody waits for it: a credential that is not there now is not waited for either.
            let (startup, database, wait) = (&alike.startup, &alike.database, Duration::ZERO);
            let mut login = Login { route: &route, startup, database, wait };
            Some(login.run().await.map_err(|failed| failed.error))
        })
    })
}

/// The route for the names that a client sent, and the database that its upstream is asked for.
fn route(startup: &StartupMessage, shared: &Shared) -> Result<(Arc<SessionRoute>, Vec<u8>), Rejected> {
    let user = startup.user();
    let named = startup.database();
    // PostgreSQL's own rule: a client that names no database means the one of its name.
    let database = named.unwrap_or(user);
    let Some(route) = shared.routes().pick(user, database) else {
        metrics::login_failed("", LoginFailure::NoRoute);
        let (user, database) = (user.to_vec(), database.to_vec());
        return Err(Rejected::refused(ClientFacing::NoRoute { user, database }));
    };
    let database = match (route.upstream.database(), named) {
        (Some(fixed), Some(named)) if fixed.as_bytes() != named && !startup.replicates_cluster() => {
            route.metrics.login_failed(LoginFailure::NoRoute);
            return Err(Rejected::refused(ClientFacing::OtherDatabase { named: named.to_vec() }));
        }
        (Some(fixed), _) => fixed.as_bytes(),
        (None, _) => database,
    };
    let database = database.to_vec();
    Ok((route, database))
}

/// Takes a permit of the route's limit, and one of the process's.
fn take_permits(route: &SessionRoute, shared: &Shared) -> Result<(SessionPermit, SessionPermit), Rejected> {
    let full = |facing| {
        route.metrics.login_failed(LoginFailure::Limit);
        Rejected::refused(facing)
    };
    let Some(of_route) = route.session_limit.take(route.max_sessions) else {
        return Err(full(ClientFacing::RouteFull));
    };
    let Some(of_all) = shared.session_limit.take(shared.limits.max_sessions) else {
        return Err(full(ClientFacing::ProcessFull));
    };
    Ok((of_route, of_all))
}

/// A server's own error concerns the client alone; a server that gives no session concerns the operator.
fn log_failure(route: &SessionRoute, failed: &Failed) {
    let name = route.credentials.name();
    let blame = failed.error.blame().as_str();
    match failed.error {
        Error::Refused(_) | Error::Startup(_) => {
            tracing::debug!(route = name, error.blame = blame, error = %failed, "login failed");
        }
        Error::NoCredential | Error::CredentialRefused | Error::Upstream(_) => {
            if let Some(left_out) = route.throttle.admit(clock::now()) {
                tracing::warn!(route = name, error.blame = blame, error = %failed, left_out, "login failed");
            }
        }
    }
}
