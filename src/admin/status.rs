//! The documents of the admin address. Floor 5.

use serde::{Deserialize, Serialize};

use crate::credentials::status::{RouteStatus, VaultStatus};
use crate::session::status::SessionStatus;

/// The document of `GET /status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// leasehold's version.
    pub(crate) version: String,
    /// The state of the process.
    pub(crate) state: State,
    /// The secret server.
    pub(crate) vault: VaultStatus,
    /// All routes, in the order of the configuration.
    pub(crate) routes: Vec<RouteStatus>,
}

/// The document of `GET /sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionList {
    /// The open sessions that were asked for, the oldest first.
    pub(crate) sessions: Vec<SessionStatus>,
}

/// The state of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// `/startup` has not been true yet.
    Starting,
    /// The process serves.
    Serving,
    /// A shutdown was asked for.
    Draining,
}

impl State {
    /// The word of the document.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// The document of `POST /rotate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rotated {
    /// Each route that was asked to, in the order of the configuration.
    pub(crate) routes: Vec<RotatedRoute>,
}

/// The outcome for one route: one of the three fields is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RotatedRoute {
    /// Its name.
    pub(crate) name: String,
    /// The generation that was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    /// A static role was read, and nothing was published: its password is the same since then, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unchanged_since: Option<String>,
    /// Why nothing was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}
