//! The one function that makes legs: dial, TLS, authentication, up to ReadyForQuery. Floor 2.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::cancel::CancelTarget;
use super::conversation::{Failure, Fault, Ready, ask, converse};
use super::end_point::end_point;
use super::refusal::Refusal;
use super::target::Suits;
use super::tls::{self, Answer, Tls};
use super::uri::SslMode;
use super::{Turn, Upstream};
use crate::crypto;
use crate::dial::{Host, Socket, Stream};
use crate::error::{Blame, ClientFacing};
use crate::postgres::protocol::auth::{self, Authentication, Terms, Transport};
use crate::postgres::protocol::fatal::{Fatal, SqlState};
use crate::postgres::protocol::written::terminate;
use crate::secret::Secret;
use crate::socket::Address;

/// A session with the server, ready for its first query.
pub(crate) struct UpstreamSession {
    /// The connection. Nothing has been read beyond `rest`.
    pub(crate) stream: Stream,
    /// What the client has to get first, as the server sent it: NegotiateProtocolVersion if any, AuthenticationOk, then
    /// all up to and with the first ReadyForQuery. It holds the cancel key.
    pub(crate) prologue: BytesMut,
    /// What the server has sent behind ReadyForQuery; nearly always empty. It comes before anything of `stream`.
    pub(crate) rest: BytesMut,
    /// What cancels its statements; `None` where the server gave no key.
    pub(crate) cancel: Option<CancelTarget>,
    /// The address that it is connected to.
    pub(crate) address: Address,
}

impl fmt::Debug for UpstreamSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamSession").field("address", &self.address).finish_non_exhaustive()
    }
}

impl UpstreamSession {
    /// Ends the session, and waits until the server has; 5 s at most.
    pub(crate) async fn part(mut self) {
        let goodbye = async {
            self.stream.write_all(&terminate()).await?;
            self.stream.flush().await?;
            while self.stream.read(&mut [0; 64]).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        // A server that does not answer any more has no session to lose.
        let _ = timeout(PART_WITHIN, goodbye).await;
    }
}

impl Upstream {
    /// Logs in at the host whose turn it is, within [`Upstream::connect_timeout`]; to part from one that does not suit may
    /// take another 5 s. `startup` is the whole StartupMessage for the server.
    ///
    /// Dropping the future closes the connection, which ends the server's process.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn login(
        &self,
        turn: Turn,
        startup: &[u8],
        user: &str,
        password: &Secret,
    ) -> Result<UpstreamSession, Error> {
        let nowhere = || Error::Unreachable(io::ErrorKind::NotFound.into());
        let host = self.hosts.get(turn.host()).ok_or_else(nowhere)?;
        let connected = AtomicBool::new(false);
        let login = Login { upstream: self, host, turn, startup, user, password, connected: &connected };
        let within = self.connect_timeout();
        let in_time = timeout(within, Box::pin(login.run())).await;
        let timed_out = |_| Error::TimedOut { within, connected: connected.load(Ordering::Relaxed) };
        match in_time.map_err(timed_out)?? {
            (leg, true) => Ok(leg),
            (leg, false) => {
                let address = leg.address.clone();
                leg.part().await;
                Err(Error::Unsuitable(address))
            }
        }
    }
}

/// A login under way.
struct Login<'a> {
    upstream: &'a Upstream,
    host: &'a Host,
    turn: Turn,
    startup: &'a [u8],
    user: &'a str,
    password: &'a Secret,
    /// Set once the server has been sent the StartupMessage.
    connected: &'a AtomicBool,
}

impl Login<'_> {
    /// A session, and whether its server is of the kind that is wanted. One attempt; a second the other way where `sslmode` is `allow` or `prefer` and TLS may be what failed.
    async fn run(&self) -> Result<(UpstreamSession, bool), Error> {
        let tls = self.upstream.tls.as_ref().filter(|_| !self.host.is_socket());
        let (first, second) = match tls {
            None => (Encryption::No, None),
            Some(tls) => match tls.mode {
                SslMode::Disable => (Encryption::No, None),
                SslMode::Allow => (Encryption::No, Some(Encryption::Must(tls))),
                SslMode::Prefer => (Encryption::May(tls), Some(Encryption::No)),
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encryption::Must(tls), None),
            },
        };
        let failure = match (self.attempt(first).await, second) {
            (Ok(found), _) => return Ok(found),
            (Err(Attempt { error, tls }), Some(_)) if first.is_other_way(tls) && error.may_be_about_tls() => {
                error
            }
            (Err(Attempt { error, .. }), _) => return Err(error),
        };
        match second {
            Some(second) => self.attempt(second).await.map_err(|again| match again.error {
                Error::Tls(tls::Error::NotOffered) => failure,
                error => error,
            }),
            None => Err(failure),
        }
    }

    /// Where a certificate is not taken, and others are in the files by now, it is tried once more with those.
    async fn attempt(&self, encryption: Encryption<'_>) -> Result<(UpstreamSession, bool), Attempt> {
        let Some(tls) = encryption.tls() else { return self.attempt_once(encryption).await };
        let used = tls.connector.in_force();
        match self.attempt_once(encryption).await {
            Err(Attempt { error, tls: true })
                if error.may_be_about_certificates(tls) && tls.connector.has_other_than(&used).await =>
            {
                self.attempt_once(encryption).await
            }
            outcome => outcome,
        }
    }

    async fn attempt_once(&self, encryption: Encryption<'_>) -> Result<(UpstreamSession, bool), Attempt> {
        let (mut stream, address) = self
            .connect(encryption)
            .await
            .map_err(|error| Attempt { tls: !matches!(encryption, Encryption::No), error })?;
        let tls = matches!(stream, Stream::Tls(_));
        let failed = |failure: Failure| Attempt { tls, error: Error::from(failure).at(&address) };
        self.connected.store(true, Ordering::Relaxed);
        let mut ready = self.converse(&mut stream).await.map_err(failed)?;
        let suits = self.suits(&mut stream, &mut ready).await.map_err(failed)?;
        let used = encryption.tls().filter(|_| tls).map(|tls| (tls.clone(), self.host.name().to_owned()));
        let tcp = self.upstream.hosts.tcp().clone();
        let cancel = ready.key.map(|key| CancelTarget::new(address.clone(), tcp, used, key));
        Ok((UpstreamSession { stream, prologue: ready.prologue, rest: ready.rest, cancel, address }, suits))
    }

    /// Whether this server is of the kind that is wanted. One that gives no answer is not.
    async fn suits(&self, stream: &mut Stream, ready: &mut Ready) -> Result<bool, Failure> {
        if let Suits::Ask(question) = ready.nature.suits(self.turn.wanted) {
            let value = ask(stream, question.sql(), &mut ready.rest).await?;
            ready.nature.answered(question, &value);
        }
        Ok(ready.nature.suits(self.turn.wanted) == Suits::Yes)
    }

    async fn connect(&self, encryption: Encryption<'_>) -> Result<(Stream, Address), Error> {
        let dialled = self.upstream.hosts.dial(self.turn.of).await;
        let (socket, address) = dialled.map_err(Error::Unreachable)?;
        let stream = match (socket, encryption) {
            (Socket::Unix(unix), _) => Stream::Unix(unix),
            (Socket::Tcp(tcp), Encryption::No) => Stream::Tcp(tcp),
            (Socket::Tcp(tcp), Encryption::May(tls) | Encryption::Must(tls)) => {
                match (tls.start(tcp, self.host.name()).await?, encryption) {
                    (Answer::Tls(stream), _) => Stream::Tls(stream),
                    (Answer::No(tcp), Encryption::May(_)) => Stream::Tcp(tcp),
                    (Answer::No(_), _) => return Err(Error::Tls(tls::Error::NotOffered)),
                }
            }
        };
        Ok((stream, address))
    }

    async fn converse(&self, stream: &mut Stream) -> Result<Ready, Failure> {
        let transport = match stream {
            Stream::Tcp(_) => Transport::Plain,
            Stream::Unix(_) => Transport::Local,
            Stream::Tls(stream) => {
                let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                Transport::Tls { end_point: leaf.and_then(end_point) }
            }
        };
        let terms = Terms {
            transport,
            channel_binding: self.upstream.channel_binding,
            require_auth: self.upstream.require_auth.clone(),
        };
        let authentication = Authentication::new(self.user, self.password, rand::random(), terms);
        converse(stream, self.startup, authentication, &self.upstream.keys).await
    }
}

/// Whether an attempt is to use TLS.
#[derive(Clone, Copy)]
enum Encryption<'a> {
    No,
    May(&'a Tls),
    Must(&'a Tls),
}

impl<'a> Encryption<'a> {
    fn tls(self) -> Option<&'a Tls> {
        match self {
            Self::No => None,
            Self::May(tls) | Self::Must(tls) => Some(tls),
        }
    }

    /// Whether an attempt that used TLS, or did not, leaves the other way to try.
    fn is_other_way(self, used_tls: bool) -> bool {
        self.tls().is_some() == used_tls
    }
}

/// An attempt that failed, and whether it used or tried TLS.
struct Attempt {
    error: Error,
    tls: bool,
}

/// Why there is no leg.
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

    fn at(mut self, address: &Address) -> Self {
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
    fn may_be_about_certificates(&self, tls: &Tls) -> bool {
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

    fn may_be_about_tls(&self) -> bool {
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

/// How long a server may take to let a session go.
const PART_WITHIN: Duration = Duration::from_secs(5);
const SEE_LOG: &str = "The log of leasehold says why.";
