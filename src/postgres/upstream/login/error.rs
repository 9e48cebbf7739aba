//! Why a login at a server came to nothing: whom to blame, what a client may see, and whether another way may do. Floor 2.

use std::io;
use std::time::Duration;

use crate::crypto;
use crate::error::{Blame, ClientFacing};
use crate::postgres::protocol::auth;
use crate::postgres::protocol::fatal::{Fatal, SqlState};
use crate::postgres::upstream::conversation::{Failure, Fault};
use crate::postgres::upstream::refusal::Refusal;
use crate::postgres::upstream::tls::{self, Tls};
use crate::socket::Address;

/// Why there is no session upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection.
    #[error("cannot reach the upstream server")]
    Unreachable(#[source] io::Error),
    /// No TLS, where it must be.
    #[error("no TLS with the upstream server")]
    Tls(#[from] tls::Error),
    /// Not in time.
    #[error("upstream server was not ready within {within:?}")]
    TimedOut {
        /// The time it had.
        within: Duration,
        /// Whether it had been sent the StartupMessage by then.
        connected: bool,
    },
    /// The server is not of the kind that `target_session_attrs` asks for; the session with it has been ended.
    #[error("upstream server is not what target_session_attrs asks for")]
    Unsuitable(Address),
    /// The server said no.
    #[error("upstream server refused with {}", .0.sqlstate())]
    Refused(Refusal),
    /// No agreement on how to authenticate.
    #[error("cannot authenticate at the upstream server")]
    Auth(#[source] auth::Error),
    /// This machine has no thread left to derive SCRAM's keys on.
    #[error("cannot derive the keys of the password")]
    NoKeys(#[source] io::Error),
    /// The server gave its reason in plain text, as PostgreSQL does where it cannot start a process.
    #[error("upstream server could not begin a session, and said: {words}")]
    Said {
        /// One line, cleaned and cut. It came before anything secret was sent.
        words: String,
    },
    /// The server broke the protocol.
    #[error("upstream server broke the protocol")]
    Protocol(#[source] Fault),
    /// The server closed without a word.
    #[error("upstream server closed the connection during the login")]
    Closed,
    /// The connection broke.
    #[error("connection to the upstream server was lost during the login")]
    Lost(#[source] io::Error),
}

impl Error {
    /// Whether the credential itself may be at fault.
    #[must_use]
    pub(crate) fn is_suspect(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_suspect())
    }

    /// Whether the next attempt will fail in the same way, as long as nobody changes a setting: the two ends do not agree on
    /// TLS, or on how to authenticate.
    #[must_use]
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Tls(error) => error.is_lasting(),
            Self::Auth(_) => true,
            _ => false,
        }
    }

    /// The address of the server that refused or does not suit; `None` for other errors.
    #[must_use]
    pub(crate) fn address(&self) -> Option<&Address> {
        match self {
            Self::Refused(refusal) => refusal.address.as_ref(),
            Self::Unsuitable(address) => Some(address),
            _ => None,
        }
    }

    pub(super) fn at(mut self, address: &Address) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.address = Some(address.clone());
        }
        self
    }

    /// Whether it is for want of file descriptors, of this process or of its machine, and says nothing of the server.
    #[must_use]
    pub(crate) fn is_out_of_files(&self) -> bool {
        let kinds = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(rustix::io::Errno::raw_os_error);
        matches!(self, Self::Unreachable(error) if error.raw_os_error().is_some_and(|raw| kinds.contains(&raw)))
    }

    /// Who has to act.
    #[must_use]
    pub(crate) fn blame(&self) -> Blame {
        if self.is_out_of_files() || matches!(self, Self::NoKeys(_)) {
            Blame::Leasehold
        } else {
            Blame::Upstream
        }
    }

    /// What a client may see. A refusal that is not suspect has its own frame, which goes to the client instead.
    #[must_use]
    pub(crate) fn fatal(&self) -> Fatal {
        let (sqlstate, message, hint) = match self {
            _ if self.is_out_of_files() => return ClientFacing::NoDescriptors.into(),
            Self::Unreachable(_) => return ClientFacing::UpstreamUnreachable.into(),
            Self::TimedOut { .. } => return ClientFacing::UpstreamTimedOut.into(),
            Self::Unsuitable(_) => (
                SqlState::UNABLE,
                "no upstream server is what target_session_attrs asks for",
                Some("Check which of the upstream's hosts are standbys or read-only."),
            ),
            Self::Said { words } => return cannot_begin(words),
            Self::Protocol(Fault::Other(_)) | Self::Tls(tls::Error::Other(_)) => {
                (SqlState::UNABLE, "no PostgreSQL server answers at the upstream address", Some(SEE_LOG))
            }
            Self::Tls(tls::Error::Said { .. }) => (
                SqlState::UNABLE,
                "the upstream server answered the request for TLS with an error",
                Some(SEE_LOG),
            ),
            Self::Tls(_) => (SqlState::UNABLE, "no TLS with the upstream server", Some(SEE_LOG)),
            Self::Auth(_) => (SqlState::UNABLE, "cannot authenticate at the upstream server", Some(SEE_LOG)),
            Self::Refused(refusal) if refusal.is_suspect() => (
                SqlState::InvalidAuthorizationSpecification,
                "the upstream server refused the credential",
                Some(SEE_LOG),
            ),
            Self::Refused(_) => (SqlState::UNABLE, "the upstream server refused the session", Some(SEE_LOG)),
            Self::NoKeys(_) => {
                (SqlState::UNABLE, "the proxy has no thread left to log in with", Some(SEE_LOG))
            }
            Self::Protocol(_) => {
                (SqlState::ConnectionFailure, "the upstream server broke the protocol", None)
            }
            Self::Closed | Self::Lost(_) => {
                (SqlState::ConnectionFailure, "the upstream server closed the connection", None)
            }
        };
        Fatal { sqlstate, message: message.into(), detail: None, hint }
    }

    /// With TLS 1.3 a server judges our certificate only after our side of the handshake is over; and its alert is lost where
    /// it closes before it has read the StartupMessage.
    pub(super) fn may_be_about_certificates(&self, tls: &Tls) -> bool {
        match self {
            Self::Tls(error) => error.is_about_certificates(),
            Self::Lost(error) => match crypto::of_rustls(error) {
                Some(error) => crypto::is_about_certificates(error),
                None => tls.connector.shows_client(),
            },
            Self::Closed => tls.connector.shows_client(),
            _ => false,
        }
    }

    pub(super) fn may_be_about_tls(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Auth(auth::Error::Cleartext) => true,
            Self::Refused(refusal) => refusal.may_be_about_tls(),
            _ => false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => Self::Refused(refusal),
            Failure::Auth(error) => Self::Auth(error),
            Failure::NoKeys(error) => Self::NoKeys(error),
            Failure::Said(words) => Self::Said { words },
            Failure::Protocol(fault) => Self::Protocol(fault),
            Failure::Closed => Self::Closed,
            Failure::Lost(error) => Self::Lost(error),
        }
    }
}

/// The server's words, which came in plain text, as a message.
fn cannot_begin(words: &str) -> Fatal {
    let message = if words.is_empty() { "the upstream server could not begin a session" } else { words };
    Fatal {
        sqlstate: SqlState::UNABLE,
        message: message.to_owned().into(),
        detail: Some(
            "The upstream server said so in plain text, as it does where it cannot start a process.",
        ),
        hint: None,
    }
}

const SEE_LOG: &str = "The log of leasehold says why.";
