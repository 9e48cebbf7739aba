//! Why a login at a server failed: whom to blame, what a client may see, and whether to try in another way. Floor 2.

use std::io;
use std::time::Duration;

use crate::crypto;
use crate::error::{Blame, ClientFacing};
use crate::postgres::protocol::auth;
use crate::postgres::protocol::fatal::{Fatal, SqlState};
use crate::postgres::upstream::conversation::{Failure, Fault};
use crate::postgres::upstream::refusal::Refusal;
use crate::postgres::upstream::tls::{self, Tls};
use crate::secret::Secret;
use crate::socket::Address;

/// Why there is no upstream session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection could be made.
    #[error("cannot reach the upstream server")]
    Unreachable(#[source] io::Error),
    /// TLS could not be established.
    #[error("no TLS with the upstream server")]
    Tls(#[from] tls::Error),
    /// The login was not complete in time.
    #[error("upstream server was not ready within {within:?}")]
    TimedOut {
        /// The time limit.
        within: Duration,
        /// Whether the login had reached the StartupMessage by then.
        connected: bool,
    },
    /// The server does not match `target_session_attrs`; the session with it has been ended.
    #[error("upstream server is not what target_session_attrs asks for")]
    Unsuitable(Address),
    /// The server sent an ErrorResponse.
    #[error("upstream server refused with {}", .0.shown())]
    Refused(Refusal),
    /// The two sides do not agree on authentication.
    #[error("cannot authenticate at the upstream server")]
    Auth(#[source] auth::Error),
    /// This machine has no thread left to derive the SCRAM keys.
    #[error("cannot derive the keys of the password")]
    NoKeys(#[source] io::Error),
    /// The server gave its reason in plain text, as PostgreSQL does if it cannot start a process.
    #[error("upstream server could not begin a session, and said: {words}")]
    Said {
        /// One line, cleaned and truncated. It came before anything secret was sent.
        words: String,
    },
    /// The server broke the protocol.
    #[error("upstream server broke the protocol")]
    Protocol(#[source] Fault),
    /// The server closed the connection without an error.
    #[error("upstream server closed the connection during the login")]
    Closed,
    /// The connection was lost.
    #[error("connection to the upstream server was lost during the login")]
    Lost(#[source] io::Error),
}

impl Error {
    /// Whether the credential itself may be at fault.
    #[must_use]
    pub(crate) fn is_suspect(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_suspect())
    }

    /// Whether each attempt fails in the same way until a setting changes: the two sides do not agree on TLS or on
    /// authentication.
    #[must_use]
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Tls(error) => error.is_lasting(),
            Self::Auth(_) => true,
            _ => false,
        }
    }

    /// The address of the server that refused or did not match; `None` for other errors.
    #[must_use]
    pub(crate) fn address(&self) -> Option<&Address> {
        match self {
            Self::Refused(refusal) => refusal.address.as_ref(),
            Self::Unsuitable(address) => Some(address),
            _ => None,
        }
    }

    pub(super) fn at(mut self, address: &Address, password: &Secret) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.sent_by(address, password);
        }
        self
    }

    /// Whether this process or its machine has no file descriptors left, so that the error does not concern the server.
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

    /// What a client may see. It receives a refusal that is not suspect as the server's own frame instead.
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
            Self::Tls(tls::Error::NotOffered) => {
                (SqlState::UNABLE, "no TLS with the upstream server", Some(OFFER_TLS))
            }
            Self::Tls(_) => (SqlState::UNABLE, "no TLS with the upstream server", Some(SEE_LOG)),
            Self::Auth(error) => {
                return Fatal {
                    sqlstate: SqlState::InvalidAuthorizationSpecification,
                    message: "cannot authenticate at the upstream server".into(),
                    detail: Some(error.reason()),
                    hint: Some(SEE_LOG),
                };
            }
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
                (SqlState::ProtocolViolation, "the upstream server broke the protocol", Some(SEE_LOG))
            }
            Self::Closed | Self::Lost(_) => {
                (SqlState::ConnectionFailure, "the upstream server closed the connection", None)
            }
        };
        Fatal { sqlstate, message: message.into(), detail: None, hint }
    }

    /// With TLS 1.3 a server checks our certificate only after our side of the handshake is over, and its alert is lost
    /// if it closes before it has read the StartupMessage.
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
            Self::Tls(_) | Self::Auth(auth::Error::Cleartext | auth::Error::NeedsTls { .. }) => true,
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

/// Builds an error from the server's plain text.
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
const OFFER_TLS: &str = "The server offers none: let it (ssl = on), or write sslmode=disable in leasehold's --upstream where \
                         the network may see passwords and data.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_one_line_without_the_password_that_it_was_told() {
        let fields = b"SFATAL\0C28000\0Mno entry for \"s3cret\"\n  here\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        let frame = [b"E", length.as_slice(), fields].concat();
        let refusal = Refusal::read(bytes::Bytes::new(), frame.into(), false);
        let address = Address::Tcp("127.0.0.1:5432".parse().unwrap());
        let error = Error::Refused(refusal).at(&address, &Secret::new("s3cret".to_owned()));
        let said = "upstream server refused with 28000: no entry for \"[redacted]\" here";
        assert_eq!(error.to_string(), said);
        assert_eq!(error.address(), Some(&address));
    }

    #[test]
    fn a_client_of_a_server_without_tls_is_told_what_to_change() {
        let hint = Error::Tls(tls::Error::NotOffered).fatal().hint.unwrap();
        assert!(hint.contains("sslmode=disable") && hint.contains("ssl = on"), "{hint}");
    }
}
