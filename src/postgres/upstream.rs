//! The upstream server: where it is, how to reach it, and the one way to get a session with it. Floor 2.
//!
//! | module | what |
//! |---|---|
//! | [`uri`] | the URI that a user types |
//! | [`dial`] | sockets and the stream over them |
//! | [`tls`] | SSLRequest and `sslmode` |
//! | `end_point` | channel binding |
//! | [`login`] | the login: an [`UpstreamSession`] or a [`LoginError`] |
//! | `keys` | what SCRAM makes of passwords, derived beside the runtime |
//! | `client` | a leg in the hands of tokio-postgres, for questions of our own |
//! | [`cancel`] | the way to cancel a leg's statement |
//! | `target` | `target_session_attrs` |
//! | [`refusal`] | the server's own error in place of a session |

pub(crate) mod cancel;
mod client;
mod conversation;
pub(crate) mod dial;
mod end_point;
mod keys;
pub(crate) mod login;
pub(crate) mod refusal;
mod target;
pub(crate) mod tls;
pub(crate) mod uri;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::time::timeout;

use crate::postgres::protocol::auth::method::{ChannelBinding, RequireAuth};
use keys::KeysOfUpstream;
use tls::Tls;
use uri::{Host, LoadBalanceHosts, TargetSessionAttrs, TcpWords, Uri};

pub(crate) use cancel::CancelTarget;
pub(crate) use conversation::Fault;
pub(crate) use dial::Address;
pub(crate) use keys::Derivations;
pub(crate) use login::{Error as LoginError, UpstreamSession};

/// One host's turn in a search for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Counts from 0, as written.
    pub(crate) host: usize,
    /// The one of its addresses to connect to; `None` is the first one that answers.
    address: Option<SocketAddr>,
    /// Whether the other addresses of its host have their own turns already.
    is_further: bool,
    /// What it has to be.
    wanted: TargetSessionAttrs,
}

impl Turn {
    /// Whether a server of any kind will do.
    #[must_use]
    pub(crate) fn takes_any(self) -> bool {
        self.wanted == TargetSessionAttrs::Any
    }

    /// A turn at this address of the same host, as a name may lead to another server each time it is resolved.
    #[must_use]
    pub(crate) fn at(self, address: &Address) -> Self {
        match address {
            Address::Tcp(address) => Self { address: Some(*address), ..self },
            Address::Unix(_) => self,
        }
    }
}

/// What holds for logins and does not stand in the URI.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// From TCP to ReadyForQuery, per host, where the URI has no `connect_timeout`.
    pub(crate) connect_timeout: Duration,
    /// `require_auth`.
    pub(crate) require_auth: RequireAuth,
    /// `replica_grace`, if it was written.
    pub(crate) replica_grace: Option<Duration>,
    /// How many derivations of SCRAM's keys may run at once.
    pub(crate) derivations: Derivations,
}

/// An upstream: one cluster of one or more hosts. Share one, since it remembers what SCRAM derived from passwords.
#[derive(Debug)]
pub(crate) struct Upstream {
    hosts: Vec<(Host, String)>,
    database: Option<String>,
    connect_timeout: Duration,
    tls: Option<Tls>,
    tcp: TcpWords,
    balance: LoadBalanceHosts,
    target: TargetSessionAttrs,
    channel_binding: ChannelBinding,
    require_auth: RequireAuth,
    replica_grace: Option<Duration>,
    keys: KeysOfUpstream,
}

impl Upstream {
    /// Reads the certificate files that the URI names. Blocks on them.
    ///
    /// # Errors
    /// A file cannot be used, or the system has no roots where it must.
    pub(crate) fn new(uri: Uri, settings: Settings) -> Result<Self, tls::FileError> {
        let only_sockets = uri.hosts.iter().all(|host| host.socket().is_some());
        let tls = if only_sockets { None } else { Tls::new(&uri.tls)? };
        Ok(Self {
            hosts: uri.hosts.into_iter().map(|host| (host.clone(), host.to_string())).collect(),
            database: uri.database,
            connect_timeout: uri.connect_timeout.unwrap_or(settings.connect_timeout),
            tls,
            tcp: uri.tcp,
            balance: uri.load_balance_hosts,
            target: uri.target_session_attrs,
            channel_binding: uri.channel_binding,
            require_auth: settings.require_auth,
            replica_grace: settings.replica_grace,
            keys: KeysOfUpstream::new(settings.derivations),
        })
    }

    /// How many hosts there are.
    #[must_use]
    pub(crate) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// A host as configured, with its port; empty for a number that is no host's.
    #[must_use]
    pub(crate) fn host_name(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("", |(_, name)| name)
    }

    /// The hosts in the order in which to try them: as written, or shuffled by `load_balance_hosts=random`.
    #[must_use]
    pub(crate) fn order(&self) -> VecDeque<Turn> {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        if self.balance == LoadBalanceHosts::Random {
            order.shuffle(&mut rand::rng());
        }
        order
            .into_iter()
            .map(|host| Turn { host, address: None, is_further: false, wanted: self.target })
            .collect()
    }

    /// Every host once, as written, whatever it is: for questions, not for sessions.
    #[must_use]
    pub(crate) fn each(&self) -> Vec<Turn> {
        (0..self.hosts.len())
            .map(|host| Turn { host, address: None, is_further: false, wanted: TargetSessionAttrs::Any })
            .collect()
    }

    /// A second turn for a host that was [`LoginError::Unsuitable`]: with `prefer-standby` any host will do once all have
    /// had their first.
    #[must_use]
    pub(crate) fn second(&self, turn: Turn) -> Option<Turn> {
        let prefers = turn.wanted == TargetSessionAttrs::PreferStandby;
        prefers.then_some(Turn { wanted: TargetSessionAttrs::Any, ..turn })
    }

    /// A turn at each further address of the host, for a turn at a particular one: each may be a server of its own. They are
    /// given once in a search: nothing comes of a turn that was one of them, nor where the name cannot be resolved within
    /// [`Upstream::connect_timeout`].
    pub(crate) async fn other_addresses(&self, turn: Turn) -> Vec<Turn> {
        let (Some(host), Some(tried), false) = (self.host(turn.host), turn.address, turn.is_further) else {
            return Vec::new();
        };
        let found = timeout(self.connect_timeout, dial::addresses(host)).await;
        let mut found = found.map_or_else(|_| Vec::new(), Result::unwrap_or_default);
        found.retain(|address| *address != tried);
        found.sort_unstable();
        found.dedup();
        found.truncate(MOST_ADDRESSES);
        found.into_iter().map(|address| Turn { address: Some(address), is_further: true, ..turn }).collect()
    }

    /// How long after its publication a credential may be unknown to a server here: what was written, or else 30 s where
    /// there is more than one address, and nothing where there is one.
    #[must_use]
    pub(crate) fn replica_grace(&self) -> Duration {
        let several = || {
            self.hosts.len() > 1
                || self.hosts.iter().any(|(host, _)| dial::has_several_addresses(host.name()))
        };
        self.replica_grace.unwrap_or_else(|| if several() { REPLICA_GRACE } else { Duration::ZERO })
    }

    /// The database of the URI.
    #[must_use]
    pub(crate) fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The bound on a login at one host.
    #[must_use]
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    fn host(&self, host: usize) -> Option<&Host> {
        self.hosts.get(host).map(|(host, _)| host)
    }
}

/// A streaming replica replays within a few seconds; one under load, or with a delay that is set, takes longer.
const REPLICA_GRACE: Duration = Duration::from_secs(30);
/// At most this many further addresses of a name are tried in one search.
const MOST_ADDRESSES: usize = 8;
