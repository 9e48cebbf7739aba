//! From a client's StartupMessage to its open session: the route, the login upstream, the first answer. Floor 4.

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::error::{Error, Failed};
use super::handshake::gone;
use super::login::Login;
use super::routes::SessionRoute;
use super::warm::{Alike, LogIn, Returns};
use super::{Open, Shared};
use crate::acceptor::Identity;
use crate::clock;
use crate::credentials::Guard;
use crate::dial::Stream;
use crate::error::{ClientFacing, Limited};
use crate::metrics::{self, Closed, LoginFailure};
use crate::postgres::protocol::error_response;
use crate::postgres::protocol::startup::StartupMessage;
use crate::postgres::relay::{self, Relay};
use crate::postgres::upstream::UpstreamSession;
use crate::session::audit::{self, Secured};
use crate::session::registry::{self, Names};
use crate::session::{Admission, Buffered, SessionPermit};
use crate::socket::Client;
use crate::time::Time;
use crate::traces::Span;

/// What a session is made of once its login upstream is done.
pub(super) struct Entry {
    route: Arc<SessionRoute>,
    names: Names,
    upstream: Box<UpstreamSession>,
    guard: Guard,
    /// How the upstream's session is returned, if the route reuses sessions.
    returns: Option<Box<Returns>>,
    permits: (SessionPermit, SessionPermit),
    /// When the StartupMessage was whole.
    begun: Time,
}

/// Why a client gets no session.
pub(super) enum Rejected {
    Refused {
        /// What its span says.
        outcome: &'static str,
        /// The ErrorResponse that it gets.
        message: Bytes,
    },
    /// It has hung up.
    Disconnected,
}

impl Rejected {
    fn refused(outcome: &'static str, facing: ClientFacing) -> Self {
        Self::Refused { outcome, message: error_response::fatal(&facing.into()).freeze() }
    }

    /// What the span of the login says.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Refused { outcome, .. } => outcome,
            Self::Disconnected => HUNG_UP,
        }
    }
}

const HUNG_UP: &str = "hung_up";

impl Entry {
    /// Finds the client's route and logs in for it, if its listener has room. A client that hangs up meanwhile is not
    /// waited for.
    pub(super) async fn log_in(
        client: &mut Buffered<Client>,
        startup: &StartupMessage,
        shared: &Shared,
        admission: &Admission,
        span: &mut Span,
    ) -> Result<Self, Rejected> {
        let begun = clock::now();
        let (route, database) = route(startup, shared)?;
        span.text("route", route.credentials.name());
        let identity = client.stream.identity();
        check_access(&route, &client.stream, identity.as_ref())?;
        let permits = take_permits(&route, shared, admission)?;
        let alike = (route.warm.most() > 0).then(|| Alike::of(startup, identity, &database)).flatten();
        let logging_in = log_in_or_take(&route, startup, alike.as_ref(), &database, shared);
        let outcome = tokio::select! {
            biased;
            outcome = Box::pin(logging_in) => outcome,
            () = gone(client) => {
                tracing::debug!("the client hung up during its login");
                return Err(Rejected::Disconnected);
            }
            // The session would be closed as soon as it is open.
            () = shared.closing_for(Duration::ZERO) => {
                return Err(Rejected::refused("stopping", ClientFacing::Stopping));
            }
        };
        match outcome {
            Ok((upstream, guard)) => {
                if !startup.replicates_cluster() {
                    route.used_databases.note(&database);
                }
                let application_name = startup.parameter(b"application_name").unwrap_or_default();
                let names = Names::of([startup.user(), &database, application_name]);
                let returns =
                    alike.and_then(|alike| route.warm.returns(&alike, &upstream, &shared.stop.subscribe()));
                Ok(Self { route, names, upstream, guard, returns, permits, begun })
            }
            Err(failed) => {
                let reason = failed.error.reason();
                route.metrics.login_failed(reason);
                span.error(&failed);
                log_failure(&route, &client.stream, &failed);
                Err(Rejected::Refused { outcome: reason.as_str(), message: failed.error.message() })
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
        mut span: Span,
    ) -> Option<Open<Client, Stream>> {
        let Self { route, names, mut upstream, guard, returns, permits, begun } = self;
        let other_key = returns.as_ref().and_then(|_| upstream.give_other_key());
        let UpstreamSession { stream, prologue, rest, cancel, address } = *upstream;
        let backend_pid = cancel.as_ref().map(|target| target.request().process_id);
        let registration = cancel.map(|target| shared.cancels.register(other_key, target));
        // Before its client can look for it.
        let place = shared.open.add(registry::Login {
            id,
            client: client.stream.peer(),
            names,
            metrics: Arc::clone(&route.metrics),
            generation: Arc::clone(guard.generation()),
            upstream: address,
            backend_pid,
        });
        span.number("lease.generation", guard.generation().number().get());
        span.text("upstream.addr", place.session().upstream());
        let send_timeout = shared.limits.send_timeout;
        let letting_in = async {
            client.stream.write_all(&prologue).await?;
            client.stream.flush().await
        };
        let counted = route.metrics.session_opened();
        if !matches!(timeout(send_timeout, letting_in).await, Ok(Ok(()))) {
            relay::terminate_upstream(stream, guard, true, clock::now() + send_timeout).await;
            counted.closed(Closed::Client);
            span.word("outcome", HUNG_UP);
            return None;
        }
        span.word("outcome", "ok");
        span.end();
        route.metrics.login_took(clock::now().since(begun));
        let identity = client.stream.identity();
        let identity = identity.as_ref().map(|identity| identity as &dyn Display);
        audit::opened(place.session(), &Secured { tls: client.stream.tls_version(), identity });
        let session = relay::Session {
            guard,
            listed: Arc::clone(place.session()),
            metrics: Arc::clone(&route.metrics),
            denied: Arc::clone(&route.denied),
            stop: Arc::clone(&shared.stop),
            reuse: returns.is_some(),
            send_within: send_timeout,
        };
        Some(Open {
            relay: Relay::new(client, Buffered { stream, buffer: rest }, session),
            counted,
            registration,
            place,
            returns,
            permits,
        })
    }
}

/// A session that is ready, or a fresh one. `alike`: the kind of the client, `None` if only a fresh one will do.
async fn log_in_or_take(
    route: &Arc<SessionRoute>,
    startup: &StartupMessage,
    alike: Option<&Arc<Alike>>,
    database: &[u8],
    shared: &Shared,
) -> Result<(Box<UpstreamSession>, Guard), Failed> {
    let mut login = Login { route, startup, database, wait: shared.limits.login_wait };
    if route.warm.most() == 0 {
        return login.run().await;
    }
    let ready = match alike {
        Some(alike) => route.warm.take(alike).await,
        None => None,
    };
    let found = ready.is_some();
    let logged_in = match ready {
        Some(ready) => ready,
        None => match login.run().await {
            Err(Failed { error: Error::Refused(refusal), .. })
                if refusal.is_full() && route.warm.make_room().await =>
            {
                login.run().await?
            }
            outcome => outcome?,
        },
    };
    if let Some(alike) = alike
        && route.warm.ahead() > 0
    {
        route.warm.came(alike, found, log_in_ahead(route), &shared.stop.subscribe());
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
        let facing = ClientFacing::NoRoute { user, database };
        return Err(Rejected::refused(LoginFailure::NoRoute.as_str(), facing));
    };
    let database = match (route.upstream.database(), named) {
        (Some(fixed), Some(named)) if fixed.as_bytes() != named && !startup.replicates_cluster() => {
            let facing = ClientFacing::OtherDatabase { named: named.to_vec() };
            return Err(refused(&route, LoginFailure::NoRoute, facing));
        }
        (Some(fixed), _) => fixed.as_bytes(),
        (None, _) => database,
    };
    let database = database.to_vec();
    Ok((route, database))
}

/// Refuses a client that the route is not for.
fn check_access(route: &SessionRoute, client: &Client, identity: Option<&Identity>) -> Result<(), Rejected> {
    let user = client.user();
    route.access.check(user, identity).map_err(|allowed| {
        if let Some(left_out) = route.throttle.admit(clock::now()) {
            tracing::info!(
                route = route.credentials.name(),
                client.uid = user.map(|user| user.uid),
                client.gid = user.map(|user| user.gid),
                client.identity = identity.map(tracing::field::display),
                left_out,
                "login refused: the route is not for this client"
            );
        }
        refused(route, LoginFailure::Denied, ClientFacing::NotAllowed(allowed))
    })
}

/// Takes a permit of the route's limit, and one of the listener's and the process's.
fn take_permits(
    route: &SessionRoute,
    shared: &Shared,
    admission: &Admission,
) -> Result<(SessionPermit, SessionPermit), Rejected> {
    let full = |facing| refused(route, LoginFailure::Limit, facing);
    let now = clock::now();
    // What one refuses counts for none behind it: a listener's flood takes no logins of the others, a route's none either.
    let rates = [
        (Limited::Listener, admission.login_rate()),
        (Limited::Route, &route.login_rate),
        (Limited::Process, &shared.login_rate),
    ];
    if let Some((whose, _)) = rates.into_iter().find(|(_, rate)| !rate.admit(now)) {
        return Err(full(ClientFacing::TooManyLogins(whose)));
    }
    let sessions = |whose| full(ClientFacing::TooManySessions(whose));
    let of_route = route.session_limit.take(route.max_sessions).map_err(sessions)?;
    let of_listener = admission.begin_session().map_err(sessions)?;
    Ok((of_route, of_listener))
}

/// Counts a client that the route refuses.
fn refused(route: &SessionRoute, reason: LoginFailure, facing: ClientFacing) -> Rejected {
    route.metrics.login_failed(reason);
    Rejected::refused(reason.as_str(), facing)
}

/// A server's own error concerns the client alone; a server that gives no session concerns the operator.
fn log_failure(route: &SessionRoute, client: &Client, failed: &Failed) {
    let name = route.credentials.name();
    let blame = failed.error.blame().as_str();
    match failed.error {
        Error::Refused(_) | Error::Startup(_) => {
            tracing::debug!(route = name, client.addr = %client.peer(), error.blame = blame, error = %failed, "login failed");
        }
        Error::NoCredential | Error::CredentialRefused | Error::Upstream(_) => {
            if let Some(left_out) = route.throttle.admit(clock::now()) {
                tracing::warn!(
                    route = name,
                    client.addr = %client.peer(),
                    error.blame = blame,
                    error = %failed,
                    left_out,
                    "login failed"
                );
            }
        }
    }
}
