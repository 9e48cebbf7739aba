//! The socket of a client, as a listener accepted it. Floor 2.

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

/// A client that dies says no goodbye to TLS. A server makes no more of it than of TCP's own end, and a message that is
/// cut short is noticed by its length.
impl Tls for TlsStream<TcpStream> {
    const MAY_END_WITHOUT_NOTICE: bool = true;
}

impl Client {
    /// Whom its certificate stands for; `None`: it has shown none.
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

    /// Whether its socket has failed or is closed in both directions. A client that only has nothing more to say is not
    /// closed, whatever it has sent that was not read.
    pub(crate) async fn is_closed(&self) -> bool {
        // A socket that can be written to is ready at once, and the answer holds what else is known of it.
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

/// Nothing has been sent to it yet, so that it can be written to.
const AT_ONCE: Duration = Duration::from_millis(10);
