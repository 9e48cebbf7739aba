//! The connection to a server, over TCP, TLS or a Unix socket. Floor 2.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::socket;

/// A connection to the server.
pub(crate) type Stream = socket::Stream<TlsStream<TcpStream>>;

/// A TCP end without `close_notify` is an error: the server may not have sent everything.
impl socket::Tls for TlsStream<TcpStream> {
    const MAY_END_WITHOUT_NOTICE: bool = false;
}

impl Stream {
    /// Moves the connection to the runtime of the calling thread. A TLS connection stays with its own runtime, which
    /// then wakes the task from another thread.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn into_this_runtime(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
            Self::Tls(stream) => Self::Tls(stream),
        })
    }
}

/// Discards data that the peer has not received.
pub(crate) trait Discard {
    /// Makes the kernel discard unsent data when the connection is dropped. Without this the kernel goes on sending it
    /// for minutes after the drop.
    fn discard_unsent(&self);
}

impl Discard for Stream {
    fn discard_unsent(&self) {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            // Data written to a Unix socket is in the peer's buffer already.
            Self::Unix(_) => return,
        };
        // A close then sends RST instead of the remaining data and FIN. An error means that the socket has failed
        // already.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}
