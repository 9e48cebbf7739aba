//! The routes of a running leasehold, and what a reload changes of them. Floor 6.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::certificates::Certificates;
use super::renewed::{Renewed, Source};
use super::service_manager::ServiceManager;
use crate::admin::{Process, ReloadReply};
use crate::clock;
use crate::config::{Config, RouteConfig};
use crate::console::Settings;
use crate::credentials::state::{Slot, StateFile};
use crate::credentials::{self, Deps, Leftovers, Route, RouteSettings, Servers, Serves};
use crate::error::Limited;
use crate::lease;
use crate::log::Control;
use crate::log_throttle::LogThrottle;
use crate::metrics::{Metrics, RouteMetrics};
use crate::notify::State;
use crate::postgres::session::{FAILURES_EVERY, Routes, SessionRoute, Shared, UsedDatabases, WarmSessions};
use crate::postgres::upstream::{self, Upstream};
use crate::proof::{Prover, Said};
use crate::session::{LoginRate, SessionLimit};
use crate::shutdown::Shutdown;
use crate::traces::Traces;
use crate::vault::{RoleKind, Vault};

/// What the routes of a process have in common, whatever a reload changes.
pub(super) struct Common {
    pub(super) state: Option<Arc<StateFile>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) upstreams: upstream::Shared,
    pub(super) sessions: Arc<Shared>,
    pub(super) log: Control,
    /// What SHOW CONFIG shows.
    pub(super) shown: Settings,
    /// What names this process in `application_name`.
    pub(super) tag: Arc<str>,
    /// What begins the spans of its routes.
    pub(super) traces: Traces,
}

/// All routes of the running process.
pub(super) struct RouteSet {
    source: Source,
    config: Config,
    vault: Arc<RwLock<Arc<Vault>>>,
    common: Common,
    running: Vec<RouteHandle>,
    /// Routes that a reload took out and whose sessions may still be there.
    retired: Vec<Arc<Route>>,
    drivers: TaskTracker,
    certificates: Certificates,
}

/// One route.
struct RouteHandle {
    name: String,
    kind: RoleKind,
    credentials: Arc<Route>,
    metrics: Arc<RouteMetrics>,
    used_databases: UsedDatabases,
    session_limit: SessionLimit,
}

/// Does one reload after the other.
pub(super) async fn serve_reloads(
    live: Arc<Mutex<RouteSet>>,
    process: Arc<Process>,
    shutdown: Shutdown,
    manager: ServiceManager,
    mut asked: mpsc::Receiver<ReloadReply>,
) {
    let mut reading = None;
    let log = live.lock().await.common.log.clone();
    while let Some(reply) = asked.recv().await {
        manager.announce(&State::Reloading { now: clock::monotonic() });
        // Whatever becomes of the configuration: what moves files away counts on it.
        log.reopen_audit_file();
        let outcome = reload(&live, &process, &shutdown, &mut reading).await;
        match &outcome {
            Ok(done) => tracing::info!("reloaded: {done}"),
            Err(reason) => tracing::error!("nothing is reloaded: {reason}"),
        }
        // It serves, as it was or as it is to be.
        manager.announce(&State::Ready);
        // SIGHUP waits for no answer.
        let _ = reply.send(outcome);
    }
}

/// A configuration that is being read.
type Reading = JoinHandle<Result<Renewed, String>>;

/// Reads the configuration again. On an error nothing has changed. A read that hangs stays in `under_way`, and no other
/// is begun beside it.
async fn reload(
    live: &Mutex<RouteSet>,
    process: &Process,
    shutdown: &Shutdown,
    under_way: &mut Option<Reading>,
) -> Result<String, String> {
    if shutdown.is_requested() {
        return Err(SHUTTING_DOWN.to_owned());
    }
    if under_way.take_if(|reading| reading.is_finished()).is_none() && under_way.is_some() {
        return Err("an earlier read of its files still hangs".to_owned());
    }
    let (source, old, shared, tls) = {
        let live = live.lock().await;
        let tls = live.common.sessions.acceptor().in_force();
        (live.source.clone(), live.config.clone(), live.common.upstreams.clone(), tls)
    };
    // Files can be on a file system that hangs: neither a thread of the runtime nor the lock waits for them.
    let read = move || Renewed::read(&source, &old, &shared, tls.as_deref());
    let reading = under_way.insert(tokio::task::spawn_blocking(read));
    let Ok(read) = timeout(READ_WITHIN, reading).await else {
        return Err(format!("its files could not be read within {} s", READ_WITHIN.as_secs()));
    };
    *under_way = None;
    let renewed = read.map_err(|error| error.to_string())??;
    let mut live = live.lock().await;
    // A route that began after the others were closed would be left behind.
    if shutdown.is_requested() {
        return Err(SHUTTING_DOWN.to_owned());
    }
    live.apply(renewed, process).await
}

impl RouteSet {
    /// Starts every route of the configuration. What an earlier process has left of others is given back.
    pub(super) async fn start(
        config: Config,
        source: Source,
        vault: Arc<Vault>,
        upstreams: Vec<Arc<Upstream>>,
        common: Common,
    ) -> Self {
        let mut live = Self {
            source,
            config: config.clone(),
            vault: Arc::new(RwLock::new(vault)),
            common,
            running: Vec::new(),
            retired: Vec::new(),
            drivers: TaskTracker::new(),
            certificates: Certificates::read(&config),
        };
        live.running = config
            .routes
            .iter()
            .zip(&upstreams)
            .map(|(route, to)| live.start_route(&config, route, to))
            .collect();
        live.install(&config, upstreams);
        let rest = live.common.state.as_ref().map(StateFile::rest).unwrap_or_default();
        for (name, slot) in rest {
            live.retired.push(live.give_back(name, slot));
        }
        live
    }

    /// Gives back what a crash has left of a route that this configuration does not have.
    fn give_back(&self, name: String, slot: Slot) -> Arc<Route> {
        tracing::warn!(route = %name, "is not in the configuration any more; what a crash has left of it is given back");
        let leftovers = Leftovers {
            metrics: self.common.metrics.route(&name),
            vault: self.current_vault(),
            client_timeout: self.config.vault.client_timeout,
            traces: self.common.traces.clone(),
            name,
            slot,
        };
        credentials::give_back(leftovers, &self.drivers)
    }

    /// The routes of the configuration.
    pub(super) fn serving(&self) -> Vec<Arc<Route>> {
        self.running.iter().map(|running| Arc::clone(&running.credentials)).collect()
    }

    /// Every route, those that a reload took out included.
    pub(super) fn routes(&self) -> Vec<Arc<Route>> {
        let mut routes = self.serving();
        routes.extend(self.retired.iter().map(Arc::clone));
        routes
    }

    /// The Vault that is asked; a reload puts another in its place.
    pub(super) fn vault(&self) -> Arc<RwLock<Arc<Vault>>> {
        Arc::clone(&self.vault)
    }

    fn current_vault(&self) -> Arc<Vault> {
        Arc::clone(&self.vault.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a configuration in force.
    async fn apply(&mut self, renewed: Renewed, process: &Process) -> Result<String, String> {
        let Renewed { config: new, upstreams, vault, tls, certificates, restart } = renewed;
        let vault = vault.succeeding(&self.current_vault());
        let login_changed =
            new.vault.auth != self.config.vault.auth || new.vault.namespace != self.config.vault.namespace;
        *self.vault.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(vault);

        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut self.running);
        let mut running = Vec::new();
        for (route, upstream) in new.routes.iter().zip(&upstreams) {
            let kind = route.vault_path.kind();
            let known = before.iter().position(|old| old.name == route.name && old.kind == kind);
            let Some(known) = known.map(|at| before.swap_remove(at)) else {
                changes.push(format!("{} added", route.name));
                running.push(self.start_route(&new, route, upstream));
                continue;
            };
            let old = self.config.routes.iter().find(|old| old.name == route.name);
            let issue = login_changed
                || old.is_none_or(|old| old.vault_path != route.vault_path || old.set_role != route.set_role);
            if old != Some(route) || login_changed {
                changes.push(format!("{} changed", route.name));
            }
            let servers = servers(&known.used_databases, route, upstream);
            let settings = route_settings(&new, route, upstream);
            known.credentials.reload(settings, self.current_vault(), servers, issue).await;
            running.push(known);
        }
        self.running = running;
        // New sessions first: none may go to a route that has retired.
        self.install(&new, upstreams);
        if new.tls != self.config.tls {
            changes.push("[tls] changed".to_owned());
        }
        if new.allow_addresses != self.config.allow_addresses {
            changes.push("allow_addresses changed".to_owned());
        }
        self.common.sessions.acceptor().set(tls);
        if new.log.level != self.config.log.level {
            changes.push("log_level changed".to_owned());
        }
        // Also where it was set at run time: the file is what holds.
        self.common.log.set_level(new.log.level);
        self.common.shown.set(new.shown.clone());
        self.config = new;
        for old in before {
            changes.push(format!("{} removed", old.name));
            old.credentials.retire().await;
            self.retired.push(old.credentials);
        }
        self.retired.retain(|route| !route.has_ended());
        process.set_routes(self.serving());
        if changes.is_empty() {
            changes.push(self.source.unchanged());
        }
        changes.extend(certificates.changes_since(&self.certificates));
        self.certificates = certificates;
        if !restart.is_empty() {
            changes.push(format!("a restart is needed for {}", restart.join(", ")));
        }
        Ok(changes.join(", "))
    }

    fn start_route(&self, config: &Config, route: &RouteConfig, upstream: &Arc<Upstream>) -> RouteHandle {
        let metrics = self.common.metrics.route(&route.name);
        let used_databases = UsedDatabases::default();
        let servers = servers(&used_databases, route, upstream);
        let settings = route_settings(config, route, upstream);
        let kind = route.vault_path.kind();
        // The password of a static role is read again; what a leased one has left under its name is given back.
        let state = self.common.state.as_ref().filter(|_| kind == RoleKind::Dynamic);
        let deps = Deps {
            vault: self.current_vault(),
            servers,
            metrics: Arc::clone(&metrics),
            slot: state.map(|state| state.slot(&route.name)),
            traces: self.common.traces.clone(),
        };
        let credentials = credentials::start(settings, deps, &self.drivers);
        RouteHandle {
            name: route.name.clone(),
            kind,
            credentials,
            metrics,
            used_databases,
            session_limit: SessionLimit::of(Limited::Route),
        }
    }

    /// Sends new sessions by this configuration.
    fn install(&self, config: &Config, upstreams: Vec<Arc<Upstream>>) {
        let routes = self.running.iter().zip(&config.routes).zip(upstreams);
        let table = routes.map(|((running, route), upstream)| {
            Arc::new(SessionRoute {
                user: route.user.clone(),
                database: route.database.clone(),
                access: route.access.clone(),
                credentials: Arc::clone(&running.credentials),
                upstream,
                set_role: route.set_role.clone(),
                tag: route.tag_application_name.then(|| Arc::clone(&self.common.tag)),
                metrics: Arc::clone(&running.metrics),
                max_sessions: route.max_sessions,
                warm: WarmSessions::new(route.warm, route.reuse, Arc::clone(&running.credentials)),

                login_rate: LoginRate::new(route.logins_per_second),
                session_limit: running.session_limit.clone(),
                denied: SessionRoute::denials(&running.credentials),
                used_databases: running.used_databases.clone(),
                throttle: LogThrottle::every(FAILURES_EVERY),
            })
        });
        self.common.sessions.set_routes(Routes::new(table.collect()));
        self.common.sessions.allowed_networks().set(config.allow_addresses.clone());
    }
}

fn servers(used_databases: &UsedDatabases, route: &RouteConfig, upstream: &Arc<Upstream>) -> Servers {
    let prover = Prover {
        upstream: Arc::clone(upstream),
        database: route.probe_database.clone(),
        sql: route.probe_sql.clone(),
        set_role: route.set_role.clone(),
        used: used_databases.clone(),
        said: Said::default(),
    };
    let upstream = Arc::clone(upstream);
    Servers { prove: prover.into_prove(), replica_grace: Arc::new(move || upstream.replica_grace()) }
}

fn route_settings(config: &Config, route: &RouteConfig, upstream: &Upstream) -> RouteSettings {
    RouteSettings {
        name: route.name.clone(),
        serves: Serves {
            user: route.user.to_string(),
            // Another database than that of the URI is refused, whatever the route matches.
            database: upstream.database().map_or_else(|| route.database.to_string(), str::to_owned),
            upstream: upstream.host_names().join(","),
        },
        vault_path: route.vault_path.clone(),
        login: config.vault.auth.identity(),
        client_timeout: config.vault.client_timeout,
        lease: lease::Settings {
            rotate_after: route.rotate_after,
            max_age: route.max_age,
            drain: route.drain,
            lazy: route.lazy.then_some(route.idle_after),
            standby: route.standby,
            replica_grace: upstream.replica_grace(),
            issue_burst: config.limits.issue_burst,
            issue_interval: config.limits.issue_interval,
            // Never 0, which would be no jitter.
            seed: rand::random::<u64>() | 1,
        },
    }
}

const SHUTTING_DOWN: &str = "leasehold is shutting down";
/// How long a reload may take to read its files. Its caller waits for the answer.
const READ_WITHIN: Duration = Duration::from_secs(5);
