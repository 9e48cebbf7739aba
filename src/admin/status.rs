//! The documents of the admin address. Floor 5.

use serde::{Deserialize, Serialize};

use crate::credentials::status::{RouteStatus, VaultStatus};

/// What `GET /status` gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// leasehold's own.
    pub version: String,
    /// How far the process is.
    pub state: State,
    /// The secret server.
    pub vault: VaultStatus,
    /// All routes, in the order of the configuration.
    pub routes: Vec<RouteStatus>,
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// `/startup` has not been true yet.
    Starting,
    /// It serves.
    Serving,
    /// A shutdown was asked for.
    Draining,
}

impl State {
    /// The word of the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// What `POST /rotate` gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rotated {
    /// Each route that was asked to, in the order of the configuration.
    pub routes: Vec<RotatedRoute>,
}

/// What became of one route: one of the three is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RotatedRoute {
    /// Its name.
    pub name: String,
    /// The generation that was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// A static role was read, and nothing was published: its password is the same since then, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged_since: Option<String>,
    /// Why none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
