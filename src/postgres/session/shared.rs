//! What all sessions of the process share. Floor 4.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::routes::Routes;
use crate::acceptor::Acceptor;
use crate::error::Limited;
use crate::postgres::cancel::Cancels;
use crate::postgres::console::Console;
use crate::postgres::protocol::startup::StartupMessage;
use crate::published::Published;
use crate::session::end::Stop;
use crate::session::{Admission, Limits, ListenerLimits, LoginRate, SessionLimit, Sessions};
use crate::socket::descriptors::Descriptors;
use crate::socket::{AllowedNetworks, Client, Connections};
use crate::traces::{Kind, Span, Traces};

/// What all sessions share.
pub(crate) struct Shared {
    pub(super) routes: RwLock<Arc<Routes>>,
    pub(super) limits: Limits,
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) cancels: Arc<Cancels>,
    pub(super) stop: Arc<Published<Stop>>,
    pub(super) session_limit: SessionLimit,
    pub(super) login_rate: LoginRate,
    pub(super) handshakes: SessionLimit,
    pub(super) descriptors: Arc<Descriptors>,
    pub(super) allowed_networks: Arc<AllowedNetworks>,
    pub(super) open: Arc<Sessions>,
    pub(super) console: OnceLock<Console>,
    pub(super) traces: OnceLock<Traces>,
    /// Clients that are not served.
    pub(super) turned_away: Mutex<Connections>,
}

impl Shared {
    /// Makes it for these routes. `stop` is what the process asks of its sessions, `descriptors` counts what its clients
    /// take.
    #[must_use]
    pub(crate) fn new(
        routes: Routes,
        limits: Limits,
        cancels: Cancels,
        stop: Arc<Published<Stop>>,
        descriptors: Arc<Descriptors>,
    ) -> Arc<Self> {
        descriptors.keep_for(routes.len(), routes.most_warm());
        let turned_away = descriptors.shares().turned_away;
        Arc::new(Self {
            routes: RwLock::new(Arc::new(routes)),
            limits,
            acceptor: Arc::default(),
            cancels: Arc::new(cancels),
            stop,
            session_limit: SessionLimit::of(Limited::Process),
            login_rate: LoginRate::new(limits.logins_per_second),
            handshakes: SessionLimit::of(Limited::Process),
            descriptors,
            allowed_networks: Arc::default(),
            open: Arc::default(),
            console: OnceLock::new(),
            traces: OnceLock::new(),
            turned_away: Mutex::new(Connections::new(turned_away)),
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

    /// What lets the clients of a listener in, within the limits of the process.
    #[must_use]
    pub(crate) fn admission(&self, limits: ListenerLimits) -> Arc<Admission> {
        let part = |whole: &SessionLimit, most| SessionLimit::of_listener(whole.clone(), most);
        let handshakes = part(&self.handshakes, self.limits.max_handshakes);
        let sessions = part(&self.session_limit, self.limits.max_sessions);
        Arc::new(Admission::new(limits, handshakes, sessions))
    }

    /// From where clients may connect; from everywhere at first.
    #[must_use]
    pub(crate) fn allowed_networks(&self) -> &Arc<AllowedNetworks> {
        &self.allowed_networks
    }

    /// Lets clients ask this console from now on.
    pub(crate) fn set_console(&self, console: Console) {
        // There is one for the life of the process.
        let _ = self.console.set(console);
    }

    /// Begins the spans of logins with these from now on.
    pub(crate) fn set_traces(&self, traces: Traces) {
        // They are there for the life of the process.
        let _ = self.traces.set(traces);
    }

    /// Begins the span of a login.
    pub(super) fn trace_login(&self, id: u64) -> Span {
        let mut span = self.traces.get_or_init(Traces::default).begin(Kind::Server, "client.login");
        span.number("session.id", id);
        span
    }

    /// The console, if this client asks for it and may. A route that names its database goes first.
    pub(super) fn console_for(&self, startup: &StartupMessage, client: &Client) -> Option<&Console> {
        let console = self.console.get()?;
        let name = console.database_for(matches!(client, Client::Unix(_)))?.as_bytes();
        let asked =
            startup.database().unwrap_or_else(|| startup.user()) == name && !startup.replicates_cluster();
        (asked && !self.routes().name_database(startup.user(), name)).then_some(console)
    }

    /// Counts the descriptors of clients.
    #[must_use]
    pub(crate) fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }

    /// The sessions that are open.
    #[must_use]
    pub(crate) fn open(&self) -> &Arc<Sessions> {
        &self.open
    }

    /// Ends `span` after the process has begun to close its sessions.
    pub(super) async fn closing_for(&self, span: Duration) {
        // It fails only without its sender, which is `self`'s.
        let _ = self.stop.subscribe().wait_for(|stop| *stop != Stop::Running).await;
        sleep(span).await;
    }

    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }
}
