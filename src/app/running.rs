//! What runs, until its end: who is told to stop, in which order, and what is given back. Floor 6.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::live::RouteSet;
use crate::credentials::state::StateFile;
use crate::credentials::status::{GenerationStatus, RouteStatus};
use crate::listener::{Listener, Service};
use crate::otlp::Sending;
use crate::postgres::session::{self, Shared};
use crate::published::Published;
use crate::session::end::Stop;
use crate::session::{Admission, ListenerLimits};
use crate::shutdown::{Outcome, Phase, Shutdown};
use crate::workers::Workers;

/// Revocations and issuances in flight may take this long once the sessions are closed.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// The kind of a route whose credentials are leased.
const DYNAMIC: &str = "dynamic";

/// All that has been started.
pub(super) struct Running {
    pub(super) live: Arc<Mutex<RouteSet>>,
    pub(super) shutdown: Shutdown,
    pub(super) clients: Clients,
    /// Tells each session how far the process has come.
    pub(super) stop_sessions: Arc<Published<Stop>>,
    pub(super) state: Option<Arc<StateFile>>,
    pub(super) background: Background,
    pub(super) traces: Option<Sending>,
}

impl Running {
    /// Goes on until a shutdown is asked for, of which `stopping` is told, and is over.
    pub(super) async fn run(self, stopping: impl Fn()) {
        let all_gone = self.clients.workers.tasks_gone();
        let (outcome, ()) = tokio::join!(self.shutdown.run(all_gone), self.stop(stopping));
        let in_order = outcome == Outcome::InOrder && self.gives_back().await;
        if !in_order {
            self.say_what_is_left().await;
        }
        // Told twice, it leaves the state file as a crash does.
        if let Some(state) = self.state.filter(|_| in_order) {
            match state.finish() {
                0 => tracing::info!("the state file is removed"),
                leases => {
                    tracing::warn!(leases, "the state file is removed, though not every lease was given back")
                }
            }
        }
        self.shutdown.done();
        // Before the background stops, which hears the signals.
        if let Some(traces) = self.traces.filter(|_| in_order) {
            traces.finish(self.shutdown.second_signal()).await;
        }
        self.background.stop().await;
    }

    /// Takes the process through the phases of its shutdown.
    async fn stop(&self, stopping: impl Fn()) {
        self.shutdown.requested().await;
        stopping();
        self.say_what_is_waited_for().await;
        self.shutdown.reached(Phase::Closing).await;
        self.clients.accepting.cancel();
        self.stop_sessions.send_replace(Stop::Closing);
        for route in self.live.lock().await.routes() {
            route.close().await;
        }
        self.shutdown.reached(Phase::Forced).await;
        self.stop_sessions.send_replace(Stop::Forced);
    }

    /// What the end waits for, and what a second signal would leave.
    async fn say_what_is_waited_for(&self) {
        let leases = self.generations().await.len();
        let max = humantime::format_duration(self.shutdown.delays().max);
        tracing::info!(
            sessions = self.clients.workers.tasks(),
            leases,
            "stopping: sessions may take {max} to end, then their leases are given back; a second signal ends it \
             now, and leaves the leases to lapse"
        );
    }

    /// Each lease that nobody gives back any more.
    async fn say_what_is_left(&self) {
        let left = self.generations().await;
        tracing::warn!(leases = left.len(), "told twice to stop: ended at once");
        for (route, generation) in left {
            let whose = if self.state.is_some() { "left to the next start" } else { "left to lapse" };
            tracing::warn!(
                route,
                lease.id = generation.lease_id,
                lease.role = generation.username,
                lease.ends_at = generation.ends_at,
                "{whose}"
            );
        }
    }

    /// The leased credentials of all routes, each with the name of its route.
    async fn generations(&self) -> Vec<(String, GenerationStatus)> {
        let routes = self.live.lock().await.routes();
        let of =
            |status: RouteStatus| status.generations.into_iter().map(move |one| (status.name.clone(), one));
        let dynamic = routes.iter().map(|route| route.status()).filter(|status| status.kind == DYNAMIC);
        dynamic.flat_map(of).collect()
    }

    /// Waits until leases and tokens are given back, or it has taken too long. False if it is told a second time to stop.
    async fn gives_back(&self) -> bool {
        let given_back = async {
            // Forced sessions need a moment to part from their servers; only then their leases go back.
            self.clients.workers.tasks_gone().await;
            for route in self.live.lock().await.routes() {
                route.ended().await;
            }
        };
        tokio::select! {
            () = self.shutdown.second_signal() => false,
            ended = tokio::time::timeout(GIVE_BACK_WITHIN, given_back) => {
                if ended.is_err() {
                    tracing::warn!("not everything could be given back in time; what is left lapses");
                }
                true
            }
        }
    }
}

/// The clients of all listeners.
pub(super) struct Clients {
    accepting: CancellationToken,
    /// Their threads.
    workers: Arc<Workers>,
}

impl Clients {
    /// Accepts clients, which speak PostgreSQL's protocol, and serves them on these threads. Sockets that stand together
    /// share the limits beside them.
    pub(super) fn accept(
        listeners: Vec<(ListenerLimits, Vec<Listener>)>,
        shared: &Arc<Shared>,
        workers: Workers,
        background: &Background,
    ) -> Self {
        let [of_clients, of_turned_away] = [(); 2].map(|()| Arc::clone(shared));
        let service = Service::new(
            Arc::clone(shared.descriptors()),
            Arc::clone(shared.allowed_networks()),
            move |client, admission, id, handshake| {
                session::serve(client, Arc::clone(&of_clients), admission, id, handshake)
            },
            move |client, peer, why, admission: Arc<Admission>, span| {
                let shared = Arc::clone(&of_turned_away);
                async move { session::turn_away(client, peer, why, (&shared, &admission), span).await }
            },
        );
        let accepting = CancellationToken::new();
        let workers = Arc::new(workers);
        for (limits, sockets) in listeners {
            let admission = shared.admission(limits);
            for socket in sockets {
                let (service, admission) = (service.clone(), Arc::clone(&admission));
                let accepts = socket.run(service, admission, Arc::clone(&workers), accepting.clone());
                background.tasks.spawn(accepts);
            }
        }
        Self { accepting, workers }
    }
}

/// Tasks that nobody waits for, but for a moment at the very end.
#[derive(Default)]
pub(super) struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Background {
    /// Runs a task until the end, and drops it then.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        // The servers' futures are dropped by the token; nothing here waits for a client.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
    }
}
