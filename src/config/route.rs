//! Routes: who gets which upstream with which credential. Floor 6.

use std::time::Duration;

use super::error::Origin;
use super::values::Bad;
use crate::postgres::protocol::auth::method::RequireAuth;
use crate::postgres::session::Match;

/// One route, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Unique.
    pub name: String,
    /// The user in the StartupMessage that it is for.
    pub user: Match,
    /// The database that it is for, which is the user's name where a client names none.
    pub database: Match,
    /// Where PostgreSQL is.
    pub upstream: UpstreamUri,
    /// `<mount>/creds/<role>`, without slashes around.
    pub vault_path: String,
    /// Publish a fresh credential at this age; longer than zero.
    pub rotate_after: Option<Duration>,
    /// Never renew past this age; longer than `rotate_after`.
    pub max_age: Option<Duration>,
    /// How long before its hard close a retired generation's sessions begin to be closed.
    pub drain: Option<Duration>,
    /// The role for each session.
    pub set_role: Option<String>,
    /// Where the proof logs in to.
    pub probe_database: Option<String>,
    /// What the proof asks; it may have several lines.
    pub probe_sql: Option<String>,
    /// 0 is no limit.
    pub max_sessions: usize,
    /// Issue at the first session; never with a static role.
    pub lazy: bool,
    /// How long a lazy route keeps its credential without a session.
    pub idle_after: Duration,
    /// Keep a second credential issued and proved; never with a static role.
    pub standby: bool,
    /// How leasehold may authenticate upstream.
    pub require_auth: RequireAuth,
}

/// A libpq URI without user and password, and where it was written. Two are equal if their texts are: a line that moves in
/// the file changes no route.
#[derive(Clone, Debug)]
pub struct UpstreamUri {
    /// The URI, which can be parsed.
    pub text: String,
    /// Its place.
    pub origin: Origin,
}

impl PartialEq for UpstreamUri {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for UpstreamUri {}

/// Checks an upstream URI. Its reason never repeats the URI: it may hold a password that does not belong there.
pub(super) fn validate_upstream(uri: &str) -> Result<(), Bad> {
    match crate::postgres::upstream::uri::Uri::parse(uri) {
        Ok(_) => Ok(()),
        Err(error) => Err(Bad(error.to_string())),
    }
}
