//! `run`: starts everything that has been bound, and serves. Floor 6.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::error::Error;
use super::greeting;
use super::listeners::Listeners;
use super::live::{self, Common, RouteSet};
use super::opened::Opened;
use super::renewed::Source;
use super::running::{Background, Clients, Running};
use super::service_manager::ServiceManager;
use crate::admin::{Process, Readings, VaultChange};
use crate::clock;
use crate::config::Config;
use crate::console::{self, Settings};
use crate::credentials::status::VaultStatus;
use crate::log::Control;
use crate::metrics::Metrics;
use crate::notify::State;
use crate::otlp::Sender;
use crate::postgres::cancel::Cancels;
use crate::postgres::console::Console;
use crate::postgres::session::{Routes, Shared};
use crate::published::Published;
use crate::session::end::Stop;
use crate::shutdown::Shutdown;
use crate::socket::descriptors::{self, Descriptors, Shares};
use crate::vault::Standing;
use crate::workers::Workers;

/// A pool or two.
const FEW_CLIENTS: usize = 32;
/// How often the recorder is swept.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub(super) async fn serve(
    config: Config,
    source: Source,
    opened: Opened,
    log: Control,
    manager: ServiceManager,
) -> Result<(), Error> {
    let running = start(config, source, opened, log, manager.clone()).await?;
    // Not the first credential: a service that waits for Vault would be ended by its manager's own time limit.
    manager.announce(&State::Ready);
    let stopping = || manager.announce(&State::Stopping);
    running.run(stopping).await;
    tracing::info!("stopped");
    Ok(())
}

/// Starts everything.
async fn start(
    config: Config,
    source: Source,
    opened: Opened,
    log: Control,
    manager: ServiceManager,
) -> Result<Running, Error> {
    let Opened { recorder, vault, of_upstreams, upstreams, tls, state, signals, listeners, traces: sender } =
        opened;
    let Listeners { clients, http, admin } = listeners;
    let workers = Workers::start(config.threads).map_err(Error::Threads)?;
    greeting::say_what_is_served(&config);
    let sockets = clients.iter().flat_map(|(_, sockets)| sockets);
    let listening: Vec<_> = sockets.map(|socket| socket.address().clone()).collect();
    let places = greeting::places(&config, &listening);

    let shutdown = Shutdown::new(config.sigterm);
    let stop_sessions = Published::new(Stop::Running);
    let descriptors = Arc::new(Descriptors::new(config.threads.get()));
    let cancels = Cancels::new(config.cancel_unknown, Arc::clone(&descriptors));
    let stop = Arc::clone(&stop_sessions);
    let shared = Shared::new(Routes::default(), config.limits.sessions, cancels, stop, descriptors);
    shared.acceptor().set(tls);
    let traces = sender.as_ref().map(Sender::traces).unwrap_or_default();
    shared.set_traces(traces.clone());
    let max_sessions = config.limits.sessions.max_sessions;
    let shown = Settings::default();
    shown.set(config.shown.clone());
    let (console, database) = (config.console, config.console_database.clone());
    let common = Common {
        state: state.clone(),
        metrics: Arc::clone(&recorder),
        upstreams: of_upstreams,
        sessions: Arc::clone(&shared),
        log: log.clone(),
        shown: shown.clone(),
        tag: tag(),
        traces,
    };
    let background = Background::default();
    background.spawn(greeting::say_what_is_not_allowed(config.clone(), Arc::clone(&vault)));
    let live = RouteSet::start(config, source, vault, upstreams, common).await;
    let shares = shared.descriptors().shares();
    say_how_many_fit(&shares, max_sessions);
    let places = live.serving().into_iter().zip(places).collect();
    let (reloads, asked) = mpsc::channel(8);
    let readings = readings(&live, &shared, Arc::clone(&recorder));
    let process = Process::new(live.serving(), shutdown.clone(), readings, reloads.clone());
    let process = Arc::new(process.with_log(log));
    shared.set_console(Console::new(console, database, console::views(&process, shown)));
    let live = Arc::new(Mutex::new(live));
    for server in [http, admin].into_iter().flatten() {
        background.spawn(server.serve(Arc::clone(&process), shares.http));
    }
    let hup = move || {
        let (reply, _) = oneshot::channel();
        // With a full queue a reload is about to happen anyway.
        let _ = reloads.try_send(reply);
    };
    background.spawn(signals.watch(shutdown.clone(), hup));
    background.spawn(upkeep(recorder));
    background.spawn(manager.clone().report(Arc::clone(&process)));
    background.spawn(Arc::clone(shared.acceptor()).watch());
    background.spawn(live::serve_reloads(Arc::clone(&live), process, shutdown.clone(), manager, asked));
    background.spawn(greeting::say_when_ready(places));
    let clients = Clients::accept(clients, &shared, workers, &background);
    let traces = sender.map(Sender::start);
    Ok(Running { live, shutdown, clients, stop_sessions, state, background, traces })
}

/// The machine and the process: `leasehold@host:4711`. A container has one process, whose number says nothing.
fn tag() -> Arc<str> {
    // A service manager may hide /proc/sys (ProcSubset=pid).
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    // The name of a pod tells it from its siblings at its end.
    let host: Vec<char> = host.chars().filter(char::is_ascii_graphic).collect();
    let host: String =
        host.get(host.len().saturating_sub(LONGEST_HOST)..).unwrap_or_default().iter().collect();
    match std::process::id() {
        1 => format!("leasehold@{host}").into(),
        pid => format!("leasehold@{host}:{pid}").into(),
    }
}

/// So much of the 63 bytes of an `application_name`.
const LONGEST_HOST: usize = 32;

/// How many clients the limit of open files leaves room for, beside what keeps their leases alive.
fn say_how_many_fit(shares: &Shares, max_sessions: usize) {
    let (limit, clients) = (descriptors::limit(), shares.clients);
    if clients < max_sessions.max(FEW_CLIENTS) {
        tracing::warn!(limit, clients, "the limit of open files leaves room for few clients: raise it");
    } else {
        tracing::info!(limit, clients, "the limit of open files leaves room for so many clients");
    }
}

fn readings(live: &RouteSet, shared: &Shared, recorder: Arc<Metrics>) -> Readings {
    let vault = live.vault();
    let current = move || Arc::clone(&vault.read().unwrap_or_else(PoisonError::into_inner));
    let of_changes = current.clone();
    let vault_status = move || {
        let vault = current();
        VaultStatus {
            addr: vault.addr(),
            reachable: vault.standing() == Standing::Serving,
            trouble: match vault.standing() {
                standing @ (Standing::Sealed | Standing::NotServing | Standing::NotAsked) => {
                    Some(standing.as_str().to_owned())
                }
                Standing::Serving | Standing::Unreachable => None,
            },
            last_success: vault.last_success().map(|at| humantime::format_rfc3339_millis(at).to_string()),
        }
    };
    let vault_changes = move || {
        let (now, wall) = (clock::now(), clock::wall());
        let at = |since| humantime::format_rfc3339_millis(wall - now.since(since)).to_string();
        let changes = of_changes().changes();
        changes
            .into_iter()
            .map(|(since, state)| VaultChange { at: at(since), state: state.as_str() })
            .collect()
    };
    Readings {
        vault_status: Box::new(vault_status),
        vault_changes: Box::new(vault_changes),
        render_metrics: Box::new(move || recorder.render()),
        sessions: Arc::clone(shared.open()),
    }
}

/// Old samples of histograms are folded up.
async fn upkeep(recorder: Arc<Metrics>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        recorder.run_upkeep();
    }
}
