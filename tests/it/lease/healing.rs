//! What others do to a credential, and how leasehold gets over it.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Logins, SOON};
use crate::harness::{Backends, Fault, Mode, Spec, bench, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_role_dropped_behind_vaults_back_is_replaced_at_the_next_login() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    let old_user = old.user().await;
    db.drop_role(&old_user).await;

    let new = leasehold.connect("app", db.name()).await;

    assert_ne!(new.user().await, old_user);
    assert_eq!(old.ended().await.as_deref(), Some("57P01"));
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "revoked")]), 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_fails_for_a_dropped_group_ends_no_session_before_its_lease() {
    let backends = Backends::new(Spec::new("app").ttl("40s", "1h")).await;
    let Backends { db, vault, setup } = &backends;
    let group = format!("{}_readers", db.name());
    let renew = json!({"renew_statements": [format!("GRANT {group} TO \"{{{{name}}}}\"")]});
    vault.write(&format!("{}/roles/app", setup.mount()), renew).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;
    // It is not drained, and lasts to the hard close.
    session.batch_execute("BEGIN").await.unwrap();

    leasehold.until_metric(SOON * 4, "renewals_total", &[("outcome", "terminal")], 1.0).await;

    leasehold.wait_log("SQLSTATE 42704").await;
    let new = eventually(SOON, async || {
        let new = leasehold.connect("app", db.name()).await;
        if new.user().await == user { Err("the credential that cannot be renewed") } else { Ok(new) }
    })
    .await;
    assert_eq!(session.user().await, user, "the session goes on to the end of its lease");
    assert_eq!(new.value("SELECT 40 + 2").await, "42");
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "capped")]), 1.0);
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "revoked")]), 0.0);
    // The renewal that failed may have been an early one.
    let ended = session.ended_within(Duration::from_secs(50)).await;
    assert_eq!(ended.as_deref(), Some("57P01"));
    assert_eq!(leasehold.metrics().await.get("sessions_closed_total", &[("cause", "revoked")]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_changed_behind_vaults_back_is_replaced_once_and_sessions_go_on() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends
        .leasehold()
        // As long as a credential may be unknown to a host, a refusal is not held against it.
        .flag("--limits-replica-grace", "1s")
        .start()
        .await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    let old_user = old.user().await;
    db.admin.batch_execute(&format!("ALTER ROLE \"{old_user}\" PASSWORD 'another'")).await.unwrap();

    let logins: Vec<_> = (0..8)
        .map(|_| {
            let config = leasehold.config("app", db.name());
            tokio::spawn(async move { crate::harness::connect(&config).await })
        })
        .collect();

    for login in logins {
        let session = login.await.unwrap().unwrap_or_else(|error| panic!("a login: {error:?}"));
        assert_ne!(session.user().await, old_user);
    }
    assert_eq!(old.user().await, old_user, "its lease lives");
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "refused")]), 1.0);
    assert_eq!(metrics.get("issuances_total", &[]), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_waits_for_a_rotation_that_is_under_way() {
    let vault = bench().vault().await;
    let way = Fault::before(&vault.addr.replace("http://", "")).await;
    let backends = Backends::with_vault(vault, Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold_through(&way).flag("--limits-login-wait", "1m").start().await;
    leasehold.wait_ready().await;
    let change_password = async |user: &str| {
        db.admin.batch_execute(&format!("ALTER ROLE \"{user}\" PASSWORD 'another'")).await.unwrap();
    };
    let log_in = || {
        let config = leasehold.config("app", db.name());
        tokio::spawn(async move { config.connect(tokio_postgres::NoTls).await })
    };
    // A credential that is refused is replaced now, and not again for a minute.
    let first = leasehold.connect("app", db.name()).await.user().await;
    change_password(&first).await;
    let second = leasehold.connect("app", db.name()).await.user().await;
    assert_ne!(first, second);

    way.set(Mode::Delay(Duration::from_secs(1))).await;
    let rotating = leasehold.command(&["rotate"]);
    let refused = async {
        eventually(SOON, async || {
            let status = leasehold.status().await;
            same(status["routes"][0]["next_action"].as_str(), Some("issue"))
        })
        .await;
        change_password(&second).await;
        let logins: Vec<_> = (0..10).map(|_| log_in()).collect();
        for login in logins {
            let (client, connection) =
                login.await.unwrap().unwrap_or_else(|error| panic!("a login: {error:?}"));
            tokio::spawn(connection);
            let user: String = client.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
            assert_ne!(user, second);
        }
    };
    let (rotated, ()) = tokio::join!(rotating, refused);

    assert!(rotated.status.success(), "{rotated:?}");
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "refused")]), 1.0);
    assert_eq!(metrics.get("rotations_total", &[("reason", "command")]), 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_fails_as_vault_cannot_reach_postgres_is_tried_again() {
    let db = bench().postgres().await.database().await;
    let way = Fault::before(&db.server.addr()).await;
    let spec = Spec::new("app").ttl("40s", "1h").database_addr(&way.addr().to_string());
    let backends = Backends::with_database(db, spec).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;
    way.set(Mode::Refuse).await;
    way.cut();
    // On a busy machine the first one has come before that.
    let before = leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]);
    leasehold.until_metric(SOON * 6, "renewals_total", &[("outcome", "failed")], 1.0).await;

    way.set(Mode::Pass).await;

    leasehold.until_metric(SOON * 2, "renewals_total", &[("outcome", "ok")], before + 1.0).await;
    assert_eq!(session.user().await, user);
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("renewals_total", &[("outcome", "terminal")]), 0.0);
    assert_eq!(metrics.get("sessions_closed_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_deleted_in_vault_leaves_its_credential_to_its_end_and_a_new_one_heals() {
    let mut backends = Backends::new(Spec::new("app").ttl("40s", "1h")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let logins = Logins::through(&leasehold, &backends.db);
    let session = leasehold.connect("app", backends.db.name()).await;
    let user = session.user().await;
    backends.vault.delete(&format!("{}/roles/app", backends.setup.mount())).await;

    leasehold.until_metric(SOON * 4, "issuances_total", &[("outcome", "refused")], 1.0).await;
    assert_eq!(session.user().await, user, "the lease has life left");
    backends.retune("40s", "1h").await;

    // It is asked for again within a third of what the lease has left.
    leasehold.until_metric(SOON * 2, "rotations_total", &[("reason", "capped")], 1.0).await;
    logins.all_succeeded().await;
    // It may have been renewed for the last time just before the role was deleted.
    let ended = session.ended_within(Duration::from_secs(50)).await;
    assert_eq!(ended.as_deref(), Some("57P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_revoked_again_and_again_do_not_flood_vault() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends
        .leasehold()
        .flag("--limits-issue-burst", "2")
        .flag("--limits-issue-interval", "4s")
        .start()
        .await;
    leasehold.wait_ready().await;
    let began = Instant::now();
    for _ in 0..3 {
        // A denial or a refused login is looked into at most every few seconds: each revoked lease is a new one.
        vault.revoke_prefix(&setup.path).await;
        leasehold.connect("app", db.name()).await;
    }

    assert!(began.elapsed() > Duration::from_secs(3), "the third had to wait for its turn");
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "revoked")]), 3.0);
    assert_eq!(metrics.get("issuances_total", &[]), 4.0);
    assert_eq!(db.roles().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_takes_its_generation_along_and_a_fresh_login_heals() {
    let backends = Backends::new(Spec::new("app").token(json!({"token_period": "24s"}))).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let idle = leasehold.connect("app", db.name()).await;

    // Every token of this login, as an operator revokes them after a leak.
    let accessors = vault.request(list(), "auth/token/accessors", &vault.root_token, None).await;
    for accessor in accessors.json["data"]["keys"].as_array().unwrap() {
        let accessor = json!({"accessor": accessor});
        let path = "auth/token/lookup-accessor";
        let found =
            vault.request(reqwest::Method::POST, path, &vault.root_token, Some(accessor.clone())).await;
        if found.json["data"]["meta"]["role_name"] == setup.id() {
            vault.write("auth/token/revoke-accessor", accessor).await;
        }
    }

    // Nobody logs in: its next renewal finds it dead.
    assert_eq!(idle.ended_within(SOON * 3).await.as_deref(), Some("57P01"));
    leasehold.wait_ready().await;
    let user = leasehold.connect("app", db.name()).await.user().await;
    eventually(SOON, async || same(db.roles().await, [user.clone()])).await;
    assert_eq!(leasehold.metrics().await.get("rotations_total", &[("reason", "revoked")]), 1.0);
}

fn list() -> reqwest::Method {
    reqwest::Method::from_bytes(b"LIST").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_too_short_to_be_of_use_is_given_back_and_asked_for_with_back_off() {
    let backends = Backends::new(Spec::new("app").ttl("4s", "4s").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, .. } = &backends;
    let began = Instant::now();
    let leasehold = backends.leasehold().start().await;

    let asked = eventually(SOON * 2, async || {
        let metrics = leasehold.metrics().await;
        let given_back = metrics.get("revocations_total", &[("outcome", "lease")]);
        if given_back >= 3.0 { Ok(metrics.get("issuances_total", &[])) } else { Err(given_back) }
    })
    .await;

    // The second comes after 0.375 s at the earliest, the third 0.75 s and the fourth 1.5 s behind it.
    let least = asked - 2.0;
    assert!(began.elapsed().as_secs_f64() >= least, "{asked} issuances in {:?}", began.elapsed());
    assert_eq!(leasehold.http("/readyz").await.status, 503);
    eventually(SOON, async || {
        let left = db.roles().await.len();
        if left <= 1 { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_age_ends_a_credential_that_could_be_renewed_for_ever() {
    let backends = Backends::new(Spec::new("app").ttl("20s", "24h").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().flag("--max-age", "36s").start().await;
    leasehold.wait_ready().await;
    let logins = Logins::through(&leasehold, db);
    let session = leasehold.connect("app", db.name()).await;
    let first = session.user().await;
    // It is not drained, and lasts to the hard close.
    session.batch_execute("BEGIN").await.unwrap();

    leasehold.until_metric(SOON * 4, "rotations_total", &[("reason", "schedule")], 1.0).await;
    assert_eq!(session.user().await, first);
    assert_eq!(session.ended_within(SOON * 2).await.as_deref(), Some("57P01"));

    eventually(SOON, async || same(db.roles().await.contains(&first), false)).await;
    logins.all_succeeded().await;
    assert!(leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]) >= 1.0);
}
