//! What the configuration promises. Floor 6.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;

use super::key::Table;
use super::sources::Sources;
use super::*;
use crate::postgres::protocol::auth::method::RequireAuth;
use crate::postgres::upstream::uri::Uri;
use crate::session::Match;
use crate::vault::{Address, VaultPath};

const ROUTE: [&str; 4] = ["--upstream", "postgresql://db:5432/", "--vault-path", "database/creds/app-role"];

fn env(variables: &[(&str, &str)]) -> Environment {
    [("VAULT_TOKEN", "hvs.ambient")]
        .iter()
        .chain(variables)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn file(path: &str) -> FileSetting {
    FileSetting::new(path, "its place does not count")
}

fn flags(args: &[&str]) -> RunFlags {
    let cli = Cli::try_parse_from(["leasehold", "run"].iter().chain(args)).unwrap();
    match cli.command {
        Command::Run(flags) => *flags,
        other => panic!("{other:?}"),
    }
}

/// Loads with a file of this text.
fn load(text: &str, args: &[&str], variables: &[(&str, &str)]) -> Result<Config, Error> {
    let path = Temporary::new(text);
    let file = path.0.display().to_string();
    let args: Vec<_> =
        args.iter().copied().chain(["--config", &file].into_iter().filter(|_| !text.is_empty())).collect();
    Config::load(&flags(&args), &env(variables))
}

fn load_route(args: &[&str], variables: &[(&str, &str)]) -> Result<Config, Error> {
    let args: Vec<_> = ROUTE.iter().chain(args).copied().collect();
    load("", &args, variables)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// The error without the directory of the file.
fn complaint(result: Result<Config, Error>) -> String {
    let text = result.unwrap_err().to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    match text.split_once(".toml") {
        Some((path, rest)) if path.starts_with('/') => format!("FILE{rest}"),
        _ => text,
    }
}

struct Temporary(PathBuf);

impl Temporary {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("leasehold-config-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn clap_finds_no_fault_with_the_definition() {
    command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = load_route(&[], &[]).unwrap();
    let listen: Vec<_> =
        config.listen.iter().map(|listen| (listen.address.to_string(), listen.optional)).collect();
    assert_eq!(listen, [("127.0.0.1:6432".to_owned(), false), ("[::1]:6432".to_owned(), true)]);
    assert_eq!(config.http.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9091");
    assert_eq!(config.log.level, log::Level::Info);
    assert_eq!(config.log.format, None);
    assert_eq!(config.sigterm.min, Duration::ZERO);
    assert_eq!(config.sigterm.max, Duration::from_secs(20));
    assert_eq!(config.vault.addrs, [address("https://127.0.0.1:8200")]);
    assert_eq!(config.vault.client_timeout, Duration::from_secs(60));
    assert!(!config.vault.skip_verify);
    assert_eq!(
        config.limits,
        Limits {
            sessions: session::Limits {
                handshake_timeout: Duration::from_secs(15),
                login_wait: Duration::from_secs(10),
                send_timeout: Duration::from_secs(30),
                max_sessions: 0,
            },
            connect_timeout: Duration::from_secs(10),
            replica_grace: None,
            issue_burst: 3,
            issue_interval: Duration::from_secs(60),
        }
    );
    assert_eq!(config.cancel_unknown, Unknown::Off);
    assert_eq!(
        config.routes,
        [RouteConfig {
            name: "app-role".to_owned(),
            user: Match::Any,
            database: Match::Any,
            upstream: UpstreamUri {
                uri: Uri::parse("postgresql://db:5432/").unwrap(),
                origin: Origin::Default(String::new()),
            },
            vault_path: VaultPath::parse("database/creds/app-role").unwrap(),
            rotate_after: None,
            max_age: None,
            drain: None,
            set_role: None,
            probe_database: None,
            probe_sql: None,
            max_sessions: 0,
            warm: 0,
            lazy: false,
            idle_after: Duration::from_mins(5),
            standby: false,
            require_auth: RequireAuth::default(),
        }]
    );
    assert!(config.warnings.is_empty());
}

#[test]
fn flag_beats_environment_beats_file() {
    let file = "http = '127.0.0.1:1'\n[vault]\naddr = 'https://file:8200'\n";
    let with = |args: &[&str], variables: &[(&str, &str)]| {
        let args: Vec<_> = ROUTE.iter().chain(args).copied().collect();
        let config = load(file, &args, variables).unwrap();
        (config.http.unwrap().port(), config.vault.addrs)
    };
    let variables = [
        ("LEASEHOLD_HTTP", "127.0.0.1:2"),
        ("LEASEHOLD_VAULT_ADDR", "https://env:8200, https://env2:8200"),
        ("BAO_ADDR", "https://ambient:8200"),
    ];
    assert_eq!(with(&[], &[]), (1, vec![address("https://file:8200")]));
    assert_eq!(with(&[], &variables), (2, vec![address("https://env:8200"), address("https://env2:8200")]));
    assert_eq!(
        with(&["--http=127.0.0.1:3", "--vault-addr=https://flag:8200/"], &variables),
        (3, vec![address("https://flag:8200")])
    );
    let ambient = [("BAO_ADDR", "https://ambient:8200")];
    assert_eq!(with(&[], &ambient).1, [address("https://file:8200")]);
}

#[test]
fn bao_beats_vault_and_each_variable_stands_by_itself() {
    let vault = load_route(
        &[],
        &[
            ("BAO_ADDR", "https://bao:8200"),
            ("VAULT_ADDR", "https://vault:8200"),
            ("VAULT_NAMESPACE", "team"),
            ("BAO_CACERT", ""),
            ("VAULT_CACERT", "/ca.pem"),
            ("VAULT_CACERT_BYTES", "PEM"),
            ("VAULT_CAPATH", "/ca.d"),
            ("VAULT_CLIENT_CERT", "/cert.pem"),
            ("BAO_CLIENT_KEY", "/key.pem"),
            ("VAULT_TLS_SERVER_NAME", "vault.example"),
            ("VAULT_SKIP_VERIFY", "f"),
            ("VAULT_CLIENT_TIMEOUT", "45"),
        ],
    )
    .unwrap()
    .vault;
    assert_eq!(vault.addrs, [address("https://bao:8200")]);
    assert_eq!(vault.namespace.as_deref(), Some("team"));
    assert_eq!(vault.ca_cert, Some(file("/ca.pem")));
    assert_eq!(vault.ca_cert_bytes.as_deref(), Some("PEM"));
    assert_eq!(vault.ca_path, Some(file("/ca.d")));
    assert_eq!(vault.client_cert, Some(file("/cert.pem")));
    assert_eq!(vault.client_key, Some(file("/key.pem")));
    assert_eq!(vault.tls_server_name.as_deref(), Some("vault.example"));
    assert!(!vault.skip_verify);
    assert_eq!(vault.client_timeout, Duration::from_secs(45));
}

#[test]
fn a_written_ca_is_not_replaced_by_an_ambient_one() {
    let vault =
        load_route(&["--vault-ca-path=/ours"], &[("VAULT_CACERT", "/ca.pem"), ("VAULT_CACERT_BYTES", "PEM")])
            .unwrap()
            .vault;
    assert_eq!((vault.ca_cert, vault.ca_cert_bytes), (None, None));
    assert_eq!(vault.ca_path, Some(file("/ours")));
}

#[test]
fn client_timeouts_are_those_of_go() {
    let seconds = |text| values::go_duration(text).map(|span| span.as_secs_f64()).ok();
    assert_eq!(seconds("45"), Some(45.0));
    assert_eq!(seconds("1m30s"), Some(90.0));
    assert_eq!(seconds("1.5h"), Some(5_400.0));
    assert_eq!(seconds("500ms"), Some(0.5));
    for bad in ["", "s", "5x", "-5s", "0", "0s", "1m30", "9999999999h", "1..2s"] {
        assert_eq!(seconds(bad), None, "{bad}");
    }
}

#[test]
fn skip_verify_is_read_as_gos_bool_and_warned_of() {
    let config = load_route(&[], &[("VAULT_SKIP_VERIFY", "T")]).unwrap();
    assert!(config.vault.skip_verify);
    assert!(config.warnings[0].text.starts_with("VAULT_SKIP_VERIFY: "), "{:?}", config.warnings);
    assert_eq!(
        complaint(load_route(&[], &[("VAULT_SKIP_VERIFY", "yes")])),
        "VAULT_SKIP_VERIFY: neither true nor false"
    );
}

#[test]
fn a_misspelt_variable_is_warned_of_by_the_name_that_was_meant() {
    let variables = [
        ("LEASEHOLD_REQUIRE_AUHT", "hunter2"),
        ("LEASEHOLD_NOTHING_LIKE_IT", "hunter2"),
        ("LEASEHOLD_LAZZY", ""),
        ("LEASEHOLD_LAZY", "true"),
        ("LEASEHOLD_PORT_6432_TCP", "tcp://10.0.0.1:6432"),
    ];
    let warnings = load_route(&[], &variables).unwrap().warnings;
    let texts: Vec<_> = warnings.iter().map(|warning| warning.text.as_str()).collect();
    let ignored = "no setting has this name, so the variable is ignored";
    assert_eq!(
        texts,
        [
            format!("LEASEHOLD_NOTHING_LIKE_IT: {ignored}"),
            format!("LEASEHOLD_REQUIRE_AUHT: {ignored}; did you mean LEASEHOLD_REQUIRE_AUTH?"),
        ]
    );
}

#[test]
fn plain_http_beyond_loopback_is_warned_of() {
    let warnings = |addr| load_route(&["--vault-addr", addr], &[]).unwrap().warnings.len();
    assert_eq!(warnings("http://vault:8200"), 1);
    assert_eq!(warnings("http://127.0.0.1:8200"), 0);
    assert_eq!(warnings("https://vault:8200"), 0);
}

#[test]
fn the_token_comes_from_the_environment_then_from_the_home_directory() {
    let token = |variables: &[(&str, &str)]| {
        let env: Environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match Config::load(&flags(&ROUTE), &env).map(|config| config.vault.auth) {
            Ok(crate::vault::Auth::Token { token }) => Ok(token.unwrap().expose().to_owned()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    };
    let home = std::env::temp_dir().join(format!("leasehold-home-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let home_text = home.to_str().unwrap();
    assert!(token(&[("HOME", home_text)]).unwrap_err().contains(".vault-token"));
    std::fs::write(home.join(".vault-token"), "hvs.home\n").unwrap();
    assert_eq!(token(&[("HOME", home_text)]).unwrap(), "hvs.home");
    assert_eq!(token(&[("HOME", home_text), ("VAULT_TOKEN", "hvs.v")]).unwrap(), "hvs.v");
    assert_eq!(token(&[("BAO_TOKEN", " s.b\n"), ("VAULT_TOKEN", "hvs.v")]).unwrap(), "s.b");
    let bad = token(&[("BAO_TOKEN", "two\nlines")]).unwrap_err();
    assert_eq!(bad, "BAO_TOKEN: holds a character that cannot stand in an HTTP header");
    std::fs::remove_dir_all(&home).unwrap();
}

#[test]
fn no_debug_shows_the_token() {
    let config = load_route(&[], &[]).unwrap();
    assert!(!format!("{config:?}").contains("ambient"));
    assert!(!format!("{:?}", env(&[])).contains("ambient"));
}

#[test]
fn each_method_reads_its_own_keys_and_no_other() {
    let auth = |args: &[&str]| load_route(args, &[]).map(|config| config.vault.auth);
    match auth(&["--vault-auth-method=kubernetes", "--vault-auth-role=app"]).unwrap() {
        crate::vault::Auth::Kubernetes { mount, role, jwt_file } => {
            assert_eq!((mount.as_str(), role.as_str()), ("kubernetes", "app"));
            assert_eq!(jwt_file, file("/var/run/secrets/kubernetes.io/serviceaccount/token"));
        }
        other => panic!("{other:?}"),
    }
    match auth(&["--vault-auth-method=approle", "--vault-auth-role-id=x", "--vault-auth-mount=/a/b/"])
        .unwrap()
    {
        crate::vault::Auth::AppRole { mount, role_id, secret_id: crate::vault::SecretId::Absent } => {
            assert_eq!((mount.as_str(), role_id.as_str()), ("a/b", "x"));
        }
        other => panic!("{other:?}"),
    }
    let complaint = |args: &[&str]| complaint(load_route(args, &[]));
    assert_eq!(
        complaint(&["--vault-auth-method=approle"]),
        "vault.auth.role_id: the method approle needs it"
    );
    assert_eq!(
        complaint(&["--vault-auth-method=token-file"]),
        "vault.auth.token_file: the method token-file needs it"
    );
    assert_eq!(complaint(&["--vault-auth-role=app"]), "--vault-auth-role: the method token does not read it");
}

#[test]
fn a_wrapped_secret_id_needs_a_file_and_may_name_its_approle() {
    let load = |args: &[&str]| {
        let approle = ["--vault-auth-method=approle", "--vault-auth-role-id=x"];
        load_route(&[&approle, args].concat(), &[])
    };
    let wrapped = ["--vault-auth-secret-id-wrapped", "--vault-auth-secret-id-file=/s", "--vault-auth-role=r"];
    match load(&wrapped).unwrap().vault.auth {
        crate::vault::Auth::AppRole {
            secret_id: crate::vault::SecretId::Wrapped { file: from, role },
            ..
        } => {
            assert_eq!((from, role.as_deref()), (file("/s"), Some("r")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        complaint(load(&["--vault-auth-secret-id-wrapped"])),
        "--vault-auth-secret-id-wrapped: needs vault.auth.secret_id_file with it"
    );
    assert_eq!(
        complaint(load(&["--vault-auth-role=r"])),
        "--vault-auth-role: the method approle does not read it"
    );
}

#[test]
fn jwt_userpass_and_cert_name_what_they_lack() {
    let jwt = ["--vault-auth-method=jwt", "--vault-auth-role=app"];
    let userpass = ["--vault-auth-method=userpass", "--vault-auth-username=app"];
    let cert = ["--vault-auth-method=cert", "--vault-auth-cert-name=app"];
    let file = ["--vault-client-cert=/c", "--vault-client-key=/k"];
    assert_eq!(complaint(load_route(&jwt, &[])), "vault.auth.jwt_file: the method jwt needs it");
    assert_eq!(
        complaint(load_route(&userpass, &[])),
        "vault.auth.password_file: the method userpass needs it"
    );
    assert_eq!(complaint(load_route(&cert, &[])), "vault.client_cert: the method cert needs it");
    let plain = [&cert[..], &file, &["--vault-addr=https://a:1,http://b:1"]].concat();
    assert_eq!(complaint(load_route(&plain, &[])), "--vault-addr: http://b:1: the method cert needs https");
    assert!(load_route(&[&cert[..], &file].concat(), &[]).is_ok());
    let slash = ["--vault-auth-method=userpass", "--vault-auth-username=a/b"];
    assert!(Cli::try_parse_from([&["leasehold", "run"], &slash[..]].concat()).is_err());
}

#[test]
fn a_static_role_is_neither_lazy_nor_has_one_to_stand_by() {
    let at = |flag: &str| {
        let path = "--vault-path=database/static-creds/app";
        complaint(load("", &["--upstream=postgresql://db:5432/", path, flag], &[]))
    };
    assert_eq!(at("--lazy"), "--lazy: a static role is never lazy");
    assert_eq!(at("--standby"), "--standby: a static role has one password, so nothing can stand by");
    let table =
        "[[route]]\nupstream = 'postgresql://h/'\nvault_path = 'database/static-creds/app'\nstandby = true\n";
    assert_eq!(
        complaint(load(table, &[], &[])),
        "FILE:4: route.standby: a static role has one password, so nothing can stand by"
    );
    assert!(load_route(&["--standby"], &[]).unwrap().routes[0].standby);
}

#[test]
fn a_certificate_and_its_key_go_together() {
    let tls = load("[tls]\ncert_file = '/a'\nkey_file = '/b'\n", &ROUTE, &[]).unwrap().tls.unwrap();
    assert_eq!((tls.cert.path(), tls.key.path()), (Path::new("/a"), Path::new("/b")));
    assert!(tls.client_ca.is_none());
    let tls =
        load_route(&["--tls-cert-file=/a", "--tls-key-file=/b"], &[("LEASEHOLD_TLS_CLIENT_CA_FILE", "/c")]);
    assert_eq!(tls.unwrap().tls.unwrap().client_ca.unwrap().path(), Path::new("/c"));
    assert_eq!(load_route(&[], &[]).unwrap().tls, None);

    let refused = |key: &str| complaint(load(&format!("[tls]\n{key} = '/a'\n"), &ROUTE, &[]));
    assert_eq!(refused("cert_file"), "FILE:2: tls.cert_file: needs tls.key_file beside it");
    assert_eq!(refused("key_file"), "FILE:2: tls.key_file: needs tls.cert_file beside it");
    assert_eq!(refused("client_ca_file"), "FILE:2: tls.client_ca_file: needs tls.cert_file beside it");
}

#[test]
fn what_comes_later_is_refused_by_name() {
    assert_eq!(complaint(load_route(&["--reuse=true"], &[])), "--reuse: not supported yet");
    assert_eq!(complaint(load_route(&[], &[("LEASEHOLD_REUSE", "3")])), "LEASEHOLD_REUSE: not supported yet");
    assert_eq!(
        complaint(load("[defaults]\nreuse = 2\n", &ROUTE, &[])),
        "FILE:2: defaults.reuse: not supported yet"
    );
    let run = command().find_subcommand("run").unwrap().clone().render_long_help().to_string();
    let later = |setting: &&Setting| setting.is_flag() && !setting.is_built();
    for hidden in settings().filter(later) {
        assert!(!run.contains(&format!("--{} ", hidden.flag())), "{hidden:?}");
    }
}

#[test]
fn a_wrong_file_is_one_line_with_file_line_and_key() {
    let complaint = |text: &str| complaint(load(text, &ROUTE, &[]));
    assert_eq!(complaint("\n[vault]\nadr = 'x'\n"), "FILE:3: vault: unknown key; did you mean addr?");
    assert_eq!(complaint("[vault]\n'hunter2 ' = 'hunter2'\n"), "FILE:2: vault: unknown key");
    assert_eq!(complaint("[hunter2]\nlisten = 'hunter2'\n"), "FILE:1: (top): unknown key");
    assert_eq!(complaint("http = 'off'\nhunter2\n"), "FILE:2: (top): not TOML: key with no value");
    assert_eq!(complaint("listen_public = 'hunter2'\n"), "FILE:1: listen_public: expected a boolean");
    assert_eq!(
        complaint("[limits]\nlogin_wait = '10'\n"),
        "FILE:2: limits.login_wait: not a duration such as 500ms, 2m or 1h30m"
    );
    assert_eq!(complaint("listen = 5\n"), "FILE:1: listen: expected a string or a list of strings");
    assert!(complaint("[vault\n").starts_with("FILE:1: "));
    assert!(
        load("", &["--config=/nonexistent/x.toml"], &[])
            .unwrap_err()
            .to_string()
            .starts_with("--config: cannot use /nonexistent/x.toml: No such file or directory")
    );
}

#[test]
fn probe_sql_needs_a_database_of_its_own() {
    let why =
        "probe_sql needs the database that it is meant for: write probe_database, or a database in upstream";
    let sql = ["--probe-sql", "SELECT 1"];
    let refused = load_route(&sql, &[]).unwrap_err();
    assert_eq!(refused.exit_code(), 78);
    assert_eq!(refused.to_string(), format!("--probe-sql: {why}"));
    let by_env = load_route(&[], &[("LEASEHOLD_PROBE_SQL", "SELECT 1")]);
    assert_eq!(complaint(by_env), format!("LEASEHOLD_PROBE_SQL: {why}"));
    let route = |upstream: &str| {
        format!("[[route]]\nupstream = \"{upstream}\"\nvault_path = \"database/creds/app\"\n")
    };
    let own = route("postgresql://db/") + "probe_sql = \"SELECT 1\"\n";
    assert_eq!(complaint(load(&own, &[], &[])), format!("FILE:4: route.probe_sql: {why}"));
    let default = "[defaults]\nprobe_sql = \"SELECT 1\"\n";
    let inherited = default.to_owned() + &route("postgresql://db/");
    assert_eq!(complaint(load(&inherited, &[], &[])), format!("FILE:2: defaults.probe_sql: {why}"));

    load_route(&["--probe-sql", "SELECT 1", "--probe-database", "app"], &[]).unwrap();
    let named = default.to_owned() + &route("postgresql://db/app");
    load(&named, &[], &[]).unwrap();
}

#[test]
fn listeners_beyond_this_machine_need_leave() {
    for open in ["0.0.0.0:6432", "[::]:6432", "10.1.2.3:6432", "[::ffff:10.1.2.3]:6432"] {
        let refused = load_route(&["--listen", open], &[]).unwrap_err();
        assert_eq!(refused.exit_code(), 78);
        assert!(refused.to_string().starts_with("--listen: "), "{refused}");
        assert!(refused.to_string().contains("--listen-public"), "{refused}");
        let config = load_route(&["--listen", open, "--listen-public"], &[]).unwrap();
        assert_eq!(config.cancel_unknown, Unknown::Forward);
    }
    for private in ["127.9.9.9:1", "[::1]:1", "/run/leasehold"] {
        load_route(&["--listen", private], &[]).unwrap();
    }
}

#[test]
fn a_directory_is_a_unix_socket() {
    let path = |text| match values::listen(text).unwrap().address {
        crate::socket::Address::Unix(path) => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(path("/run/lh"), PathBuf::from("/run/lh/.s.PGSQL.6432"));
    assert_eq!(path("/run/lh/:5433"), PathBuf::from("/run/lh/.s.PGSQL.5433"));
    for bad in ["/run:x", "/run:0", "localhost:1", "6432", "", &format!("/{}", "x".repeat(100))] {
        assert!(values::listen(bad).is_err(), "{bad}");
    }
}

#[test]
fn listen_is_a_list_in_each_source() {
    let count = |result: Result<Config, Error>| result.unwrap().listen.len();
    assert_eq!(count(load_route(&["--listen=127.0.0.1:0,/run"], &[])), 2);
    assert_eq!(count(load_route(&["--listen=127.0.0.1:0", "--listen=127.0.0.1:0"], &[])), 2);
    assert_eq!(count(load_route(&[], &[("LEASEHOLD_LISTEN", "127.0.0.1:1, /run, [::1]:1")])), 3);
    assert_eq!(count(load("listen = ['127.0.0.1:1', '/run']", &ROUTE, &[])), 2);
    assert_eq!(count(load("listen = '127.0.0.1:1,/run'", &ROUTE, &[])), 2);
    assert!(load_route(&["--listen=/run,/run"], &[]).is_err());
    assert_eq!(
        complaint(load("listen = []", &ROUTE, &[])),
        "FILE:1: listen: neither an IP address with a port (127.0.0.1:6432, [::1]:6432) nor a directory (/dir, /dir:port)"
    );
}

#[test]
fn a_socket_has_a_path_that_the_system_takes_before_anything_is_bound() {
    let directory = |length: usize| format!("/{}", "d".repeat(length - 1));
    let loads = |name: &str, value: &str| load("", &ROUTE, &[(name, value)]).map(drop);
    // `sun_path` holds 108 bytes with the zero at its end; "/.s.PGSQL.6432" has 14.
    for (name, longest) in [("LEASEHOLD_ADMIN", 107), ("LEASEHOLD_LISTEN", 93)] {
        loads(name, &directory(longest)).unwrap();
        let error = loads(name, &directory(longest + 1)).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().ends_with("the socket's path is longer than 107 bytes"), "{error}");
    }
}

#[test]
fn admin_is_loopback_or_a_socket_or_off() {
    let admin = |text: &str| load("", &ROUTE, &[("LEASEHOLD_ADMIN", text)]).map(|config| config.admin);
    assert_eq!(admin("off").unwrap(), None);
    assert_eq!(admin("/run/lh.sock").unwrap().unwrap().to_string(), "/run/lh.sock");
    for bad in ["0.0.0.0:9091", "10.0.0.1:9091", "/run/", "x"] {
        assert_eq!(admin(bad).unwrap_err().exit_code(), 78, "{bad}");
    }
    let config = load_route(&["--http=0.0.0.0:9090", "--admin=off"], &[]).unwrap();
    assert!(config.http.is_some());
}

#[test]
fn delays_of_the_shutdown_fit_together() {
    assert_eq!(
        complaint(load_route(&["--min-sigterm-delay=30s"], &[])),
        "--min-sigterm-delay: is longer than max_sigterm_delay, and both count from SIGTERM"
    );
}

const TWO: &str = "\
[defaults]
drain = '2m'
[[route]]
name = 'readonly'
user = 'readonly'
upstream = 'postgresql://replica/'
vault_path = 'database/creds/readonly-role'
drain = '1m'
[[route]]
user = 'app'
database = 'shop'
upstream = 'postgresql://primary/'
vault_path = '/nested/mount/creds/app-role/'
set_role = 'app_owner'
max_sessions = 7
require_auth = 'scram-sha-256'
";

#[test]
fn routes_keep_their_order_and_stand_on_the_defaults() {
    let config = load(TWO, &[], &[]).unwrap();
    assert_eq!(config.routes[0].name, "readonly");
    assert_eq!(config.routes[0].drain, Some(Duration::from_secs(60)));
    assert_eq!(config.routes[1].name, "app-role");
    assert_eq!(config.routes[1].drain, Some(Duration::from_secs(120)));
    assert_eq!(config.routes[1].vault_path.to_string(), "nested/mount/creds/app-role");
    assert_eq!(config.routes[1].max_sessions, 7);
    assert_eq!(config.routes[0].require_auth, RequireAuth::default());
    assert_eq!(config.routes[1].require_auth, "scram-sha-256".parse().unwrap());
}

#[test]
fn several_routes_need_a_user_each_and_differ() {
    let with = |from: &str, to: &str| complaint(load(&TWO.replace(from, to), &[], &[]));
    assert_eq!(
        with("user = 'app'\n", ""),
        "FILE:9: route.user: with several routes each needs the user that it is for, or \"*\""
    );
    assert_eq!(
        with("user = 'app'\ndatabase = 'shop'", "user = 'readonly'"),
        "FILE:9: route.user: routes readonly and app-role have the same user and database"
    );
    assert_eq!(
        with("name = 'readonly'", "name = 'app-role'"),
        "FILE:9: route.name: there are two routes named app-role"
    );
}

#[test]
fn a_route_by_flags_and_one_by_file_exclude_each_other() {
    let by_flag = load(TWO, &["--drain=1m"], &[]).unwrap_err();
    assert_eq!(by_flag.exit_code(), 64);
    assert!(by_flag.to_string().starts_with("--drain: "), "{by_flag}");
    let by_env = load(TWO, &[], &[("LEASEHOLD_UPSTREAM", "postgresql://x/")]).unwrap_err();
    assert_eq!(by_env.exit_code(), 64);
    assert!(by_env.to_string().starts_with("LEASEHOLD_UPSTREAM: "), "{by_env}");
}

#[test]
fn a_route_by_flags_stands_on_the_defaults_of_the_file() {
    let config =
        load("[defaults]\ndrain = '3m'\nmax_age = '1h'\n", &[&ROUTE[..], &["--drain=1m"]].concat(), &[]);
    let route = &config.unwrap().routes[0];
    assert_eq!(route.drain, Some(Duration::from_secs(60)));
    assert_eq!(route.max_age, Some(Duration::from_secs(3_600)));
}

#[test]
fn a_route_is_needed_and_each_of_its_halves() {
    assert!(complaint(load("", &[], &[])).starts_with("upstream: is needed: --upstream, LEASEHOLD_UPSTREAM"));
    assert!(complaint(load("", &ROUTE[..2], &[])).starts_with("vault_path: is needed"));
    assert_eq!(
        complaint(load("[[route]]\nupstream = 'postgresql://x/'\n", &[], &[])),
        "FILE:1: route.vault_path: is needed in each [[route]]"
    );
}

#[test]
fn a_path_that_leads_to_no_credential_is_refused_by_its_line() {
    let refused = |path: &str| {
        let file = format!("[[route]]\nupstream = 'postgresql://db/'\nvault_path = '{path}'\n");
        complaint(load(&file, &[], &[]))
    };
    assert_eq!(
        refused("database/roles/app"),
        "FILE:3: route.vault_path: neither <mount>/creds/<role> nor <mount>/static-creds/<role>"
    );
    assert_eq!(refused("a//creds/x"), "FILE:3: route.vault_path: has an empty segment, '.' or '..'");
}

#[test]
fn ages_fit_together() {
    assert_eq!(
        complaint(load_route(&["--max-age=1h", "--drain=1h"], &[])),
        "--drain: drain is not shorter than max_age"
    );
    assert!(load_route(&["--max-age=1h", "--rotate-after=2h"], &[]).is_err());
    assert!(Cli::try_parse_from(["leasehold", "run", "--rotate-after=0s"]).is_err());
}

#[test]
fn a_password_in_the_upstream_is_refused_and_not_repeated() {
    let refused =
        load("", &["--upstream=postgresql://app:hunter2@db/", "--vault-path=db/creds/x"], &[]).unwrap_err();
    assert!(refused.to_string().starts_with("--upstream: "), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
}

#[test]
fn an_address_of_vault_that_is_no_base_url_is_refused_by_its_line() {
    let refused = |value: &str| complaint(load(&format!("[vault]\naddr = {value}\n"), &ROUTE, &[]));
    assert_eq!(
        refused("'https://v/hvs.x'"),
        "FILE:2: vault.addr: has a path; only scheme, host and port are supported"
    );
    assert_eq!(
        refused("['https://a', 'v:1']"),
        "FILE:2: vault.addr: neither http:// nor https:// with a host"
    );
    for empty in ["[]", "''", "['https://a', '']"] {
        assert_eq!(refused(empty), "FILE:2: vault.addr: not a URL such as https://vault:8200");
    }
    let ambient = complaint(load_route(&[], &[("VAULT_ADDR", "https://u:hunter2@v")]));
    assert_eq!(ambient, "VAULT_ADDR: holds a user or password, which Vault does not take");
}

/// The one rule for names, held by flags, variables and file alike.
#[test]
fn every_setting_is_a_flag_a_variable_and_a_key_by_one_rule() {
    let mut seen = 0;
    for setting in settings().filter(|setting| setting.table != Table::None) {
        assert_eq!(
            setting.variable(),
            format!("LEASEHOLD_{}", setting.flag().to_uppercase().replace('-', "_"))
        );
        let table = match setting.table {
            Table::Top => String::new(),
            Table::Route | Table::Routes => "[[route]]\n".to_owned(),
            table => format!("[{}]\n", table.name()),
        };
        let (flags, env) = (Flags::default(), env(&[]));
        // A table is no value of any setting: that is found out only where the key is known.
        let read = Sources::of_text(&format!("{table}{} = {{}}", setting.name), &flags, &env);
        if let Err(error) = read {
            assert!(error.to_string().contains(": expected "), "{setting:?}: {error}");
        }
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn no_setting_is_there_twice() {
    let mut paths: Vec<_> = settings().map(|setting| (setting.table.is_route(), setting.path())).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), settings().count());
}

#[test]
fn an_error_names_the_table_that_the_value_stands_in() {
    let file = "[defaults]\nlazy = true\n[[route]]\nupstream = 'postgresql://h/'\nvault_path = 'database/static-creds/app'\n";
    assert_eq!(complaint(load(file, &[], &[])), "FILE:2: defaults.lazy: a static role is never lazy");
    let number = "[defaults]\nmax_sessions = -1\n";
    assert_eq!(
        complaint(load(number, &ROUTE, &[])),
        "FILE:2: defaults.max_sessions: not a whole number from 0 up"
    );
}

#[test]
fn threads_are_counted_from_one() {
    assert!(load("", &ROUTE, &[]).unwrap().threads.get() > 0);
    assert_eq!(load("threads = 3\n", &ROUTE, &[]).unwrap().threads.get(), 3);
    for count in ["0", "1025"] {
        let file = format!("threads = {count}\n");
        assert_eq!(complaint(load(&file, &ROUTE, &[])), "FILE:1: threads: not a whole number from 1 to 1024");
    }
}

#[test]
fn what_a_flag_cannot_say_is_said_by_no_variable() {
    let config = load_route(&[], &[("LEASEHOLD_USER", "app"), ("LEASEHOLD_NAME", "x")]).unwrap();
    assert_eq!((config.routes[0].user.clone(), config.routes[0].name.as_str()), (Match::Any, "app-role"));
    assert_eq!(config.warnings.len(), 2, "they are said to be ignored");
}
