//! The way to cancel what a session upstream runs: the same address, the same TLS, a connection of its own. Floor 2.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Upstream;
use super::tls::{self, Answer, Tls};
use super::uri::SslMode;
use crate::crypto;
use crate::dial::{self, HostTurn, Socket, Stream, TcpSettings};
use crate::postgres::protocol::startup::CancelRequest;
use crate::socket::Address;

/// What cancels a session's statement. It outlives the session, and needs no credential.
#[derive(Clone)]
pub(crate) struct CancelTarget {
    address: Address,
    tcp: TcpSettings,
    tls: Option<(Tls, String)>,
    request: CancelRequest,
}

impl CancelTarget {
    pub(super) fn new(
        address: Address,
        tcp: TcpSettings,
        tls: Option<(Tls, String)>,
        request: CancelRequest,
    ) -> Self {
        Self { address, tcp, tls, request }
    }

    /// The server's process id and key, as BackendKeyData gave them.
    #[must_use]
    pub(crate) fn request(&self) -> &CancelRequest {
        &self.request
    }

    /// Sends CancelRequest and waits until the server has closed, which it does once the signal is sent. It never says
    /// whether there was anything to cancel.
    ///
    /// # Errors
    /// The request could not be sent in time.
    pub(crate) async fn send(&self, within: Duration) -> Result<(), CancelError> {
        timeout(within, Box::pin(self.deliver())).await.map_err(|_| CancelError::TimedOut { within })?
    }

    async fn deliver(&self) -> Result<(), CancelError> {
        let socket = dial::connect(&self.address, &self.tcp).await.map_err(CancelError::Unreachable)?;
        self.deliver_over(socket).await
    }

    /// Where a certificate is not taken, and others are in the files by now, it is sent once more with those.
    async fn deliver_over(&self, socket: Socket) -> Result<(), CancelError> {
        let Some((tls, _)) = &self.tls else { return self.deliver_once(socket).await };
        let used = tls.connector.in_force();
        match self.deliver_once(socket).await {
            Err(error) if error.is_about_certificates() && tls.connector.has_other_than(&used).await => {
                let again = dial::connect(&self.address, &self.tcp).await;
                self.deliver_once(again.map_err(CancelError::Unreachable)?).await
            }
            outcome => outcome,
        }
    }

    async fn deliver_once(&self, socket: Socket) -> Result<(), CancelError> {
        let mut stream = match (socket, &self.tls) {
            (Socket::Unix(unix), _) => Stream::Unix(unix),
            (Socket::Tcp(tcp), None) => Stream::Tcp(tcp),
            (Socket::Tcp(tcp), Some((tls, host))) => {
                match tls.start(tcp, host).await.map_err(CancelError::Tls)? {
                    Answer::Tls(stream) => Stream::Tls(stream),
                    Answer::No(_) => return Err(CancelError::Tls(tls::Error::NotOffered)),
                }
            }
        };
        stream.write_all(&self.request.encode()).await.map_err(CancelError::Lost)?;
        stream.flush().await.map_err(CancelError::Lost)?;
        let mut nothing = [0; 64];
        loop {
            match stream.read(&mut nothing).await {
                Ok(read) if read > 0 => {}
                // With TLS 1.3 a server says only now that it does not take our certificate.
                Err(error) if crypto::of_rustls(&error).is_some_and(crypto::is_about_certificates) => {
                    return Err(CancelError::Lost(error));
                }
                // A server that closes without the TLS farewell, or with a reset, has closed all the same.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

impl Upstream {
    /// Sends a CancelRequest that belongs to no session of ours to one host, as [`CancelTarget::send`] does.
    ///
    /// # Errors
    /// The request could not be sent in time.
    pub(crate) async fn cancel(
        &self,
        host: usize,
        request: &CancelRequest,
        within: Duration,
    ) -> Result<(), CancelError> {
        let delivering = Box::pin(self.deliver_foreign(host, request));
        timeout(within, delivering).await.map_err(|_| CancelError::TimedOut { within })?
    }

    async fn deliver_foreign(&self, host: usize, request: &CancelRequest) -> Result<(), CancelError> {
        let nowhere = || CancelError::Unreachable(io::ErrorKind::NotFound.into());
        let dialled = self.hosts.dial(HostTurn::of(host)).await;
        let (socket, address) = dialled.map_err(CancelError::Unreachable)?;
        let host = self.hosts.get(host).ok_or_else(nowhere)?;
        // A server takes a cancel without TLS whatever pg_hba.conf says, so only a mode that insists has it.
        let insists = |tls: &&Tls| !matches!(tls.mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        let tls = self.tls.as_ref().filter(insists).map(|tls| (tls.clone(), host.name().to_owned()));
        CancelTarget::new(address, self.hosts.tcp().clone(), tls, request.clone()).deliver_over(socket).await
    }
}

impl fmt::Debug for CancelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelTarget")
            .field("address", &self.address)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a cancel was not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CancelError {
    /// No connection.
    #[error("cannot reach the server to cancel")]
    Unreachable(#[source] io::Error),
    /// No TLS, where the session has it.
    #[error("no TLS with the server to cancel")]
    Tls(#[source] tls::Error),
    /// The connection broke.
    #[error("connection lost before the cancel was sent")]
    Lost(#[source] io::Error),
    /// Not in time.
    #[error("server did not take the cancel within {within:?}")]
    TimedOut {
        /// The time it had.
        within: Duration,
    },
}

impl CancelError {
    fn is_about_certificates(&self) -> bool {
        match self {
            Self::Tls(error) => error.is_about_certificates(),
            Self::Lost(error) => crypto::of_rustls(error).is_some_and(crypto::is_about_certificates),
            Self::Unreachable(_) | Self::TimedOut { .. } => false,
        }
    }
}
