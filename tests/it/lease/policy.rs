//! Policies: what leasehold does with what it is allowed.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Logins, SOON};
use crate::harness::{Backends, Spec, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_allows_revocation_gets_each_lease_back_by_itself() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    let new = leasehold.connect("app", db.name()).await.user().await;
    assert_eq!(vault.leases(&setup.path).await.len(), 2, "a session stands on the old one");

    old.close().await;

    leasehold.until_metric(SOON, "revocations_total", &[("outcome", "lease")], 1.0).await;
    assert_eq!(vault.leases(&setup.path).await.len(), 1);
    assert_eq!(db.roles().await, [new]);
    // The old login has nothing left to hold.
    let revoked = [("operation", "revoke_token"), ("outcome", "ok")];
    leasehold.until_metric(SOON, "vault_requests_total", &revoked, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_forbids_renewal_means_rotation_at_two_thirds() {
    let deny = "path \"sys/leases/renew\" { capabilities = [\"deny\"] }";
    let backends = Backends::new(Spec::new("app").ttl("30s", "1h").policy(deny)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let logins = Logins::through(&leasehold, db);
    let session = leasehold.connect("app", db.name()).await;
    let first = session.user().await;
    // It is not drained, and lasts to the hard close.
    session.batch_execute("BEGIN").await.unwrap();

    leasehold.until_metric(SOON * 3, "rotations_total", &[("reason", "not_renewable")], 1.0).await;
    assert_eq!(session.user().await, first, "it lives on beside the successor");
    assert_eq!(session.ended_within(SOON * 2).await.as_deref(), Some("57P01"));
    leasehold.until_metric(SOON * 4, "rotations_total", &[("reason", "not_renewable")], 2.0).await;

    logins.all_succeeded().await;
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("renewals_total", &[("outcome", "forbidden")]) >= 2.0);
    assert_eq!(metrics.get("renewals_total", &[("outcome", "ok")]), 0.0);
    eventually(SOON, async || same(db.roles().await.contains(&first), false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_default_policy_a_token_of_unknown_rights_is_replaced_before_its_end() {
    // Neither lookup-self, renew-self nor revoke-self: the login's reply alone tells its end.
    const LIFE: Duration = Duration::from_secs(20);
    let token = json!({"token_no_default_policy": true, "token_ttl": "20s"});
    let backends = Backends::new(Spec::new("app").ttl("1h", "24h").token(token)).await;
    let Backends { db, .. } = &backends;
    let began = Instant::now();
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let logins = Logins::through(&leasehold, db);
    let session = leasehold.connect("app", db.name()).await;
    let first = session.user().await;

    leasehold.until_metric(LIFE, "rotations_total", &[("reason", "token")], 1.0).await;
    assert_eq!(session.ended_within(LIFE).await.as_deref(), Some("57P01"));
    eventually(LIFE, async || same(db.roles().await.contains(&first), false)).await;
    assert!(began.elapsed() >= LIFE, "it can be given back in no way, and lapses with its token");

    logins.all_succeeded().await;
    leasehold.until_metric(SOON, "revocations_total", &[("outcome", "forbidden")], 1.0).await;
    assert_eq!(leasehold.metrics().await.get("revocations_total", &[("outcome", "lease")]), 0.0);
}
