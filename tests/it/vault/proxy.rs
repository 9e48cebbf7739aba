//! What stands between leasehold and Vault: a proxy that caches, a quota that is used up.

use serde_json::json;

use crate::harness::{Backends, Leasehold, SOON, Spec, bench, eventually, leasehold, same};

/// `rotate` fails, and the credential there is serves on.
async fn fails_to_rotate(leasehold: &Leasehold) -> String {
    let rotated = leasehold.command(&["rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    assert_eq!(leasehold.http("/readyz").await.status, 200);
    String::from_utf8_lossy(&rotated.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_out_of_a_cache_is_recognised_said_and_not_used() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let proxy = bench().caching_proxy(&vault).await;
    let mut leasehold = leasehold().upstream(&db).vault_addr(&proxy).login(&setup).start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;

    let complaint = fails_to_rotate(&leasehold).await;

    assert!(complaint.contains("a caching Vault proxy is in between"), "{complaint}");
    leasehold.wait_log("a caching Vault proxy is in between; take it out of the way").await;
    assert_eq!(leasehold.log().at("ERROR").len(), 1);
    let status = leasehold.status().await;
    assert_eq!(status["routes"][0]["last_error"]["kind"], "issue: a caching Vault proxy is in between");
    assert_eq!(leasehold.generations().await.len(), 1);
    let refused = [("outcome", "refused")];
    assert!(leasehold.metrics().await.get("issuances_total", &refused) >= 1.0);
    // The lease that was refused is the one in use: it was not given back.
    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, user);
    assert_eq!(vault.leases(&setup.path).await.len(), 1);

    assert_eq!(leasehold.stop().await.code(), Some(0));
    eventually(SOON, async || same(db.roles().await.len(), 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_is_waited_for() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let quota = format!("sys/quotas/rate-limit/{}", setup.id());
    vault.write(&quota, json!({"path": format!("{}/", setup.mount()), "rate": 1, "interval": "10m"})).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;

    let complaint = fails_to_rotate(&leasehold).await;

    assert!(complaint.contains("issue: 429 on "), "{complaint}");
    leasehold.wait_log("status 429").await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");
    vault.delete(&quota).await;
    leasehold.rotate().await;
}
