//! `/metrics`: every promised one, with its type, its help, and labels from enums alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{Backends, SOON, Spec, eventually, leasehold, same};

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_there_after_a_story_with_labels_of_enums_alone() {
    let Backends { db, vault, setup } =
        Backends::new(Spec::new("app").ttl("12s", "1h").policy(Spec::MAY_REVOKE)).await;
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
    (
        "operation",
        &[
            "login",
            "look_up",
            "health",
            "issue",
            "renew",
            "look_up_lease",
            "revoke",
            "renew_token",
            "revoke_token",
        ],
    ),
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
