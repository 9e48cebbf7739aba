//! The connection to a server, whatever carries it. Floor 2.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::socket;

/// A connection to the server.
pub(crate) type Stream = socket::Stream<TlsStream<TcpStream>>;

/// A server that ends without notice may not have sent all that it had to say.
impl socket::Tls for TlsStream<TcpStream> {
    const MAY_END_WITHOUT_NOTICE: bool = false;
}

impl Stream {
    /// The same connection, waited for by the runtime of the thread that calls this. Under TLS it stays with its own: that
    /// one then wakes the task, from another thread.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn into_this_runtime(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
            Self::Tls(stream) => Self::Tls(stream),
        })
    }
}

/// A connection to a server that may have stopped listening.
pub(crate) trait Discard {
    /// Has the kernel discard, when this is dropped, what was written and the peer has not taken. Without it the bytes
    /// go on being sent for minutes after the drop, as soon as the network lets them.
    fn discard_unsent(&self);
}

impl Discard for Stream {
    fn discard_unsent(&self) {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            // What was written is in the peer's hands already.
            Self::Unix(_) => return,
        };
        // A close then sends RST in place of what is left and FIN. An error means that the socket has failed already.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}
