//! What values are taken, and how they fit together: listeners, Vault and its auth methods, certificates, delays. Floor 6.

use super::*;

#[test]
fn client_timeouts_are_those_of_go() {
    let seconds = |text| crate::config::values::go_duration(text).map(|span| span.as_secs_f64()).ok();
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
fn plain_http_beyond_loopback_is_warned_of() {
    let warnings = |addr| load_route(&["--vault-addr", addr], &[]).unwrap().warnings.len();
    assert_eq!(warnings("http://vault:8200"), 1);
    assert_eq!(warnings("http://127.0.0.1:8200"), 0);
    assert_eq!(warnings("https://vault:8200"), 0);
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
    assert_eq!(
        complaint(&["--vault-auth-role=app"]),
        "--vault-auth-role: the method token does not read it; --vault-auth-method names one that does: kubernetes or jwt"
    );
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
        "--vault-auth-role: the method approle does not read it; --vault-auth-method names one that does: kubernetes or jwt"
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
fn listeners_beyond_this_machine_need_leave() {
    for open in ["0.0.0.0:6432", "[::]:6432", "10.1.2.3:6432", "[::ffff:10.1.2.3]:6432"] {
        let refused = load_route(&["--listen", open], &[]).unwrap_err();
        assert_eq!(refused.exit_code(), 78);
        assert!(refused.to_string().starts_with("--listen: "), "{refused}");
        assert!(refused.to_string().contains("--listen-public"), "{refused}");
        let refused = load_route(&["--listen", open, "--listen-public"], &[]).unwrap_err();
        assert!(refused.to_string().contains("--allow-addresses"), "{refused}");
        let config =
            load_route(&["--listen", open, "--listen-public", "--allow-addresses=::/0"], &[]).unwrap();
        assert_eq!((config.cancel_unknown, config.warnings.len()), (Unknown::Forward, 0));
        let all = ["--listen", open, "--listen-public", "--allow-addresses=::/0", "--console=all"];
        let warnings = load_route(&all, &[]).unwrap().warnings;
        assert!(warnings.iter().any(|warning| warning.text.starts_with("console: ")), "{warnings:?}");
        let tls = ["--tls-cert-file=/c", "--tls-key-file=/k", "--tls-client-ca-file=/ca"];
        load_route(&[&["--listen", open, "--listen-public"], &tls[..]].concat(), &[]).unwrap();
    }
    for private in ["127.9.9.9:1", "[::1]:1", "/run/leasehold"] {
        load_route(&["--listen", private], &[]).unwrap();
    }
}

#[test]
fn a_directory_is_a_unix_socket() {
    let path = |text| match crate::config::values::listen(text).unwrap().address {
        crate::socket::Address::Unix(path) => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(path("/run/lh"), PathBuf::from("/run/lh/.s.PGSQL.6432"));
    assert_eq!(path("/run/lh/:5433"), PathBuf::from("/run/lh/.s.PGSQL.5433"));
    for bad in ["/run:x", "/run:0", "localhost:1", "6432", "", &format!("/{}", "x".repeat(100))] {
        assert!(crate::config::values::listen(bad).is_err(), "{bad}");
    }
}

#[test]
fn listen_is_a_list_in_each_source() {
    let count = |result: Result<Config, Error>| result.unwrap().listen().count();
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

#[test]
fn threads_are_counted_from_one() {
    assert!(load("", &ROUTE, &[]).unwrap().threads.get() > 0);
    assert_eq!(load("threads = 3\n", &ROUTE, &[]).unwrap().threads.get(), 3);
    for count in ["0", "1025"] {
        let file = format!("threads = {count}\n");
        assert_eq!(complaint(load(&file, &ROUTE, &[])), "FILE:1: threads: not a whole number from 1 to 1024");
    }
}

const LISTENERS: &str = "\
listen = '/run'
[[listener]]
address = ['127.0.0.1:1', '[::1]:1']
max_sessions = 4
handshake_timeout = '2s'
[[listener]]
address = '127.0.0.1:0'
max_handshakes = 5
logins_per_second = 6
";

#[test]
fn a_listener_has_its_addresses_and_limits_of_its_own() {
    let config = load(LISTENERS, &ROUTE, &[]).unwrap();
    let limits: Vec<_> = config.listeners.iter().map(|listener| listener.limits).collect();
    let none = session::ListenerLimits::default();
    let two =
        session::ListenerLimits { max_sessions: 4, handshake_timeout: Some(Duration::from_secs(2)), ..none };
    let other = session::ListenerLimits { max_handshakes: 5, logins_per_second: 6, ..none };
    assert_eq!(limits, [None, Some(two), Some(other)]);
    let addresses: Vec<_> = config.listen().map(|listen| listen.address.to_string()).collect();
    assert_eq!(addresses, ["/run/.s.PGSQL.6432", "127.0.0.1:1", "[::1]:1", "127.0.0.1:0"]);
    let alone =
        load("[[listener]]\naddress = '/run'\n[[listener]]\naddress = '/tmp'\n", &ROUTE, &[]).unwrap();
    assert_eq!(alone.listen().count(), 2, "the default of listen is for those who write none");
    assert_eq!(alone.limits.sessions.handshake_timeout, Duration::from_secs(15));
    let users = load(&format!("[defaults]\nallow_uids = [0]\n{}", &LISTENERS[16..]), &ROUTE, &[]);
    assert!(complaint(users).starts_with("FILE:2: defaults.allow_uids: needs a Unix socket"));
    load("[defaults]\nallow_uids = [0]\n[[listener]]\naddress = '/run'\n", &ROUTE, &[]).unwrap();
}

#[test]
fn a_wrong_listener_is_refused_by_its_line() {
    let refused = |from: &str, to: &str| {
        assert!(LISTENERS.contains(from), "{from}");
        complaint(load(&LISTENERS.replace(from, to), &ROUTE, &[]))
    };
    assert_eq!(
        refused("listen = '/run'", "listen = ['/run', '[::1]:1']"),
        "FILE:3: listener.address: [::1]:1 is there twice: it stands once, in listen or in one [[listener]]"
    );
    assert_eq!(
        refused("'127.0.0.1:0'", "'127.0.0.1:1'"),
        "FILE:7: listener.address: 127.0.0.1:1 is there twice: it stands once, in listen or in one [[listener]]"
    );
    assert_eq!(
        refused("address = '127.0.0.1:0'", ""),
        "FILE:6: listener.address: is needed in each [[listener]]"
    );
    assert_eq!(
        refused("'127.0.0.1:0'", "'unix:/run'"),
        "FILE:7: listener.address: neither an IP address with a port (127.0.0.1:6432, [::1]:6432) nor a directory (/dir, /dir:port)"
    );
    assert!(
        refused("'127.0.0.1:0'", "'0.0.0.0:6432'")
            .starts_with("FILE:7: listener.address: 0.0.0.0:6432 is open")
    );
    assert_eq!(
        refused("max_sessions", "max_session"),
        "FILE:4: listener: unknown key; did you mean max_sessions?"
    );
    assert_eq!(refused("= 4", "= -4"), "FILE:4: listener.max_sessions: not a whole number from 0 up");
    assert_eq!(refused("'2s'", "'0s'"), "FILE:5: listener.handshake_timeout: must be longer than zero");
    let table = LISTENERS.replace("[[listener]]\naddress = ['", "[listener]\naddress = ['");
    let table = &table[..table.rfind("[[listener]]").unwrap()];
    assert_eq!(
        complaint(load(table, &ROUTE, &[])),
        "FILE:2: listener: expected a list of tables: each begins with [[listener]]"
    );
    let variable = load_route(&[], &[("LEASEHOLD_LISTENER_MAX_SESSIONS", "1")]).unwrap();
    assert_eq!(variable.warnings.len(), 1, "it is said to be ignored");
}
