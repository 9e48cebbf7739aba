//! Routes: who gets which upstream with which credential. Floor 6.

use std::time::Duration;

use super::error::Origin;
use crate::postgres::protocol::auth::method::RequireAuth;
use crate::postgres::upstream::uri::Uri;
use crate::session::{Access, Match};
use crate::vault::VaultPath;

/// One route, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteConfig {
    /// The name, which no other route has.
    pub(crate) name: String,
    /// The user in the StartupMessage that it is for.
    pub(crate) user: Match,
    /// The database that it is for, which is the user's name where a client names none.
    pub(crate) database: Match,
    /// The clients that it is for.
    pub(crate) access: Access,
    /// Where PostgreSQL is.
    pub(crate) upstream: UpstreamUri,
    /// Where its credential is read.
    pub(crate) vault_path: VaultPath,
    /// Publish a fresh credential at this age; longer than zero.
    pub(crate) rotate_after: Option<Duration>,
    /// Never renew past this age; longer than `rotate_after`.
    pub(crate) max_age: Option<Duration>,
    /// How long before its hard close a retired generation's sessions begin to be closed.
    pub(crate) drain: Option<Duration>,
    /// The role for each session.
    pub(crate) set_role: Option<String>,
    /// The database in which the proof runs.
    pub(crate) probe_database: Option<String>,
    /// The statements that the proof runs; they may have several lines.
    pub(crate) probe_sql: Option<String>,
    /// How many sessions there may be; 0 is no limit.
    pub(crate) max_sessions: usize,
    /// How many logins may begin in a second; 0 is no limit.
    pub(crate) logins_per_second: u32,
    /// How many sessions may be logged in ahead of need.
    pub(crate) warm: usize,
    /// Whether the sessions of clients that have left serve other clients.
    pub(crate) reuse: bool,
    /// Whether `application_name` names this process too.
    pub(crate) tag_application_name: bool,
    /// Issue at the first session; never with a static role.
    pub(crate) lazy: bool,
    /// How long a lazy route keeps its credential without a session.
    pub(crate) idle_after: Duration,
    /// Keep a second credential issued and proved; never with a static role.
    pub(crate) standby: bool,
    /// How leasehold may authenticate upstream.
    pub(crate) require_auth: RequireAuth,
}

/// A libpq URI without user and password, and where it was written. Two are equal if they lead to the same place in the
/// same way: a line that moves in the file changes no route.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamUri {
    pub(crate) uri: Uri,
    /// Where it was written.
    pub(crate) origin: Origin,
}

impl PartialEq for UpstreamUri {
    fn eq(&self, other: &Self) -> bool {
        self.uri == other.uri
    }
}

impl Eq for UpstreamUri {}
