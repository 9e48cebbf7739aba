//! The connection of a client that a listener accepted. Floor 2.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::unix::UCred;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::{Peer, Stream, Tls};
use crate::acceptor::{self, Identity};

/// A client's connection.
pub(crate) type Client = Stream<TlsStream<TcpStream>>;

/// A client that dies sends no `close_notify`. A server takes this as the end of the TCP connection; an incomplete message
/// is noticed by its length.
impl Tls for TlsStream<TcpStream> {
    const MAY_END_WITHOUT_NOTICE: bool = true;
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    /// An IP address and a port. A `SocketAddr` is a third longer, and there is one for each session.
    Tcp(IpAddr, u16),
    /// A process on this machine.
    Unix {
        /// Its user; `None` if the system did not report it.
        uid: Option<u32>,
        /// Its process id; `None` if the system did not report it, or it is in another PID namespace.
        pid: Option<i32>,
    },
    /// It has gone already.
    Unknown,
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(ip, port) => SocketAddr::new(*ip, *port).fmt(f),
            Self::Unix { .. } => f.write_str("unix"),
            Self::Unknown => f.write_str("gone"),
        }
    }
}

/// The user and the group that a process runs as, as the system knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    /// The effective group; other groups of the process are not known.
    pub(crate) gid: u32,
}

impl Client {
    /// The address that it connects from. `None`: it is a Unix socket, or has gone.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let tcp = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Unix(_) => return None,
        };
        tcp.peer_addr().ok().map(|address| address.ip())
    }

    /// Who connected over a Unix socket (`SO_PEERCRED`). `None`: it is no Unix socket, or the system does not say.
    pub(crate) fn user(&self) -> Option<User> {
        match self {
            Self::Unix(stream) => {
                let credentials = stream.peer_cred().ok()?;
                Some(User { uid: credentials.uid(), gid: credentials.gid() })
            }
            Self::Tcp(_) | Self::Tls(_) => None,
        }
    }

    /// Whose share of a limit the client takes from. A client that has gone already takes from that of those whom the system
    /// does not name.
    #[must_use]
    pub(crate) fn source(&self) -> Peer {
        match self.address() {
            Some(address) => Peer::at(address),
            None => Peer::User(self.user().map(|user| user.uid)),
        }
    }

    /// Where the client is.
    #[must_use]
    pub(crate) fn peer(&self) -> ClientAddress {
        let of_tcp = |stream: &TcpStream| match stream.peer_addr() {
            // An IPv4 client of an IPv6 socket has an IPv4 address.
            Ok(address) => ClientAddress::Tcp(address.ip().to_canonical(), address.port()),
            Err(_) => ClientAddress::Unknown,
        };
        match self {
            Self::Tcp(stream) => of_tcp(stream),
            Self::Tls(stream) => of_tcp(stream.get_ref().0),
            Self::Unix(stream) => {
                let credentials = stream.peer_cred().ok();
                let pid = credentials.as_ref().and_then(UCred::pid).filter(|pid| *pid > 0);
                ClientAddress::Unix { uid: credentials.map(|credentials| credentials.uid()), pid }
            }
        }
    }

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
