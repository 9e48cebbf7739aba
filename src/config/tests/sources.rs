//! Which source a value comes from: flags, environment, file; how each names it, and what is said of a wrong one. Floor 6.

use super::*;

#[test]
fn clap_finds_no_fault_with_the_definition() {
    command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = load_route(&[], &[]).unwrap();
    let listen: Vec<_> =
        config.listen().map(|listen| (listen.address.to_string(), listen.optional)).collect();
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
                max_handshakes: 0,
                logins_per_second: 0,
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
            access: Access::default(),
            database: Match::Any,
            upstream: upstream("postgresql://db:5432/"),
            vault_path: VaultPath::parse("database/creds/app-role").unwrap(),
            rotate_after: None,
            max_age: None,
            drain: None,
            set_role: None,
            probe_database: None,
            probe_sql: None,
            max_sessions: 0,
            logins_per_second: 0,
            warm: 0,
            reuse: false,
            tag_application_name: false,
            lazy: false,
            idle_after: Duration::from_mins(5),
            standby: false,
            require_auth: RequireAuth::default(),
        }]
    );
    assert!(config.warnings.is_empty());
}

fn upstream(uri: &str) -> UpstreamUri {
    UpstreamUri { uri: Uri::parse(uri).unwrap(), origin: Origin::Default(String::new()) }
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
fn what_comes_later_is_refused_by_name() {
    let file = "[[route]]\nvault = 'other'\n";
    assert_eq!(complaint(load(file, &[], &[])), "FILE:2: route.vault: not supported yet");
    let run = command().find_subcommand("run").unwrap().clone().render_long_help().to_string();
    let later = |setting: &&Setting| setting.is_flag() && !setting.is_built();
    for hidden in settings().filter(later) {
        let flag = format!("--{}", hidden.flag());
        assert_eq!(complaint(load_route(&[&flag, "1"], &[])), format!("{flag}: not supported yet"));
        assert!(!run.contains(&format!("--{} ", hidden.flag())), "{hidden:?}");
    }
}

#[test]
fn a_wrong_file_is_one_line_with_file_line_and_key() {
    let complaint = |text: &str| complaint(load(text, &ROUTE, &[]));
    assert_eq!(complaint("\n[vault]\nadr = 'x'\n"), "FILE:3: vault: unknown key; did you mean addr?");
    let stranger = complaint("[vault]\n'hunter2 ' = 'hunter2'\n");
    assert!(stranger.starts_with("FILE:2: vault: unknown key; known are addr, "), "{stranger}");
    let stranger = complaint("[hunter2]\nlisten = 'hunter2'\n");
    assert!(stranger.starts_with("FILE:1: (top): unknown key; known are ") && !stranger.contains("hunter2"));
    assert_eq!(complaint("http = 'off'\nhunter2\n"), "FILE:2: (top): not TOML: key with no value");
    let unquoted = complaint("http = 'off'\nlisten = 127.0.0.1:6432\n");
    assert!(unquoted.starts_with("FILE:2: (top): not TOML"), "{unquoted}");
    assert!(
        unquoted.ends_with("; a value that is not a number, true or false stands in quotes"),
        "{unquoted}"
    );
    assert_eq!(complaint("listen_public = 'hunter2'\n"), "FILE:1: listen_public: expected a boolean");
    assert_eq!(
        complaint("[limits]\nlogin_wait = '10'\n"),
        "FILE:2: limits.login_wait: not a duration such as 500ms, 2m or 1h30m"
    );
    assert_eq!(complaint("listen = 5\n"), "FILE:1: listen: expected a string or a list of strings");
    assert!(complaint("[vault\n").starts_with("FILE:1: "));
    assert_eq!(
        complaint("[vault.auth]\nmethod = 'approle'\n"),
        "FILE: vault.auth.role_id: the method approle needs it"
    );
    let routeless = load("http = 'off'\n", &[], &[]);
    assert!(super::complaint(routeless).starts_with("FILE: upstream: is needed: "));
    assert!(load("", &["--config=/nonexistent/x.toml"], &[]).unwrap_err().to_string().starts_with(
        "--config: cannot use /nonexistent/x.toml: there is no such file, nor a directory /nonexistent"
    ));
}

#[test]
fn what_a_client_shows_must_be_to_be_seen() {
    let complaint = |flags: &[&str]| load_route(flags, &[]).unwrap_err().to_string();
    assert_eq!(
        complaint(&["--allow-uids=0"]),
        "--allow-uids: needs a Unix socket in listen: over TCP nobody knows the user of a client"
    );
    assert_eq!(
        complaint(&["--client-san=app.example", "--listen=/run"]),
        "--client-san: needs tls.client_ca_file: without it clients show no certificate"
    );
    let stranger = complaint(&["--allow-gids=root,hunter2", "--listen=/run"]);
    assert_eq!(stranger, "--allow-gids: /etc/group has no such name; write the number");
    let nobody = load("listen = '/run'\n[defaults]\nallow_uids = []\n", &ROUTE, &[]).unwrap_err();
    assert!(nobody.to_string().contains("must not be empty"), "{nobody}");
    let route = "allow_uids = [7, 'root']\nallow_gids = ['0']\n";
    let config = load(&format!("listen = '/run'\n[defaults]\n{route}"), &ROUTE, &[]).unwrap();
    let Access { uids, gids, sans } = &config.routes[0].access;
    assert_eq!((&uids[..], &gids[..], sans.len()), (&[7, 0][..], &[0][..], 0));
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
            Table::Route | Table::Routes | Table::Listener => format!("[[{}]]\n", setting.table.name()),
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
fn what_a_flag_cannot_say_is_said_by_no_variable() {
    let config = load_route(&[], &[("LEASEHOLD_USER", "app"), ("LEASEHOLD_NAME", "x")]).unwrap();
    assert_eq!((config.routes[0].user.clone(), config.routes[0].name.as_str()), (Match::Any, "app-role"));
    assert_eq!(config.warnings.len(), 2, "they are said to be ignored");
}
