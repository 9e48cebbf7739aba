//! Credentials that Vault made and leasehold gave up waiting for.
//!
//! PostgreSQL is slow for Vault, so that logins are quick and creds requests are not.

use std::time::Duration;

use super::SOON;
use crate::harness::{
    Database, Fault, Mode, Setup, Spec, Vault, bench, eventually, leasehold, same, through,
};

/// A role that Vault makes by way of `slow`.
async fn setup_behind(vault: &Vault, db: &Database, slow: &Fault, spec: Spec) -> Setup {
    vault.setup(db, spec.database_addr(&slow.addr().to_string())).await
}

fn creds_requests(vault: &Fault, setup: &Setup) -> usize {
    vault.handed_on(&format!("GET /v1/{} ", setup.path))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_comes_too_late_is_given_back_by_its_lease() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let slow = Fault::before(&db.server.addr()).await;
    let setup = setup_behind(&vault, &db, &slow, Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault(&vault)
        .login(&setup)
        .flag("--vault-client-timeout", "2s")
        .start()
        .await;
    leasehold.wait_ready().await;
    let first = leasehold.connect("app", db.name()).await.user().await;
    slow.set(Mode::Delay(Duration::from_millis(250))).await;

    let rotated = leasehold.command(&["rotate"]).await;

    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    eventually(SOON, async || same(leasehold.log().0.contains("came too late"), true)).await;
    slow.set(Mode::Pass).await;
    eventually(SOON, async || same(db.roles().await, [first.clone()])).await;
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, first);
    eventually(SOON, async || same(vault.leases(&setup.path).await.len(), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_whose_reply_never_comes_is_given_back_by_its_logins_token() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let slow = Fault::before(&db.server.addr()).await;
    let setup = setup_behind(&vault, &db, &slow, Spec::new("app")).await;
    let fault = Fault::before(&format!("127.0.0.1:{}", vault.port)).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault(&through(&vault, &fault))
        .login(&setup)
        .flag("--vault-client-timeout", "2s")
        .start()
        .await;
    leasehold.wait_ready().await;
    let first = leasehold.connect("app", db.name()).await.user().await;
    slow.set(Mode::Delay(Duration::from_millis(100))).await;

    let rotating = tokio::spawn({
        let admin = leasehold.listening("admin")[0].clone();
        async move { reqwest::Client::new().post(format!("http://{admin}/rotate")).send().await.unwrap().status() }
    });
    eventually(SOON, async || same(creds_requests(&fault, &setup), 2)).await;
    fault.set(Mode::HoldToClient).await;
    eventually(SOON, async || same(db.roles().await.len(), 2)).await;
    assert!(!rotating.await.unwrap().is_success());
    slow.set(Mode::Pass).await;

    // Requests reach Vault, replies do not come back: the token goes once the reply is not waited for any more.
    eventually(SOON * 2, async || same(db.roles().await, [first.clone()])).await;
    assert!(!leasehold.log().0.contains("came too late"));
    fault.set(Mode::Pass).await;
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, first);
    eventually(SOON, async || same(vault.leases(&setup.path).await.len(), 1)).await;
    let revoked = [("operation", "revoke_token"), ("outcome", "ok")];
    leasehold.until_metric(SOON, "vault_requests_total", &revoked, 1.0).await;
    assert_eq!(leasehold.metrics().await.get("vault_requests_total", &[("operation", "revoke")]), 0.0);
}
