//! `run`: binds everything, then starts everything. Floor 6.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::error::Error;
use super::live::{self, Common, RouteSet};
use super::renewed::Source;
use super::running::{Background, Clients, Running};
use crate::acceptor::InForce;
use crate::admin::{self, Process, ReloadReply};
use crate::config::Config;
use crate::credentials::state::StateFile;
use crate::credentials::status::VaultStatus;
use crate::listener::{self, Listener};
use crate::metrics::{self, Metrics};
use crate::notify::{Notify, State};
use crate::postgres::cancel::Cancels;
use crate::postgres::session::{Routes, Shared};
use crate::postgres::upstream;
use crate::session::end::Stop;
use crate::shutdown::{Shutdown, Signals};
use crate::socket::descriptors::{self, Descriptors, Shares};
use crate::upstreams;
use crate::vault::{Standing, Vault};
use crate::workers::Workers;

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
    let running = start(config, source, recorder).await?;
    // Not the first credential: a service that waits for Vault would be ended by its manager's own time limit.
    announce(notify, State::Ready);
    let stopping = || announce(notify, State::Stopping);
    running.run(stopping).await;
    tracing::info!("stopped");
    Ok(())
}

/// Binds everything, then starts everything.
async fn start(config: Config, source: Source, recorder: Arc<Metrics>) -> Result<Running, Error> {
    // What the files say is read first: nothing is bound, and nothing is asked of Vault, for a bad configuration.
    let vault = Arc::new(Vault::new(config.vault.clone())?);
    let of_upstreams = upstream::Shared::default();
    let upstreams = upstreams::build(&config, &of_upstreams)?;
    let tls = tls(&config)?;
    let state = state_file(&config)?;
    let workers = Workers::start(config.threads).map_err(Error::Threads)?;
    let signals = Signals::install(source.has_file()).map_err(Error::Signals)?;
    let listeners = bind(&config)?;
    let http = config.http.map(admin::bind_http).transpose()?;
    let admin = config.admin.as_ref().map(admin::bind_admin).transpose()?;

    let shutdown = Shutdown::new(config.sigterm);
    let (stop_sessions, stop) = watch::channel(Stop::Running);
    let cancels = Cancels::new(config.cancel_unknown);
    let descriptors = Descriptors::new(config.threads.get());
    let shared = Shared::new(Routes::default(), config.limits.sessions, cancels, stop, descriptors);
    shared.acceptor().set(tls);
    let max_sessions = config.limits.sessions.max_sessions;
    let common = Common {
        state: state.clone(),
        metrics: Arc::clone(&recorder),
        upstreams: of_upstreams,
        sessions: Arc::clone(&shared),
    };
    let live = RouteSet::start(config, source, vault, upstreams, common).await;
    let shares = shared.descriptors().shares();
    say_how_many_fit(&shares, max_sessions);
    let (reloads, asked) = mpsc::channel(8);
    let process = Arc::new(process(&live, &shutdown, Arc::clone(&recorder), reloads.clone()));
    let live = Arc::new(Mutex::new(live));
    let background = Background::default();
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
    background.spawn(Arc::clone(shared.acceptor()).watch());
    background.spawn(live::serve_reloads(Arc::clone(&live), process, shutdown.clone(), asked));
    let clients = Clients::accept(listeners, &shared, workers, &background);
    Ok(Running { live, shutdown, clients, stop_sessions, state, background })
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

/// Old samples of histograms are folded up.
async fn upkeep(recorder: Arc<Metrics>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        recorder.run_upkeep();
    }
}
