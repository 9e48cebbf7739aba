//! The address of a socket, to listen on or to connect to. Floor 2.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// An IP address and a port. To listen on port 0 takes a free port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether only this machine can reach it.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_sockets_are_local() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for local in
            [tcp("127.0.0.2:1"), tcp("[::1]:1"), tcp("[::ffff:127.0.0.1]:1"), Address::Unix("/s".into())]
        {
            assert!(local.is_local(), "{local}");
        }
        for public in [tcp("0.0.0.0:1"), tcp("[::]:1"), tcp("10.0.0.1:1")] {
            assert!(!public.is_local(), "{public}");
        }
    }
}
