//! Which credentials and which upstream a client gets, and how many may have them. Floor 4.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::warm::WarmSessions;
use crate::credentials::Route;
use crate::log_throttle::LogThrottle;
use crate::metrics::RouteMetrics;
use crate::postgres::relay::Denied;
use crate::postgres::upstream::Upstream;
use crate::session::{Access, LoginRate, Match, SessionLimit};

/// One route as sessions use it.
pub(crate) struct SessionRoute {
    /// The users that it is for.
    pub(crate) user: Match,
    /// The databases that it is for.
    pub(crate) database: Match,
    /// The clients that it is for.
    pub(crate) access: Access,
    /// Its credentials.
    pub(crate) credentials: Arc<Route>,
    /// Its upstream. The proof of its credentials logs in there too.
    pub(crate) upstream: Arc<Upstream>,
    /// `role` for each session.
    pub(crate) set_role: Option<String>,
    /// What is appended to `application_name`: `tag_application_name`.
    pub(crate) tag: Option<Arc<str>>,
    /// Its metrics.
    pub(crate) metrics: Arc<RouteMetrics>,
    /// How many sessions it may have, logins on their way included; 0 is no limit.
    pub(crate) max_sessions: usize,
    /// Bounds how many logins begin in a second.
    pub(crate) login_rate: LoginRate,
    /// Counts the sessions that it has.
    pub(crate) session_limit: SessionLimit,
    /// The databases that clients got into; proofs of new credentials log in to one of them.
    pub(crate) used_databases: UsedDatabases,
    /// Called when the server denies a session something, see [`SessionRoute::denials`].
    pub(crate) denied: Denied,
    /// Its sessions that are logged in ahead of need.
    pub(crate) warm: WarmSessions,
    /// Bounds how often its failed logins are logged.
    pub(crate) throttle: LogThrottle,
}

impl SessionRoute {
    /// Passes on to these credentials that a 42501 or 42704 passed by in a session of a generation.
    #[must_use]
    pub(crate) fn denials(credentials: &Arc<Route>) -> Denied {
        let credentials = Arc::clone(credentials);
        Arc::new(Box::new(move |number| credentials.denial_passed_by(number)))
    }
}

/// The routes in the order of the configuration.
#[derive(Default)]
pub(crate) struct Routes(Vec<Arc<SessionRoute>>);

impl Routes {
    /// The routes in this order.
    #[must_use]
    pub(crate) fn new(routes: Vec<Arc<SessionRoute>>) -> Self {
        Self(routes)
    }

    /// The first route that matches both names.
    pub(super) fn pick(&self, user: &[u8], database: &[u8]) -> Option<Arc<SessionRoute>> {
        self.0.iter().find(|route| route.user.takes(user) && route.database.takes(database)).map(Arc::clone)
    }

    /// Whether a route is for this user, and for this database by its name.
    pub(super) fn name_database(&self, user: &[u8], database: &[u8]) -> bool {
        let of_user = self.0.iter().filter(|route| route.user.takes(user));
        of_user.map(|route| (&route.database, route.upstream.database())).any(|(names, fixed)| match names {
            Match::Only(name) => name == database,
            Match::Any => fixed.is_some_and(|fixed| fixed.as_bytes() == database),
        })
    }

    /// The number of routes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many sessions they may have logged in ahead of need.
    pub(super) fn most_warm(&self) -> usize {
        self.0.iter().map(|route| route.warm.most()).sum()
    }

    /// The upstream of each route.
    pub(super) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.0.iter().map(|route| Arc::clone(&route.upstream)).collect()
    }
}

/// The databases that clients of a route got into.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsedDatabases(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl UsedDatabases {
    /// Notes that a client got into this database.
    pub(super) fn note(&self, name: &[u8]) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.front().is_some_and(|latest| latest == name) {
            return;
        }
        used.retain(|other| other != name);
        used.push_front(name.to_vec());
        used.truncate(MOST_DATABASES);
    }

    /// The names, that of the latest first.
    #[must_use]
    pub(crate) fn latest_first(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// How often a route's failed logins are in the log: often enough to see that it goes on, and seldom enough not to fill it.
pub(crate) const FAILURES_EVERY: Duration = Duration::from_secs(1);
/// How many are kept: a proof may have to try each of them.
const MOST_DATABASES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_databases_are_kept_each_once() {
        let used = UsedDatabases::default();
        for name in ["a", "b", "c", "a", "d", "e", "e"] {
            used.note(name.as_bytes());
        }
        assert_eq!(used.latest_first(), [b"e", b"d", b"a", b"c"]);
    }
}
