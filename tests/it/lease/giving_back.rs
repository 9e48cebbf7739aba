//! Credentials that Vault made and leasehold gave up waiting for.
//!
//! PostgreSQL is held back from Vault, so that logins are quick and creds requests are not.

use super::SOON;
use crate::harness::{Backends, Fault, Forwarded, Mode, Spec, bench, eventually, same};

/// Vault makes the role by way of the forwarder.
async fn behind(spec: Spec) -> (Fault, Forwarded) {
    let db = bench().postgres().await.database().await;
    let slow = Fault::before(&db.server.addr()).await;
    let spec = spec.database_addr(&slow.addr().to_string());
    (slow, Backends::with_database(db, spec).await.forwarded().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_comes_too_late_is_given_back_by_its_lease() {
    let (slow, backends) = behind(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &*backends;
    let leasehold = backends.leasehold().flag("--vault-client-timeout", "6s").start().await;
    leasehold.wait_ready().await;
    let first = leasehold.connect("app", db.name()).await.user().await;
    slow.set(Mode::Blackhole).await;

    let rotated = leasehold.command(&["rotate"]).await;

    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    // The request is listened to for another 6 s.
    slow.set(Mode::Pass).await;
    leasehold.wait_log("came too late").await;
    eventually(SOON, async || same(db.roles().await, [first.clone()])).await;
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, first);
    eventually(SOON, async || same(vault.leases(&setup.path).await.len(), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_whose_reply_never_comes_is_given_back_by_its_logins_token() {
    let (slow, backends) = behind(Spec::new("app")).await;
    let Backends { db, vault, setup } = &*backends;
    let fault = &backends.fault;
    let leasehold = backends.leasehold().flag("--vault-client-timeout", "6s").start().await;
    leasehold.wait_ready().await;
    let first = leasehold.connect("app", db.name()).await.user().await;
    slow.set(Mode::Blackhole).await;

    let rotating = tokio::spawn({
        let admin = leasehold.listening("admin")[0].clone();
        async move {
            reqwest::Client::new()
                .post(format!("http://{admin}/rotate"))
                .header("leasehold-admin", "1")
                .send()
                .await
                .unwrap()
                .status()
        }
    });
    let creds = format!("GET /v1/{} ", setup.path);
    eventually(SOON, async || same(fault.handed_on(&creds), 2)).await;
    fault.set(Mode::HoldToClient).await;
    slow.set(Mode::Pass).await;
    eventually(SOON, async || same(db.roles().await.len(), 2)).await;
    assert!(!rotating.await.unwrap().is_success());

    // Requests reach Vault, replies do not come back: the token goes once the reply is not waited for any more.
    eventually(SOON * 3, async || same(db.roles().await, [first.clone()])).await;
    assert!(!leasehold.log().0.contains("came too late"));
    fault.set(Mode::Pass).await;
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, first);
    eventually(SOON, async || same(vault.leases(&setup.path).await.len(), 1)).await;
    let revoked = [("operation", "revoke_token"), ("outcome", "ok")];
    leasehold.until_metric(SOON, "vault_requests_total", &revoked, 1.0).await;
    assert_eq!(leasehold.metrics().await.get("vault_requests_total", &[("operation", "revoke")]), 0.0);
}
