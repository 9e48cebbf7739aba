//! The error that leasehold sends in place of a session, or at its end. Floor 1.

use std::borrow::Cow;

use crate::error::{Allowed, ClientFacing, Ended, Limited};

/// An error of leasehold itself: always `FATAL`, with a SQLSTATE and fixed text.
///
/// `message` may name what the client itself sent (user, database). It has a server's text only if that came as plain
/// text, which cannot be forwarded as a message. It never has other text from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fatal {
    pub(crate) sqlstate: SqlState,
    /// One line, lower case, no full stop.
    pub(crate) message: Cow<'static, str>,
    /// One sentence about the cause.
    pub(crate) detail: Option<&'static str>,
    /// One sentence about what the user can do.
    pub(crate) hint: Option<&'static str>,
}

/// A SQLSTATE that leasehold itself sends.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqlState {
    /// 57P03: no usable credential is available.
    CannotConnectNow,
    /// 57P01: the lease ended or was lost, or the process shuts down.
    AdminShutdown,
    /// 08001: the upstream cannot be reached.
    SqlclientUnableToEstablishSqlconnection,
    /// 08006: the connection to the upstream was lost.
    ConnectionFailure,
    /// 08P01: the client or the upstream broke the protocol.
    ProtocolViolation,
    /// 53300: a limit on sessions or file descriptors is reached.
    TooManyConnections,
    /// 28000: no route matches, or the upstream refused the credential twice.
    InvalidAuthorizationSpecification,
    /// 3D000: the database is not the one in the upstream URI.
    InvalidCatalogName,
    /// 0A000: leasehold does not support the protocol.
    FeatureNotSupported,
}

impl SqlState {
    /// The SQLSTATE if the upstream accepts no session.
    pub(crate) const UNABLE: Self = Self::SqlclientUnableToEstablishSqlconnection;

    /// The five-character code.
    #[must_use]
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::CannotConnectNow => "57P03",
            Self::AdminShutdown => "57P01",
            Self::SqlclientUnableToEstablishSqlconnection => "08001",
            Self::ConnectionFailure => "08006",
            Self::ProtocolViolation => "08P01",
            Self::TooManyConnections => "53300",
            Self::InvalidAuthorizationSpecification => "28000",
            Self::InvalidCatalogName => "3D000",
            Self::FeatureNotSupported => "0A000",
        }
    }
}

impl From<ClientFacing> for Fatal {
    fn from(facing: ClientFacing) -> Self {
        use SqlState as Code;
        let (sqlstate, message, detail, hint): (_, Cow<'static, str>, _, _) = match facing {
            ClientFacing::NoRoute { user, database } => {
                let (user, database) = (shown(&user), shown(&database));
                let message = format!("no route for user \"{user}\" and database \"{database}\"");
                let hint = if database == "leasehold" { CONSOLE } else { CONFIGURED_NAMES };
                (Code::InvalidAuthorizationSpecification, message.into(), None, Some(hint))
            }
            ClientFacing::OtherDatabase { named } => {
                let message = format!("database \"{}\" is not served here", shown(&named));
                let hint = if *named == *b"leasehold" { CONSOLE } else { ITS_NAME };
                (Code::InvalidCatalogName, message.into(), Some(ONE_DATABASE), Some(hint))
            }
            ClientFacing::AddressNotAllowed => {
                (Code::InvalidAuthorizationSpecification, NOT_FROM.into(), None, Some(LIST_ADDRESSES))
            }
            ClientFacing::NotAllowed(allowed) => for_whom(allowed),
            ClientFacing::TooManySessions(whose) => beyond(whose, TOO_MANY, CLOSE_SESSIONS),
            ClientFacing::TooManyLogins(whose) => beyond(whose, TOO_FAST, POOL),
            ClientFacing::TooManyHandshakes(whose) => beyond(whose, HANDSHAKES, RAISE_HANDSHAKES),
            ClientFacing::DescriptorsKept => {
                (Code::TooManyConnections, NO_DESCRIPTORS.into(), Some(KEPT), Some(RAISE_LIMIT))
            }
            ClientFacing::NoDescriptors => {
                (Code::TooManyConnections, NO_DESCRIPTORS.into(), None, Some(RAISE_LIMIT))
            }
            ClientFacing::NoCredential => {
                (Code::CannotConnectNow, NO_CREDENTIAL.into(), Some(NOT_IN_TIME), Some(IN_A_MOMENT))
            }
            ClientFacing::CredentialRefused => {
                (Code::InvalidAuthorizationSpecification, REFUSED.into(), Some(TWICE), Some(IN_A_MINUTE))
            }
            ClientFacing::UpstreamUnreachable => (Code::UNABLE, UNREACHABLE.into(), None, None),
            ClientFacing::UpstreamTimedOut => (Code::UNABLE, TIMED_OUT.into(), None, None),
            ClientFacing::UpstreamLost => in_midst(Code::ConnectionFailure, LOST),
            ClientFacing::UpstreamUnreadable => in_midst(Code::ProtocolViolation, UNREADABLE),
            ClientFacing::Stopping => {
                let (message, _, hint) = ended(Ended::Shutdown);
                (Code::AdminShutdown, message.into(), None, Some(hint))
            }
            ClientFacing::Ended { why, idle } => {
                let (message, detail, hint) = ended(why);
                let detail = if idle { NOT_RUN } else { detail };
                (Code::AdminShutdown, message.into(), Some(detail), Some(hint))
            }
        };
        Self { sqlstate, message, detail, hint }
    }
}

/// The parts of the error for a client whose server has gone, or must go, in the midst of a session.
fn in_midst(
    code: SqlState,
    message: &'static str,
) -> (SqlState, Cow<'static, str>, Option<&'static str>, Option<&'static str>) {
    (code, message.into(), Some(NOT_KNOWN), Some(LOOK_FIRST))
}

/// The parts of the error for a client that a route is not for.
fn for_whom(allowed: Allowed) -> (SqlState, Cow<'static, str>, Option<&'static str>, Option<&'static str>) {
    let (detail, hint) = match allowed {
        Allowed::Users => (
            "It is for certain users of the proxy's machine, over its Unix socket.",
            "Connect over the Unix socket as a user in allow_uids, or with a group in allow_gids.",
        ),
        Allowed::Certificates => (
            "It is for certain client certificates.",
            "Show a certificate with a subject alternative name in client_san: sslcert and sslkey in libpq's words.",
        ),
        Allowed::UsersAndCertificates => (
            "It is for certain users of the proxy's machine, and for certain client certificates.",
            "Connect over the Unix socket as a user in allow_uids or with a group in allow_gids, or show a \
             certificate with a subject alternative name in client_san.",
        ),
    };
    (SqlState::InvalidAuthorizationSpecification, NOT_FOR.into(), Some(detail), Some(hint))
}

/// Returns message, detail and hint.
fn ended(why: Ended) -> (&'static str, &'static str, &'static str) {
    match why {
        Ended::Shutdown => {
            ("terminating connection because the proxy is shutting down", NOT_KNOWN, ANOTHER_INSTANCE)
        }
        Ended::Revoked => (
            "terminating connection because its database credential is no longer valid",
            "The lease of the credential that this session logged in with was revoked or lost.",
            RECONNECT,
        ),
        Ended::Retired => {
            ("terminating connection because its database credential is being retired", NOT_RUN, RECONNECT)
        }
        Ended::LeaseEnd => (
            "terminating connection because its database credential has come to its end",
            "The lease of the credential that this session logged in with cannot be extended.",
            RECONNECT,
        ),
    }
}

/// The parts of the error for a client that is beyond a limit.
fn beyond(
    whose: Limited,
    message: &'static str,
    hint: &'static str,
) -> (SqlState, Cow<'static, str>, Option<&'static str>, Option<&'static str>) {
    let detail = match whose {
        Limited::Route => "The route has as many as it may.",
        Limited::Listener => "This listener has as many as it may.",
        Limited::Process => "The proxy has as many as it may.",
    };
    (SqlState::TooManyConnections, message.into(), Some(detail), Some(hint))
}

/// Truncates and escapes a name that a client sent, so that it fits on one line.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect()
}

const CONFIGURED_NAMES: &str = "Connect with a user and database that a configured route takes.";
const ONE_DATABASE: &str = "The route leads to one database, and this is not its name.";
const CONSOLE: &str = "The console of this name is on a Unix socket, or also on TCP with console = \"all\".";
const ITS_NAME: &str = "Name no database, or the one in the route's upstream address.";
const NOT_FROM: &str = "connections from this address are not allowed";
const LIST_ADDRESSES: &str = "allow_addresses lists the addresses that clients may connect from.";
const NOT_FOR: &str = "the route is not for this client";
const TOO_MANY: &str = "too many sessions";
const CLOSE_SESSIONS: &str = "Close sessions, or raise max_sessions.";
const TOO_FAST: &str = "too many logins in a second";
const POOL: &str = "Keep connections in a pool, or raise logins_per_second.";
const HANDSHAKES: &str = "too many clients have connected and not yet said what they want";
const RAISE_HANDSHAKES: &str = "Try again in a moment, or raise max_handshakes.";
const NO_DESCRIPTORS: &str = "the proxy has no file descriptors left";
const KEPT: &str = "Those that are left are kept for the leases of the sessions that there are.";
const RAISE_LIMIT: &str = "Close sessions, or raise the proxy's limit of open files: a session needs two.";
const NO_CREDENTIAL: &str = "no database credential is available yet";
const NOT_IN_TIME: &str = "None could be obtained in time.";
const IN_A_MOMENT: &str = "Try again in a moment; the proxy's log and status say what is missing.";
const REFUSED: &str = "the database server refused the proxy's credential";
const TWICE: &str = "It was refused more than once, and no fresh one was to be had in time.";
const IN_A_MINUTE: &str = "Try again in a minute; the proxy's log says more.";
const UNREACHABLE: &str = "cannot reach the upstream server";
const TIMED_OUT: &str = "the upstream server did not answer in time";
const LOST: &str = "the connection to the database server was lost";
const UNREADABLE: &str = "the database server sent bytes that are no message";
const NOT_KNOWN: &str = "Whether a statement that was running took effect is not known.";
const LOOK_FIRST: &str = "Reconnect, and look before you repeat.";
const NOT_RUN: &str = "The session was between transactions; nothing sent since then was run.";
const RECONNECT: &str = "Reconnect: a new session logs in with the current credential.";
const ANOTHER_INSTANCE: &str = "Reconnect: another instance may be ready.";
/// PostgreSQL truncates names to 63 bytes.
const SHOWN_CHARACTERS: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_are_cut_and_escaped() {
        let facing = ClientFacing::NoRoute { user: b"a\"\n\xff".to_vec(), database: vec![b'x'; 100] };
        let message = Fatal::from(facing).message;
        assert!(message.starts_with("no route for user \"a\\\"\\n\u{fffd}\" and database \"xxx"));
        assert_eq!(message.matches('x').count(), SHOWN_CHARACTERS);
    }

    #[test]
    fn who_looks_for_the_console_is_told_where_it_is() {
        let hint = |database: &[u8]| {
            Fatal::from(ClientFacing::NoRoute { user: b"me".to_vec(), database: database.to_vec() }).hint
        };
        assert_eq!((hint(b"leasehold"), hint(b"app")), (Some(CONSOLE), Some(CONFIGURED_NAMES)));
    }

    /// The part of a message that names are not in, without what several messages begin with.
    fn own_words(message: &str) -> &str {
        let begins =
            ["terminating connection because its database credential ", "terminating connection because "];
        let rest = begins.iter().find_map(|begin| message.strip_prefix(begin)).unwrap_or(message);
        rest.split('"').map(str::trim).max_by_key(|part| part.len()).unwrap()
    }

    #[test]
    fn every_error_has_a_line_in_the_documents_for_those_who_meet_it() {
        let name = || b"app".to_vec();
        let ended = |why| ClientFacing::Ended { why, idle: false };
        let all = [
            ClientFacing::NoRoute { user: name(), database: name() },
            ClientFacing::OtherDatabase { named: name() },
            ClientFacing::AddressNotAllowed,
            ClientFacing::NotAllowed(Allowed::Users),
            ClientFacing::TooManySessions(Limited::Route),
            ClientFacing::DescriptorsKept,
            ClientFacing::NoCredential,
            ClientFacing::CredentialRefused,
            ClientFacing::UpstreamUnreachable,
            ClientFacing::UpstreamTimedOut,
            ClientFacing::UpstreamLost,
            ClientFacing::UpstreamUnreadable,
            ClientFacing::Stopping,
            ended(Ended::Revoked),
            ended(Ended::Retired),
            ended(Ended::LeaseEnd),
        ];
        let page = include_str!("../../../docs/troubleshooting.md");
        for facing in all {
            let fatal = Fatal::from(facing);
            let (code, words) = (fatal.sqlstate.code(), own_words(&fatal.message));
            let is_it = |line: &str| line.contains(&format!("`{code} ")) && line.contains(words);
            assert!(page.lines().any(is_it), "{code} {words}");
            assert!(
                page.contains(&format!("| `{code}`")) || page.contains(&format!("`, `{code}`")),
                "{code}"
            );
        }
    }

    #[test]
    fn a_session_at_rest_is_told_that_nothing_was_run() {
        for why in [Ended::Shutdown, Ended::Revoked, Ended::Retired, Ended::LeaseEnd] {
            let fatal = Fatal::from(ClientFacing::Ended { why, idle: true });
            assert_eq!((fatal.sqlstate.code(), fatal.detail), ("57P01", Some(NOT_RUN)));
        }
        assert_eq!(Fatal::from(ClientFacing::Stopping).detail, None);
    }
}
