//! The socket of a client, as a listener accepted it. Floor 2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::acceptor::{self, Identity};

/// A client's connection. It is a few words long whatever it carries.
#[derive(Debug)]
pub(crate) enum Client {
    /// Over TCP, as the listener accepted it.
    Tcp(TcpStream),
    /// Over a Unix socket, as the listener accepted it.
    Unix(UnixStream),
    /// Over TLS, once it has asked for that.
    Tls(Box<TlsStream<TcpStream>>),
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

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => match Pin::new(stream).poll_read(cx, buffer) {
                // A client that dies says no goodbye to TLS. A server makes no more of it than of TCP's own end, and
                // a message that is cut short is noticed by its length.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                read => read,
            },
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
