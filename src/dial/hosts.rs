//! The hosts of one upstream, which all belong to one cluster, and the order in which they are tried. Floor 2.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::time::timeout;

use super::{Lookups, Socket, TcpSettings, connect};
use crate::socket::Address;

/// A host as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// By TCP.
    Tcp {
        /// A DNS name or an IP address, without brackets.
        name: String,
        /// The TCP port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Host {
    /// Whether it is a Unix socket.
    #[must_use]
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Whether nobody outside of this machine is on the way to it: a Unix socket, or a loopback address.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp { name, .. } => {
                name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
            }
            Self::Unix(_) => true,
        }
    }

    /// The name that the server's certificate must have; empty for a Unix socket.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Tcp { name, .. } => name,
            Self::Unix(_) => "",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port } => write!(f, "{name}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// The order in which hosts, and the addresses of a host, are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// The order of the configuration.
    #[default]
    AsWritten,
    /// A random order for each search.
    Random,
}

/// A host, or an address of it, that a search for a session tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostTurn {
    /// The index of the host in the configuration, from 0.
    pub(crate) host: usize,
    /// The address to connect to. `None`: the first address that answers.
    address: Option<SocketAddr>,
    /// Whether the other addresses of the host were added to the search already.
    is_further: bool,
}

impl HostTurn {
    /// A turn at any address of this host.
    #[must_use]
    pub(crate) fn of(host: usize) -> Self {
        Self { host, address: None, is_further: false }
    }

    /// The same host at this address: a name may resolve to another server each time.
    #[must_use]
    pub(crate) fn at(self, address: &Address) -> Self {
        match address {
            Address::Tcp(address) => Self { address: Some(*address), ..self },
            Address::Unix(_) => self,
        }
    }
}

/// The hosts of an upstream.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// The hosts, and the text that is shown for each.
    list: Vec<(Host, String)>,
    order: Order,
    tcp: Arc<TcpSettings>,
    lookups: Lookups,
}

impl Hosts {
    /// The hosts in the order of the configuration.
    #[must_use]
    pub(crate) fn new(list: Vec<Host>, order: Order, tcp: TcpSettings, lookups: Lookups) -> Self {
        let list = list.into_iter().map(|host| (host.clone(), host.to_string())).collect();
        Self { list, order, tcp: Arc::new(tcp), lookups }
    }

    /// The number of hosts.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The host with this index; `None` if there is no such index.
    #[must_use]
    pub(crate) fn get(&self, host: usize) -> Option<&Host> {
        self.list.get(host).map(|(host, _)| host)
    }

    /// The host with this index and its port, as text; empty if there is no such index.
    #[must_use]
    pub(crate) fn shown(&self, host: usize) -> &str {
        self.list.get(host).map_or("", |(_, shown)| shown)
    }

    /// The socket options of each TCP connection.
    #[must_use]
    pub(crate) fn tcp(&self) -> &Arc<TcpSettings> {
        &self.tcp
    }

    /// A turn for each host, in the order in which to try them.
    #[must_use]
    pub(crate) fn in_order(&self) -> Vec<HostTurn> {
        let mut turns: Vec<_> = (0..self.len()).map(HostTurn::of).collect();
        if self.order == Order::Random {
            turns.shuffle(&mut rand::rng());
        }
        turns
    }

    /// Turns at the further addresses of the host, if `turn` is at a particular address: each address may be another
    /// server. A search gets them once: the result is empty for a turn that is itself such an address, and if the name
    /// is not resolved in time.
    pub(crate) async fn other_addresses(&self, turn: HostTurn, within: Duration) -> Vec<HostTurn> {
        let (Some(host), Some(tried), false) = (self.get(turn.host), turn.address, turn.is_further) else {
            return Vec::new();
        };
        let found = timeout(within, self.addresses(host)).await;
        let mut found = found.map_or_else(|_| Vec::new(), Result::unwrap_or_default);
        found.retain(|address| *address != tried);
        found.sort_unstable();
        found.dedup();
        found.truncate(MOST_ADDRESSES);
        found
            .into_iter()
            .map(|address| HostTurn { address: Some(address), is_further: true, ..turn })
            .collect()
    }

    /// Whether there is more than one known address, either of several hosts or of one name.
    #[must_use]
    pub(crate) fn are_several(&self) -> bool {
        self.len() > 1 || self.list.iter().any(|(host, _)| self.lookups.have_found_several(host.name()))
    }

    /// Connects to the address of the turn. Without an address it resolves the host and connects to the first address
    /// that answers. The caller bounds the whole.
    ///
    /// # Errors
    /// The system's error for the last address.
    pub(crate) async fn dial(&self, turn: HostTurn) -> io::Result<(Socket, Address)> {
        let host = self.get(turn.host).ok_or(io::ErrorKind::NotFound)?;
        match (host, turn.address) {
            (Host::Unix(path), _) => self.connect(Address::Unix(path.clone())).await,
            (Host::Tcp { .. }, Some(address)) => self.connect(Address::Tcp(address)).await,
            (Host::Tcp { .. }, None) => self.dial_any(self.addresses(host).await?).await,
        }
    }

    async fn dial_any(&self, mut addresses: Vec<SocketAddr>) -> io::Result<(Socket, Address)> {
        if self.order == Order::Random {
            addresses.shuffle(&mut rand::rng());
        }
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "name has no address");
        let last = addresses.len().saturating_sub(1);
        for (index, address) in addresses.into_iter().enumerate() {
            let attempt = self.connect(Address::Tcp(address));
            let outcome = if index == last {
                attempt.await
            } else {
                timeout(PASS_OVER_AFTER, attempt)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match outcome {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect(&self, address: Address) -> io::Result<(Socket, Address)> {
        connect(&address, &self.tcp).await.map(|socket| (socket, address))
    }

    /// The addresses that the host's name resolves to; empty for a Unix socket. The caller bounds the wait.
    async fn addresses(&self, host: &Host) -> io::Result<Vec<SocketAddr>> {
        match host {
            Host::Tcp { name, port } => self.lookups.resolve(name, *port).await,
            Host::Unix(_) => Ok(Vec::new()),
        }
    }
}

/// How long to wait for an address before the next one of the host is tried. The last address may use all the time that
/// is left.
const PASS_OVER_AFTER: Duration = Duration::from_secs(2);
/// The most further addresses of a name that are tried in one search.
const MOST_ADDRESSES: usize = 8;
