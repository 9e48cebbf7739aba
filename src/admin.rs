//! What operators and probes talk to: two HTTP servers, one for probes and metrics, one for commands. Floor 5.
//!
//! | path | methods | `http` | `admin` | |
//! |---|---|---|---|---|
//! | `/livez`, `/liveness` | GET | yes | yes | the process alone |
//! | `/startup` | GET | yes | yes | latched, see [`health`] |
//! | `/readyz`, `/readiness` | GET | yes | yes | `?route=` asks one |
//! | `/metrics` | GET | yes | yes | Prometheus' text |
//! | `/status` | GET | no | yes | a [`Status`] |
//! | `/rotate` | POST | no | yes | `?route=` one, `?drain=` or `?drain=60s` |
//! | `/reload` | POST | no | yes | as SIGHUP |
//! | `/quitquitquit` | GET, POST | no | yes | as SIGTERM |

pub(crate) mod health;

mod guard;
mod handler;
mod server;
mod status;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use crate::credentials::Route;
use crate::credentials::status::VaultStatus;
use crate::shutdown::Shutdown;

pub(crate) use server::{Error, bind_admin, bind_http};
pub(crate) use status::{Rotated, RotatedRoute, State, Status};

/// What is served.
pub(crate) struct Process {
    /// All routes, in the order of the configuration; a reload changes them.
    routes: RwLock<Vec<Arc<Route>>>,
    /// Starts a shutdown.
    pub(crate) shutdown: Shutdown,
    /// The state of the secret server.
    pub(crate) vault_status: Box<dyn Fn() -> VaultStatus + Send + Sync>,
    /// The metrics as text.
    pub(crate) render_metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Starts a reload.
    pub(crate) reloads: mpsc::Sender<ReloadReply>,
    started: AtomicBool,
}

/// Takes the outcome of a reload: what was done, or the one line that says why nothing was.
pub(crate) type ReloadReply = oneshot::Sender<Result<String, String>>;

impl Process {
    /// Not started yet.
    #[must_use]
    pub(crate) fn new(
        routes: Vec<Arc<Route>>,
        shutdown: Shutdown,
        vault_status: Box<dyn Fn() -> VaultStatus + Send + Sync>,
        render_metrics: Box<dyn Fn() -> String + Send + Sync>,
        reloads: mpsc::Sender<ReloadReply>,
    ) -> Self {
        let (routes, started) = (RwLock::new(routes), AtomicBool::new(false));
        Self { routes, shutdown, vault_status, render_metrics, reloads, started }
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
