//! The command line. Floor 6.
//!
//! What stands here as a doc comment is what `--help` prints; the settings of `run` come from [the table](super::keys), by
//! way of `of_settings`.

mod of_settings;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use super::values;
use crate::credentials::DrainSpan;
use crate::log::Level;
use crate::otlp;

pub(super) use of_settings::Flags;
pub(crate) use of_settings::{AdminFlags, RunFlags};

/// The whole command line as clap knows it, for its own help, shell completion and tests.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// A PostgreSQL proxy that logs in upstream with the current dynamic credential of Vault or OpenBao
#[derive(Debug, Parser)]
#[command(name = "leasehold", version = VERSION, max_term_width = 100, after_help = EXAMPLE)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What leasehold can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve: let apps reach PostgreSQL without a password
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
    /// Show the sessions of a running leasehold
    #[command(after_help = SESSIONS)]
    Sessions(Box<SessionsFlags>),
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
    /// Set the level of the log of a running leasehold, until its next reload
    LogLevel(LogLevelFlags),
    /// Show what a fleet of sidecars asks of Vault, by simulating it
    #[command(after_help = SIMULATE)]
    Simulate(SimulateFlags),
    /// Print the completions of a shell
    #[command(after_help = COMPLETION)]
    Completion(CompletionFlags),
    /// Print a page of the manual, as in: leasehold man run | man -l -
    Man(ManFlags),
}

/// The version, and what the build has beyond the default.
const VERSION: &str =
    if otlp::IS_BUILT { concat!(env!("CARGO_PKG_VERSION"), " (otlp)") } else { env!("CARGO_PKG_VERSION") };

const EXAMPLE: &str = "\
Example:
  leasehold run --upstream 'postgresql://db.example.com/?sslrootcert=/etc/pg/ca.crt' \\
                --vault-addr https://vault.example.com:8200 --vault-path database/creds/app-role

  psql postgresql://app@localhost:6432/myapp

`leasehold check` finds out what would go wrong, and `leasehold policy` prints the policy that Vault needs. The manual \
is `leasehold man`, README.md and docs/ of the source.";

const NAMES: &str = "\
Example:
  leasehold run --upstream 'postgresql://localhost/?sslmode=disable' --vault-addr http://127.0.0.1:8200 \\
                --vault-path database/creds/app-role

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

const SESSIONS: &str = "\
Without a filter all sessions are shown; with several, those that fit each. STATE is as in pg_stat_activity: idle, active, \
idle in transaction; or closing. PID is the server's process, as in pg_stat_activity. SENT and RECEIVED are as the client sees \
them. What has no room in 100 columns, or in the terminal, is left out; --json has it.";

const COMPLETION: &str = "\
Examples:
  leasehold completion bash > /usr/share/bash-completion/completions/leasehold
  leasehold completion zsh > /usr/local/share/zsh/site-functions/_leasehold
  leasehold completion fish > /usr/share/fish/vendor_completions.d/leasehold.fish";

const SIMULATE: &str = "\
No server is asked, and no configuration is read: the sidecars are simulated with the defaults of run. Without a name every \
scenario is simulated. docs/fleet.md says what they are, and what the model of Vault is. Exit 1 if a promise was broken.";

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
    /// How it is shown.
    #[command(flatten)]
    pub(crate) show: ShowFlags,
    /// Exit 1 if it is not ready
    #[arg(long)]
    pub(crate) check: bool,
}

/// How something is shown.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ShowFlags {
    /// Print the document of the admin address
    #[arg(long)]
    pub(crate) json: bool,
    /// Print again every two seconds
    #[arg(long)]
    pub(crate) watch: bool,
}

/// What `sessions` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct SessionsFlags {
    /// The address of the running leasehold.
    #[command(flatten)]
    pub(crate) at: AdminFlags,
    /// How it is shown.
    #[command(flatten)]
    pub(crate) show: ShowFlags,
    /// Only sessions of this route
    #[arg(long, value_name = "NAME")]
    pub(crate) route: Option<String>,
    /// Only sessions whose client named this user
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Only sessions in this database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Only sessions whose client connected with this application_name
    #[arg(long, value_name = "NAME")]
    pub(crate) application_name: Option<String>,
    /// Only sessions of this client: an address with or without its port, "uid 1000" or "pid 4242"
    #[arg(long, value_name = "CLIENT")]
    pub(crate) client: Option<String>,
    /// Only sessions of this generation of a credential
    #[arg(long, value_name = "NUMBER")]
    pub(crate) generation: Option<String>,
    /// Only sessions of this role in the database
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<String>,
    /// Only the session of this server process
    #[arg(long, value_name = "PID")]
    pub(crate) backend_pid: Option<String>,
    /// Only sessions in this state: idle, active, idle-in-transaction or closing
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
}

impl SessionsFlags {
    /// The fields that were given, by their names in the document.
    pub(crate) fn filter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let given = [
            ("route", &self.route),
            ("user", &self.user),
            ("database", &self.database),
            ("application_name", &self.application_name),
            ("client", &self.client),
            ("generation", &self.generation),
            ("role", &self.role),
            ("backend_pid", &self.backend_pid),
            ("state", &self.state),
        ];
        given.into_iter().filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }
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
    /// End and revoke all earlier credentials this long after publication, as in --drain=5s [bare: the route's drain]
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

/// What `log-level` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogLevelFlags {
    /// The address of the running leasehold.
    #[command(flatten)]
    pub(crate) at: AdminFlags,
    /// error, warn, info, debug or trace
    #[arg(value_parser = values::level)]
    pub(crate) level: Level,
}

/// What `completion` takes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct CompletionFlags {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_parser = shell)]
    pub(crate) shell: Shell,
}

/// What `man` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ManFlags {
    /// The page of which command [default: the one that lists them]
    pub(crate) command: Option<String>,
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

fn shell(text: &str) -> Result<Shell, values::Bad> {
    text.parse().map_err(|_| "none of bash, elvish, fish, powershell, zsh".into())
}

fn drain_span(text: &str) -> Result<DrainSpan, values::Bad> {
    match text {
        "" => Ok(DrainSpan::Default),
        text => values::duration(text).map(DrainSpan::For),
    }
}
