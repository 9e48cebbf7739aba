//! The upstream server: where it is, how to reach it, and the one way to get a session with it. Floor 2.
//!
//! | module | what |
//! |---|---|
//! | [`uri`] | the URI that a user types |
//! | [`tls`] | SSLRequest and `sslmode` |
//! | `end_point` | channel binding |
//! | [`login`] | the login: an [`UpstreamSession`] or a [`LoginError`] |
//! | `keys` | what SCRAM makes of passwords, derived beside the runtime |
//! | `client` | a session in the hands of tokio-postgres, for questions of our own |
//! | [`cancel`] | the way to cancel a session's statement |
//! | `target` | `target_session_attrs` |
//! | `reset` | what makes a session ready for another client |
//! | [`refusal`] | the server's own error in place of a session |

pub(crate) mod cancel;
mod client;
mod conversation;
mod end_point;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod keys;
pub(crate) mod login;
pub(crate) mod refusal;
mod reset;
mod target;
pub(crate) mod tls;
pub(crate) mod uri;

use std::collections::VecDeque;
use std::time::Duration;

use crate::dial::{Host, HostTurn, Hosts, Lookups};
use crate::postgres::protocol::auth::method::{ChannelBinding, RequireAuth};
use crate::socket::Address;
use keys::KeysOfUpstream;
use tls::Tls;
use uri::{TargetSessionAttrs, Uri};

pub(crate) use cancel::CancelTarget;
pub(crate) use conversation::Fault;
pub(crate) use keys::Derivations;
pub(crate) use login::{Error as LoginError, UpstreamSession};

/// One host's turn in a search for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    of: HostTurn,
    /// What it has to be.
    wanted: TargetSessionAttrs,
}

impl Turn {
    /// Counts from 0, as written.
    #[must_use]
    pub(crate) fn host(self) -> usize {
        self.of.host
    }

    /// Whether a server of any kind will do.
    #[must_use]
    pub(crate) fn takes_any(self) -> bool {
        self.wanted == TargetSessionAttrs::Any
    }

    /// A turn at this address of the same host, as a name may lead to another server each time it is resolved.
    #[must_use]
    pub(crate) fn at(self, address: &Address) -> Self {
        Self { of: self.of.at(address), ..self }
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
    /// What it has in common with all other upstreams.
    pub(crate) shared: Shared,
}

/// What all upstreams share, those of a reload included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    /// How many derivations of SCRAM's keys may run at once.
    derivations: Derivations,
    /// What names resolve to.
    lookups: Lookups,
}

/// An upstream: one cluster of one or more hosts. Share one, since it remembers what SCRAM derived from passwords.
#[derive(Debug)]
pub(crate) struct Upstream {
    hosts: Hosts,
    database: Option<String>,
    connect_timeout: Duration,
    tls: Option<Tls>,
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
        let only_sockets = uri.hosts.iter().all(Host::is_socket);
        let tls = if only_sockets { None } else { Tls::new(&uri.tls)? };
        Ok(Self {
            hosts: Hosts::new(uri.hosts, uri.load_balance_hosts, uri.tcp, settings.shared.lookups),
            database: uri.database,
            connect_timeout: uri.connect_timeout.unwrap_or(settings.connect_timeout),
            tls,
            target: uri.target_session_attrs,
            channel_binding: uri.channel_binding,
            require_auth: settings.require_auth,
            replica_grace: settings.replica_grace,
            keys: KeysOfUpstream::new(settings.shared.derivations),
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
        self.hosts.shown(host)
    }

    /// All hosts as configured.
    #[must_use]
    pub(crate) fn host_names(&self) -> Vec<&str> {
        (0..self.hosts()).map(|host| self.host_name(host)).collect()
    }

    /// The hosts in the order in which to try them: as written, or shuffled by `load_balance_hosts=random`.
    #[must_use]
    pub(crate) fn order(&self) -> VecDeque<Turn> {
        self.hosts.in_order().into_iter().map(|of| Turn { of, wanted: self.target }).collect()
    }

    /// Every host once, as written, whatever it is: for questions, not for sessions.
    #[must_use]
    pub(crate) fn each(&self) -> Vec<Turn> {
        let turns = (0..self.hosts()).map(HostTurn::of);
        turns.map(|of| Turn { of, wanted: TargetSessionAttrs::Any }).collect()
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
        let found = self.hosts.other_addresses(turn.of, self.connect_timeout).await;
        found.into_iter().map(|of| Turn { of, ..turn }).collect()
    }

    /// How long after its publication a credential may be unknown to a server here: what was written, or else 30 s where
    /// there is more than one address, and nothing where there is one.
    #[must_use]
    pub(crate) fn replica_grace(&self) -> Duration {
        let by_default = || if self.hosts.are_several() { REPLICA_GRACE } else { Duration::ZERO };
        self.replica_grace.unwrap_or_else(by_default)
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
}

/// A streaming replica replays within a few seconds; one under load, or with a delay that is set, takes longer.
const REPLICA_GRACE: Duration = Duration::from_secs(30);
