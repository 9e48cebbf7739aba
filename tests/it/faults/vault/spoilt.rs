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
        .flag("--vault-client-timeout", "3s")
        .start()
        .await;

    // The bucket lets three through at once, and the next after a minute. One that drips is waited for.
    eventually(SOON * 4, async || same(balancer.asked().len(), 3)).await;
    let until = Instant::now() + WATCHED_FOR;
    while Instant::now() < until {
        assert_eq!(balancer.asked().len(), 3, "{spoil:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let is_silent =
        matches!(spoil, Spoil::Lost | Spoil::TimeoutWithPage | Spoil::HeadDrips | Spoil::HeadIsEndless);
    let names_its_lease = !is_silent;
    let left = if names_its_lease { 0 } else { 3 };
    eventually(SOON * 2, async || same(db.roles().await.len(), left)).await;
    // Vault's answer comes a moment after the end of the role.
    let given_back = async || leasehold.metrics().await.get("revocations_total", &[("outcome", "lease")]);
    eventually(SOON, async || same(given_back().await, if names_its_lease { 3.0 } else { 0.0 })).await;
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
        Spoil::Without("data.password"),
        Spoil::Without("data.username"),
        Spoil::Field("lease_duration", "\"1h\""),
        Spoil::Field("lease_duration", "-60"),
        Spoil::Field("data.password", "7"),
        Spoil::Nested("lease_duration", 100_000),
        Spoil::HeadDrips,
        Spoil::HeadIsEndless,
        Spoil::BodyDrips,
        Spoil::Duration("60.0"),
        Spoil::Duration("1000000000000000000"),
        Spoil::TooLarge,
        Spoil::TimeoutWithBody,
        Spoil::TimeoutWithPage,
    ];
    for some in all.chunks(8) {
        at_once(some.iter().map(|spoil| Box::pin(leaves_few_roles(*spoil)))).await;
    }
}
