//! `run`: binds everything, then starts everything, then waits for the end. Floor 6.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::Error;
use super::live::{self, Common, RouteSet, Source};
use crate::acceptor::InForce;
use crate::admin::{self, Process, ReloadReply};
use crate::config::Config;
use crate::credentials::state::StateFile;
use crate::credentials::status::VaultStatus;
use crate::listener::{self, Listener, Service};
use crate::metrics::{self, Metrics};
use crate::notify::{Notify, State};
use crate::postgres::cancel::Cancels;
use crate::postgres::session::{self, Routes, Shared};
use crate::postgres::upstream;
use crate::session::end::Stop;
use crate::shutdown::{Outcome, Phase, Shutdown, Signals};
use crate::socket::descriptors::{self, Shares};
use crate::upstreams;
use crate::vault::{Standing, Vault};

/// Revocations and issuances in flight may take this long once the sessions are closed.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);
/// A pool or two.
const FEW_CLIENTS: usize = 32;
/// How often the recorder is swept.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub(super) async fn serve(config: Config, source: Source, notify: &Notify) -> Result<(), Error> {
    let recorder = Arc::new(Metrics::install().map_err(|_| Error::Recorder)?);
    metrics::build_info();
    // A counter without labels is there from the start: an alert on its growth needs the zero.
    metrics::log_lines_dropped(0);
    for warning in &config.warnings {
        tracing::warn!("{}", warning.text);
    }
    // What the files say is read first: nothing is bound, and nothing is asked of Vault, for a bad configuration.
    let vault = Arc::new(Vault::new(config.vault.clone())?);
    let of_upstreams = upstream::Shared::default();
    let upstreams = upstreams::build(&config, &of_upstreams)?;
    let tls = tls(&config)?;
    let state = state_file(&config)?;
    let signals = Signals::install(source.has_file()).map_err(Error::Signals)?;
    let listeners = bind(&config)?;
    let http = config.http.map(admin::bind_http).transpose()?;
    let admin = config.admin.as_ref().map(admin::bind_admin).transpose()?;

    let shutdown = Shutdown::new(config.sigterm);
    let background = TaskTracker::new();
    let (tell, told) = watch::channel(Stop::Running);
    let shared =
        Shared::new(Routes::default(), config.limits.sessions, Cancels::new(config.cancel_unknown), told);
    shared.acceptor().set(tls);
    let (reloads, asked) = mpsc::channel(8);
    let max_sessions = config.limits.sessions.max_sessions;
    let common = Common {
        state: state.clone(),
        metrics: Arc::clone(&recorder),
        upstreams: of_upstreams,
        sessions: Arc::clone(&shared),
    };
    let live = RouteSet::start(config, source, vault, upstreams, common).await;
    let process = Arc::new(process(&live, &shutdown, Arc::clone(&recorder), reloads.clone()));
    let live = Arc::new(Mutex::new(live));
    let stop = CancellationToken::new();
    let shares = shared.descriptors().shares();
    say_how_many_fit(&shares, max_sessions);
    for server in [http, admin].into_iter().flatten() {
        until(&background, &stop, server.serve(Arc::clone(&process), shares.http));
    }
    let hup = move || {
        let (reply, _) = oneshot::channel();
        // With a full queue a reload is about to happen anyway.
        let _ = reloads.try_send(reply);
    };
    until(&background, &stop, signals.watch(shutdown.clone(), hup));
    until(&background, &stop, upkeep(recorder));
    until(&background, &stop, Arc::clone(shared.acceptor()).watch());
    until(&background, &stop, live::serve_reloads(Arc::clone(&live), process, shutdown.clone(), asked));

    let sessions = TaskTracker::new();
    let accepting = CancellationToken::new();
    accept(listeners, &shared, &background, &sessions, &accepting);
    // Not the first credential: a service that waits for Vault would be ended by its manager's own time limit.
    announce(notify, State::Ready);
    let relay_phases = async {
        shutdown.requested().await;
        announce(notify, State::Stopping);
        shutdown.reached(Phase::Closing).await;
        accepting.cancel();
        tell.send_replace(Stop::Closing);
        for route in live.lock().await.routes() {
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
    // Told twice, it leaves the state file as a crash does.
    let mut in_order = outcome == Outcome::InOrder;
    if in_order {
        let given_back = async {
            // Forced sessions need a moment to part from their servers; only then their leases go back.
            sessions.wait().await;
            for route in live.lock().await.routes() {
                route.ended().await;
            }
        };
        tokio::select! {
            () = shutdown.second_signal() => {
                in_order = false;
                tracing::warn!("told twice to stop: leases may be left to lapse");
            }
            ended = tokio::time::timeout(GIVE_BACK_WITHIN, given_back) => if ended.is_err() {
                tracing::warn!("not everything could be given back in time; what is left lapses");
            }
        }
    }
    if let Some(state) = state.filter(|_| in_order) {
        match state.finish() {
            0 => tracing::info!("the state file is removed"),
            leases => {
                tracing::warn!(leases, "the state file is removed, though not every lease was given back")
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

/// What clients are offered TLS with. Blocks on its files, as nothing is served yet.
fn tls(config: &Config) -> Result<Option<InForce>, Error> {
    let Some(settings) = &config.tls else { return Ok(None) };
    let read = InForce::read(settings)?;
    for warning in read.warnings() {
        tracing::warn!("{warning}");
    }
    tracing::info!("clients are offered TLS, with a certificate {}", read.describe());
    Ok(Some(read))
}

/// The state file is opened before anything is bound: a second process must not come so far.
fn state_file(config: &Config) -> Result<Option<Arc<StateFile>>, Error> {
    let Some(file) = &config.state_file else { return Ok(None) };
    let opened = StateFile::open(file.path(), config.vault.server());
    opened.map(Some).map_err(|source| Error::State { file: file.clone(), source })
}

/// How many clients the limit of open files leaves room for, beside what keeps their leases alive.
fn say_how_many_fit(shares: &Shares, max_sessions: usize) {
    let (limit, clients) = (descriptors::limit(), shares.clients);
    if clients < max_sessions.max(FEW_CLIENTS) {
        tracing::warn!(limit, clients, "the limit of open files leaves room for few clients: raise it");
    } else {
        tracing::info!(limit, clients, "the limit of open files leaves room for so many clients");
    }
}

fn announce(notify: &Notify, state: State) {
    if let Err(error) = notify.tell(state) {
        tracing::warn!(%error, ?state, "the service manager cannot be told");
    }
}

fn bind(config: &Config) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let address = &listen.address;
        match Listener::bind(address) {
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

/// Accepts clients, which speak PostgreSQL's protocol.
fn accept(
    listeners: Vec<Listener>,
    shared: &Arc<Shared>,
    background: &TaskTracker,
    sessions: &TaskTracker,
    accepting: &CancellationToken,
) {
    let of_clients = Arc::clone(shared);
    let of_turned_away = Arc::clone(shared);
    let service = Service::new(
        Arc::clone(shared.descriptors()),
        move |client, id| session::serve(client, Arc::clone(&of_clients), id),
        move |client, peer, span| {
            let shared = Arc::clone(&of_turned_away);
            async move { session::turn_away(client, peer, &shared, span).await }
        },
    );
    for listener in listeners {
        background.spawn(listener.run(service.clone(), sessions.clone(), accepting.clone()));
    }
}

fn process(
    live: &RouteSet,
    shutdown: &Shutdown,
    recorder: Arc<Metrics>,
    reloads: mpsc::Sender<ReloadReply>,
) -> Process {
    let vault = live.vault();
    let vault_status = move || {
        let vault = Arc::clone(&vault.read().unwrap_or_else(PoisonError::into_inner));
        VaultStatus {
            addr: vault.addr(),
            reachable: vault.standing() == Standing::Serving,
            trouble: match vault.standing() {
                Standing::Sealed => Some("sealed".to_owned()),
                Standing::NotServing => Some("not serving".to_owned()),
                Standing::Serving | Standing::Unreachable => None,
            },
            last_success: vault.last_success().map(|at| humantime::format_rfc3339_millis(at).to_string()),
        }
    };
    let render = move || recorder.render();
    Process::new(live.serving(), shutdown.clone(), Box::new(vault_status), Box::new(render), reloads)
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
async fn upkeep(recorder: Arc<Metrics>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        recorder.run_upkeep();
    }
}
