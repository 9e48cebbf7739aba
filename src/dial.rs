//! Connects to one of several hosts: names, addresses, TCP and Unix sockets, and the stream over them. It does not know
//! the protocol that is spoken on a connection. Floor 2.
//!
//! | module | what |
//! |---|---|
//! | [`hosts`] | the hosts of one upstream, and the order in which they are tried |
//! | [`lookups`] | DNS at each connect |
//! | [`stream`] | the connection, with or without TLS |

mod hosts;
mod lookups;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use crate::socket::Address;

pub(crate) use hosts::{Host, HostTurn, Hosts, Order};
pub(crate) use lookups::Lookups;
pub(crate) use stream::{Discard, Stream};

/// A connected socket, before TLS.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// The socket options of each TCP connection. `None`: the default of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpSettings {
    /// Whether keepalives are sent (`SO_KEEPALIVE`).
    pub(crate) keepalives: bool,
    /// The time without traffic before the first keepalive (`TCP_KEEPIDLE`).
    pub(crate) keepalives_idle: Option<Duration>,
    /// The time between two keepalives that are not answered (`TCP_KEEPINTVL`).
    pub(crate) keepalives_interval: Option<Duration>,
    /// The number of unanswered keepalives after which the connection is lost (`TCP_KEEPCNT`).
    pub(crate) keepalives_count: Option<u32>,
    /// How long sent data may stay without an acknowledgement (`TCP_USER_TIMEOUT`).
    pub(crate) user_timeout: Option<Duration>,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            keepalives: true,
            keepalives_idle: None,
            keepalives_interval: None,
            keepalives_count: None,
            user_timeout: None,
        }
    }
}

/// Connects to an address. The caller bounds the wait.
///
/// # Errors
/// The error of the system.
pub(crate) async fn connect(address: &Address, settings: &TcpSettings) -> io::Result<Socket> {
    Ok(match address {
        Address::Tcp(to) => {
            let stream = TcpStream::connect(to).await?;
            set_options(&stream, settings)?;
            Socket::Tcp(stream)
        }
        Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
    })
}

fn set_options(stream: &TcpStream, settings: &TcpSettings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if settings.keepalives {
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = settings.keepalives_idle {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = settings.keepalives_interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = settings.keepalives_count {
            keepalive = keepalive.with_retries(count);
        }
        // On Linux this sets only the given values, and does not turn keepalives on.
        socket.set_keepalive(true)?;
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    if settings.user_timeout.is_some() {
        socket.set_tcp_user_timeout(settings.user_timeout)?;
    }
    Ok(())
}
