//! `run`: binds everything, then starts everything, then waits for the end. Floor 6.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::proof::Prover;
use crate::admin::{self, Process};
use crate::config::{Config, ListenAddress, Pattern, RouteConfig, UnknownCancel};
use crate::credentials::status::VaultStatus;
use crate::credentials::{self, Route, RouteSettings};
use crate::lease;
use crate::listener::{self, Listener};
use crate::metrics::{self, RouteMetrics};
use crate::notify::{Notify, State};
use crate::postgres::cancel::{Cancels, Unknown};
use crate::postgres::protocol::auth::method::RequireAuth;
use crate::postgres::relay::Stop;
use crate::postgres::session::{self, LastDatabase, Match, Routes, Seats, SessionRoute, Shared};
use crate::postgres::upstream::uri::{self, Uri};
use crate::postgres::upstream::{self, Upstream};
use crate::shutdown::{Outcome, Phase, Shutdown, Signals};
use crate::vault::{self, Vault};

/// Why `run` cannot begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("metrics: a recorder is installed already")]
    Recorder,
    #[error("vault: {0}")]
    Vault(#[from] vault::Error),
    #[error("route {route}: upstream: {source}")]
    Uri { route: String, source: uri::Error },
    #[error("route {route}: upstream: {source}")]
    Upstream { route: String, source: upstream::tls::FileError },
    #[error(transparent)]
    Listen(#[from] listener::Error),
    #[error(transparent)]
    Http(#[from] admin::Error),
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
}

impl Error {
    /// 78 for what the configuration says, 71 for what the machine refuses.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Vault(_) | Self::Uri { .. } | Self::Upstream { .. } => 78,
            Self::Recorder | Self::Listen(_) | Self::Http(_) | Self::Signals(_) => 71,
        }
    }
}

/// Revocations and issuances in flight may take this long once the sessions are closed.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);
/// How often the recorder is swept.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub(super) async fn serve(config: Config, notify: &Notify) -> Result<(), Error> {
    let recorder = admin::install_recorder().map_err(|_| Error::Recorder)?;
    metrics::build_info();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // What the files say is read first: nothing is bound, and nothing is asked of Vault, for a bad configuration.
    let vault = Arc::new(Vault::new(config.vault.clone())?);
    let places = places(&config)?;
    let signals = Signals::install().map_err(Error::Signals)?;
    let listeners = bind(&config)?;
    let http = config.http.map(admin::bind_http).transpose()?;
    let admin = config.admin.as_ref().map(admin::bind_admin).transpose()?;

    let shutdown = Shutdown::new(config.sigterm);
    let background = TaskTracker::new();
    let drivers = TaskTracker::new();
    let (routes, table) = start_routes(&config, &vault, places, &drivers);
    let process = Arc::new(process(&routes, &shutdown, &vault, recorder.clone()));
    let stop = CancellationToken::new();
    for server in [http, admin].into_iter().flatten() {
        until(&background, &stop, server.serve(Arc::clone(&process)));
    }
    until(&background, &stop, signals.watch(shutdown.clone()));
    until(&background, &stop, upkeep(recorder));

    let (tell, told) = watch::channel(Stop::Running);
    let unknown = match config.cancel.unknown {
        UnknownCancel::Off => Unknown::Off,
        UnknownCancel::Forward => Unknown::Forward,
    };
    let limits = session::Limits {
        handshake_timeout: config.limits.handshake_timeout,
        login_wait: config.limits.login_wait,
        send_timeout: config.limits.send_timeout,
        replica_grace: config.limits.replica_grace,
        max_sessions: config.limits.max_sessions,
    };
    let shared = Shared::new(table, limits, Cancels::new(unknown), told);
    let sessions = TaskTracker::new();
    let accepting = CancellationToken::new();
    for listener in listeners {
        background.spawn(listener.run(Arc::clone(&shared), sessions.clone(), accepting.clone()));
    }
    // Not the first credential: a service that waits for Vault would be ended by its manager's own time limit.
    tell(notify, State::Ready);
    let relay_phases = async {
        shutdown.requested().await;
        tell(notify, State::Stopping);
        shutdown.reached(Phase::Closing).await;
        accepting.cancel();
        tell.send_replace(Stop::Closing);
        for route in &routes {
            route.close().await;
        }
        shutdown.reached(Phase::Forced).await;
        tell.send_replace(Stop::Forced);
    };
    let all_gone = async {
        sessions.close();
        sessions.wait().await;
    };
    let (outcome, ()) = tokio::join!(shutdown.run(all_gone), relay_phases);
    if outcome == Outcome::InOrder {
        let given_back = async {
            // Forced sessions need a moment to part from their servers; only then their leases go back.
            sessions.wait().await;
            for route in &routes {
                route.ended().await;
            }
        };
        tokio::select! {
            () = shutdown.insisted() => tracing::warn!("told twice to stop: leases may be left to lapse"),
            ended = tokio::time::timeout(GIVE_BACK_WITHIN, given_back) => if ended.is_err() {
                tracing::warn!("not everything could be given back in time; what is left lapses");
            }
        }
    }
    shutdown.done();
    stop.cancel();
    background.close();
    // The servers' futures are dropped by the token; nothing here waits for a client.
    let _ = tokio::time::timeout(Duration::from_secs(1), background.wait()).await;
    tracing::info!("stopped");
    Ok(())
}

fn tell(notify: &Notify, state: State) {
    if let Err(error) = notify.tell(state) {
        tracing::warn!(%error, ?state, "the service manager cannot be told");
    }
}

/// Where each route leads, and what its proofs need.
fn places(config: &Config) -> Result<Vec<Arc<Upstream>>, Error> {
    let settings = upstream::Settings {
        connect_timeout: config.limits.connect_timeout,
        require_auth: RequireAuth::default(),
    };
    config
        .routes
        .iter()
        .map(|route| {
            let name = || route.name.clone();
            let uri = Uri::parse(&route.upstream).map_err(|source| Error::Uri { route: name(), source })?;
            let upstream = Upstream::new(uri, settings.clone());
            upstream.map(Arc::new).map_err(|source| Error::Upstream { route: name(), source })
        })
        .collect()
}

fn bind(config: &Config) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let address = match &listen.address {
            ListenAddress::Tcp(address) => listener::Address::Tcp(*address),
            ListenAddress::Unix(path) => listener::Address::Unix(path.clone()),
        };
        match Listener::bind(&address) {
            Ok(listener) => listeners.push(listener),
            Err(listener::Error::Bind { source, .. }) if listen.optional && is_absent(&source) => {
                tracing::debug!(addr = %address, "this machine has no IPv6");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(listeners)
}

/// Whether the machine lacks the address family or the address.
fn is_absent(error: &std::io::Error) -> bool {
    let absent = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| absent.iter().any(|errno| errno.raw_os_error() == code))
}

fn start_routes(
    config: &Config,
    vault: &Arc<Vault>,
    places: Vec<Arc<Upstream>>,
    drivers: &TaskTracker,
) -> (Vec<Arc<Route>>, Routes) {
    let mut routes = Vec::new();
    let mut table = Vec::new();
    for (route, upstream) in config.routes.iter().zip(places) {
        let metrics = RouteMetrics::new(&route.name);
        let last_database = LastDatabase::default();
        let prover = Prover {
            upstream: Arc::clone(&upstream),
            database: route.probe_database.clone(),
            last_database: last_database.clone(),
        };
        let settings = RouteSettings {
            name: route.name.clone(),
            vault_path: route.vault_path.clone(),
            client_timeout: config.vault.client_timeout,
            lease: lease_settings(config, route, &upstream),
        };
        let credentials = credentials::start(
            settings,
            Arc::clone(vault),
            prover.into_prove(),
            Arc::clone(&metrics),
            drivers,
        );
        table.push(Arc::new(SessionRoute {
            user: pattern(&route.matching.user),
            database: pattern(&route.matching.database),
            credentials: Arc::clone(&credentials),
            upstream,
            set_role: route.set_role.clone(),
            metrics,
            max_sessions: route.max_sessions,
            seats: Seats::default(),
            denied: SessionRoute::denials(&credentials),
            last_database,
        }));
        routes.push(credentials);
    }
    (routes, Routes::new(table))
}

fn lease_settings(config: &Config, route: &RouteConfig, upstream: &Upstream) -> lease::Settings {
    lease::Settings {
        rotate_after: route.rotate_after,
        max_age: route.max_age,
        drain: route.drain,
        replica_grace: if upstream.hosts() > 1 { config.limits.replica_grace } else { Duration::ZERO },
        issue_burst: config.limits.issue_burst,
        issue_interval: config.limits.issue_interval,
        // Never 0, which would be no jitter.
        seed: rand::random::<u64>() | 1,
    }
}

fn pattern(pattern: &Pattern) -> Match {
    match pattern {
        Pattern::Any => Match::Any,
        Pattern::Exactly(name) => Match::Only(name.as_bytes().to_vec()),
    }
}

fn process(
    routes: &[Arc<Route>],
    shutdown: &Shutdown,
    vault: &Arc<Vault>,
    recorder: PrometheusHandle,
) -> Process {
    let vault = Arc::clone(vault);
    let vault_status = move || VaultStatus {
        addr: vault.addr(),
        reachable: vault.reachable(),
        last_success: vault.last_success().map(|at| humantime::format_rfc3339_millis(at).to_string()),
    };
    let render = move || recorder.render();
    Process::new(routes.to_vec(), shutdown.clone(), Box::new(vault_status), Box::new(render))
}

/// Runs a task until `stop`, and drops it then.
fn until(tasks: &TaskTracker, stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

/// Old samples of histograms are folded up.
async fn upkeep(recorder: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        recorder.run_upkeep();
    }
}
