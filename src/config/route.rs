//! Routes: who gets which upstream with which credential. Floor 6.

use std::time::Duration;

use super::error::Origin;
use super::values::{self, Bad};
use crate::postgres::protocol::auth::method::RequireAuth;

/// One route, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Unique.
    pub name: String,
    /// Which clients it is for.
    pub matching: Match,
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

/// Which clients a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The user in the StartupMessage.
    pub user: Pattern,
    /// Its database, or its user where it names none.
    pub database: Pattern,
}

impl Match {
    /// Whether a client that asks for this is meant.
    #[must_use]
    pub fn accepts(&self, user: &[u8], database: &[u8]) -> bool {
        self.user.accepts(user) && self.database.accepts(database)
    }
}

/// A name, or every name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Written `*`.
    Any,
    /// This name, byte for byte.
    Exactly(String),
}

impl Pattern {
    /// Whether this name is meant.
    #[must_use]
    pub fn accepts(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => wanted.as_bytes() == name,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Bad> {
        match text {
            "*" => Ok(Self::Any),
            text => values::text(text).map(Self::Exactly),
        }
    }
}

/// Checks an upstream URI. Its reason never repeats the URI: it may hold a password that does not belong there.
pub(super) fn validate_upstream(uri: &str) -> Result<String, Bad> {
    match crate::postgres::upstream::uri::Uri::parse(uri) {
        Ok(_) => Ok(uri.to_owned()),
        Err(error) => Err(Bad(error.to_string())),
    }
}
