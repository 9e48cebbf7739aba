//! The main job: an app with no password, on the current credential, over a rotation.

use crate::harness::{Backends, SOON, Spec, bench, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn select_through_leasehold_needs_no_password() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;

    let session = leasehold.connect("app", db.name()).await;

    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    assert_eq!(db.roles().await, [session.user().await]);
    assert_eq!(leasehold.metrics().await.get("sessions", &[("route", "app")]), 1.0);
    let status = leasehold.status().await;
    assert_eq!(status["state"], "serving");
    assert_eq!(status["routes"][0]["generations"][0]["username"], session.user().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_leaves_old_sessions_and_takes_new_ones_along() {
    let backends = Backends::on(&bench().postgres_18().await, Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    let old_user = old.user().await;

    let rotated = leasehold.command(&["rotate"]).await;
    assert!(rotated.status.success(), "{rotated:?}");

    let new = leasehold.connect("app", db.name()).await;
    let new_user = new.user().await;
    assert_ne!(new_user, old_user);
    assert_eq!(old.user().await, old_user, "the old session runs on");
    assert_eq!(leasehold.generations().await.len(), 2);
    old.close().await;
    // Its own token is revoked, as this policy does not let leasehold revoke a lease.
    eventually(SOON, async || same(db.roles().await, [new_user.clone()])).await;
    // Counted once the lease is seen to be gone.
    eventually(SOON, async || {
        same(leasehold.metrics().await.get("revocations_total", &[("outcome", "token")]), 1.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_gives_every_lease_back() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let mut leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;

    assert_eq!(leasehold.stop().await.code(), Some(0));

    assert_eq!(session.ended().await.as_deref(), Some("57P01"));
    assert!(vault.leases(&setup.path).await.is_empty());
    assert!(db.roles().await.is_empty());
}
