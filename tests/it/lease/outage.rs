//! Vault away: what goes on, how long, and what comes back.

use std::time::Duration;

use tokio::time::Instant;

use super::{Logins, SOON};
use crate::harness::{
    Backends, Builder, Database, Forwarded, Leasehold, Mode, Spec, Storage, bench, eventually,
};

/// A lease of 45 s is renewed within 28 s, and serves for 41 s. In its last 4 s a successor would be asked for.
fn lease() -> Spec {
    Spec::new("app").ttl("45s", "1h")
}

async fn start(builder: Builder) -> Leasehold {
    let leasehold = builder.flag("--vault-client-timeout", "2s").start().await;
    leasehold.wait_ready().await;
    leasehold
}

/// Vault has just gone; `back` brings it back when its renewal has failed and most of the usable life has passed.
async fn most_of_a_lease_without_vault(db: &Database, leasehold: &Leasehold, back: impl AsyncFnOnce()) {
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;
    let logins = Logins::through(leasehold, db);
    let mut runway = f64::MAX;
    loop {
        let now = leasehold.metrics().await.get("lease_runway_seconds", &[]);
        assert!(now <= runway, "the runway sinks: {runway}, then {now}");
        assert_eq!(leasehold.http("/readyz").await.status, 200);
        runway = now;
        let failed = leasehold.metrics().await.get("renewals_total", &[("outcome", "failed")]);
        if runway < 13.0 && failed >= 1.0 {
            break;
        }
        assert!(runway > 4.0, "its renewal should have failed by now");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    back().await;

    leasehold.until_metric(SOON, "renewals_total", &[("outcome", "ok")], 1.0).await;
    leasehold.until_metric(SOON, "lease_runway_seconds", &[], 20.0).await;
    let past_the_first_lease = Instant::now() + Duration::from_secs(17);
    while Instant::now() < past_the_first_lease {
        assert_eq!(session.user().await, user);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    logins.all_succeeded().await;
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 1.0);
    assert_eq!(leasehold.http("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_stopped_for_most_of_a_lease_is_not_missed() {
    let backends = Backends::with_vault(bench().own_vault(Storage::Raft).await, lease()).await;
    let Backends { db, vault, .. } = &backends;
    let leasehold = start(backends.leasehold()).await;
    vault.stop("KILL").await;

    most_of_a_lease_without_vault(db, &leasehold, async || vault.restart().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_sealed_for_most_of_a_lease_is_not_missed() {
    let backends = Backends::with_vault(bench().own_vault(Storage::Raft).await, lease()).await;
    let Backends { db, vault, .. } = &backends;
    let leasehold = start(backends.leasehold()).await;
    vault.seal().await;

    most_of_a_lease_without_vault(db, &leasehold, async || vault.unseal().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_does_not_answer_for_most_of_a_lease_is_not_missed() {
    let backends = Forwarded::new(lease()).await;
    let (db, fault) = (&backends.db, &backends.fault);
    let leasehold = start(backends.leasehold()).await;
    fault.set(Mode::Blackhole).await;

    most_of_a_lease_without_vault(db, &leasehold, async || fault.set(Mode::Pass).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_without_vault_takes_its_sessions_and_vaults_return_heals() {
    let backends = Forwarded::new(Spec::new("app").ttl("10s", "1h")).await;
    let (db, fault) = (&backends.db, &backends.fault);
    let leasehold = backends.leasehold().flag("--limits-login-wait", "500ms").start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    fault.set(Mode::Refuse).await;
    fault.cut();

    eventually(SOON * 2, async || crate::harness::same(leasehold.http("/readyz").await.status, 503)).await;

    assert_eq!(session.ended().await.as_deref(), Some("57P01"));
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "drain")]), 0.0, "it had no successor");
    assert_eq!(metrics.get("lease_runway_seconds", &[]), 0.0);
    let Err(refused) = leasehold.try_connect("app", db.name()).await else {
        panic!("no credential is usable")
    };
    assert_eq!(refused.code().map(|code| code.code()), Some("57P03"));
    fault.set(Mode::Pass).await;
    leasehold.wait_ready().await;
    leasehold.connect("app", db.name()).await;
}
