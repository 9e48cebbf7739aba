//! Replies to creds requests that bring no credential although Vault made one, under a token that nobody revokes.

use std::time::Duration;

use tokio::time::Instant;

use super::{SOON, Spec, at_once};
use crate::harness::{Backends, Balancer, Spoil, eventually, leasehold, same};

/// Longer than the back-off while no credential is usable, several times over.
const WATCHED_FOR: Duration = Duration::from_secs(12);

async fn leaves_few_roles(spoil: Spoil) {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let balancer = Balancer::before(&format!("127.0.0.1:{}", vault.port), spoil).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault_addr(&balancer.addr)
        .path(&setup.path)
        .env("VAULT_TOKEN", &setup.token().await)
        .start()
        .await;

    // The bucket lets three through at once, and the next after a minute.
    eventually(SOON, async || same(balancer.asked().len(), 3)).await;
    let until = Instant::now() + WATCHED_FOR;
    while Instant::now() < until {
        assert_eq!(balancer.asked().len(), 3, "{spoil:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let names_its_lease = !matches!(spoil, Spoil::Lost | Spoil::TimeoutWithPage);
    let left = if names_its_lease { 0 } else { 3 };
    eventually(SOON, async || same(db.roles().await.len(), left)).await;
    let metrics = leasehold.metrics().await;
    let given_back = metrics.get("revocations_total", &[("outcome", "lease")]);
    assert_eq!(given_back, if names_its_lease { 3.0 } else { 0.0 }, "{spoil:?}");
    assert_eq!(leasehold.http("/readyz").await.status, 503, "{spoil:?}");

    // By hand it is asked for at once.
    balancer.set(Spoil::Not);
    leasehold.rotate().await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");
    eventually(SOON, async || same(db.roles().await.len(), left + 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_does_not_arrive_is_given_back_and_rarely_asked_for_again() {
    let all = [
        Spoil::Lost,
        Spoil::Cut,
        Spoil::WithoutPassword,
        Spoil::FloatDuration,
        Spoil::TimeoutWithBody,
        Spoil::TimeoutWithPage,
    ];
    at_once(all.map(|spoil| Box::pin(leaves_few_roles(spoil)))).await;
}
