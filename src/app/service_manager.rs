//! Reports a line of status to the service manager, and that the process is alive. Floor 6.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{Process, Status};
use crate::notify::{Notify, State};

/// What the service manager is told of, and how.
#[derive(Clone)]
pub(super) struct ServiceManager {
    pub(super) notify: Notify,
    /// It ends a process that says nothing for so long.
    pub(super) watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Tells it how far the process is.
    pub(super) fn announce(&self, state: &State) {
        if let Err(error) = self.notify.tell(state) {
            tracing::warn!(%error, ?state, "the service manager cannot be told");
        }
    }

    /// Goes on for ever, in the runtime of leases and commands: while that stands still nobody is told that all is well.
    pub(super) async fn report(self, process: Arc<Process>) {
        if !self.notify.is_wanted() {
            return;
        }
        // Twice in its time, so that one that comes late does no harm.
        let every = self.watchdog.map_or(LOOK_EVERY, |limit| (limit / 2).min(LOOK_EVERY));
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        loop {
            ticks.tick().await;
            if self.watchdog.is_some() {
                self.try_to_tell(&State::Alive);
            }
            let line = line(&process.status());
            if line != told {
                self.try_to_tell(&State::Status(line.clone()));
                told = line;
            }
        }
    }

    /// The next time is soon.
    fn try_to_tell(&self, state: &State) {
        if let Err(error) = self.notify.tell(state) {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    }
}

/// What `systemctl status` shows.
fn line(status: &Status) -> String {
    let routes = &status.routes;
    let ready = routes.iter().filter(|route| route.ready).count();
    let sessions: usize = routes.iter().map(|route| route.sessions).sum();
    let mut line =
        format!("{}: {ready} of {} routes ready, {sessions} sessions", status.state.as_str(), routes.len());
    for route in routes.iter().filter(|route| !route.ready || route.upstream_error.is_some()) {
        let errors = [&route.credential_error, &route.upstream_error, &route.last_error];
        if let Some(error) = errors.into_iter().find_map(Option::as_ref) {
            line.push_str(&format!("; {}: {}", route.name, error.reason));
        }
    }
    line
}

/// Often enough for whoever looks, and seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);
