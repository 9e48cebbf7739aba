//! The server's side of a TLS handshake. Floor 2.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor as Hello;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::{Identity, InForce};

/// A handshake that failed. The client has been sent the TLS alert, if its socket accepted it.
pub(crate) struct HandshakeError {
    /// The reason, without the client's address.
    pub(crate) reason: io::Error,
    /// The socket, for an orderly close. `None`: it was lost with the handshake's state.
    pub(crate) socket: Option<TcpStream>,
}

impl HandshakeError {
    fn new(reason: io::Error, socket: impl Into<Option<TcpStream>>) -> Self {
        Self { reason, socket: socket.into() }
    }
}

impl InForce {
    /// Performs the handshake. `early` holds the bytes that were already read from the client. The caller bounds the
    /// wait. Not cancel safe.
    ///
    /// # Errors
    /// TLS rejected the client, or the socket failed.
    pub(crate) async fn accept(
        &self,
        socket: TcpStream,
        early: &[u8],
    ) -> Result<Box<TlsStream<TcpStream>>, HandshakeError> {
        let start = hello(socket, early).await?;
        let accepting = start.into_stream(Arc::clone(&self.config)).into_fallible();
        let accepted = accepting.await.map_err(|(reason, socket)| HandshakeError::new(reason, socket))?;
        Ok(Box::new(accepted))
    }
}

/// Reads the ClientHello, of which `early` may hold a part or all.
async fn hello(mut socket: TcpStream, mut early: &[u8]) -> Result<StartHandshake<TcpStream>, HandshakeError> {
    let mut hello = Hello::default();
    if !early.is_empty() {
        while !early.is_empty() {
            if let Err(error) = hello.read_tls(&mut early) {
                return Err(HandshakeError::new(error, socket));
            }
        }
        match hello.accept() {
            Ok(Some(accepted)) => return Ok(StartHandshake::from_parts(accepted, socket)),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                if alert.write_all(&mut bytes).is_ok() {
                    // The handshake has failed already: if the alert cannot be sent either, the socket is just closed.
                    let _ = socket.write_all(&bytes).await;
                }
                return Err(HandshakeError::new(io::Error::new(io::ErrorKind::InvalidData, error), socket));
            }
        }
    }
    let mut reading = LazyConfigAcceptor::new(hello, socket);
    (&mut reading).await.map_err(|error| HandshakeError::new(error, reading.take_io()))
}

/// The identity in the client's certificate. `None`: the client sent no certificate.
#[must_use]
pub(crate) fn identity(stream: &TlsStream<TcpStream>) -> Option<Identity> {
    Identity::of(stream.get_ref().1.peer_certificates()?.first()?)
}
