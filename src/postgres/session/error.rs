//! Why a login fails, and what its client gets instead. Floor 4.

use std::fmt;

use bytes::Bytes;

use super::reasons::Reasons;
use crate::error::{Blame, Chain, ClientFacing};
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

    /// Whether no server gives sessions at present, to whichever client.
    pub(super) fn is_of_servers(&self) -> bool {
        match self {
            Self::Upstream(error) => error.blame() == Blame::Upstream,
            // A database with a CONNECTION LIMIT of its own is full for its clients alone.
            Self::Refused(refusal) => {
                (refusal.is_full() && !refusal.is_of_database()) || refusal.is_not_ready()
            }
            Self::NoCredential | Self::CredentialRefused | Self::Startup(_) => false,
        }
    }

    /// Who has to act.
    pub(super) fn blame(&self) -> Blame {
        match self {
            // The log of the credentials' driver says why.
            Self::NoCredential => Blame::Leasehold,
            Self::CredentialRefused | Self::Refused(_) => Blame::Upstream,
            Self::Upstream(error) => error.blame(),
            Self::Startup(error) => error.blame(),
        }
    }

    /// The message that the client gets: the server's own, byte for byte, where there is one.
    pub(super) fn message(&self) -> Bytes {
        let fatal = match self {
            Self::Refused(refusal) => return refusal.for_client(),
            Self::Upstream(error) => error.fatal(),
            Self::Startup(error) => error.fatal().unwrap_or_else(|| ClientFacing::NoCredential.into()),
            Self::NoCredential => ClientFacing::NoCredential.into(),
            Self::CredentialRefused => ClientFacing::CredentialRefused.into(),
        };
        error_response::fatal(&fatal).freeze()
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
