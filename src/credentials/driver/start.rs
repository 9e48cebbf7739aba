//! How a driver starts: to serve a route, or to give back what an earlier process has left of one. Floor 3.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Driver;
use super::entry::Entry;
use super::repetitions::Repetitions;
use super::returning::PendingRevocations;
use super::spans::Spans;
use super::unserved::Unserved;
use crate::credentials::client::VaultClient;
use crate::credentials::requests::{Requests, Servers, Target};
use crate::credentials::route::{Route, Shared};
use crate::credentials::settings::RouteSettings;
use crate::credentials::state::Slot;
use crate::credentials::state_writer::Beginning;
use crate::lease::Settings;
use crate::metrics::RouteMetrics;
use crate::traces::{RouteTraces, Traces};
use crate::vault::RoleKind;

/// What a route's driver works with.
pub(crate) struct Deps {
    /// Whom to ask.
    pub(crate) vault: Arc<dyn VaultClient>,
    /// Where credentials are for.
    pub(crate) servers: Servers,
    /// Where it is counted.
    pub(crate) metrics: Arc<RouteMetrics>,
    /// Where it is kept beyond the process; what is in it is taken up.
    pub(crate) slot: Option<Slot>,
    /// What begins its spans.
    pub(crate) traces: Traces,
}

/// What an earlier process has left of a route that is not configured any more.
pub(crate) struct Leftovers {
    /// The route's name.
    pub(crate) name: String,
    /// What is left, to be emptied.
    pub(crate) slot: Slot,
    /// Whom to ask.
    pub(crate) vault: Arc<dyn VaultClient>,
    /// How long a request may take.
    pub(crate) client_timeout: Duration,
    /// Where it is counted.
    pub(crate) metrics: Arc<RouteMetrics>,
    /// What begins its spans.
    pub(crate) traces: Traces,
}

/// Starts the driver of a route as a task of `tasks`, and gives its handle.
#[must_use]
pub(crate) fn start(settings: RouteSettings, deps: Deps, tasks: &TaskTracker) -> Arc<Route> {
    let Deps { vault, servers, metrics, slot, traces } = deps;
    let (kind, vault_path) = (settings.vault_path.kind(), settings.vault_path.to_string());
    let is_lazy = settings.lease.lazy.is_some();
    let left = Arc::new(Notify::new());
    let beginning = Beginning::of(slot, kind, settings.lease.clone(), Some(settings.origin()), &left);
    let work = Work {
        vault,
        target: Some(Target { path: Arc::new(settings.vault_path), servers }),
        client_timeout: settings.client_timeout,
        metrics,
        left,
        traces,
    };
    let shared = Shared::default();
    shared.is_lazy.store(is_lazy, Ordering::Release);
    if let Ok(mut view) = shared.view.lock() {
        view.vault_path = vault_path;
        view.serves = settings.serves;
        view.kind = kind.as_str();
    }
    work.begin(settings.name, beginning, shared, tasks)
}

/// Starts to give back what is left, as a task of `tasks`. No session can be had of the handle; [`Route::ended`] tells when
/// all is given back.
#[must_use]
pub(crate) fn give_back(leftovers: Leftovers, tasks: &TaskTracker) -> Arc<Route> {
    let Leftovers { name, slot, vault, client_timeout, metrics, traces } = leftovers;
    // Only leased roles leave anything.
    let kind = RoleKind::Dynamic;
    let left = Arc::new(Notify::new());
    // A role that is closed from the begin issues nothing, so that all but the jitter's seed is without effect. It is
    // never 0, which would be no jitter.
    let settings = Settings::new(rand::random::<u64>() | 1);
    let beginning = Beginning::of(Some(slot), kind, settings, None, &left);
    let shared = Shared::default();
    if let Ok(mut view) = shared.view.lock() {
        view.kind = kind.as_str();
    }
    Work { vault, target: None, client_timeout, metrics, left, traces }.begin(name, beginning, shared, tasks)
}

/// What a driver asks, and for what.
struct Work {
    vault: Arc<dyn VaultClient>,
    /// `None`: all is given back.
    target: Option<Target>,
    client_timeout: Duration,
    metrics: Arc<RouteMetrics>,
    /// Woken when a generation's last session leaves.
    left: Arc<Notify>,
    traces: Traces,
}

impl Work {
    fn begin(self, name: String, beginning: Beginning, shared: Shared, tasks: &TaskTracker) -> Arc<Route> {
        let Self { vault, target, client_timeout, metrics, left, traces } = self;
        let traces = RouteTraces::new(traces, &name);
        let Beginning { machine, tokens, next_token, generations, state_writer } = beginning;
        let (commands, asked) = mpsc::channel(1024);
        let (done, came) = mpsc::channel(64);
        let (publish, published) = watch::channel(None);
        if let Ok(mut view) = shared.view.lock() {
            view.name.clone_from(&name);
        }
        let (shared, ended) = (Arc::new(shared), CancellationToken::new());
        let driver = Driver {
            name: name.clone(),
            kind: machine.kind(),
            machine,
            closing: target.is_none(),
            requests: Requests {
                vault,
                target,
                client_timeout,
                tasks: tasks.clone(),
                done,
                withdrawn: CancellationToken::new(),
                published: published.clone(),
                traces: traces.clone(),
            },
            tokens,
            counted: HashSet::new(),
            handed: HashSet::new(),
            next_token,
            generations,
            pending_revocations: PendingRevocations::default(),
            entry: Entry::default(),
            state_writer,
            ends_when_empty: HashSet::new(),
            replica_grace: None,
            left,
            publish,
            shared: Arc::clone(&shared),
            metrics,
            checks: HashMap::new(),
            replaces: Vec::new(),
            rotates: Vec::new(),
            in_use: false,
            unserved: Unserved::default(),
            repetitions: Repetitions::default(),
            spans: Spans::new(traces),
            ended: ended.clone(),
        };
        // A line of whatever level has it.
        let span = tracing::error_span!("lease", route = %name);
        tasks.spawn(tracing::Instrument::instrument(driver.run(asked, came), span));
        Arc::new(Route { name, commands, published, shared, ended })
    }
}
