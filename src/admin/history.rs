//! The document of `GET /history`: what has happened in the last hour. Floor 5.

use serde::Serialize;

use super::Process;
use crate::clock;
use crate::credentials::{BIN, RouteHistory, SPAN};

/// What has happened in the last hour, as far as it is remembered.
#[derive(Debug, Serialize)]
pub(crate) struct History {
    /// The time of the answer, RFC 3339 in UTC, as all times here.
    now: String,
    /// How far it goes back.
    span_seconds: u64,
    /// How long the bins are.
    bin_seconds: u64,
    /// Since when the secret server was in which state; empty before the first request.
    vault: Vec<VaultChange>,
    /// All routes, in the order of the configuration.
    routes: Vec<RouteHistory>,
}

/// The secret server is in this state since then.
#[derive(Debug, Serialize)]
pub(crate) struct VaultChange {
    pub(crate) at: String,
    /// `serving`, `sealed`, `not serving` or `unreachable`.
    pub(crate) state: &'static str,
}

impl Process {
    /// The document.
    pub(super) fn history(&self) -> History {
        History {
            now: humantime::format_rfc3339_millis(clock::wall()).to_string(),
            span_seconds: SPAN.as_secs(),
            bin_seconds: BIN.as_secs(),
            vault: (self.readings.vault_changes)(),
            routes: self.routes().iter().map(|route| route.history()).collect(),
        }
    }
}
