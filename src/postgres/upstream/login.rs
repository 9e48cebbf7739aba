//! The only function that creates upstream sessions: connection, TLS, authentication, ReadyForQuery. Floor 2.

mod error;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::cancel::CancelTarget;
use super::conversation::{Failure, Ready, ask, converse};
use super::end_point::end_point;
use super::target::Matches;
use super::tls::{self, Answer, Tls};
use super::uri::SslMode;
use super::{Turn, Upstream};
use crate::dial::{Host, Socket, Stream};
use crate::postgres::protocol::auth::{Authentication, Terms, Transport};
use crate::postgres::protocol::written::terminate;
use crate::secret::Secret;
use crate::socket::Address;

pub(crate) use error::Error;

/// A session with the server that is ready for its first query.
pub(crate) struct UpstreamSession {
    /// The connection. Nothing beyond `rest` has been read.
    pub(crate) stream: Stream,
    /// What the client receives first, as the server sent it: NegotiateProtocolVersion if any, AuthenticationOk, then
    /// everything up to and including the first ReadyForQuery. It holds the cancel key.
    pub(crate) prologue: BytesMut,
    /// What the server sent after ReadyForQuery; nearly always empty. It precedes the bytes of `stream`.
    pub(crate) rest: BytesMut,
    /// What cancels the session's statement; `None` if the server sent no key.
    pub(crate) cancel: Option<Arc<CancelTarget>>,
    /// The server's address.
    pub(crate) address: Address,
}

impl fmt::Debug for UpstreamSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamSession").field("address", &self.address).finish_non_exhaustive()
    }
}

impl UpstreamSession {
    /// Moves the session to the runtime of the calling thread.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn into_this_runtime(self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.into_this_runtime()?, ..self })
    }

    /// Sends Terminate and waits until the server has closed; 5 s at most.
    pub(crate) async fn terminate(mut self) {
        let goodbye = async {
            self.stream.write_all(&terminate()).await?;
            self.stream.flush().await?;
            while self.stream.read(&mut [0; 64]).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        // A server that does not answer any more has no session to end.
        let _ = timeout(PART_WITHIN, goodbye).await;
    }
}

impl Upstream {
    /// Logs in at the host of `turn`, within [`Upstream::connect_timeout`]. Ending the session of an unsuitable server
    /// may take another 5 s. `startup` is the whole StartupMessage for the server.
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
            (session, true) => Ok(session),
            (session, false) => {
                let address = session.address.clone();
                session.terminate().await;
                Err(Error::Unsuitable(address))
            }
        }
    }
}

impl Upstream {
    /// Connects to the host of `turn` as a login does, TLS included where `sslmode` wants it, and closes again before anything
    /// that the server would take for a login.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn reach(&self, turn: Turn) -> Result<Address, Error> {
        let nowhere = || Error::Unreachable(io::ErrorKind::NotFound.into());
        let host = self.hosts.get(turn.host()).ok_or_else(nowhere)?;
        let (connected, password) = (AtomicBool::new(false), Secret::new(String::new()));
        let (user, startup) = ("", &[][..]);
        let login =
            Login { upstream: self, host, turn, startup, user, password: &password, connected: &connected };
        let within = self.connect_timeout();
        let (encryption, _) = login.encryptions();
        match timeout(within, login.connect(encryption)).await {
            Ok(connected) => connected.map(|(_, address)| address),
            Err(_) => Err(Error::TimedOut { within, connected: false }),
        }
    }
}

/// A login in progress.
struct Login<'a> {
    upstream: &'a Upstream,
    host: &'a Host,
    turn: Turn,
    startup: &'a [u8],
    user: &'a str,
    password: &'a Secret,
    /// Set just before the StartupMessage is sent.
    connected: &'a AtomicBool,
}

impl Login<'_> {
    /// Returns a session, and whether its server matches `target_session_attrs`. Makes a second attempt, with TLS or
    /// without, where `sslmode` is `allow` or `prefer` and TLS may be what failed.
    async fn run(&self) -> Result<(UpstreamSession, bool), Error> {
        let (first, second) = self.encryptions();
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

    /// How the first attempt is made, and the second one if there is one.
    fn encryptions(&self) -> (Encryption<'_>, Option<Encryption<'_>>) {
        let Some(tls) = self.upstream.tls.as_ref().filter(|_| !self.host.is_socket()) else {
            return (Encryption::No, None);
        };
        match tls.mode {
            SslMode::Disable => (Encryption::No, None),
            SslMode::Allow => (Encryption::No, Some(Encryption::Must(tls))),
            SslMode::Prefer => (Encryption::May(tls), Some(Encryption::No)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encryption::Must(tls), None),
        }
    }

    /// If a certificate is rejected and the files now hold others, the attempt is made once more with those.
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
        let failed =
            |failure: Failure| Attempt { tls, error: Error::from(failure).at(&address, self.password) };
        self.connected.store(true, Ordering::Relaxed);
        let mut ready = self.converse(&mut stream).await.map_err(failed)?;
        let matches = self.matches(&mut stream, &mut ready).await.map_err(failed)?;
        let used = encryption.tls().filter(|_| tls).map(|tls| (tls.clone(), self.host.name().to_owned()));
        let tcp = Arc::clone(self.upstream.hosts.tcp());
        let cancel = ready.key.map(|key| Arc::new(CancelTarget::new(address.clone(), tcp, used, key)));
        Ok((UpstreamSession { stream, prologue: ready.prologue, rest: ready.rest, cancel, address }, matches))
    }

    /// Whether this server matches `target_session_attrs`. A server that does not report its state does not.
    async fn matches(&self, stream: &mut Stream, ready: &mut Ready) -> Result<bool, Failure> {
        if let Matches::Ask(question) = ready.state.matches(self.turn.wanted) {
            let value = ask(stream, question.sql(), &mut ready.rest).await?;
            ready.state.answered(question, &value);
        }
        Ok(ready.state.matches(self.turn.wanted) == Matches::Yes)
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
                let verified = self.upstream.tls.as_ref().is_some_and(|tls| tls.connector.verifies());
                Transport::Tls { end_point: leaf.and_then(end_point), verified }
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

/// Whether an attempt uses TLS.
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

    /// Whether the attempt used TLS as this encryption says, so that the other way is still untried.
    fn is_other_way(self, used_tls: bool) -> bool {
        self.tls().is_some() == used_tls
    }
}

/// A failed attempt, and whether it used or tried TLS.
struct Attempt {
    error: Error,
    tls: bool,
}

/// How long a server may take to close a session.
const PART_WITHIN: Duration = Duration::from_secs(5);
