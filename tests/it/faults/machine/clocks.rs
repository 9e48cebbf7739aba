//! Wall clocks that are wrong: leasehold's own, which decides nothing, and PostgreSQL's, which decides `VALID UNTIL`.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Backends, SOON, Server, Spec, WallClock, bench, eventually, same};

const HOUR: i64 = 3_600;

/// A server of the test's own that goes by this clock.
async fn server_by(clock: &WallClock) -> Server {
    let env: serde_json::Map<_, _> =
        clock.env().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    bench().own_postgres(json!({"env": env})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_an_hour_wrong_that_jumps_both_ways_changes_no_renewal_and_no_end() {
    let clock = WallClock::off_by(HOUR).await;
    let jump = [-HOUR, HOUR];

    // Of use for 21 s from the moment it was asked for. One is renewed after 14 s at the latest, the other cannot be.
    let backends = Backends::new(Spec::new("app").ttl("24s", "1h")).await;
    let Backends { db, setup: renewed, .. } = &backends;
    let capped = backends.another(Spec::new("app").ttl("24s", "24s")).await;
    let run = async |setup| {
        let begun = Instant::now();
        let leasehold = backends.without_login().login(setup).wall_clock(&clock).start().await;
        leasehold.wait_ready().await;
        (leasehold, begun)
    };
    let ((mut renewing, _), (mut ending, begun)) = tokio::join!(run(renewed), run(&capped));
    let said = renewing.status().await["routes"][0]["generations"][0]["ends_at"].to_string();
    let real = db.admin.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24')").await;
    assert!(!said.contains(&real), "{said} is an hour ahead of {real}, so the clock is wrong");
    let session = renewing.connect("app", db.name()).await;
    let user = session.user().await;
    let open = ending.connect("app", db.name()).await;
    open.batch_execute("BEGIN").await.unwrap();

    let closing = async {
        assert_eq!(open.ended_within(SOON * 5).await.as_deref(), Some("57P01"));
        // Not before it has to: Vault rounds what it says at the renewal in between to whole seconds.
        assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
    };
    let jumping = async {
        for (renewals, to) in (1..=3).zip(jump.iter().cycle()) {
            eventually(SOON * 3, async || {
                let metrics = renewing.metrics().await;
                same(metrics.get("renewals_total", &[("outcome", "ok")]) >= f64::from(renewals), true)
            })
            .await;
            clock.set(*to);
            assert_eq!(session.user().await, user);
        }
    };
    tokio::join!(closing, jumping);

    let metrics = renewing.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[]), 1.0);
    assert_eq!(metrics.get("rotations_total", &[]), 0.0);
    assert_eq!(metrics.get("renewals_total", &[]), metrics.get("renewals_total", &[("outcome", "ok")]));
    assert_eq!(renewing.http("/readyz").await.status, 200);
    let runway = metrics.get("lease_runway_seconds", &[]);
    assert!((0.0..=21.0).contains(&runway), "{runway}");
    let metrics = ending.metrics().await;
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "lease_end")]), 1.0);
    assert_eq!(metrics.get("rotations_total", &[]), metrics.get("rotations_total", &[("reason", "capped")]));
    assert_eq!(metrics.get("suspect_logins_total", &[]), 0.0);
    // In order: libfaketime leaves something behind a killed one.
    assert_eq!(renewing.stop().await.code(), Some(0));
    assert_eq!(ending.stop().await.code(), Some(0));
}

/// `VALID UNTIL` is Vault's time of the lease's end and 5 s more.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_ahead_of_vault_refuses_a_living_credential_and_the_check_of_its_lease_mends_it() {
    let clock = WallClock::off_by(0).await;
    let db = server_by(&clock).await.database().await;
    let backends = Backends::with_database(db, Spec::new("app").ttl("60s", "1h")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;

    // Past VALID UNTIL once 8 s of the lease have gone by, and as much short of what a renewal then sets it to.
    clock.set(57);
    let refused = format!("SELECT now() > rolvaliduntil FROM pg_authid WHERE rolname = '{user}'");
    eventually(SOON * 2, async || same(db.admin.value(&refused).await, "t")).await;
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, user, "nobody notices");

    leasehold.wait_log("the server refuses a credential whose lease is not gone: its clock ahead").await;
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("suspect_logins_total", &[]) >= 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    assert_eq!(
        metrics.get("issuances_total", &[]),
        1.0,
        "the lease lives, and its renewal moves VALID UNTIL"
    );
    assert_eq!(metrics.get("renewals_total", &[("outcome", "ok")]), 1.0);
    assert_eq!(session.user().await, user);
    assert_eq!(leasehold.http("/readyz").await.status, 200);
}

/// As above, where the policy forbids renewals.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_a_server_ahead_of_vault_refuses_is_replaced_once_a_minute_at_most() {
    let clock = WallClock::off_by(0).await;
    let db = server_by(&clock).await.database().await;
    let deny = "path \"sys/leases/renew\" { capabilities = [\"deny\"] }";
    let backends = Backends::with_database(db, Spec::new("app").ttl("120s", "1h").policy(deny)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let issued = async || leasehold.metrics().await.get("issuances_total", &[]);
    let expired = async |user: &str| {
        let refused = format!("SELECT now() > rolvaliduntil FROM pg_authid WHERE rolname = '{user}'");
        eventually(SOON * 2, async || same(db.admin.value(&refused).await, "t")).await;
    };
    let session = leasehold.connect("app", db.name()).await;
    let first = session.user().await;

    clock.set(117);
    expired(&first).await;
    let second = leasehold.connect("app", db.name()).await.user().await;
    assert_ne!(second, first, "the client gets in with a fresh one");
    assert_eq!(session.user().await, first, "whose lease lives");
    assert_eq!(issued().await, 2.0);

    expired(&second).await;
    for _ in 0..5 {
        let error = leasehold.try_connect("app", db.name()).await.err().unwrap();
        assert_eq!(error.code().unwrap().code(), "28000");
    }
    assert_eq!(issued().await, 2.0);
    assert_eq!(leasehold.metrics().await.get("rotations_total", &[("reason", "refused")]), 1.0);
    leasehold.wait_log("the server refuses a credential whose lease is not gone: its clock ahead").await;

    clock.set(0);
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_hours_ahead_of_vault_lets_nobody_in_until_its_clock_is_right_and_vault_is_not_flooded() {
    let clock = WallClock::off_by(3 * HOUR).await;
    let db = server_by(&clock).await.database().await;
    let backends = Backends::with_database(db, Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().flag("--limits-login-wait", "2s").start().await;

    leasehold.wait_log("the proof is refused").await;
    let error = leasehold.try_connect("app", db.name()).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "57P03");
    let not_ready = leasehold.http("/readyz").await;
    assert_eq!(not_ready.status, 503);
    assert!(not_ready.text.contains("refuses the new credential"), "{}", not_ready.text);
    let status = leasehold.status().await;
    assert_eq!(status["routes"][0]["ready"], false);
    let kind = status["routes"][0]["last_error"]["kind"].as_str().unwrap().to_owned();
    assert!(kind.contains("refuses the new credential"), "{kind}");
    // The same one is tried again, no other is asked for.
    eventually(SOON, async || {
        let refused = leasehold.metrics().await.get("proofs_total", &[("outcome", "refused")]);
        same(refused >= 3.0, true)
    })
    .await;
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 1.0);

    clock.set(0);
    eventually(SOON * 2, async || {
        let reply = leasehold.http("/readyz").await;
        same(reply.status, 200)
    })
    .await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 1").await, "1");
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 1.0);
}
