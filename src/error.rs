//! What every error answers: who is to blame, and what a client may see of it. Floor 0.
//!
//! Each module that can fail has its own `Error` enum. Its text is for logs; what a client of the proxy learns is a
//! [`ClientFacing`], which holds no text of an error, so nothing foreign is ever glued into a reply.

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

/// Why a client gets no session, or loses the one that it has, by the facts alone. The protocol that it speaks has a code
/// and the words for each, which are fixed: nothing foreign gets into them but the names that the client itself sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientFacing {
    /// No route takes the names.
    NoRoute {
        /// As the client sent it.
        user: Vec<u8>,
        /// As the client sent it, or the user where it named none.
        database: Vec<u8>,
    },
    /// The upstream's address names another database.
    OtherDatabase {
        /// As the client sent it.
        named: Vec<u8>,
    },
    /// It connects from an address from which it may not.
    AddressNotAllowed,
    /// It is none of those who may use the route.
    NotAllowed(Allowed),
    /// There are as many sessions as may be.
    TooManySessions(Limited),
    /// There are as many logins in a second as may be.
    TooManyLogins(Limited),
    /// As many clients are in their handshake as may be.
    TooManyHandshakes(Limited),
    /// The file descriptors that are left are kept for leases.
    DescriptorsKept,
    /// There are no file descriptors left.
    NoDescriptors,
    /// There is no usable credential, and none came in time.
    NoCredential,
    /// The upstream refused the credential more than once, and no fresh one came in time.
    CredentialRefused,
    /// The upstream cannot be reached.
    UpstreamUnreachable,
    /// The upstream did not answer in time.
    UpstreamTimedOut,
    /// The upstream was lost during the session.
    UpstreamLost,
    /// The upstream sent bytes that are no message, during the session.
    UpstreamUnreadable,
    /// The process stops before the client is in.
    Stopping,
    /// Its session had to end.
    Ended {
        /// For what reason.
        why: Ended,
        /// Whether the session was between transactions.
        idle: bool,
    },
}

/// Whose limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    /// That of the route.
    Route,
    /// That of the listener.
    Listener,
    /// That of the process.
    Process,
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Certain users of the machine, over a Unix socket.
    Users,
    /// Certain names of client certificates.
    Certificates,
    /// Both of these.
    UsersAndCertificates,
}

/// Why a session had to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process stops.
    Shutdown,
    /// Its credential's lease was revoked or lost.
    Revoked,
    /// Its credential is being retired.
    Retired,
    /// Its credential's lease cannot be extended.
    LeaseEnd,
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
