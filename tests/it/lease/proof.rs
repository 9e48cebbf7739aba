//! The proof of a fresh credential, before anybody gets it.

use std::time::Duration;

use serde_json::json;

use super::SOON;
use crate::harness::{Backends, Fault, Mode, Spec, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_cannot_log_in_is_refused_and_the_old_one_stays() {
    let backends = Backends::new(Spec::new("app").ttl("24s", "1h").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;
    let nologin = json!({
        "db_name": "db",
        "default_ttl": "24s",
        "max_ttl": "1h",
        "creation_statements":
            [format!("CREATE ROLE \"{{{{name}}}}\" NOLOGIN PASSWORD '{{{{password}}}}' IN ROLE {}", db.owner())],
        "revocation_statements": ["DROP ROLE IF EXISTS \"{{name}}\""],
    });
    vault.write(&format!("{}/roles/app", setup.mount()), nologin).await;

    let rotated = leasehold.command(&["rotate", "--drain=0s"]).await;

    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    assert_eq!(session.user().await, user, "its session is undisturbed");
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, user);
    eventually(SOON, async || same(db.roles().await, [user.clone()])).await;
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("proofs_total", &[("outcome", "refused")]) >= 2.0, "it was tried again");
    assert_eq!(metrics.get("rotations_total", &[]), 0.0);
    assert_eq!(metrics.get("suspect_logins_total", &[]), 0.0);
    // It hears of the revocation a moment after the role has gone.
    eventually(SOON, async || {
        let generations = leasehold.generations().await;
        let known = generations.iter().map(|one| (one["generation"].as_u64(), one["state"].as_str()));
        same(known.collect::<Vec<_>>(), [(Some(1), Some("current"))])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_at_the_start_a_credential_is_published_unproved_and_works_later() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let fault = Fault::before(&db.server.addr()).await;
    fault.set(Mode::Refuse).await;
    let leasehold =
        backends.leasehold_at(&format!("postgresql://{}/?sslmode=disable", fault.addr())).start().await;

    leasehold.wait_ready().await;

    assert!(leasehold.metrics().await.get("proofs_total", &[("outcome", "unprovable")]) >= 1.0);
    let reason = leasehold.status().await["routes"][0]["upstream_error"]["reason"].clone();
    let wanted = format!("{}: cannot reach the upstream server: ", fault.addr());
    assert!(reason.as_str().is_some_and(|reason| reason.starts_with(&wanted)), "{reason}");
    let Err(unreachable) = leasehold.try_connect("app", db.name()).await else { panic!("nobody listens") };
    assert_eq!(unreachable.code().map(|code| code.code()), Some("08001"));
    fault.set(Mode::Pass).await;
    let session = leasehold.connect("app", db.name()).await;
    assert_eq!(db.roles().await, [session.user().await]);
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_cannot_be_proved_waits_while_the_old_one_serves() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let fault = Fault::before(&db.server.addr()).await;
    let leasehold = backends
        .leasehold_at(&format!("postgresql://{}/?sslmode=disable&connect_timeout=2", fault.addr()))
        .flag("--rotate-after", "3s")
        .start()
        .await;
    leasehold.wait_ready().await;
    fault.set(Mode::Refuse).await;
    leasehold.until_metric(SOON, "proofs_total", &[("outcome", "unprovable")], 2.0).await;
    assert_eq!(leasehold.metrics().await.get("rotations_total", &[]), 0.0);
    assert_eq!(leasehold.http("/readyz").await.status, 200);

    fault.set(Mode::Pass).await;

    leasehold.until_metric(Duration::from_secs(40), "rotations_total", &[("reason", "schedule")], 1.0).await;
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("proofs_total", &[("outcome", "ok")]) >= 2.0, "proved when it could be");
}
