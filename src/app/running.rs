//! What runs, until its end: who is told to stop, in which order, and what is given back. Floor 6.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::live::RouteSet;
use crate::credentials::state::StateFile;
use crate::listener::{Listener, Service};
use crate::postgres::session::{self, Shared};
use crate::session::end::Stop;
use crate::shutdown::{Outcome, Phase, Shutdown};
use crate::workers::Workers;

/// Revocations and issuances in flight may take this long once the sessions are closed.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// All that has been started.
pub(super) struct Running {
    pub(super) live: Arc<Mutex<RouteSet>>,
    pub(super) shutdown: Shutdown,
    pub(super) clients: Clients,
    /// Tells each session how far the process has come.
    pub(super) stop_sessions: watch::Sender<Stop>,
    pub(super) state: Option<Arc<StateFile>>,
    pub(super) background: Background,
}

impl Running {
    /// Goes on until a shutdown is asked for, of which `stopping` is told, and is over.
    pub(super) async fn run(self, stopping: impl Fn()) {
        let all_gone = async {
            self.clients.sessions.close();
            self.clients.sessions.wait().await;
        };
        let (outcome, ()) = tokio::join!(self.shutdown.run(all_gone), self.stop(stopping));
        let in_order = outcome == Outcome::InOrder && self.gives_back().await;
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
        self.background.stop().await;
    }

    /// Takes the process through the phases of its shutdown.
    async fn stop(&self, stopping: impl Fn()) {
        self.shutdown.requested().await;
        stopping();
        self.shutdown.reached(Phase::Closing).await;
        self.clients.accepting.cancel();
        self.stop_sessions.send_replace(Stop::Closing);
        for route in self.live.lock().await.routes() {
            route.close().await;
        }
        self.shutdown.reached(Phase::Forced).await;
        self.stop_sessions.send_replace(Stop::Forced);
    }

    /// Waits until leases and tokens are given back, or it has taken too long. False if it is told a second time to stop.
    async fn gives_back(&self) -> bool {
        let given_back = async {
            // Forced sessions need a moment to part from their servers; only then their leases go back.
            self.clients.sessions.wait().await;
            for route in self.live.lock().await.routes() {
                route.ended().await;
            }
        };
        tokio::select! {
            () = self.shutdown.second_signal() => {
                tracing::warn!("told twice to stop: leases may be left to lapse");
                false
            }
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
    sessions: TaskTracker,
    accepting: CancellationToken,
    _workers: Arc<Workers>,
}

impl Clients {
    /// Accepts clients, which speak PostgreSQL's protocol, and serves them on these threads.
    pub(super) fn accept(
        listeners: Vec<Listener>,
        shared: &Arc<Shared>,
        workers: Workers,
        background: &Background,
    ) -> Self {
        let (of_clients, of_turned_away) = (Arc::clone(shared), Arc::clone(shared));
        let service = Service::new(
            Arc::clone(shared.descriptors()),
            move |client, id| session::serve(client, Arc::clone(&of_clients), id),
            move |client, peer, span| {
                let shared = Arc::clone(&of_turned_away);
                async move { session::turn_away(client, peer, &shared, span).await }
            },
        );
        let (sessions, accepting) = (TaskTracker::new(), CancellationToken::new());
        let workers = Arc::new(workers);
        for listener in listeners {
            let (service, workers) = (service.clone(), Arc::clone(&workers));
            background.tasks.spawn(listener.run(service, workers, sessions.clone(), accepting.clone()));
        }
        Self { sessions, accepting, _workers: workers }
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
