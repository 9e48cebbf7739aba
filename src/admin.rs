//! What operators and probes talk to: two HTTP servers, one for probes and metrics, one for commands. Floor 5.
//!
//! | path | methods | `http` | `admin` | |
//! |---|---|---|---|---|
//! | `/livez`, `/liveness` | GET | yes | yes | the process alone |
//! | `/startup` | GET | yes | yes | latched, see [`health`] |
//! | `/readyz`, `/readiness` | GET | yes | yes | `?route=` asks one |
//! | `/metrics` | GET | yes | yes | Prometheus' text |
//! | `/status` | GET | no | yes | a [`Status`] |
//! | `/sessions` | GET | no | yes | a [`SessionList`]; `?user=` and other fields of a session choose among them |
//! | `/history` | GET | no | yes | a [`history::History`]: the last hour |
//! | `/`, and what it loads | GET | no | yes | the page that shows both, see [`page`] |
//! | `/rotate` | POST | no | yes | `?route=` one, `?drain=` or `?drain=60s` |
//! | `/reload` | POST | no | yes | as SIGHUP |
//! | `/log` | POST | no | yes | `?level=` sets the level of the log |
//! | `/quitquitquit` | POST | no | yes | as SIGTERM |
//!
//! A POST needs the header [`COMMAND_HEADER`].

pub(crate) mod health;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod handler;
mod history;
mod page;
mod server;
mod status;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use crate::credentials::Route;
use crate::credentials::status::VaultStatus;
use crate::log::Control;
use crate::session::Sessions;
use crate::shutdown::Shutdown;

pub(crate) use guard::COMMAND_HEADER;
pub(crate) use history::VaultChange;
pub(crate) use server::{Server, bind_admin, bind_http};
pub(crate) use status::{Rotated, RotatedRoute, SessionList, State, Status};

/// What is served.
pub(crate) struct Process {
    /// All routes, in the order of the configuration; a reload changes them.
    routes: RwLock<Vec<Arc<Route>>>,
    /// Starts a shutdown.
    pub(crate) shutdown: Shutdown,
    /// What it is asked for.
    pub(crate) readings: Readings,
    /// Starts a reload.
    pub(crate) reloads: mpsc::Sender<ReloadReply>,
    started: AtomicBool,
    /// Changes the log.
    log: Option<Control>,
}

/// Where the answers to questions about the process come from.
pub(crate) struct Readings {
    /// The state of the secret server.
    pub(crate) vault_status: Box<dyn Fn() -> VaultStatus + Send + Sync>,
    /// How that has changed in the last hour, oldest first.
    pub(crate) vault_changes: Box<dyn Fn() -> Vec<VaultChange> + Send + Sync>,
    /// The metrics as text.
    pub(crate) render_metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The sessions that are open.
    pub(crate) sessions: Arc<Sessions>,
}

/// Takes the outcome of a reload: what was done, or the one line that says why nothing was.
pub(crate) type ReloadReply = oneshot::Sender<Result<String, String>>;

impl Process {
    /// Not started yet.
    #[must_use]
    pub(crate) fn new(
        routes: Vec<Arc<Route>>,
        shutdown: Shutdown,
        readings: Readings,
        reloads: mpsc::Sender<ReloadReply>,
    ) -> Self {
        let (routes, started) = (RwLock::new(routes), AtomicBool::new(false));
        Self { routes, shutdown, readings, reloads, started, log: None }
    }

    /// This log can be changed.
    #[must_use]
    pub(crate) fn with_log(self, log: Control) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The routes as they are now.
    #[must_use]
    pub(crate) fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the routes from now on.
    pub(crate) fn set_routes(&self, routes: Vec<Arc<Route>>) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("routes", &self.routes().len())
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
