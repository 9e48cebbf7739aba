//! The upstream server: where it is, how to reach it, and the one way to get a session with it. Floor 2.
//!
//! | module | what |
//! |---|---|
//! | [`uri`] | the URI that a user types |
//! | [`dial`] | sockets and the stream over them |
//! | [`tls`] | `sslmode`, certificates, channel binding |
//! | [`login`] | the login: a [`Leg`] or a [`LoginError`] |
//! | `client` | a leg in the hands of tokio-postgres, for questions of our own |
//! | [`cancel`] | the way to cancel a leg's statement |
//! | `target` | `target_session_attrs` |
//! | [`refusal`] | the server's own error in place of a session |

pub mod cancel;
mod client;
mod conversation;
pub mod dial;
pub mod login;
pub mod refusal;
mod target;
pub mod tls;
pub mod uri;

use std::collections::VecDeque;
use std::time::Duration;

use rand::seq::SliceRandom as _;

use crate::postgres::protocol::auth::method::{ChannelBinding, RequireAuth};
use crate::postgres::protocol::auth::scram;
use tls::Tls;
use uri::{Host, LoadBalanceHosts, TargetSessionAttrs, TcpWords, Uri};

pub use cancel::CancelTarget;
pub use conversation::Fault;
pub use login::{Error as LoginError, Leg};

/// One host's turn in a search for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Counts from 0, as written.
    pub host: usize,
    /// What it has to be.
    wanted: TargetSessionAttrs,
}

/// What holds for logins and does not stand in the URI.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From TCP to ReadyForQuery, per host, where the URI has no `connect_timeout`.
    pub connect_timeout: Duration,
    /// `require_auth`.
    pub require_auth: RequireAuth,
}

/// An upstream: one cluster of one or more hosts. Share one, since it remembers what SCRAM derived from passwords.
#[derive(Debug)]
pub struct Upstream {
    hosts: Vec<(Host, String)>,
    database: Option<String>,
    connect_timeout: Duration,
    tls: Option<Tls>,
    tcp: TcpWords,
    balance: LoadBalanceHosts,
    target: TargetSessionAttrs,
    channel_binding: ChannelBinding,
    require_auth: RequireAuth,
    keys: scram::Keys,
}

impl Upstream {
    /// Reads the certificate files that the URI names. Blocks on them.
    ///
    /// # Errors
    /// A file cannot be used, or the system has no roots where it must.
    pub fn new(uri: Uri, settings: Settings) -> Result<Self, tls::FileError> {
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
            keys: scram::Keys::default(),
        })
    }

    /// How many hosts there are.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// A host as configured, with its port; empty for a number that is no host's.
    #[must_use]
    pub fn host_name(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("", |(_, name)| name)
    }

    /// The hosts in the order in which to try them: as written, or shuffled by `load_balance_hosts=random`.
    #[must_use]
    pub fn order(&self) -> VecDeque<Turn> {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        if self.balance == LoadBalanceHosts::Random {
            order.shuffle(&mut rand::rng());
        }
        order.into_iter().map(|host| Turn { host, wanted: self.target }).collect()
    }

    /// Every host once, as written, whatever it is: for questions, not for sessions.
    #[must_use]
    pub fn each(&self) -> Vec<Turn> {
        (0..self.hosts.len()).map(|host| Turn { host, wanted: TargetSessionAttrs::Any }).collect()
    }

    /// A second turn for a host that was [`LoginError::Unsuitable`]: with `prefer-standby` any host will do once all have
    /// had their first.
    #[must_use]
    pub fn second(&self, turn: Turn) -> Option<Turn> {
        let prefers = turn.wanted == TargetSessionAttrs::PreferStandby;
        prefers.then_some(Turn { wanted: TargetSessionAttrs::Any, ..turn })
    }

    /// The database of the URI.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The bound on a login at one host.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    fn host(&self, host: usize) -> Option<&Host> {
        self.hosts.get(host).map(|(host, _)| host)
    }
}
