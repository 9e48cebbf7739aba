//! Every setting, once: flags, variables, keys of the file, help, `docs/settings.md` and what a reload does come from here.
//! Floor 6.
//!
//! A new setting is a line here, and its use where the configuration is put together. The lines of doc comment are its help.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::access::{self, Owner};
use super::key::{Form, Key, Reload, Setting, Table};
use super::method::Method;
use super::values::{self, OrOff};
use crate::hardening::Hardening;
use crate::log::{Format, Level};
use crate::postgres::cancel::Unknown;
use crate::postgres::console::Access;
use crate::postgres::protocol::auth::method::RequireAuth;
use crate::postgres::upstream::uri::Uri;
use crate::session::{Match, San};
use crate::vault::VaultPath;
use crate::{socket, vault};

use super::Listen;

/// `/// help` … `KEY: type = Table "name" Form "PLACEHOLDER" parser, what a reload does, "default";`
macro_rules! keys {
    ($($(#[doc = $help:literal])+
       $key:ident: $type:ty = $table:ident $name:literal $form:ident $placeholder:literal $parse:expr, $reload:ident
       $(, $default:literal)?;)+) => {
        $(pub(super) const $key: Key<$type> = Key {
            setting: &Setting {
                table: Table::$table,
                name: $name,
                form: Form::$form,
                placeholder: $placeholder,
                default: concat!($($default)?),
                help: concat!($($help),+),
                on_reload: Reload::$reload,
                check: |text| ($parse)(text).map(drop),
            },
            parse: $parse,
        };)+

        /// All of them, in the order of the help.
        pub(super) const ALL: &[&Setting] = &[$($key.setting),+];
    };
}

keys! {
    /// A TOML file
    CONFIG: PathBuf = None "config" Text "FILE" values::path, Restart;
    /// Address of status and commands: loopback, /path.sock, or off
    ADMIN: OrOff<socket::Address> = Top "admin" Text "ADDR" values::admin, Restart, "127.0.0.1:9091";
    /// Addresses for clients; /dir[:port] is the Unix socket /dir/.s.PGSQL.<port>, mode 0660
    LISTEN: Vec<Listen> = Top "listen" List "ADDR,…" values::listens, Restart, "127.0.0.1:6432,[::1]:6432";
    /// Allow listeners beyond loopback and Unix sockets. It needs --tls-client-ca-file or --allow-addresses
    LISTEN_PUBLIC: bool = Top "listen_public" Switch "BOOL" values::boolean, Restart;
    /// IP addresses and networks, such as 10.0.0.0/8, that clients may connect from over TCP; others get 28000
    ALLOW_ADDRESSES: Vec<socket::Network> = Top "allow_addresses" List "NET,…" values::networks, NewLogins, "all";
    /// Address of probes and /metrics, which may be 0.0.0.0, or off
    HTTP: OrOff<SocketAddr> = Top "http" Text "ADDR" values::http, Restart, "127.0.0.1:9090";
    /// Who may use the console, in which SHOW shows what leasehold does: off, socket (clients of Unix sockets) or all
    CONSOLE: Access = Top "console" Text "WORD" values::console, Restart, "socket";
    /// The database that it is; a route that names the same goes first
    CONSOLE_DATABASE: String = Top "console_database" Text "NAME" values::text, Restart, "leasehold";
    /// Threads that carry sessions
    THREADS: NonZeroUsize = Top "threads" Number "COUNT" values::threads, Restart,
        "the CPUs that the cgroup's quota allows";
    /// error, warn, info, debug or trace
    LOG_LEVEL: Level = Top "log_level" Text "LEVEL" values::level, AtOnce, "info";
    /// text or json, on stderr; a line that cannot be written is dropped and counted
    LOG_FORMAT: Format = Top "log_format" Text "FORMAT" values::format, Restart, "text on a terminal, else json";
    /// File, mode 0600, that each session's begin and end are appended to, one JSON object a line; a reload opens it again
    AUDIT_FILE: PathBuf = Top "audit_file" Text "FILE" values::path, Restart, "none";
    /// How long after SIGTERM new connections are accepted
    MIN_SIGTERM_DELAY: Duration = Top "min_sigterm_delay" Text "TIME" values::duration, Restart, "0s";
    /// How long after SIGTERM sessions may go on
    MAX_SIGTERM_DELAY: Duration = Top "max_sigterm_delay" Text "TIME" values::duration, Restart, "20s";
    /// File in memory, such as on /dev/shm, from which a start after a crash takes its credentials up again
    STATE_FILE: PathBuf = Top "state_file" Text "FILE" values::path, Restart, "none, and each start issues fresh ones";
    /// off, auto or require: whether the process gives up capabilities, privileges, system calls and files to write before it
    /// serves; auto goes on without what the kernel does not have, require does not start
    HARDENING: Hardening = Top "hardening" Text "WORD" values::hardening, Restart, "auto";
    // The defaults of address and timeout are those of the `vault` and `bao` command lines.

    /// Base URLs without a path, tried in order
    VAULT_ADDR: Vec<vault::Address> = Vault "addr" List "URL,…" values::vault_addrs, Restart, "https://127.0.0.1:8200";
    /// Namespace
    VAULT_NAMESPACE: String = Vault "namespace" Text "NAMESPACE" values::header_safe, FreshCredential;
    /// PEM file of the only certificates to trust
    VAULT_CA_CERT: PathBuf = Vault "ca_cert" Text "FILE" values::path, NextRequest, "the system's";
    /// Directory of PEM files of the only certificates to trust
    VAULT_CA_PATH: PathBuf = Vault "ca_path" Text "DIR" values::path, NextRequest;
    /// PEM file of a client certificate
    VAULT_CLIENT_CERT: PathBuf = Vault "client_cert" Text "FILE" values::path, NextRequest;
    /// PEM file of its key
    VAULT_CLIENT_KEY: PathBuf = Vault "client_key" Text "FILE" values::path, NextRequest;
    /// Name to verify instead of the URL's host
    VAULT_TLS_SERVER_NAME: String = Vault "tls_server_name" Text "NAME" values::text, NextRequest;
    /// Do not verify Vault's certificate: anybody in between reads the credentials
    VAULT_SKIP_VERIFY: bool = Vault "skip_verify" Switch "BOOL" values::boolean, NextRequest;
    /// How long a request may take
    VAULT_CLIENT_TIMEOUT: Duration = Vault "client_timeout" Text "TIME" values::span, NextRequest, "60s";
    /// token, token-file, kubernetes, approle, jwt, cert or userpass
    AUTH_METHOD: Method = VaultAuth "method" Text "METHOD" Method::parse, FreshCredential, "token";
    /// Where the method is mounted, without auth/
    AUTH_MOUNT: String = VaultAuth "mount" Text "PATH" values::mount, FreshCredential, "the method's name";
    /// Role of kubernetes or jwt; of approle, what a wrapped secret_id must have been made for
    AUTH_ROLE: String = VaultAuth "role" Text "NAME" values::text, FreshCredential;
    /// role_id of approle
    AUTH_ROLE_ID: String = VaultAuth "role_id" Text "ID" values::text, FreshCredential;
    /// File of approle's secret_id
    AUTH_SECRET_ID_FILE: PathBuf = VaultAuth "secret_id_file" Text "FILE" values::path, FreshCredential;
    /// The file holds a wrapping token, to be exchanged for the secret_id once
    AUTH_SECRET_ID_WRAPPED: bool = VaultAuth "secret_id_wrapped" Switch "BOOL" values::boolean, FreshCredential;
    /// File of the JWT of jwt, or of kubernetes' service account
    AUTH_JWT_FILE: PathBuf = VaultAuth "jwt_file" Text "FILE" values::path, FreshCredential,
        "of kubernetes: /var/run/secrets/kubernetes.io/serviceaccount/token";
    /// File of token-file
    AUTH_TOKEN_FILE: PathBuf = VaultAuth "token_file" Text "FILE" values::path, FreshCredential;
    /// User of userpass
    AUTH_USERNAME: String = VaultAuth "username" Text "NAME" values::segment, FreshCredential;
    /// File of userpass' password
    AUTH_PASSWORD_FILE: PathBuf = VaultAuth "password_file" Text "FILE" values::path, FreshCredential;
    /// Certificate role of cert
    AUTH_CERT_NAME: String = VaultAuth "cert_name" Text "NAME" values::text, FreshCredential, "Vault tries each";

    /// Unique; the label in metrics
    NAME: String = Routes "name" Text "NAME" values::route_name, NextDecision, "the last segment of vault_path";
    /// What the app writes as its user, or * for any; with several routes it must be written
    USER: Match = Routes "user" Text "NAME" values::pattern, NewLogins, "*";
    /// What the app writes as its database, or * for any
    DATABASE: Match = Routes "database" Text "NAME" values::pattern, NewLogins, "*";
    /// Users of this machine who may use the route over a Unix socket: numbers, or names in /etc/passwd. Where any of
    /// --allow-uids, --allow-gids and --client-san is written, a client that can show none of them gets 28000
    ALLOW_UIDS: Vec<Owner> = Route "allow_uids" List "USER,…" access::owners, NewLogins, "every client";
    /// Groups, of processes that run with them: numbers, or names in /etc/group
    ALLOW_GIDS: Vec<Owner> = Route "allow_gids" List "GROUP,…" access::owners, NewLogins, "every client";
    /// Subject alternative names, one of which a client's certificate has: a SPIFFE ID or another URI, a DNS name, an
    /// address of email, each compared as a whole. It needs --tls-client-ca-file
    CLIENT_SAN: Vec<San> = Route "client_san" List "NAME,…" access::sans, NewLogins, "every client";
    /// Where PostgreSQL is: a libpq URI without user and password
    UPSTREAM: Uri = Route "upstream" Unread "URI" values::upstream, NewLogins;
    /// Where the credential comes from: <mount>/creds/<role>
    VAULT_PATH: VaultPath = Route "vault_path" Text "PATH" values::vault_path, FreshCredential;
    /// Publish a fresh credential at this age, however long the lease could be renewed
    ROTATE_AFTER: Duration = Route "rotate_after" Text "TIME" values::span, NextDecision;
    /// Never renew a credential past this age
    MAX_AGE: Duration = Route "max_age" Text "TIME" values::span, NextDecision;
    /// How long before the end of a retired credential its sessions begin to be closed, between transactions; never
    /// more than a quarter of its usable life
    DRAIN: Duration = Route "drain" Text "TIME" values::duration, NextDecision, "a tenth of the lease, at most 5m";
    /// `role` for each session, sent in `options`
    SET_ROLE: String = Route "set_role" Text "ROLE" values::text, FreshCredential;
    /// Database in which a fresh credential is tried
    PROBE_DATABASE: String = Route "probe_database" Text "NAME" values::text, NextDecision,
        "the URI's, one that clients got into, or postgres";
    /// Statements that a fresh credential must be able to run, under --set-role, before it is published, such as
    /// SELECT 1 FROM orders LIMIT 0; an error refuses it, and rows are thrown away. It needs --probe-database, or a
    /// database in --upstream
    PROBE_SQL: String = Route "probe_sql" Text "SQL" values::sql, NextDecision;
    /// Sessions of the route; 0 is no limit
    MAX_SESSIONS: usize = Route "max_sessions" Number "COUNT" values::count, NewLogins, "0";
    /// Logins of the route in a second, and as many at once; beyond them clients get 53300. 0 is no limit
    LOGINS_PER_SECOND: u32 = Route "logins_per_second" Number "COUNT" values::rate, NewLogins, "0";
    /// Issue at the first session, and give back when there has been none for --idle-after; no part of readiness, and
    /// never with a static role
    LAZY: bool = Route "lazy" Switch "BOOL" values::boolean, NextDecision;
    /// How long a lazy route keeps its credential without a session
    IDLE_AFTER: Duration = Route "idle_after" Text "TIME" values::span, NextDecision, "5m";
    /// Keep a second credential issued and proved, which takes the place of one that is lost or ends while Vault is
    /// away: twice the roles and leases; never with a static role
    STANDBY: bool = Route "standby" Switch "BOOL" values::boolean, NextDecision;
    /// Sessions that are logged in ahead of need, at most: for clients whose startup packet is that of an earlier one,
    /// byte for byte; they count against max_connections of the server
    WARM: usize = Route "warm" Number "COUNT" values::count, NewLogins, "0";
    /// Whether the upstream session of a client that has left is reset by DISCARD ALL, and serves the next client with the
    /// same startup packet, byte for byte; at most 64 wait for a client, and count against max_connections of the server
    REUSE: bool = Route "reuse" Switch "BOOL" values::boolean, NewLogins;
    /// Append the name of this machine and process to application_name, where the client has left room in its 63 bytes
    TAG_APPLICATION_NAME: bool = Route "tag_application_name" Switch "BOOL" values::boolean, NewLogins;
    /// How leasehold may authenticate at PostgreSQL, in the words of libpq's require_auth: scram-sha-256, or
    /// !password,!md5
    REQUIRE_AUTH: RequireAuth = Route "require_auth" Text "METHODS" values::require_auth, NewLogins,
        "any way it can, and without TLS scram-sha-256";

    /// PEM file of the certificate that clients are shown, with its chain; with it TLS is offered to them
    TLS_CERT_FILE: PathBuf = Tls "cert_file" Text "FILE" values::path, NewLogins, "none, and clients get no TLS";
    /// PEM file of its key, not encrypted
    TLS_KEY_FILE: PathBuf = Tls "key_file" Text "FILE" values::path, NewLogins;
    /// PEM file of the CAs that sign the certificates of clients: without such a certificate nobody gets in over TCP
    TLS_CLIENT_CA_FILE: PathBuf = Tls "client_ca_file" Text "FILE" values::path, NewLogins,
        "clients are asked for none";

    /// From accept to the whole StartupMessage
    HANDSHAKE_TIMEOUT: Duration = Limits "handshake_timeout" Text "TIME" values::span, Restart, "15s";
    /// How long a login waits for a usable credential
    LOGIN_WAIT: Duration = Limits "login_wait" Text "TIME" values::duration, Restart, "10s";
    /// Each upstream host, from TCP to ReadyForQuery; connect_timeout in the URI beats it
    CONNECT_TIMEOUT: Duration = Limits "connect_timeout" Text "TIME" values::span, Restart, "10s";
    /// Writing a handshake, error or close message to a client
    SEND_TIMEOUT: Duration = Limits "send_timeout" Text "TIME" values::span, Restart, "30s";
    /// Sessions of the process; 0 is no limit
    ALL_SESSIONS: usize = Limits "max_sessions" Number "COUNT" values::count, Restart, "0";
    /// Clients of the process that have connected and not yet sent their whole StartupMessage, TLS included; beyond them
    /// clients get 53300. 0 is no limit
    MAX_HANDSHAKES: usize = Limits "max_handshakes" Number "COUNT" values::count, Restart, "0";
    /// Logins of the process in a second, and as many at once; beyond them clients get 53300. 0 is no limit
    ALL_LOGINS: u32 = Limits "logins_per_second" Number "COUNT" values::rate, Restart, "0";
    /// How long a replica may lag in learning of a credential
    REPLICA_GRACE: Duration = Limits "replica_grace" Text "TIME" values::duration, Restart,
        "30s with several upstream addresses, else 0s";
    /// Credentials asked for out of turn (lost, revoked, refused) that may follow each other
    ISSUE_BURST: u32 = Limits "issue_burst" Number "COUNT" values::burst, Restart, "3";
    /// Time until one more is allowed
    ISSUE_INTERVAL: Duration = Limits "issue_interval" Text "TIME" values::span, Restart, "60s";
    /// CancelRequests with a key of another instance's session: off (closed), or forward to the upstream hosts
    /// within bounds
    CANCEL_UNKNOWN: Unknown = Cancel "unknown" Text "WORD" values::unknown_cancel, Restart,
        "forward with a public listener, else off";

    /// Its addresses, as --listen takes them; they are listened on beside those, and share the limits below, each of which
    /// counts beside the one of [limits] for all listeners together
    LISTENER_ADDRESS: Vec<Listen> = Listener "address" List "ADDR,…" values::listens, Restart;
    /// From accept to the whole StartupMessage, in place of the one of [limits]
    LISTENER_HANDSHAKE_TIMEOUT: Duration = Listener "handshake_timeout" Text "TIME" values::span, Restart,
        "that of [limits]";
    /// Sessions of its clients; 0 is no limit
    LISTENER_SESSIONS: usize = Listener "max_sessions" Number "COUNT" values::count, Restart, "0";
    /// Its clients that have connected and not yet sent their whole StartupMessage, TLS included; beyond them clients get
    /// 53300. 0 is no limit
    LISTENER_HANDSHAKES: usize = Listener "max_handshakes" Number "COUNT" values::count, Restart, "0";
    /// Logins of its clients in a second, and as many at once; beyond them clients get 53300. 0 is no limit
    LISTENER_LOGINS: u32 = Listener "logins_per_second" Number "COUNT" values::rate, Restart, "0";

    /// Of each route
    ROUTE_VAULT: () = Routes "vault" Later "NAME" values::later, FreshCredential;
}
