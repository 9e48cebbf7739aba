//! Why a login comes to nothing, and what its client gets instead. Floor 4.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::reasons::Reasons;
use crate::error::Chain;
use crate::error::{Blame, ClientFacing, SqlState};
use crate::metrics::LoginFailure;
use crate::postgres::protocol::{error_response, startup};
use crate::postgres::upstream::LoginError;
use crate::postgres::upstream::refusal::Refusal;

/// Why there is no session upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is no usable credential")]
    NoCredential,
    #[error("the upstream refused the credential")]
    CredentialRefused,
    #[error("the upstream refused the login")]
    Refused(Refusal),
    /// With the reason of the host that tells most.
    #[error("no upstream host let the session in")]
    Upstream(#[source] LoginError),
    #[error("the startup message cannot be sent upstream")]
    Startup(#[source] startup::Error),
}

impl Error {
    /// The word in `leasehold_login_failures_total`.
    pub(super) fn reason(&self) -> LoginFailure {
        match self {
            Self::NoCredential => LoginFailure::NoCredential,
            Self::CredentialRefused => LoginFailure::Refused,
            Self::Refused(_) => LoginFailure::UpstreamError,
            Self::Upstream(LoginError::TimedOut { .. }) => LoginFailure::Timeout,
            Self::Upstream(error) if error.is_out_of_files() => LoginFailure::Limit,
            Self::Upstream(_) => LoginFailure::Unreachable,
            Self::Startup(_) => LoginFailure::Protocol,
        }
    }

    /// Who has to act.
    pub(super) fn blame(&self) -> Blame {
        match self {
            // Whoever hands out the credentials is behind it; which of the two, its own log says.
            Self::NoCredential => Blame::Leasehold,
            Self::CredentialRefused | Self::Refused(_) => Blame::Upstream,
            Self::Upstream(error) => error.blame(),
            Self::Startup(error) => error.blame(),
        }
    }

    /// The message that the client gets: the server's own, byte for byte, where there is one.
    pub(super) fn message(&self) -> Bytes {
        let facing = match self {
            Self::Refused(refusal) => return refusal.for_client(),
            Self::Upstream(error) => error.client_facing(),
            Self::Startup(error) => error.client_facing().unwrap_or(NO_CREDENTIAL),
            Self::NoCredential => NO_CREDENTIAL,
            Self::CredentialRefused => CREDENTIAL_REFUSED,
        };
        error_response::fatal(&facing).freeze()
    }
}

/// Why there is none, and what each host that was tried said.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) reasons: Reasons,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return Chain(&self.error).fmt(f);
        }
        write!(f, "{}: {}", self.error, self.reasons)
    }
}

/// No route for these names.
pub(super) fn no_route(user: &[u8], database: &[u8]) -> ClientFacing {
    ClientFacing {
        sqlstate: SqlState::InvalidAuthorizationSpecification,
        message: Cow::Owned(format!(
            "no route for user \"{}\" and database \"{}\"",
            shown(user),
            shown(database)
        )),
        detail: None,
        hint: Some("Connect with a user and database that a configured route takes."),
    }
}

/// The upstream's address names another database.
pub(super) fn other_database(asked: &[u8]) -> ClientFacing {
    ClientFacing {
        sqlstate: SqlState::InvalidCatalogName,
        message: Cow::Owned(format!("database \"{}\" is not served here", shown(asked))),
        detail: Some("The route leads to one database, and this is not its name."),
        hint: Some("Name no database, or the one in the route's upstream address."),
    }
}

/// A limit on sessions.
pub(super) fn too_many(detail: &'static str) -> ClientFacing {
    ClientFacing {
        sqlstate: SqlState::TooManyConnections,
        message: Cow::Borrowed("too many sessions"),
        detail: Some(detail),
        hint: Some("Close sessions, or raise max_sessions."),
    }
}

/// A name as a client sent it, cut and made fit for one line.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect()
}

const NO_CREDENTIAL: ClientFacing = ClientFacing {
    sqlstate: SqlState::CannotConnectNow,
    message: Cow::Borrowed("no database credential is available yet"),
    detail: Some("None could be obtained in time."),
    hint: Some("Try again in a moment; the proxy's log and status say what is missing."),
};

const CREDENTIAL_REFUSED: ClientFacing = ClientFacing {
    sqlstate: SqlState::InvalidAuthorizationSpecification,
    message: Cow::Borrowed("the database server refused the proxy's credential"),
    detail: Some("It was refused more than once, and no fresh one was to be had in time."),
    hint: Some("Try again in a minute; the proxy's log says more."),
};
/// PostgreSQL cuts names at 63 bytes.
const SHOWN_CHARACTERS: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_are_cut_and_escaped() {
        let message = no_route(b"a\"\n\xff", &[b'x'; 100]).message;
        assert!(message.starts_with("no route for user \"a\\\"\\n\u{fffd}\" and database \"xxx"));
        assert_eq!(message.matches('x').count(), SHOWN_CHARACTERS);
    }
}
