//! What the user types: flags, environment and file, merged into one [`Config`]. Floor 6.
//!
//! One rule for names: the flag `--a-b` is the variable `LEASEHOLD_A_B` and the key `a_b`; a table of the file stands
//! in front (`--vault-addr` is `[vault] addr`). A value is taken from the first of these that has one:
//!
//! 1. the flag, 2. the `LEASEHOLD_` variable, 3. the key in the file,
//! 4. for `[vault]` the `BAO_` and then the `VAULT_` variable, 5. the default.
//!
//! So what was written for leasehold beats what happens to be in the environment. An empty variable is no variable,
//! as in the `vault` command line. Nothing here binds, dials or logs; the only files read are the configuration itself,
//! for the method `token` `~/.vault-token`, and for names of users and groups `/etc/passwd` and `/etc/group`.

mod access;
mod auth;
mod env;
mod error;
mod file;
mod flags;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod general;
mod key;
mod keys;
mod known;
mod listener;
mod method;
mod route;
mod routes;
mod shown;
mod sources;
mod values;
mod vault;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::console::ShownSetting;
use crate::files::FileSetting;
use crate::hardening::Hardening;
use crate::postgres::cancel::Unknown;
use crate::postgres::console::Access;
use crate::socket::{Address, Network};
use crate::{acceptor, log, otlp, session, shutdown};

pub(crate) use env::Environment;
pub(crate) use error::Error;
#[cfg(test)]
pub(crate) use error::Origin;
pub use flags::command;
pub(crate) use flags::{
    AdminFlags, CheckFlags, Cli, Command, LogLevelFlags, ReloadFlags, RotateFlags, RunFlags, SessionsFlags,
    ShowFlags, ShutdownFlags, SimulateFlags, StatusFlags, WaitFlags,
};
pub use key::Setting;
pub(crate) use listener::{Listen, Listener};
pub(crate) use route::RouteConfig;
#[cfg(test)]
pub(crate) use route::UpstreamUri;

use flags::Flags;
use sources::Sources;

/// Everything that `run` needs to know, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where clients connect; never empty.
    pub(crate) listeners: Vec<Listener>,
    /// From where clients may connect over TCP; `None` is from everywhere.
    pub(crate) allow_addresses: Option<Vec<Network>>,
    /// Where probes and `/metrics` are served.
    pub(crate) http: Option<SocketAddr>,
    /// Where everything else is served.
    pub(crate) admin: Option<Address>,
    /// How many threads carry sessions.
    pub(crate) threads: NonZeroUsize,
    /// What is logged, and how.
    pub(crate) log: log::Options,
    /// How long a shutdown waits.
    pub(crate) sigterm: shutdown::Delays,
    /// Where credentials are kept beyond a crash.
    pub(crate) state_file: Option<FileSetting>,
    /// Where the audit trail is written, beside the log; `None`: nowhere.
    pub(crate) audit_file: Option<FileSetting>,
    /// Where spans are sent; `None`: nowhere.
    pub(crate) traces: Option<otlp::Settings>,
    /// Whether the process restricts itself.
    pub(crate) hardening: Hardening,
    /// How to reach Vault, and how to log in.
    pub(crate) vault: crate::vault::Config,
    /// The routes in the order in which they are tried; never empty.
    pub(crate) routes: Vec<RouteConfig>,
    /// What clients are offered TLS with.
    pub(crate) tls: Option<acceptor::Settings>,
    /// Bounds on what clients, servers and Vault are asked for.
    pub(crate) limits: Limits,
    /// What is done with a CancelRequest whose key is unknown here.
    pub(crate) cancel_unknown: Unknown,
    /// Who may use the console.
    pub(crate) console: Access,
    /// The database that it is.
    pub(crate) console_database: String,
    /// The settings as they were written.
    pub(crate) shown: Vec<ShownSetting>,
    /// Warnings for the start.
    pub(crate) warnings: Vec<Warning>,
}

impl Config {
    /// Merges and checks the configuration.
    ///
    /// # Errors
    /// At the first value that is missing or wrong; nothing has been bound by then.
    pub(crate) fn load(flags: &RunFlags, env: &Environment) -> Result<Self, Error> {
        Self::of(&flags.0, env, true)
    }

    /// As [`Config::load`], for what asks nothing of Vault: a token is neither needed nor read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_without_token(flags: &RunFlags, env: &Environment) -> Result<Self, Error> {
        Self::of(&flags.0, env, false)
    }

    /// All addresses where clients connect.
    pub(crate) fn listen(&self) -> impl Iterator<Item = &Listen> {
        listener::addresses(&self.listeners)
    }

    fn of(flags: &Flags, env: &Environment, with_token: bool) -> Result<Self, Error> {
        let sources = Sources::open(flags, env)?;
        Self::of_sources(&sources, with_token).map_err(|error| sources.name_file(error))
    }

    fn of_sources(sources: &Sources<'_>, with_token: bool) -> Result<Self, Error> {
        sources.refuse_later()?;
        let listeners = listener::merge(sources)?;
        let public = listener::addresses(&listeners).any(|listen| !listen.address.is_local());
        let (vault, mut warnings) = vault::merge(sources, with_token)?;
        warnings.extend(sources.env.unknown().into_iter().map(Warning::unknown_variable));
        let traces = otlp::read(|name| sources.env.get(name)).unwrap_or_else(|unusable| {
            warnings.push(Warning::no_traces(&unusable));
            None
        });
        let console = sources.get(&keys::CONSOLE)?;
        if public && console == Access::All {
            warnings.push(Warning::open_console());
        }
        let routes = routes::merge(sources)?;
        Ok(Self {
            allow_addresses: general::allow_addresses(sources)?,
            http: general::http(sources)?,
            admin: general::admin(sources)?,
            threads: general::threads(sources)?,
            log: general::log(sources)?,
            sigterm: general::sigterm(sources)?,
            state_file: general::state_file(sources)?,
            console,
            console_database: sources.get(&keys::CONSOLE_DATABASE)?,
            shown: shown::shown(sources, &routes),
            routes,
            audit_file: general::audit_file(sources)?,
            traces,
            hardening: sources.get(&keys::HARDENING)?,
            tls: general::tls(sources)?,
            limits: general::limits(sources)?,
            cancel_unknown: general::cancel_unknown(sources, public)?,
            listeners,
            vault,
            warnings,
        })
    }
}

/// Every setting, in the order of the help.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    keys::ALL.iter().copied()
}

/// A setting with which leasehold can serve, but should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// The warning, in one line.
    pub(crate) text: String,
    /// How to mend it.
    pub(crate) remedy: &'static str,
}

impl Warning {
    fn open_console() -> Self {
        Self {
            text: "console: whoever reaches a listener beyond this machine sees roles, users and addresses"
                .to_owned(),
            remedy: "write console = \"socket\", and look at it over a Unix socket",
        }
    }

    fn no_traces(unusable: &otlp::Unusable) -> Self {
        Self { text: unusable.to_string(), remedy: unusable.remedy }
    }

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
pub(crate) fn admin_address(flags: &AdminFlags, env: &Environment) -> Result<Option<Address>, Error> {
    general::admin(&Sources::open(&flags.0, env)?)
}

/// `[limits]`. Counts of 0 are no limit; every span is longer than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Those of sessions.
    pub(crate) sessions: session::Limits,
    /// Each upstream host: TCP to ReadyForQuery. A `connect_timeout` in the URI overrides it.
    pub(crate) connect_timeout: Duration,
    /// How long an upstream server may lag in learning of a credential, if it was written: the default depends on how
    /// many addresses a route has.
    pub(crate) replica_grace: Option<Duration>,
    /// How many grants out of turn may follow each other at once.
    pub(crate) issue_burst: u32,
    /// How long it takes until one more is allowed.
    pub(crate) issue_interval: Duration,
}

#[cfg(test)]
mod tests;
