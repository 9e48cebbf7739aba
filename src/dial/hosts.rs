//! The hosts of one upstream, all of one cluster, and the order in which they are tried. Floor 2.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::time::timeout;

use super::{Lookups, Socket, TcpSettings, connect};
use crate::socket::Address;

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// By TCP.
    Tcp {
        /// A DNS name or an IP address, without brackets.
        name: String,
        /// Its port.
        port: u16,
    },
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl Host {
    /// Whether it is a Unix socket.
    #[must_use]
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The name to find in a certificate; empty for a socket.
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

/// In which order hosts, and the addresses of a host, are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// As written.
    #[default]
    AsWritten,
    /// At random each time.
    Random,
}

/// One host's turn in a search for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostTurn {
    /// Counts from 0, as written.
    pub(crate) host: usize,
    /// The one of its addresses to connect to; `None` is the first one that answers.
    address: Option<SocketAddr>,
    /// Whether the other addresses of its host have their own turns already.
    is_further: bool,
}

impl HostTurn {
    /// At whichever address of this host.
    #[must_use]
    pub(crate) fn of(host: usize) -> Self {
        Self { host, address: None, is_further: false }
    }

    /// At this address of the same host, as a name may lead to another server each time it is resolved.
    #[must_use]
    pub(crate) fn at(self, address: &Address) -> Self {
        match address {
            Address::Tcp(address) => Self { address: Some(*address), ..self },
            Address::Unix(_) => self,
        }
    }
}

/// The hosts.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Each with how it is shown.
    list: Vec<(Host, String)>,
    order: Order,
    tcp: TcpSettings,
    lookups: Lookups,
}

impl Hosts {
    /// These, as written.
    #[must_use]
    pub(crate) fn new(list: Vec<Host>, order: Order, tcp: TcpSettings, lookups: Lookups) -> Self {
        let list = list.into_iter().map(|host| (host.clone(), host.to_string())).collect();
        Self { list, order, tcp, lookups }
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// A host as configured; `None` for a number that is no host's.
    #[must_use]
    pub(crate) fn get(&self, host: usize) -> Option<&Host> {
        self.list.get(host).map(|(host, _)| host)
    }

    /// A host as configured, with its port; empty for a number that is no host's.
    #[must_use]
    pub(crate) fn shown(&self, host: usize) -> &str {
        self.list.get(host).map_or("", |(_, shown)| shown)
    }

    /// The options of each TCP socket.
    #[must_use]
    pub(crate) fn tcp(&self) -> &TcpSettings {
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

    /// A turn at each further address of the host, for a turn at a particular one: each may be a server of its own. They are
    /// given once in a search: nothing comes of a turn that was one of them, nor where the name cannot be resolved in time.
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

    /// Whether more than one address is known: of several hosts, or of one name.
    #[must_use]
    pub(crate) fn are_several(&self) -> bool {
        self.len() > 1 || self.list.iter().any(|(host, _)| self.lookups.have_found_several(host.name()))
    }

    /// Connects to the turn's address of its host; without one it resolves the host and connects to the first of its
    /// addresses that answers. The caller bounds the whole.
    ///
    /// # Errors
    /// What the system said of the last address.
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

    /// What the host's name resolves to; nothing for a Unix socket. The caller bounds the wait.
    async fn addresses(&self, host: &Host) -> io::Result<Vec<SocketAddr>> {
        match host {
            Host::Tcp { name, port } => self.lookups.resolve(name, *port).await,
            Host::Unix(_) => Ok(Vec::new()),
        }
    }
}

/// How long an address of a host may keep the next one waiting; the last one may use all that is left.
const PASS_OVER_AFTER: Duration = Duration::from_secs(2);
/// At most this many further addresses of a name are tried in one search.
const MOST_ADDRESSES: usize = 8;
