//! A lease that is renewed, and one that cannot be for ever.

use std::time::Duration;

use tokio::time::Instant;

use super::{Logins, Orphans, SOON, work_table, work_until_error};
use crate::harness::{Backends, Spec, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_past_the_default_ttl_as_its_lease_is_renewed() {
    let backends = Backends::new(Spec::new("app").ttl("20s", "10m")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    work_table(db).await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;

    let began = Instant::now();
    let renewed = async || leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]);
    while began.elapsed() < Duration::from_secs(26) || renewed().await < 2.0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} renewals", renewed().await);
        session.batch_execute("UPDATE work SET n = n + 1").await.unwrap();
        let new = leasehold.connect("app", db.name()).await;
        assert_eq!(new.user().await, user);
        new.close().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    assert_eq!(session.user().await, user);
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("renewals_total", &[("outcome", "ok")]) >= 2.0);
    assert_eq!(metrics.get("renewals_total", &[("outcome", "capped")]), 0.0);
    assert_eq!(metrics.get("issuances_total", &[]), 1.0);
    assert_eq!(leasehold.generations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_at_its_max_ttl_is_rotated_and_every_session_ends_before_its_role_is_dropped() {
    let backends = Backends::new(Spec::new("app").ttl("24s", "32s").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    work_table(db).await;
    let orphans = Orphans::watch(db).await;
    let logins = Logins::through(&leasehold, db);
    let mut working = Vec::new();
    for _ in 0..4 {
        working.push(work_until_error(leasehold.connect("app", db.name()).await));
    }
    let idle = leasehold.connect("app", db.name()).await;
    let user = idle.user().await;
    let with_temp_table = leasehold.connect("app", db.name()).await;
    with_temp_table.batch_execute("CREATE TEMP TABLE mine (n int)").await.unwrap();
    let in_transaction = leasehold.connect("app", db.name()).await;
    in_transaction.batch_execute("BEGIN; INSERT INTO work VALUES (1)").await.unwrap();
    let in_query = leasehold.connect("app", db.name()).await;
    let in_query = tokio::spawn(async move {
        let error = in_query.batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
        error.code().map(|code| code.code().to_owned())
    });

    leasehold.until_metric(SOON * 4, "rotations_total", &[("reason", "capped")], 1.0).await;
    assert_eq!(leasehold.metrics().await.get("sessions_closed_total", &[("cause", "lease_end")]), 0.0);
    eventually(SOON * 4, async || {
        let gone = !db.roles().await.contains(&user);
        if gone { Ok(()) } else { Err("its role is there") }
    })
    .await;

    for end in working {
        assert_eq!(end.await.unwrap().as_deref(), Some("57P01"));
    }
    assert_eq!(in_query.await.unwrap().as_deref(), Some("57P01"));
    for session in [idle, with_temp_table, in_transaction] {
        // On a busy machine the last of them came after the rotation: it ends with the second lease.
        assert_eq!(session.ended_within(SOON * 4).await.as_deref(), Some("57P01"));
    }
    orphans.none_was_seen().await;
    logins.all_succeeded().await;
    leasehold.until_metric(SOON, "revocations_total", &[("outcome", "lease")], 1.0).await;
    let metrics = eventually(SOON, async || {
        let metrics = leasehold.metrics().await;
        let closed = |cause| metrics.get("sessions_closed_total", &[("cause", cause)]);
        same(closed("lease_end") + closed("drain"), 8.0).map(|()| metrics)
    })
    .await;
    assert!(metrics.get("renewals_total", &[("outcome", "capped")]) >= 1.0);
    let closed = |cause| metrics.get("sessions_closed_total", &[("cause", cause)]);
    assert!(closed("lease_end") >= 2.0, "the query and the transaction ran until the end");
    assert!(closed("drain") >= 1.0, "others were between transactions");
    assert_eq!(closed("lease_end_cut") + closed("upstream") + closed("error") + closed("revoked"), 0.0);
}
