//! `standby`: with a second credential, beside a leasehold that has none.

use std::time::Duration;

use tokio::time::Instant;

use super::{Logins, SOON};
use crate::harness::{Backends, Builder, Forwarded, Leasehold, Mode, Spec, eventually, same};

async fn start(builder: Builder, standby: bool) -> Leasehold {
    let builder = builder.flag("--vault-client-timeout", "2s").flag("--limits-login-wait", "5s");
    let builder = if standby { builder.switch("--standby") } else { builder };
    let leasehold = builder.start().await;
    leasehold.wait_ready().await;
    leasehold
}

async fn state_of(leasehold: &Leasehold, state: &str) -> f64 {
    leasehold.metrics().await.get("generations", &[("state", state)])
}

async fn wait_standby(leasehold: &Leasehold) {
    // After an absence of Vault it is asked for again within a third of what the current lease has left.
    eventually(SOON * 4, async || same(state_of(leasehold, "standby").await, 1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runway_is_two_thirds_of_a_lease_with_one_and_a_third_without() {
    // Of use for 37 s, and renewed after 22 to 24.7 s.
    let backends = Backends::new(Spec::new("app").ttl("40s", "1h")).await;
    let (with, without) = tokio::join!(start(backends.leasehold(), true), start(backends.leasehold(), false));
    wait_standby(&with).await;
    // Once each has been renewed they are half a period apart.
    with.until_metric(SOON * 7, "renewals_total", &[("outcome", "ok")], 3.0).await;

    let mut shortest = [f64::MAX; 2];
    let began = Instant::now();
    // More than a period; and where the machine stands still while the runway is at its shortest, another one.
    while began.elapsed() < Duration::from_secs(30)
        || shortest[1] >= 37.0 * 0.45 && began.elapsed() < Duration::from_secs(90)
    {
        for (shortest, leasehold) in shortest.iter_mut().zip([&with, &without]) {
            let runway = leasehold.metrics().await.get("lease_runway_seconds", &[]);
            *shortest = shortest.min(runway);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let [with_one, without_one] = shortest;
    assert!(with_one > 37.0 * 0.55, "the shortest runway with a standby: {with_one}");
    assert!(without_one < 37.0 * 0.45, "the shortest runway without: {without_one}");
    assert_eq!(with.metrics().await.get("issuances_total", &[]), 2.0);
    assert_eq!(with.metrics().await.get("rotations_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_revoked_while_vault_is_away_costs_no_login_with_one_and_all_of_them_without() {
    let backends = Forwarded::new(Spec::new("app")).await;
    let (db, fault) = (&backends.db, &backends.fault);
    let (with, without) = tokio::join!(start(backends.leasehold(), true), start(backends.leasehold(), false));
    wait_standby(&with).await;
    let session = with.connect("app", db.name()).await;
    let current = session.user().await;
    let other = without.connect("app", db.name()).await.user().await;
    fault.set(Mode::Refuse).await;
    fault.cut();
    for user in [&current, &other] {
        db.drop_role(user).await;
    }

    let new = with.connect("app", db.name()).await;

    assert_ne!(new.user().await, current);
    assert!(without.try_connect("app", db.name()).await.is_err(), "it has no other credential");
    let metrics = with.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "standby")]), 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    fault.set(Mode::Pass).await;
    wait_standby(&with).await;
    eventually(SOON * 2, async || {
        without.try_connect("app", db.name()).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capped_leases_are_followed_by_what_stands_by_and_nobody_notices() {
    // A renewal after 18 s is granted 14 s.
    let backends = Backends::new(Spec::new("app").ttl("30s", "32s")).await;
    let Backends { db, .. } = &backends;
    let mut leasehold = start(backends.leasehold(), true).await;
    wait_standby(&leasehold).await;
    let states: Vec<String> =
        leasehold.generations().await.iter().map(|g| g["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["current", "standby"]);
    let logins = Logins::through(&leasehold, db);

    leasehold.until_metric(SOON * 9, "rotations_total", &[("reason", "standby")], 3.0).await;

    logins.all_succeeded().await;
    let metrics = leasehold.metrics().await;
    // Where the machine stands still for a second, the next one may not stand by yet; that costs nobody anything.
    assert!(metrics.get("rotations_total", &[("reason", "capped")]) <= 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    leasehold.sigterm();
    assert!(leasehold.wait_exit().await.success());
    eventually(SOON, async || same(db.roles().await, Vec::<String>::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_on_command_brings_a_fresh_credential_and_another_to_stand_by() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = start(backends.leasehold(), true).await;
    wait_standby(&leasehold).await;
    let before: Vec<String> = db.roles().await;

    leasehold.rotate().await;

    let session = leasehold.connect("app", db.name()).await;
    assert!(!before.contains(&session.user().await), "what stood by is as old as what it replaces");
    // The two of before are given back, and there is one to stand by again.
    eventually(SOON, async || {
        let roles = db.roles().await;
        same((roles.len(), roles.iter().any(|role| before.contains(role))), (2, false))
    })
    .await;
    assert_eq!(leasehold.metrics().await.get("rotations_total", &[("reason", "command")]), 1.0);
}
