//! The settings of a route for its leases. Floor 1.

use std::time::Duration;

/// The settings of a route for its leases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    /// A fresh credential is published at this age.
    pub(crate) rotate_after: Option<Duration>,
    /// A generation is not renewed past this age.
    pub(crate) max_age: Option<Duration>,
    /// How long before the hard close sessions begin to be closed.
    pub(crate) drain: Option<Duration>,
    /// How long a successor must be published before an earlier lease is given back; zero if there is one upstream
    /// address.
    pub(crate) replica_grace: Duration,
    /// Only for a lazy route: nothing is issued before a session needs it, and a credential is given back after this
    /// time without a session.
    pub(crate) lazy: Option<Duration>,
    /// Whether a second credential stands by.
    pub(crate) standby: bool,
    /// The number of grants out of turn that may come at once.
    pub(crate) issue_burst: u32,
    /// The time after which another grant out of turn is allowed.
    pub(crate) issue_interval: Duration,
    /// The seed of the jitter; 0 means no jitter.
    pub(crate) seed: u64,
}

impl Settings {
    /// The settings of a route for which nothing is configured.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rotate_after: None,
            max_age: None,
            drain: None,
            replica_grace: Duration::ZERO,
            lazy: None,
            standby: false,
            issue_burst: 3,
            issue_interval: Duration::from_mins(1),
            seed,
        }
    }
}
