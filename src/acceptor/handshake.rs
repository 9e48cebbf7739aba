//! The server's side of a TLS handshake. Floor 2.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor as Hello;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::{Identity, InForce};

/// A handshake that came to nothing. The client has been sent the alert that says why, where its socket took it.
pub(crate) struct HandshakeError {
    /// Without the client's address.
    pub(crate) reason: io::Error,
    /// To be closed in order; nothing where the handshake's own state was lost.
    pub(crate) socket: Option<TcpStream>,
}

impl HandshakeError {
    fn new(reason: io::Error, socket: impl Into<Option<TcpStream>>) -> Self {
        Self { reason, socket: socket.into() }
    }
}

impl InForce {
    /// Shakes hands. `early`: what the client has sent already of its side. The caller bounds the wait. Not cancel safe.
    ///
    /// # Errors
    /// Whatever TLS has to say of the client, or the socket.
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

/// Reads the ClientHello, which may be in `early` as a whole or in part.
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
                    // A client that does not take its alert learns no more than that it is closed.
                    let _ = socket.write_all(&bytes).await;
                }
                return Err(HandshakeError::new(io::Error::new(io::ErrorKind::InvalidData, error), socket));
            }
        }
    }
    let mut reading = LazyConfigAcceptor::new(hello, socket);
    (&mut reading).await.map_err(|error| HandshakeError::new(error, reading.take_io()))
}

/// Whom the client has shown that it is; `None`: it has shown no certificate.
#[must_use]
pub(crate) fn identity(stream: &TlsStream<TcpStream>) -> Option<Identity> {
    Identity::of(stream.get_ref().1.peer_certificates()?.first()?)
}
