//! What operators and probes read: paths, methods and guards of the two HTTP servers, `/status`.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Backends, Spec};
use crate::process::{OnSockets, http_lines, run_command};

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_on_both_addresses_and_commands_on_admin_alone() {
    let backends = Backends::new(Spec::new("app")).await;
    let mut leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let [http, admin] = ["http", "admin"].map(|name| leasehold.listening(name)[0].clone());
    let ask = async |addr: &str, request: &str| {
        let lines = [format!("{request} HTTP/1.1"), format!("Host: {addr}"), "leasehold-admin: 1".to_owned()];
        http_lines(addr, &lines.each_ref().map(String::as_str)).await.0
    };
    let forged = async |request: &str| {
        http_lines(&admin, &[&format!("{request} HTTP/1.1"), &format!("Host: {admin}")]).await
    };

    for path in ["/livez", "/liveness", "/startup", "/readyz", "/readiness", "/metrics"] {
        for addr in [&http, &admin] {
            assert_eq!(ask(addr, &format!("GET {path}")).await, 200, "{addr} {path}");
            assert_eq!(ask(addr, &format!("HEAD {path}")).await, 200, "{addr} {path}");
            assert_eq!(ask(addr, &format!("POST {path}")).await, 405, "{addr} {path}");
        }
    }
    assert_eq!(ask(&http, "GET /status").await, 404);
    assert_eq!(ask(&http, "POST /rotate").await, 404);
    assert_eq!(ask(&http, "POST /quitquitquit").await, 404);
    assert_eq!(ask(&http, "GET /").await, 404);
    assert_eq!(ask(&admin, "GET /nothing").await, 404);
    assert_eq!(ask(&admin, "GET /status").await, 200);
    assert_eq!(ask(&admin, "POST /status").await, 405);
    assert_eq!(ask(&admin, "GET /rotate").await, 405);
    assert_eq!(ask(&admin, "DELETE /quitquitquit").await, 405);
    assert_eq!(ask(&admin, "POST /rotate?route=nobody").await, 404);
    assert_eq!(ask(&admin, "POST /rotate?drain=soon").await, 400);
    // What an app can be made to send has no header of a stranger's choice.
    for request in ["POST /rotate", "POST /rotate?drain=0s", "POST /reload", "POST /quitquitquit"] {
        let (code, text) = forged(request).await;
        assert!(code == 403 && text.contains("leasehold-admin"), "{request}: {code} {text}");
    }
    assert_eq!(forged("GET /status").await.0, 200);
    assert_eq!(ask(&admin, "GET /quitquitquit").await, 405);
    assert_eq!(leasehold.generations().await[0]["generation"], 1, "nothing of that rotated");
    assert_eq!(ask(&admin, "POST /rotate").await, 200);
    assert_eq!(leasehold.generations().await.last().unwrap()["generation"], 2);
    assert_eq!(ask(&admin, "POST /quitquitquit").await, 200);
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_is_kept_away_from_admin_and_a_probe_is_not_from_http() {
    let backends = Backends::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let [http, admin] = ["http", "admin"].map(|name| leasehold.listening(name)[0].clone());
    let host = format!("Host: {admin}");

    for headers in [
        &[host.as_str(), "Origin: http://127.0.0.1:9091"][..],
        &[&host, "Origin: null"],
        &[&host, "Sec-Fetch-Site: cross-site"],
        &[&host, "Sec-Fetch-Site: same-site"],
        &["Host: rebound.example.com"],
        &["Host: 10.0.0.1:9091"],
        &[&host, "Host: rebound.example.com"],
        &[],
    ] {
        for request in ["GET /status", "POST /rotate", "POST /quitquitquit", "GET /readyz", "GET /metrics"] {
            let line = format!("{request} HTTP/1.1");
            let lines = [&[line.as_str(), "leasehold-admin: 1"], headers].concat();
            let (status, _) = http_lines(&admin, &lines).await;
            assert_eq!(status, 403, "{request} with {headers:?}");
        }
    }
    for headers in [&["Host: localhost"][..], &["Host: [::1]:1"], &[&host, "Sec-Fetch-Site: none"]] {
        let (status, _) = http_lines(&admin, &[&["GET /status HTTP/1.1"], headers].concat()).await;
        assert_eq!(status, 200, "{headers:?}");
    }
    // A kubelet asks by the pod's address, a scraper by a service's name.
    let (status, _) = http_lines(&http, &["GET /readyz HTTP/1.1", "Host: pod.example.com"]).await;
    assert_eq!(status, 200);
    assert_eq!(leasehold.generations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_the_keys_and_forms_that_are_promised() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    let leases = vault.leases(&setup.path).await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    // Its own error is remembered: the role is gone for a moment.
    vault.delete(&format!("{}/roles/app", setup.mount())).await;
    assert_eq!(leasehold.command(&["rotate"]).await.status.code(), Some(1));

    let status = leasehold.status().await;

    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let time = |value: &Value| {
        let text = value.as_str().unwrap();
        assert!(text.ends_with('Z'), "{text}");
        humantime::parse_rfc3339(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    assert_eq!(keys(&status), set(&["version", "state", "vault", "routes"]));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["state"], "serving");
    assert_eq!(keys(&status["vault"]), set(&["addr", "reachable", "last_success"]));
    assert_eq!(status["vault"]["addr"], vault.addr);
    assert_eq!(status["vault"]["reachable"], true);
    time(&status["vault"]["last_success"]);
    let route = &status["routes"][0];
    assert_eq!(
        keys(route),
        set(&[
            "name",
            "user",
            "database",
            "upstream",
            "vault_path",
            "kind",
            "ready",
            "runway_seconds",
            "sessions",
            "next_action",
            "next_action_at",
            "last_error",
            "credential_error",
            "unsaved",
            "generations",
        ])
    );
    assert_eq!((&route["name"], &route["kind"]), (&"app".into(), &"dynamic".into()));
    assert_eq!(route["vault_path"], setup.path);
    assert_eq!((&route["user"], &route["database"]), (&"*".into(), &"*".into()));
    assert_eq!(route["upstream"], db.server.addr());
    assert_eq!((&route["ready"], &route["sessions"]), (&true.into(), &1.into()));
    let runway = route["runway_seconds"].as_f64().unwrap();
    assert!((3_000.0..3_600.0).contains(&runway), "{runway}");
    time(&route["next_action_at"]);
    assert_eq!(keys(&route["last_error"]), set(&["at", "kind", "reason", "past"]));
    time(&route["last_error"]["at"]);
    let [first, second] = &route["generations"].as_array().unwrap()[..] else { panic!("{status}") };
    for generation in [first, second] {
        assert_eq!(
            keys(generation),
            set(&[
                "generation",
                "state",
                "lease_id",
                "username",
                "issued_at",
                "ends_at",
                "drain_at",
                "renewals",
                "sessions",
            ])
        );
        assert!(time(&generation["issued_at"]) < time(&generation["ends_at"]));
    }
    let [lease] = &leases[..] else { panic!("{leases:?}") };
    assert_eq!(first["lease_id"], lease[lease.len() - 8..]);
    assert_eq!((&first["generation"], &second["generation"]), (&1.into(), &2.into()));
    assert_eq!((&first["state"], &second["state"]), (&"retiring".into(), &"current".into()));
    assert_eq!((&first["sessions"], &second["sessions"]), (&1.into(), &0.into()));
    assert_eq!((&first["renewals"], &second["drain_at"]), (&0.into(), &Value::Null));
    assert!(time(&first["drain_at"]) < time(&first["ends_at"]));
    assert_eq!(first["username"], old.user().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_may_be_a_socket_for_its_owner_alone_or_off() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let mut running = OnSockets::start(db, vault, setup, Stdio::null(), &[]).await;
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(running.admin_socket()), 0o600);
    assert_eq!(mode(running.client_socket()), 0o660);
    let status = running.command(&["status", "--json"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["state"], "serving");
    assert!(running.command(&["rotate"]).await.status.success());
    assert_eq!(running.command(&["shutdown", "--wait"]).await.status.code(), Some(0));
    assert_eq!(running.wait_exit().await.code(), Some(0));
    assert!(!running.admin_socket().exists() && !running.client_socket().exists());

    let off = backends.leasehold().flag("--admin", "off").start().await;
    off.wait_ready().await;
    let lines = off.log().messages("listening").len();
    assert_eq!(lines, 2, "client and http, and nothing else");
    assert_eq!(run_command(&["status", "--admin", "off"]).await.status.code(), Some(69));
}
