//! The command line. Floor 6.
//!
//! What stands here as a doc comment is what `--help` prints; the settings of `run` come from [the table](super::keys).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};

use super::key::{Form, Setting};
use super::{Environment, keys, values};
use crate::credentials::DrainSpan;

/// The whole command line as clap knows it, for its own help, shell completion and tests.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// A PostgreSQL proxy that logs in upstream with the current dynamic credential of Vault or OpenBao
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What leasehold can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve
    #[command(after_help = NAMES)]
    Run(Box<RunFlags>),
    /// Find out what would go wrong, and what mends it
    #[command(after_help = CHECK)]
    Check(Box<CheckFlags>),
    /// Print the least Vault policy (HCL) for a configuration
    #[command(after_help = POLICY)]
    Policy(Box<RunFlags>),
    /// Show routes and credentials of a running leasehold
    Status(StatusFlags),
    /// Publish fresh credentials now
    #[command(after_help = "Exit 1 if no fresh credential could be published; then nothing is drained.")]
    Rotate(RotateFlags),
    /// Read the configuration file again, as SIGHUP does
    #[command(after_help = "Exit 1 if the file is bad; then nothing has changed.")]
    Reload(ReloadFlags),
    /// Wait until a running leasehold is ready
    Wait(WaitFlags),
    /// Stop a running leasehold, as SIGTERM does
    Shutdown(ShutdownFlags),
    /// Show what a fleet of sidecars asks of Vault, by simulating it
    #[command(after_help = SIMULATE)]
    Simulate(SimulateFlags),
}

const NAMES: &str = "\
Every flag --a-b is also the variable LEASEHOLD_A_B and the key a_b of the file, with its table in front: \
--vault-addr is `addr` in [vault]. A flag beats the variable, the variable beats the file. Vault's settings are also \
taken from BAO_* and then VAULT_*. Durations are written 500ms, 2m, 1h30m. No flag, variable or key holds a \
password; a token is taken from BAO_TOKEN, VAULT_TOKEN or ~/.vault-token.";

const CHECK: &str = "\
It takes what run takes, and does once what run does: it logs in to Vault, issues a credential for each route, logs in \
with it, and gives everything back. Exit 0 if there is no error, 1 if there is one; warnings are no errors.";

const POLICY: &str = "\
It takes what run takes, and prints what the token of that login must be allowed. Nothing is asked of Vault, and no \
token is needed. Pipe it into `vault policy write leasehold -`.";

const SIMULATE: &str = "\
No server is asked, and no configuration is read: the sidecars are simulated with the defaults of run. Without a name every \
scenario is simulated. docs/fleet.md says what they are, and what the model of Vault is. Exit 1 if a promise was broken.";

/// Settings that were given as flags, by their paths.
///
/// A flag is no place for a secret, but a user may have put one there: Debug shows the names of the flags alone.
#[derive(Clone, Default)]
pub(super) struct Flags(BTreeMap<String, String>);

impl Flags {
    /// The text of one, if it was given; lists are joined by commas.
    pub(super) fn get(&self, setting: &Setting) -> Option<&str> {
        self.0.get(&setting.path()).map(String::as_str)
    }

    fn of(matches: &ArgMatches, settings: impl Iterator<Item = &'static Setting>) -> Self {
        let given = settings.filter_map(|setting| {
            let flag = setting.flag();
            let from_here = matches.value_source(&flag) == Some(ValueSource::CommandLine);
            let texts: Vec<String> = matches.get_many(&flag).filter(|_| from_here)?.cloned().collect();
            Some((setting.path(), texts.join(",")))
        });
        Self(given.collect())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Everything that `run` takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunFlags(pub(super) Flags);

/// Where the file and the admin address are: what every command takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdminFlags(pub(super) Flags);

impl RunFlags {
    /// As `--config FILE`.
    #[cfg(test)]
    pub(crate) fn of_file(path: &std::path::Path) -> Self {
        Self(Flags([("config".to_owned(), path.display().to_string())].into()))
    }

    /// Whether a file is named, here or by the variable.
    #[must_use]
    pub(crate) fn name_a_file(&self, env: &Environment) -> bool {
        self.0.get(keys::CONFIG.setting).is_some() || env.get(&keys::CONFIG.setting.variable()).is_some()
    }

    fn settings() -> impl Iterator<Item = &'static Setting> {
        keys::ALL.iter().copied().filter(|setting| setting.is_flag())
    }
}

impl AdminFlags {
    fn settings() -> impl Iterator<Item = &'static Setting> {
        [keys::CONFIG.setting, keys::ADMIN.setting].into_iter()
    }
}

/// How clap takes a set of settings.
macro_rules! takes {
    ($flags:ident) => {
        impl Args for $flags {
            fn augment_args(command: clap::Command) -> clap::Command {
                Self::settings().fold(command, |command, setting| command.arg(argument(setting)))
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $flags {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(Flags::of(matches, Self::settings())))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

takes!(RunFlags);
takes!(AdminFlags);

/// A setting as clap knows it. The value stays text; whether it can be read is found out here, so that a wrong flag is a
/// usage error.
fn argument(setting: &'static Setting) -> Arg {
    let check = if setting.form == Form::Unread { |_: &str| Ok(()) } else { setting.check };
    let read = move |text: &str| check(text).map(|()| text.to_owned());
    let default = setting.default();
    let help =
        if default.is_empty() { setting.help() } else { format!("{} [default: {default}]", setting.help()) };
    let argument = Arg::new(setting.flag())
        .long(setting.flag())
        .value_name(setting.placeholder)
        .value_parser(ValueParser::new(read))
        .help(help)
        .help_heading(setting.table.heading());
    match setting.form {
        Form::List => argument.action(ArgAction::Append),
        Form::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Form::Later => argument.hide(true).num_args(0..=1),
        Form::Text | Form::Unread | Form::Number => argument,
    }
}

/// What `check` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckFlags {
    #[command(flatten)]
    pub(crate) run: RunFlags,
    /// Look at the configuration and its files alone; no token is needed
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print an array of {check, route, outcome, detail, remedy}
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `status` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusFlags {
    /// The address of the running leasehold.
    #[command(flatten)]
    pub(crate) at: AdminFlags,
    /// Print the document of GET /status
    #[arg(long)]
    pub(crate) json: bool,
    /// Print again every two seconds
    #[arg(long)]
    pub(crate) watch: bool,
}

/// What `rotate` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct RotateFlags {
    /// The address of the running leasehold.
    #[command(flatten)]
    pub(crate) at: AdminFlags,
    /// Which route [default: all]
    #[arg(value_parser = values::route_name)]
    pub(crate) route: Option<String>,
    /// End and revoke all earlier credentials this long after publication [bare: the route's drain]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "", value_parser = drain_span)]
    pub(crate) drain: Option<DrainSpan>,
}

/// What `reload` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReloadFlags {
    /// The address of the running leasehold.
    #[command(flatten)]
    pub(crate) at: AdminFlags,
}

/// What `wait` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct WaitFlags {
    /// The address of the running leasehold.
    #[command(flatten)]
    pub(crate) at: AdminFlags,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub(crate) max: Duration,
}

/// What `shutdown` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShutdownFlags {
    /// The address of the running leasehold.
    #[command(flatten)]
    pub(crate) at: AdminFlags,
    /// Return only when it has gone
    #[arg(long)]
    pub(crate) wait: bool,
}

/// What `simulate` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct SimulateFlags {
    /// Which scenarios [default: all]
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// How many sidecars
    #[arg(long, value_name = "NUMBER", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sidecars: u32,
    /// How much time is simulated
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = values::duration)]
    pub(crate) span: Duration,
    /// The same seed gives the same figures
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub(crate) seed: u64,
    /// Print the requests a second instead, a line for each minute
    #[arg(long)]
    pub(crate) rates: bool,
    /// Write a table and SVG plots of each scenario into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

fn drain_span(text: &str) -> Result<DrainSpan, values::Bad> {
    match text {
        "" => Ok(DrainSpan::Default),
        text => values::duration(text).map(DrainSpan::For),
    }
}
