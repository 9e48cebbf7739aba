//! The alert rules: each fires under the fault that it is for, and none for a leasehold in health.
//!
//! `/metrics` of real leaseholds is kept while real faults happen to them. `tests/deploy/alerts.py` makes series of that, with
//! 30 s from one sample to the next, and asks promtool which alerts fire.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Backends, Mode, SOON, Spec, bench, eventually, leasehold, same};
use crate::process::OnSockets;

/// The alerts that a fault brings, by what it happens to.
const FIRE: [(&str, &[&str]); 6] = [
    ("healthy", &[]),
    (
        "vault-away",
        &[
            "LeaseholdVaultAway",
            "LeaseholdRunwayLow",
            "LeaseholdRenewalsFailing",
            "LeaseholdSessionsCut",
            "LeaseholdNotReady",
        ],
    ),
    (
        "troubled",
        &[
            "LeaseholdCredentialSuspect",
            "LeaseholdProofsRefused",
            "LeaseholdSessionsCut",
            "LeaseholdIssuingTooFast",
            "LeaseholdLeasesLeft",
            "LeaseholdClientsTurnedAway",
        ],
    ),
    ("refused", &["LeaseholdProofsRefused", "LeaseholdNotReady"]),
    ("unissued", &["LeaseholdIssuancesFailing", "LeaseholdNotReady"]),
    ("unread", &["LeaseholdLogLinesDropped"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_fires_under_its_fault_and_none_without() {
    let ((healthy, away), troubled, refused, unissued, unread) =
        tokio::join!(healthy_then_without_vault(), troubled(), refused(), unissued(), unread());
    let samples = [healthy, away, troubled, refused, unissued, unread];
    let recorded: Vec<_> = FIRE
        .iter()
        .zip(samples)
        .map(|((instance, fire), samples)| json!({"instance": instance, "fire": fire, "samples": samples}))
        .collect();
    let path = bench().directory().await.join("recorded.json");
    std::fs::write(&path, json!(recorded).to_string()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deploy/alerts.py");
    let asked = tokio::task::spawn_blocking(move || Command::new("python3").arg(script).arg(path).output());
    let answer = asked.await.unwrap().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()));
}

/// What `/metrics` says, several times a second, until the story has ended and a few times more.
async fn recorded(scrape: impl AsyncFn() -> String, story: impl Future<Output = ()>) -> Vec<String> {
    let mut samples = Vec::new();
    let mut story = std::pin::pin!(story);
    let mut is_told = false;
    let mut left = 5;
    while left > 0 {
        samples.push(scrape().await);
        tokio::select! {
            () = &mut story, if !is_told => is_told = true,
            () = tokio::time::sleep(Duration::from_millis(200)) => left -= u32::from(is_told),
        }
    }
    samples
}

/// A lease of a minute, a renewal, a rotation; then Vault refuses connections until the lease has ended under a transaction.
async fn healthy_then_without_vault() -> (Vec<String>, Vec<String>) {
    let backends = Backends::new(Spec::new("app").ttl("60s", "1h")).await;
    let Backends { db, vault, .. } = &backends;
    let fault = vault.forwarder().await;
    let leasehold = backends.leasehold_through(&fault).start().await;
    leasehold.wait_ready().await;
    let scrape = async || leasehold.http("/metrics").await.text;
    let healthy = recorded(&scrape, async {
        leasehold.connect("app", db.name()).await.close().await;
        leasehold.until_metric(SOON * 5, "renewals_total", &[("outcome", "ok")], 1.0).await;
        leasehold.rotate().await;
        leasehold.until_metric(SOON, "revocations_total", &[], 1.0).await;
    });
    let healthy = healthy.await;
    let away = recorded(&scrape, async {
        let session = leasehold.connect("app", db.name()).await;
        session.batch_execute("BEGIN").await.unwrap();
        fault.set(Mode::Refuse).await;
        fault.cut();
        leasehold.until_metric(SOON * 7, "sessions_closed_total", &[("cause", "lease_end")], 1.0).await;
        eventually(SOON, async || same(leasehold.metrics().await.get("route_ready", &[]), 0.0)).await;
    });
    (healthy, away.await)
}

/// A token that was handed over, a limit on sessions, a password that is changed, a lease that is revoked, rotation after
/// rotation.
async fn troubled() -> Vec<String> {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app").ttl("1h", "2h")).await;
    let token = setup.token().await;
    let builder = leasehold().upstream(&db).vault(&vault).path(&setup.path).env("VAULT_TOKEN", &token);
    let leasehold = builder.flag("--limits-max-sessions", "2").start().await;
    leasehold.wait_ready().await;
    let story = async {
        let session = leasehold.connect("app", db.name()).await;
        let another = leasehold.connect("app", db.name()).await;
        assert!(leasehold.try_connect("app", db.name()).await.is_err(), "there is no room for a third");
        another.close().await;
        let role = session.user().await;
        db.admin.batch_execute(&format!("ALTER ROLE \"{role}\" PASSWORD 'another'")).await.unwrap();
        // A place is free again a moment after its client has gone.
        let get_in = async || eventually(SOON, async || leasehold.try_connect("app", db.name()).await).await;
        get_in().await.close().await;
        session.close().await;
        let session = get_in().await;
        vault.revoke_prefix(&setup.path).await;
        get_in().await.close().await;
        leasehold.until_metric(SOON, "sessions_closed_total", &[("cause", "revoked")], 1.0).await;
        drop(session);
        for _ in 0..6 {
            leasehold.rotate().await;
        }
        leasehold.until_metric(SOON, "revocations_total", &[("outcome", "forbidden")], 1.0).await;
    };
    recorded(async || leasehold.http("/metrics").await.text, story).await
}

/// A role that cannot log in.
async fn refused() -> Vec<String> {
    let statements = "CREATE ROLE \"{{name}}\" NOLOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    let backends = Backends::new(Spec::new("app").creation_statements(statements)).await;
    let leasehold = backends.leasehold().start().await;
    let story = leasehold.until_metric(SOON * 2, "proofs_total", &[("outcome", "refused")], 3.0);
    recorded(async || leasehold.http("/metrics").await.text, story).await
}

/// A role that Vault cannot make.
async fn unissued() -> Vec<String> {
    let backends = Backends::new(Spec::new("app").creation_statements("CREATE ROL \"{{name}}\"")).await;
    let leasehold = backends.leasehold().start().await;
    let story = leasehold.until_metric(SOON * 6, "issuances_total", &[("outcome", "refused")], 4.0);
    recorded(async || leasehold.http("/metrics").await.text, story).await
}

/// A log whose reader has gone.
async fn unread() -> Vec<String> {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app")).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let leasehold = OnSockets::start(&db, &vault, &setup, writer.into(), &[]).await;
    let lost = async || leasehold.metric("leasehold_log_lines_dropped_total").await;
    let story = async {
        let before = lost().await;
        assert!(leasehold.command(&["rotate"]).await.status.success());
        eventually(SOON, async || same(lost().await > before, true)).await;
    };
    recorded(async || leasehold.get("/metrics").await, story).await
}
