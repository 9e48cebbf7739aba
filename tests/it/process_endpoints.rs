//! What operators and probes read: paths, methods and guards of the two HTTP servers, `/status`, `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{SOON, Spec, bench, eventually, leasehold, same};
use crate::process::{OnSockets, http_lines, run_command};

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_on_both_addresses_and_commands_on_admin_alone() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let mut leasehold = leasehold().upstream(&db).vault(&vault).login(&setup).start().await;
    leasehold.wait_ready().await;
    let [http, admin] = ["http", "admin"].map(|name| leasehold.listening(name)[0].clone());
    let ask = async |addr: &str, request: &str| {
        http_lines(addr, &[&format!("{request} HTTP/1.1"), &format!("Host: {addr}")]).await.0
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
    assert_eq!(leasehold.generations().await[0]["generation"], 1, "nothing of that rotated");
    assert_eq!(ask(&admin, "POST /rotate").await, 200);
    assert_eq!(leasehold.generations().await.last().unwrap()["generation"], 2);
    assert_eq!(ask(&admin, "GET /quitquitquit").await, 200);
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_is_kept_away_from_admin_and_a_probe_is_not_from_http() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let leasehold = leasehold().upstream(&db).vault(&vault).login(&setup).start().await;
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
        for request in ["GET /status", "POST /rotate", "GET /quitquitquit", "GET /readyz", "GET /metrics"] {
            let line = format!("{request} HTTP/1.1");
            let (status, _) = http_lines(&admin, &[&[line.as_str()], headers].concat()).await;
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
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let leasehold = leasehold().upstream(&db).vault(&vault).login(&setup).start().await;
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
            "vault_path",
            "kind",
            "ready",
            "runway_seconds",
            "sessions",
            "next_action",
            "next_action_at",
            "last_error",
            "generations",
        ])
    );
    assert_eq!((&route["name"], &route["kind"]), (&"app".into(), &"dynamic".into()));
    assert_eq!(route["vault_path"], setup.path);
    assert_eq!((&route["ready"], &route["sessions"]), (&true.into(), &1.into()));
    let runway = route["runway_seconds"].as_f64().unwrap();
    assert!((3_000.0..3_600.0).contains(&runway), "{runway}");
    time(&route["next_action_at"]);
    assert_eq!(keys(&route["last_error"]), set(&["at", "kind"]));
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
async fn every_metric_is_there_after_a_story_with_labels_of_enums_alone() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app").ttl("12s", "1h").policy(Spec::MAY_REVOKE)).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault(&vault)
        .login(&setup)
        .flag("--limits-replica-grace", "1s")
        .start()
        .await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    assert!(session.cancel_token().cancel_query(tokio_postgres::NoTls).await.is_ok());
    leasehold.connect("app", db.name()).await.close().await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    let mut rubbish = leasehold.connect_raw().await;
    rubbish.write(b"GET / HTTP/1.1\r\n\r\n").await;
    rubbish.until("E").await;
    assert!(leasehold.try_connect("app", "no_such_database").await.is_err());
    // Renewals of both; then the old one is left and given back; then the new one's role loses its password.
    eventually(SOON * 2, async || {
        same(leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]) >= 2.0, true)
    })
    .await;
    session.close().await;
    eventually(SOON, async || {
        same(leasehold.metrics().await.get("revocations_total", &[("outcome", "lease")]), 1.0)
    })
    .await;
    let [role] = &db.roles().await[..] else { panic!("one role is left") };
    db.admin.batch_execute(&format!("ALTER ROLE \"{role}\" PASSWORD 'another'")).await.unwrap();
    leasehold.connect("app", db.name()).await;

    let text = leasehold.http("/metrics").await.text;

    let promised: BTreeMap<&str, (&str, &[&str])> =
        PROMISED.iter().map(|(name, kind, labels)| (*name, (*kind, *labels))).collect();
    for (name, (kind, _)) in &promised {
        assert!(text.contains(&format!("# TYPE leasehold_{name} {kind}\n")), "{name} in {text}");
        assert!(text.contains(&format!("# HELP leasehold_{name} ")), "{name} in {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let series = line.rsplit_once(' ').unwrap().0.strip_prefix("leasehold_").expect(line);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|base| promised.contains_key(base))
            .unwrap_or(name);
        let (_, wanted) = promised.get(name).unwrap_or_else(|| panic!("{line} is not promised"));
        let labels: Vec<_> =
            labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
        let mut seen = Vec::new();
        for label in labels {
            let (key, value) = label.split_once('=').unwrap();
            if key == "le" {
                continue;
            }
            seen.push(key);
            let value = value.trim_matches('"');
            let known = match key {
                "route" => ["app", ""].contains(&value),
                "version" => value == env!("CARGO_PKG_VERSION"),
                key => WORDS.iter().any(|(label, words)| *label == key && words.contains(&value)),
            };
            assert!(known, "{line}: {value} is no word of {key}");
        }
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), wanted.iter().copied().collect(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_may_be_a_socket_for_its_owner_alone_or_off() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let mut running = OnSockets::start(&db, &vault, &setup, Stdio::null(), &[]).await;
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

    let off = leasehold().upstream(&db).vault(&vault).login(&setup).flag("--admin", "off").start().await;
    off.wait_ready().await;
    let lines = off.log().messages("listening").len();
    assert_eq!(lines, 2, "client and http, and nothing else");
    assert_eq!(run_command(&["status", "--admin", "off"]).await.status.code(), Some(69));
}

/// The metrics, with their types and labels.
const PROMISED: [(&str, &str, &[&str]); 22] = [
    ("sessions", "gauge", &["route"]),
    ("sessions_opened_total", "counter", &["route"]),
    ("sessions_closed_total", "counter", &["route", "cause"]),
    ("login_seconds", "histogram", &["route"]),
    ("login_failures_total", "counter", &["route", "reason"]),
    ("suspect_logins_total", "counter", &["route"]),
    ("generations", "gauge", &["route", "state"]),
    ("lease_runway_seconds", "gauge", &["route"]),
    ("lease_ends_timestamp_seconds", "gauge", &["route"]),
    ("issuances_total", "counter", &["route", "outcome"]),
    ("proofs_total", "counter", &["route", "outcome"]),
    ("rotations_total", "counter", &["route", "reason"]),
    ("renewals_total", "counter", &["route", "outcome"]),
    ("revocations_total", "counter", &["route", "outcome"]),
    ("vault_requests_total", "counter", &["operation", "outcome"]),
    ("vault_request_seconds", "histogram", &["operation"]),
    ("vault_last_success_timestamp_seconds", "gauge", &[]),
    ("relayed_bytes_total", "counter", &["route", "direction"]),
    ("cancel_requests_total", "counter", &["outcome"]),
    ("handshake_failures_total", "counter", &["reason"]),
    ("log_lines_dropped_total", "counter", &[]),
    ("build_info", "gauge", &["version"]),
];

/// The words of each label but `route` and `version`.
const WORDS: [(&str, &[&str]); 6] = [
    ("cause", &["client", "upstream", "drain", "lease_end", "lease_end_cut", "revoked", "shutdown", "error"]),
    ("state", &["candidate", "standby", "current", "retiring", "lost"]),
    ("direction", &["upstream", "client"]),
    ("operation", &["login", "look_up", "health", "issue", "renew", "revoke", "renew_token", "revoke_token"]),
    (
        "reason",
        &[
            // Of logins.
            "no_route",
            "no_credential",
            "refused",
            "unreachable",
            "limit",
            "timeout",
            "upstream_error",
            "protocol",
            // Of rotations.
            "schedule",
            "capped",
            "not_renewable",
            "token",
            "revoked",
            "command",
            "reload",
            "standby",
            // Of handshakes.
            "hangup",
            "io",
            "ahead_of_answer",
            "asked_twice",
            "direct_tls",
            "unsupported_protocol",
            "malformed",
        ],
    ),
    (
        "outcome",
        &[
            "ok",
            "refused",
            "failed",
            "unprovable",
            "capped",
            "forbidden",
            "terminal",
            "lease",
            "token",
            "denied",
            "client_error",
            "server_error",
            "timeout",
            "unreachable",
            "known",
            "forwarded",
            "limited",
        ],
    ),
];
