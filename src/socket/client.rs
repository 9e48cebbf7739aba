//! The connection of a client that a listener accepted. Floor 2.

use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::{Stream, Tls};
use crate::acceptor::{self, Identity};

/// A client's connection.
pub(crate) type Client = Stream<TlsStream<TcpStream>>;

/// A client that dies sends no `close_notify`. A server takes this as the end of the TCP connection; an incomplete message
/// is noticed by its length.
impl Tls for TlsStream<TcpStream> {
    const MAY_END_WITHOUT_NOTICE: bool = true;
}

impl Client {
    /// The identity in the client's certificate. `None`: the client sent no certificate.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Tls(stream) => acceptor::identity(stream),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// `TLSv1.3`, as OpenSSL writes it; `off` without TLS.
    pub(crate) fn tls_version(&self) -> &'static str {
        match self {
            Self::Tls(stream) => match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            Self::Tcp(_) | Self::Unix(_) => "off",
        }
    }

    /// Whether the socket has failed or is closed in both directions. A client that has only shut down its writing side
    /// is not closed, even if data from it is unread.
    pub(crate) async fn is_closed(&self) -> bool {
        // A socket that can be written to is ready at once, and its readiness also shows errors and closing.
        let ready = timeout(AT_ONCE, async {
            match self {
                Self::Tcp(stream) => stream.ready(Interest::WRITABLE).await,
                Self::Tls(stream) => stream.get_ref().0.ready(Interest::WRITABLE).await,
                Self::Unix(stream) => stream.ready(Interest::WRITABLE).await,
            }
        });
        matches!(ready.await, Ok(Ok(ready)) if ready.is_write_closed())
    }
}

/// The socket is writable, since nothing has been sent to it yet.
const AT_ONCE: Duration = Duration::from_millis(10);
