//! Tokens that end: batch, explicit maximum, short; and the periodic one, which does not.

use serde_json::{Value, json};

use crate::harness::{Backends, Database, Leasehold, SOON, Spec, eventually, same};
use crate::lease::Orphans;

/// A lease of an hour under a token of its own kind.
async fn under(token: Value) -> (Database, Leasehold) {
    let backends = Backends::new(Spec::new("app").token(token)).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    (backends.db, leasehold)
}

/// The credential is replaced before its token ends; a session of the old one is told 57P01, and has left the server before
/// its role goes.
async fn is_replaced_in_time(db: &Database, leasehold: &Leasehold) {
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;
    // A transaction is not drained: it lasts to the hard close.
    session.batch_execute("BEGIN").await.unwrap();

    let fresh = eventually(SOON * 4, async || {
        let fresh = leasehold.connect("app", db.name()).await;
        if fresh.user().await == user { Err("the old credential") } else { Ok(fresh) }
    })
    .await;
    assert_eq!(session.user().await, user, "the old session runs on");
    let orphans = Orphans::watch(db).await;
    assert_eq!(session.ended_within(SOON * 2).await.as_deref(), Some("57P01"));
    assert_eq!(fresh.value("SELECT 40 + 2").await, "42");
    eventually(SOON, async || same(db.roles().await.contains(&user), false)).await;
    orphans.none_was_seen().await;
    assert_eq!(leasehold.metrics().await.get("login_failures_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_of_a_batch_token_is_replaced_before_its_end() {
    let (db, leasehold) = under(json!({"token_type": "batch", "token_ttl": "24s"})).await;
    is_replaced_in_time(&db, &leasehold).await;
    let renewals = [("operation", "renew_token")];
    assert_eq!(leasehold.metrics().await.get("vault_requests_total", &renewals), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_of_a_token_with_an_explicit_maximum_is_replaced_before_it() {
    let (db, leasehold) = under(json!({"token_ttl": "20s", "token_explicit_max_ttl": "30s"})).await;
    is_replaced_in_time(&db, &leasehold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_of_a_token_that_is_not_renewed_past_its_maximum_is_replaced() {
    let (db, leasehold) = under(json!({"token_ttl": "20s", "token_max_ttl": "30s"})).await;
    is_replaced_in_time(&db, &leasehold).await;
    assert!(leasehold.metrics().await.get("rotations_total", &[("reason", "token")]) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_periodic_token_is_renewed_and_replaces_nothing() {
    let (db, leasehold) = under(json!({"token_period": "20s"})).await;
    let session = leasehold.connect("app", db.name()).await;

    // Three renewals are more than a period.
    let renewed = [("operation", "renew_token"), ("outcome", "ok")];
    eventually(SOON * 6, async || {
        let count = leasehold.metrics().await.get("vault_requests_total", &renewed);
        if count >= 3.0 { Ok(()) } else { Err(count) }
    })
    .await;

    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    assert_eq!(leasehold.generations().await.len(), 1);
    assert_eq!(db.roles().await, [session.user().await]);
}
