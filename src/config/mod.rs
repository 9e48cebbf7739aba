//! What the user types: flags, environment and file, merged into one [`Config`]. Floor 6.
//!
//! One rule for names: the flag `--a-b` is the variable `LEASEHOLD_A_B` and the key `a_b`; a table of the file stands
//! in front (`--vault-addr` is `[vault] addr`). A value is taken from the first of these that has one:
//!
//! 1. the flag, 2. the `LEASEHOLD_` variable, 3. the key in the file,
//! 4. for `[vault]` the `BAO_` and then the `VAULT_` variable, 5. the default.
//!
//! So what was written for leasehold beats what happens to be in the environment. An empty variable is no variable,
//! as in the `vault` command line. Nothing here binds, dials or logs; the only files read are the configuration itself
//! and, for the method `token`, `~/.vault-token`.

mod auth;
mod env;
mod error;
mod file;
mod flags;
mod known;
mod merge;
mod route;
mod routes;
mod values;
mod vault;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::files::FileSetting;

pub use auth::Method;
pub use env::Environment;
pub use error::{Error, Origin};
pub use flags::{
    AdminFlags, CheckFlags, Cli, Command, GeneralFlags, LimitFlags, ReloadFlags, RotateFlags, RouteFlags,
    RunFlags, ShutdownFlags, StatusFlags, UnbuiltFlags, VaultFlags, WaitFlags, command,
};
pub use route::{Match, Pattern, RouteConfig, UpstreamUri};
pub use values::{Bad, OrOff, duration};

use merge::Sources;

/// Everything that `run` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect; never empty.
    pub listen: Vec<Listen>,
    /// Where probes and `/metrics` are served.
    pub http: Option<SocketAddr>,
    /// Where everything else is served.
    pub admin: Option<crate::admin::Address>,
    /// What is logged, and how.
    pub log: crate::log::Options,
    /// How long a shutdown waits.
    pub sigterm: crate::shutdown::Delays,
    /// Where credentials are kept beyond a crash.
    pub state_file: Option<FileSetting>,
    /// How to reach Vault, and how to log in.
    pub vault: crate::vault::Config,
    /// The routes in the order in which they are tried; never empty.
    pub routes: Vec<RouteConfig>,
    /// Bounds on what clients, servers and Vault are asked for.
    pub limits: Limits,
    /// What becomes of a CancelRequest with a key that is not ours.
    pub cancel: Cancel,
    /// What should be said at start.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Merges and checks the configuration.
    ///
    /// # Errors
    /// At the first value that is missing or wrong; nothing has been bound by then.
    pub fn load(flags: &RunFlags, env: &Environment) -> Result<Self, Error> {
        let sources = Sources::open(flags.general.at.config.as_deref(), env)?;
        flags.unbuilt.refuse()?;
        sources.refuse_unbuilt()?;
        let listen = merge::listen(&sources, &flags.general)?;
        let public = listen.iter().any(|listen| !listen.is_private());
        let (vault, mut warnings) = vault::merge(&sources, &flags.vault)?;
        warnings.extend(env.unknown().into_iter().map(Warning::unknown_variable));
        Ok(Self {
            http: merge::http(&sources, &flags.general)?,
            admin: merge::admin(&sources, &flags.general.at)?,
            log: merge::log(&sources, &flags.general)?,
            sigterm: merge::sigterm(&sources, &flags.general)?,
            state_file: merge::state_file(&sources, &flags.general)?,
            routes: routes::merge(&sources, &flags.route)?,
            limits: merge::limits(&sources, &flags.limits)?,
            cancel: merge::cancel(&sources, &flags.limits, public)?,
            listen,
            vault,
            warnings,
        })
    }

    /// As [`Config::load`], for what asks nothing of Vault: a token is neither needed nor read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_without_token(flags: &RunFlags, env: &Environment) -> Result<Self, Error> {
        Self::load(flags, &env.with_no_token())
    }

    /// The first route for what a client asked for. `database` is what it named, or its user name where it named none.
    #[must_use]
    pub fn route_for(&self, user: &[u8], database: &[u8]) -> Option<usize> {
        self.routes.iter().position(|route| route.matching.accepts(user, database))
    }
}

/// What is not as it should be, though it can be served with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// One line.
    pub text: String,
    /// What mends it.
    pub remedy: &'static str,
}

impl Warning {
    fn unknown_variable((name, meant): (String, Option<String>)) -> Self {
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        Self {
            text: format!("{name}: no setting has this name, so the variable is ignored{meant}"),
            remedy: "correct the variable's name, or take it out of the environment",
        }
    }
}

/// Where a command finds a running leasehold; `None` if its admin address is off.
///
/// # Errors
/// As [`Config::load`], for the file as a whole and for this one value.
pub fn admin_address(flags: &AdminFlags, env: &Environment) -> Result<Option<crate::admin::Address>, Error> {
    let sources = Sources::open(flags.config.as_deref(), env)?;
    merge::admin(&sources, flags)
}

/// One listener for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its address.
    pub address: ListenAddress,
    /// It stands in the default list: a machine without this address family is no error.
    pub optional: bool,
}

/// An address for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket: the whole path, `/dir/.s.PGSQL.<port>`.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        match &self.address {
            ListenAddress::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            ListenAddress::Unix(_) => true,
        }
    }

    /// Both loopbacks; the second only where there is IPv6.
    fn default_list() -> Vec<Self> {
        vec![
            Self { address: ListenAddress::Tcp((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into()), optional: false },
            Self { address: ListenAddress::Tcp((Ipv6Addr::LOCALHOST, DEFAULT_PORT).into()), optional: true },
        ]
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// `[limits]`. Counts of 0 are no limit; every span is longer than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the whole StartupMessage.
    pub handshake_timeout: Duration,
    /// How long a login waits for a usable credential.
    pub login_wait: Duration,
    /// Each upstream host: TCP to ReadyForQuery. The URI's word beats it.
    pub connect_timeout: Duration,
    /// Writing handshake, error or close messages to a client.
    pub send_timeout: Duration,
    /// Sessions of the process.
    pub max_sessions: usize,
    /// How long an upstream server may lag in learning of a credential, if it was written: the default depends on how
    /// many addresses a route has.
    pub replica_grace: Option<Duration>,
    /// How many grants out of turn may follow each other at once.
    pub issue_burst: u32,
    /// How long it takes until one more is allowed.
    pub issue_interval: Duration,
}

/// `[cancel]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// A key that belongs to no session here.
    pub unknown: UnknownCancel,
}

/// What becomes of a CancelRequest whose key belongs to no session here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownCancel {
    /// Closed silently.
    Off,
    /// Sent to the upstream hosts, within bounds: it may be another replica's.
    Forward,
}

/// PostgreSQL's 5432 moved up by a thousand, as poolers do, so that both fit on one host.
const DEFAULT_PORT: u16 = 6432;

#[cfg(test)]
mod tests;
