//! Cancels the statement of an upstream session: same address, same TLS, but a new connection. Floor 2.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// What is needed to cancel a session's statement. It outlives the session, and needs no credential.
pub(crate) struct CancelTarget {
    address: Address,
    tcp: Arc<TcpSettings>,
    /// Boxed, as most sessions in a Pod are without.
    tls: Option<Box<(Tls, String)>>,
    request: CancelRequest,
    /// The server did not acknowledge a request in time.
    in_doubt: AtomicBool,
}

impl CancelTarget {
    pub(super) fn new(
        address: Address,
        tcp: Arc<TcpSettings>,
        tls: Option<(Tls, String)>,
        request: CancelRequest,
    ) -> Self {
        Self { address, tcp, tls: tls.map(Box::new), request, in_doubt: AtomicBool::new(false) }
    }

    /// The server's process id and key, as BackendKeyData gave them.
    #[must_use]
    pub(crate) fn request(&self) -> &CancelRequest {
        &self.request
    }

    /// Sends the CancelRequest and waits until the server closes, which it does once it has sent the signal. The server
    /// never reports whether there was a statement to cancel.
    ///
    /// # Errors
    /// The request could not be sent in time.
    pub(crate) async fn send(&self, within: Duration) -> Result<(), CancelError> {
        let delivered = timeout(within, Box::pin(self.deliver())).await;
        let delivered = delivered.map_err(|_| CancelError::TimedOut { within }).flatten();
        if delivered.is_err() {
            self.in_doubt.store(true, Ordering::Relaxed);
        }
        delivered
    }

    /// Whether the server may still act on a request that it has not acknowledged.
    #[must_use]
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    async fn deliver(&self) -> Result<(), CancelError> {
        let socket = dial::connect(&self.address, &self.tcp).await.map_err(CancelError::Unreachable)?;
        self.deliver_over(socket).await
    }

    /// If a certificate is rejected and the files now hold others, the request is sent once more with those.
    async fn deliver_over(&self, socket: Socket) -> Result<(), CancelError> {
        let Some((tls, _)) = self.tls.as_deref() else { return self.deliver_once(socket).await };
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
        let mut stream = match (socket, self.tls.as_deref()) {
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
                // With TLS 1.3 a server reports only now that it rejects our certificate.
                Err(error) if crypto::of_rustls(&error).is_some_and(crypto::is_about_certificates) => {
                    return Err(CancelError::Lost(error));
                }
                // A server that closes without close_notify, or with a reset, has closed all the same.
                Ok(_) => return Ok(()),
                Err(error) if is_close(&error) => return Ok(()),
                Err(error) => return Err(CancelError::Lost(error)),
            }
        }
    }
}

/// Whether a read failed because the server has closed, and not because nothing is heard of it.
fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
}

impl Upstream {
    /// Sends a CancelRequest with an unknown key to one host, as [`CancelTarget::send`] does.
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
        // A server accepts a CancelRequest without TLS whatever pg_hba.conf says, so TLS is used only where required.
        let insists = |tls: &&Tls| !matches!(tls.mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        let tls = self.tls.as_ref().filter(insists).map(|tls| (tls.clone(), host.name().to_owned()));
        CancelTarget::new(address, Arc::clone(self.hosts.tcp()), tls, request.clone())
            .deliver_over(socket)
            .await
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

/// Why a CancelRequest was not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CancelError {
    /// No connection could be made.
    #[error("cannot reach the server to cancel")]
    Unreachable(#[source] io::Error),
    /// TLS is needed and could not be established.
    #[error("no TLS with the server to cancel")]
    Tls(#[source] tls::Error),
    /// The connection was lost.
    #[error("connection lost before the cancel was sent")]
    Lost(#[source] io::Error),
    /// The server did not close in time.
    #[error("server did not take the cancel within {within:?}")]
    TimedOut {
        /// The time limit.
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
