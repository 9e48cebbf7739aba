//! The command line. Floor 6.
//!
//! What stands here as a doc comment is what `--help` prints.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::error::{Error, Origin};
use super::{Listen, OrOff, UnknownCancel, values};
use crate::admin::Address;
use crate::credentials::DrainSpan;
use crate::log::{Format, Level};
use crate::postgres::protocol::auth::method::RequireAuth;

/// The whole command line as clap knows it, for its own help, shell completion and tests.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// A PostgreSQL proxy that logs in upstream with the current dynamic credential of Vault or OpenBao
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What leasehold can do.
#[derive(Debug, Subcommand)]
pub enum Command {
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

/// Everything that `run` takes.
#[derive(Clone, Debug, Default, Args)]
pub struct RunFlags {
    /// Top of the file.
    #[command(flatten)]
    pub general: GeneralFlags,
    /// `[vault]`
    #[command(flatten)]
    pub vault: VaultFlags,
    /// One route.
    #[command(flatten)]
    pub route: RouteFlags,
    /// `[limits]` and `[cancel]`
    #[command(flatten)]
    pub limits: LimitFlags,
    /// What comes later.
    #[command(flatten)]
    pub unbuilt: UnbuiltFlags,
}

/// Where the file and the admin address are: what every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct AdminFlags {
    /// A TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of status and commands: loopback, /path.sock, or off [default: 127.0.0.1:9091]
    #[arg(long, value_name = "ADDR", value_parser = values::admin)]
    pub admin: Option<OrOff<Address>>,
}

/// Keys at the top of the file.
#[derive(Clone, Debug, Default, Args)]
pub struct GeneralFlags {
    /// File and admin address.
    #[command(flatten)]
    pub at: AdminFlags,
    /// Addresses for clients; /dir[:port] is the Unix socket /dir/.s.PGSQL.<port>, mode 0660
    /// [default: 127.0.0.1:6432,[::1]:6432]
    #[arg(long, value_name = "ADDR,…", value_delimiter = ',', value_parser = values::listen)]
    pub listen: Option<Vec<Listen>>,
    /// Allow listeners beyond loopback and Unix sockets
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = values::boolean)]
    pub listen_public: Option<bool>,
    /// Address of probes and /metrics, which may be 0.0.0.0, or off [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", value_parser = values::http)]
    pub http: Option<OrOff<SocketAddr>>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = values::level)]
    pub log_level: Option<Level>,
    /// text or json, on stderr; a line that cannot be written is dropped and counted
    /// [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", value_parser = values::format)]
    pub log_format: Option<Format>,
    /// How long after SIGTERM new connections are accepted [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub min_sigterm_delay: Option<Duration>,
    /// How long after SIGTERM sessions may go on [default: 20s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub max_sigterm_delay: Option<Duration>,
    /// File in memory, such as on /dev/shm, from which a start after a crash takes its credentials up again
    /// [default: none, and each start issues fresh ones]
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub state_file: Option<PathBuf>,
}

/// `[vault]` and `[vault.auth]`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Vault")]
pub struct VaultFlags {
    /// Base URLs without a path, tried in order [default: https://127.0.0.1:8200]
    #[arg(long, value_name = "URL,…", value_delimiter = ',', value_parser = values::vault_addr)]
    pub vault_addr: Option<Vec<String>>,
    /// Namespace
    #[arg(long, value_name = "NAMESPACE", value_parser = values::header_safe)]
    pub vault_namespace: Option<String>,
    /// PEM file of the only certificates to trust [default: the system's]
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub vault_ca_cert: Option<PathBuf>,
    /// Directory of PEM files of the only certificates to trust
    #[arg(long, value_name = "DIR", value_parser = values::path)]
    pub vault_ca_path: Option<PathBuf>,
    /// PEM file of a client certificate
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub vault_client_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub vault_client_key: Option<PathBuf>,
    /// Name to verify instead of the URL's host
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    pub vault_tls_server_name: Option<String>,
    /// Do not verify Vault's certificate: anybody in between reads the credentials
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = values::boolean)]
    pub vault_skip_verify: Option<bool>,
    /// How long a request may take [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub vault_client_timeout: Option<Duration>,
    /// token, token-file, kubernetes, approle, jwt, cert or userpass [default: token]
    #[arg(long, value_name = "METHOD", value_parser = super::auth::Method::parse)]
    pub vault_auth_method: Option<super::auth::Method>,
    /// Where the method is mounted, without auth/ [default: the method's name]
    #[arg(long, value_name = "PATH", value_parser = values::mount)]
    pub vault_auth_mount: Option<String>,
    /// Role of kubernetes or jwt; of approle, what a wrapped secret_id must have been made for
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    pub vault_auth_role: Option<String>,
    /// role_id of approle
    #[arg(long, value_name = "ID", value_parser = values::text)]
    pub vault_auth_role_id: Option<String>,
    /// File of approle's secret_id
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub vault_auth_secret_id_file: Option<PathBuf>,
    /// The file holds a wrapping token, to be exchanged for the secret_id once
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = values::boolean)]
    pub vault_auth_secret_id_wrapped: Option<bool>,
    /// File of the JWT of jwt, or of kubernetes' service account
    /// [default of kubernetes: /var/run/secrets/kubernetes.io/serviceaccount/token]
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub vault_auth_jwt_file: Option<PathBuf>,
    /// File of token-file
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub vault_auth_token_file: Option<PathBuf>,
    /// User of userpass
    #[arg(long, value_name = "NAME", value_parser = values::segment)]
    pub vault_auth_username: Option<String>,
    /// File of userpass' password
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    pub vault_auth_password_file: Option<PathBuf>,
    /// Certificate role of cert [default: Vault tries each]
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    pub vault_auth_cert_name: Option<String>,
}

/// The only route, where the file has no `[[route]]`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Route (several routes: [[route]] in the file)")]
pub struct RouteFlags {
    /// Where PostgreSQL is: a libpq URI without user and password
    #[arg(long, value_name = "URI")]
    pub upstream: Option<String>,
    /// Where the credential comes from: <mount>/creds/<role>
    #[arg(long, value_name = "PATH", value_parser = values::vault_path)]
    pub vault_path: Option<String>,
    /// Publish a fresh credential at this age, however long the lease could be renewed
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub rotate_after: Option<Duration>,
    /// Never renew a credential past this age
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub max_age: Option<Duration>,
    /// How long before the end of a retired credential its sessions begin to be closed, between transactions; never
    /// more than a quarter of its usable life [default: a tenth of the lease, at most 5m]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub drain: Option<Duration>,
    /// `role` for each session, sent in `options`
    #[arg(long, value_name = "ROLE", value_parser = values::text)]
    pub set_role: Option<String>,
    /// Database in which a fresh credential is tried [default: the URI's, one that clients got into, or postgres]
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    pub probe_database: Option<String>,
    /// Statements that a fresh credential must be able to run, under --set-role, before it is published, such as
    /// SELECT 1 FROM orders LIMIT 0; an error refuses it, and rows are thrown away. It needs --probe-database, or a
    /// database in --upstream
    #[arg(long, value_name = "SQL", value_parser = values::sql)]
    pub probe_sql: Option<String>,
    /// Sessions of the route; 0 is no limit [default: 0]
    #[arg(long, value_name = "COUNT", value_parser = values::count)]
    pub max_sessions: Option<usize>,
    /// Issue at the first session, and give back when there has been none for --idle-after; no part of readiness, and
    /// never with a static role
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = values::boolean)]
    pub lazy: Option<bool>,
    /// How long a lazy route keeps its credential without a session [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub idle_after: Option<Duration>,
    /// Keep a second credential issued and proved, which takes the place of one that is lost or ends while Vault is
    /// away: twice the roles and leases; never with a static role
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = values::boolean)]
    pub standby: Option<bool>,
    /// How leasehold may authenticate at PostgreSQL, in the words of libpq's require_auth: scram-sha-256, or
    /// !password,!md5 [default: any way it can]
    #[arg(long, value_name = "METHODS", value_parser = values::require_auth)]
    pub require_auth: Option<RequireAuth>,
}

/// `[limits]` and `[cancel]`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitFlags {
    /// From accept to the whole StartupMessage [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub limits_handshake_timeout: Option<Duration>,
    /// How long a login waits for a usable credential [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub limits_login_wait: Option<Duration>,
    /// Each upstream host, from TCP to ReadyForQuery; connect_timeout in the URI beats it [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub limits_connect_timeout: Option<Duration>,
    /// Writing a handshake, error or close message to a client [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub limits_send_timeout: Option<Duration>,
    /// Sessions of the process; 0 is no limit [default: 0]
    #[arg(long, value_name = "COUNT", value_parser = values::count)]
    pub limits_max_sessions: Option<usize>,
    /// How long a server may lag in learning of a credential
    /// [default: 30s with several upstream addresses, else 0s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub limits_replica_grace: Option<Duration>,
    /// Credentials asked for out of turn (lost, revoked, refused) that may follow each other [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = values::burst)]
    pub limits_issue_burst: Option<u32>,
    /// Time until one more is allowed [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub limits_issue_interval: Option<Duration>,
    /// CancelRequests with a key of another instance's session: off (closed), or forward to the upstream hosts
    /// within bounds
    /// [default: forward with a public listener, else off]
    #[arg(long, value_name = "WORD", value_parser = values::unknown_cancel)]
    pub cancel_unknown: Option<UnknownCancel>,
}

/// Flags of a later version: known, so that using one says so.
#[derive(Clone, Debug, Default, Args)]
pub struct UnbuiltFlags {
    #[arg(long, hide = true, num_args = 0..=1)]
    warm: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    reuse: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    tag_application_name: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    tls_cert_file: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    tls_key_file: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    tls_client_ca_file: Option<Option<String>>,
}

impl UnbuiltFlags {
    /// The keys, as in the file with their tables.
    pub(super) const KEYS: [&'static str; 6] =
        ["warm", "reuse", "tag_application_name", "tls.cert_file", "tls.key_file", "tls.client_ca_file"];

    pub(super) fn refuse(&self) -> Result<(), Error> {
        let given = [
            &self.warm,
            &self.reuse,
            &self.tag_application_name,
            &self.tls_cert_file,
            &self.tls_key_file,
            &self.tls_client_ca_file,
        ];
        for (key, value) in Self::KEYS.into_iter().zip(given) {
            if value.is_some() {
                return Err(Error::Usage {
                    origin: Origin::Flag(super::merge::flag_name(key)),
                    reason: super::merge::UNBUILT.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// What `check` takes.
#[derive(Clone, Debug, Args)]
pub struct CheckFlags {
    /// The configuration.
    #[command(flatten)]
    pub run: RunFlags,
    /// Look at the configuration and its files alone; no token is needed
    #[arg(long)]
    pub offline: bool,
    /// Print an array of {check, route, outcome, detail, remedy}
    #[arg(long)]
    pub json: bool,
}

/// What `status` takes.
#[derive(Clone, Debug, Args)]
pub struct StatusFlags {
    /// Whom to ask.
    #[command(flatten)]
    pub at: AdminFlags,
    /// Print the document of GET /status
    #[arg(long)]
    pub json: bool,
    /// Print again every two seconds
    #[arg(long)]
    pub watch: bool,
}

/// What `rotate` takes.
#[derive(Clone, Debug, Args)]
pub struct RotateFlags {
    /// Whom to ask.
    #[command(flatten)]
    pub at: AdminFlags,
    /// Which route [default: all]
    #[arg(value_parser = values::route_name)]
    pub route: Option<String>,
    /// End and revoke all earlier credentials this long after publication [bare: the route's drain]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "", value_parser = drain_span)]
    pub drain: Option<DrainSpan>,
}

/// What `reload` takes.
#[derive(Clone, Debug, Args)]
pub struct ReloadFlags {
    /// Whom to ask.
    #[command(flatten)]
    pub at: AdminFlags,
}

/// What `wait` takes.
#[derive(Clone, Debug, Args)]
pub struct WaitFlags {
    /// Whom to ask.
    #[command(flatten)]
    pub at: AdminFlags,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub max: Duration,
}

/// What `shutdown` takes.
#[derive(Clone, Debug, Args)]
pub struct ShutdownFlags {
    /// Whom to ask.
    #[command(flatten)]
    pub at: AdminFlags,
    /// Return only when it has gone
    #[arg(long)]
    pub wait: bool,
}

fn drain_span(text: &str) -> Result<DrainSpan, values::Bad> {
    match text {
        "" => Ok(DrainSpan::Default),
        text => values::duration(text).map(DrainSpan::For),
    }
}
