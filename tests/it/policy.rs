//! `leasehold policy`: what it prints is enough, and no more is given.

use serde_json::json;

use crate::harness::{Backends, SOON, Spec, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn leasehold_runs_renews_rotates_and_stops_with_exactly_the_policy_that_it_prints() {
    let token = json!({"token_period": "1h", "token_no_default_policy": true});
    let backends = Backends::new(Spec::new("app").ttl("20s", "10m").token(token)).await;
    let Backends { db, vault, setup } = &backends;
    let builder = backends.leasehold();

    let printed = builder.clone().command("policy").await;
    assert!(printed.status.success(), "{printed:?}");
    let policy = String::from_utf8(printed.stdout).unwrap();
    vault.write(&format!("sys/policies/acl/{}", setup.id()), json!({"policy": policy})).await;
    let token =
        vault.request(reqwest::Method::GET, "auth/token/lookup-self", &setup.token().await, None).await;
    assert_eq!(token.json["data"]["policies"], json!([setup.id()]), "no default policy");

    let mut leasehold = builder.start().await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    let old_user = old.user().await;
    let renewed = async || leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]);
    eventually(SOON * 2, async || if renewed().await >= 1.0 { Ok(()) } else { Err("not renewed") }).await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    let new = leasehold.connect("app", db.name()).await;
    let new_user = new.user().await;
    assert_ne!(new_user, old_user);
    old.close().await;
    eventually(SOON, async || same(db.roles().await, [new_user.clone()])).await;
    let given_back = [("outcome", "token")];
    eventually(SOON, async || same(leasehold.metrics().await.get("revocations_total", &given_back), 1.0))
        .await;
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("vault_requests_total", &[("outcome", "denied"), ("operation", "renew")]), 0.0);
    assert_eq!(metrics.get("vault_requests_total", &[("outcome", "denied"), ("operation", "look_up")]), 0.0);
    for operation in ["renew_token", "look_up_lease"] {
        let denied = [("outcome", "denied"), ("operation", operation)];
        assert_eq!(metrics.get("vault_requests_total", &denied), 0.0, "{operation}");
    }

    assert_eq!(leasehold.stop().await.code(), Some(0));
    assert!(vault.leases(&setup.path).await.is_empty());
    assert!(db.roles().await.is_empty());
}
