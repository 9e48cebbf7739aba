//! Credentials that end before their time: with their token, by an operator's hand, in Vault's absence.

use std::time::Duration;

use serde_json::json;

use super::{Logins, Orphans, SOON, work_table, work_until_error};
use crate::harness::{Backends, Mode, Raw, Setup, Spec, Vault, bench, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_before_its_lease_is_replaced_in_time_and_its_sessions_end_first() {
    // The lease says an hour, and dies with its token after 24 seconds.
    let token = json!({"token_ttl": "24s", "token_explicit_max_ttl": "24s"});
    let backends = Backends::new(Spec::new("app").token(token)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    work_table(db).await;
    let orphans = Orphans::watch(db).await;
    let logins = Logins::through(&leasehold, db);
    let idle = leasehold.connect("app", db.name()).await;
    let first = idle.user().await;
    let working = work_until_error(leasehold.connect("app", db.name()).await);
    let in_transaction = leasehold.connect("app", db.name()).await;
    in_transaction.batch_execute("BEGIN; INSERT INTO work VALUES (1)").await.unwrap();

    leasehold.until_metric(SOON * 2, "rotations_total", &[("reason", "token")], 1.0).await;
    assert!(db.roles().await.contains(&first), "rotated before the end");
    eventually(SOON * 3, async || same(db.roles().await.contains(&first), false)).await;

    assert_eq!(working.await.unwrap().as_deref(), Some("57P01"));
    for session in [idle, in_transaction] {
        assert_eq!(session.ended_within(SOON * 2).await.as_deref(), Some("57P01"));
    }
    leasehold.until_metric(SOON * 2, "rotations_total", &[("reason", "token")], 2.0).await;
    orphans.none_was_seen().await;
    logins.all_succeeded().await;
    let metrics = leasehold.metrics().await;
    let by_token = metrics.get("rotations_total", &[("reason", "token")]);
    assert_eq!(metrics.get("rotations_total", &[]), by_token, "for no other reason");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_token_that_can_be_renewed_is_no_reason_to_rotate() {
    let backends = Backends::new(Spec::new("app").token(json!({"token_period": "20s"}))).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;

    let renewed = [("operation", "renew_token"), ("outcome", "ok")];
    leasehold.until_metric(SOON * 6, "vault_requests_total", &renewed, 3.0).await;

    assert_eq!(session.user().await, user);
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, user);
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_revoked_by_hand_is_replaced_once_and_no_new_login_fails() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let old = [leasehold.connect("app", db.name()).await, leasehold.connect("app", db.name()).await];
    let old_user = old[0].user().await;
    let lease = vault.leases(&setup.path).await.remove(0);
    vault.revoke_lease(&lease).await;
    assert!(db.roles().await.is_empty());

    let logins: Vec<_> = (0..20)
        .map(|_| {
            let config = leasehold.config("app", db.name());
            tokio::spawn(async move { crate::harness::connect(&config).await })
        })
        .collect();

    for login in logins {
        let session = login.await.unwrap().unwrap_or_else(|error| panic!("a login: {error:?}"));
        assert_ne!(session.user().await, old_user);
    }
    for session in old {
        assert_eq!(session.ended().await.as_deref(), Some("57P01"));
    }
    assert_eq!(vault.leases(&setup.path).await.len(), 1);
    // They are counted a moment after their clients have heard of it.
    leasehold.until_metric(SOON, "sessions_closed_total", &[("cause", "revoked")], 2.0).await;
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("vault_requests_total", &[("operation", "issue")]), 2.0);
    assert_eq!(metrics.get("vault_requests_total", &[("operation", "renew")]), 1.0, "one check for all");
    assert_eq!(metrics.get("rotations_total", &[("reason", "revoked")]), 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "revoked")]), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_that_passes_by_gives_a_revoked_lease_away() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    work_table(db).await;
    let idle = leasehold.connect("app", db.name()).await;
    let (mut asking, _) = Raw::login(leasehold.addr(), "app", db.name()).await;
    let lease = vault.leases(&setup.path).await.remove(0);
    vault.revoke_lease(&lease).await;

    asking.send('Q', b"SET ROLE NONE; UPDATE work SET n = n + 1\0").await;

    // The server sends the error before it is ready for the next query, and the end of the session may come in between.
    assert_ne!(asking.error().await, "57P01");
    assert_eq!(asking.error().await, "57P01");
    assert_eq!(idle.ended().await.as_deref(), Some("57P01"));
    leasehold.connect("app", db.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clients_that_wait_for_the_first_credential_make_one_request() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let fault = vault.forwarder().await;
    fault.set(Mode::Blackhole).await;
    let leasehold = backends.leasehold_through(&fault).start().await;
    let logins: Vec<_> = (0..20)
        .map(|_| {
            let config = leasehold.config("app", db.name());
            tokio::spawn(async move { crate::harness::connect(&config).await })
        })
        .collect();
    assert_eq!(leasehold.http("/readyz").await.status, 503);

    fault.set(Mode::Pass).await;

    for login in logins {
        login.await.unwrap().unwrap_or_else(|error| panic!("a login: {error:?}"));
    }
    assert_eq!(fault.handed_on(&format!("GET /v1/{} ", setup.path)), 1);
    assert_eq!(db.roles().await.len(), 1);
}

/// A token that lives for `ttl`, for somebody to hand to leasehold.
async fn short_token(vault: &Vault, setup: &Setup, ttl: &str) -> String {
    let body = json!({"policies": [setup.id()], "ttl": ttl, "explicit_max_ttl": ttl, "no_parent": true});
    let reply = vault.write("auth/token/create", body).await;
    reply["auth"]["client_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_that_is_renewed_in_time_carries_every_login_over() {
    // The file is looked at again between a twelfth and two thirds of its life. The rest is enough for a new file to be
    // written and seen.
    const FIRST: Duration = Duration::from_secs(40);
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let file = bench().directory().await.join("token");
    std::fs::write(&file, short_token(vault, setup, "40s").await).unwrap();
    let leasehold = backends
        .without_login()
        .path(&setup.path)
        .flag("--vault-auth-method", "token-file")
        .flag("--vault-auth-token-file", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;
    let orphans = Orphans::watch(db).await;
    let logins = Logins::through(&leasehold, db);
    let session = leasehold.connect("app", db.name()).await;
    let first = session.user().await;

    // Its end is seen, and the file holds nothing better yet.
    let looked_up = [("operation", "look_up"), ("outcome", "ok")];
    leasehold.until_metric(FIRST, "vault_requests_total", &looked_up, 2.0).await;
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 1.0, "nothing is issued for it");
    let next = file.with_extension("next");
    std::fs::write(&next, short_token(vault, setup, "1h").await).unwrap();
    std::fs::rename(&next, &file).unwrap();

    leasehold.until_metric(FIRST, "rotations_total", &[("reason", "token")], 1.0).await;
    assert_eq!(session.ended_within(FIRST).await.as_deref(), Some("57P01"));
    eventually(FIRST, async || same(db.roles().await.contains(&first), false)).await;
    logins.all_succeeded().await;
    orphans.none_was_seen().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handed_token_that_ends_ends_its_sessions_first() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends
        .without_login()
        .path(&setup.path)
        .env("BAO_TOKEN", &short_token(vault, setup, "24s").await)
        .flag("--limits-login-wait", "500ms")
        .start()
        .await;
    leasehold.wait_ready().await;
    let orphans = Orphans::watch(db).await;
    let idle = leasehold.connect("app", db.name()).await;
    let busy = leasehold.connect("app", db.name()).await;
    busy.batch_execute("BEGIN; SELECT 1").await.unwrap();

    assert_eq!(leasehold.generations().await.len(), 1);
    eventually(SOON * 4, async || same(leasehold.http("/readyz").await.status, 503)).await;

    assert_eq!(idle.ended().await.as_deref(), Some("57P01"));
    assert_eq!(busy.ended().await.as_deref(), Some("57P01"));
    eventually(SOON, async || same(db.roles().await.len(), 0)).await;
    orphans.none_was_seen().await;
    let Err(refused) = leasehold.try_connect("app", db.name()).await else { panic!("no token is left") };
    assert_eq!(refused.code().map(|code| code.code()), Some("57P03"));
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[("outcome", "ok")]), 1.0);
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "lease_end")]), 2.0);
}
