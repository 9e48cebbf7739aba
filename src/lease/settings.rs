//! What a route's configuration says of its lease. Floor 1.

use std::time::Duration;

/// What a route's configuration says of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    /// A fresh credential is published at this age.
    pub(crate) rotate_after: Option<Duration>,
    /// A generation is not renewed past this age.
    pub(crate) max_age: Option<Duration>,
    /// How long before the hard close sessions begin to be closed.
    pub(crate) drain: Option<Duration>,
    /// How long a successor must be published before an earlier lease is given back; zero with one upstream address.
    pub(crate) replica_grace: Duration,
    /// Of a lazy route: nothing is issued before a session asks for it, and what there is is given back after so long
    /// without one.
    pub(crate) lazy: Option<Duration>,
    /// Whether a second credential stands by.
    pub(crate) standby: bool,
    /// Grants out of turn at once.
    pub(crate) issue_burst: u32,
    /// One more grant out of turn each.
    pub(crate) issue_interval: Duration,
    /// Of the jitter; 0 is none.
    pub(crate) seed: u64,
}
