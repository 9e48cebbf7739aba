//! What `/status` shows. Floor 3. Times are RFC 3339 in UTC, spans are seconds.

use serde::{Deserialize, Serialize};

use crate::lease::NextAction;
use crate::vault::Standing;

/// One route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RouteStatus {
    /// Its name.
    pub(crate) name: String,
    /// The user name that its clients write, or `*`.
    #[serde(default)]
    pub(crate) user: String,
    /// The database that its clients ask for, or `*`; that of the upstream's URI where it names one.
    #[serde(default)]
    pub(crate) database: String,
    /// Its servers, `host:port` or the path of a socket each, with commas.
    #[serde(default)]
    pub(crate) upstream: String,
    /// Where its credential comes from.
    pub(crate) vault_path: String,
    /// `dynamic` or `static`.
    pub(crate) kind: String,
    /// Whether it has a usable credential, and sessions can log in with it as far as is known.
    pub(crate) ready: bool,
    /// Time to the latest hard close of a usable credential; null for a static role, whose password has no end, and for
    /// a lazy route without sessions.
    pub(crate) runway_seconds: Option<f64>,
    /// Sessions of all its generations.
    pub(crate) sessions: usize,
    /// What it does next by itself.
    pub(crate) next_action: NextAction,
    /// When; null where it does nothing.
    pub(crate) next_action_at: Option<String>,
    /// The latest error, if there was one.
    pub(crate) last_error: Option<LastError>,
    /// Why it has had no fresh credential since the latest that it was given; null after one came. An error of another kind, such as
    /// that of a revocation, does not take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credential_error: Option<LastError>,
    /// Why no server gave a session to the latest login of a proof or a client, and when that was; null once one does. It
    /// passes by itself, and does not make the route unready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upstream_error: Option<LastError>,
    /// Whether the state file lacks what the route holds, as it cannot be written.
    #[serde(default)]
    pub(crate) unsaved: bool,
    /// Its generations, oldest first.
    pub(crate) generations: Vec<GenerationStatus>,
}

/// The latest error of a route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LastError {
    /// When it happened.
    pub(crate) at: String,
    /// A fixed phrase, with the database's SQLSTATE where there is one.
    pub(crate) kind: String,
    /// The cause in words for people, one line without secrets: what Vault, a server or the network said.
    #[serde(default)]
    pub(crate) reason: String,
    /// Whether what failed has worked since.
    #[serde(default)]
    pub(crate) past: bool,
}

impl LastError {
    /// The reason, or the phrase of a leasehold that gives none.
    #[must_use]
    pub(crate) fn words(&self) -> &str {
        if self.reason.is_empty() { &self.kind } else { &self.reason }
    }
}

/// One generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GenerationStatus {
    /// Counts from 1 per route and process.
    pub(crate) generation: u64,
    /// `candidate`, `standby`, `current`, `retiring` or `lost`.
    pub(crate) state: String,
    /// The last eight characters of the lease_id.
    pub(crate) lease_id: String,
    /// The role in the database.
    pub(crate) username: String,
    /// When its creds request was sent.
    pub(crate) issued_at: String,
    /// When its sessions are closed at the latest; null for a static role.
    pub(crate) ends_at: Option<String>,
    /// When its sessions begin to be closed between transactions; null while it has no successor.
    pub(crate) drain_at: Option<String>,
    /// How often it has been renewed.
    pub(crate) renewals: u32,
    /// Its sessions.
    pub(crate) sessions: usize,
}

/// Vault, as `/status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VaultStatus {
    /// The address that answered last, or the first one.
    pub(crate) addr: String,
    /// Whether Vault answered the latest request, and serves.
    pub(crate) reachable: bool,
    /// Why it is not, where it answered: `sealed` or `not serving`. `not asked yet` before the first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
    /// When Vault last answered with success.
    pub(crate) last_success: Option<String>,
}

impl VaultStatus {
    /// Whether a request has been sent to Vault, so that something is known of it.
    #[must_use]
    pub(crate) fn was_asked(&self) -> bool {
        self.trouble.as_deref() != Some(Standing::NotAsked.as_str())
    }
}
