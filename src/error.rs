//! What every error answers: who is to blame, and what a client may see of it. Floor 0.
//!
//! Each module that can fail has its own `Error` enum. Its text is for logs; what a client of the proxy sees is a
//! [`ClientFacing`], made of fixed text only, so nothing foreign is ever glued into a reply.

use std::borrow::Cow;
use std::fmt;

/// Who has to act to mend an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The client of the proxy sent something wrong, or went away.
    Client,
    /// The upstream server refused, failed or could not be reached.
    Upstream,
    /// Vault refused, failed or could not be reached.
    Vault,
    /// The configuration is wrong.
    Config,
    /// A fault of leasehold itself, or of the machine it runs on.
    Leasehold,
}

impl Blame {
    /// The word used in logs and metrics.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Vault => "vault",
            Self::Config => "config",
            Self::Leasehold => "leasehold",
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A SQLSTATE that leasehold itself sends.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqlState {
    /// 57P03: no usable credential.
    CannotConnectNow,
    /// 57P01: lease end, lost lease, shutdown.
    AdminShutdown,
    /// 08001: the upstream cannot be reached.
    SqlclientUnableToEstablishSqlconnection,
    /// 08006: the upstream was lost.
    ConnectionFailure,
    /// 08P01: the client broke the protocol.
    ProtocolViolation,
    /// 53300: a limit on sessions.
    TooManyConnections,
    /// 28000: no route, or a credential refused twice.
    InvalidAuthorizationSpecification,
    /// 3D000: another database than the one in the upstream URI.
    InvalidCatalogName,
    /// 0A000: a protocol that leasehold does not speak.
    FeatureNotSupported,
}

impl SqlState {
    /// The five characters.
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

/// What a client sees of an error: always `FATAL`, a SQLSTATE, and text that leasehold wrote.
///
/// `message` may name what the client itself sent (user, database), never what Vault said; and what
/// a server said only where that came as plain text, which no message of the protocol could carry on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFacing {
    /// The SQLSTATE.
    pub(crate) sqlstate: SqlState,
    /// One line, lower case, no full stop.
    pub(crate) message: Cow<'static, str>,
    /// Why, in a sentence.
    pub(crate) detail: Option<&'static str>,
    /// What to do, in a sentence.
    pub(crate) hint: Option<&'static str>,
}

/// An error and all that caused it, in one line. An error's own text leaves its source out, so that nothing is said twice.
pub(crate) struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
