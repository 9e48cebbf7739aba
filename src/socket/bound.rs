//! A socket that is listened on, of either kind. Floor 2.

use std::io;

use tokio::net::TcpListener;

use super::{Client, Peer, UnixSocket};

/// A bound socket; what connects waits in its backlog.
#[derive(Debug)]
pub(crate) enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixSocket),
}

impl Bound {
    /// The next client, and who it is.
    ///
    /// # Errors
    /// What the system says; the client may be at fault, see [`super::is_the_clients`].
    pub(crate) async fn accept(&self) -> io::Result<(Client, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((Client::Tcp(stream), Peer::at(from.ip())))
            }
            Self::Unix(socket) => socket.accept().await.map(|(stream, peer)| (Client::Unix(stream), peer)),
        }
    }
}
