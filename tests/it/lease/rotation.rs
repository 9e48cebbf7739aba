//! Rotation under load, and `rotate` with its drains.

use std::time::Duration;

use super::{Orphans, SOON};
use crate::harness::{
    Backends, Mode, Scene, Spec, Storage, Writers, bench, connect_within, eventually, same,
};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_rotations_under_load_fail_no_login_close_no_session_and_lose_no_write() {
    let backends = Backends::new(Spec::new("app").ttl("20s", "24h").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends
        .leasehold()
        .flag("--rotate-after", "500ms")
        .flag("--probe-database", db.name())
        .start()
        .await;
    leasehold.wait_ready().await;
    let writers = Writers::start(db, &leasehold.config("app", db.name()), 32).await;

    leasehold
        .until_metric(Duration::from_secs(120), "rotations_total", &[("reason", "schedule")], 50.0)
        .await;
    let logins = writers.stop(db).await.logins;

    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    assert_eq!(metrics.get("suspect_logins_total", &[]), 0.0);
    assert_eq!(metrics.get("sessions_opened_total", &[]), f64::from(logins));
    eventually(SOON, async || {
        let metrics = leasehold.metrics().await;
        let by_clients = metrics.get("sessions_closed_total", &[("cause", "client")]);
        same((by_clients, metrics.get("sessions_closed_total", &[])), (f64::from(logins), f64::from(logins)))
    })
    .await;
    eventually(SOON, async || {
        let roles = db.roles().await.len();
        if roles <= 2 { Ok(()) } else { Err(format!("{roles} roles are left")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_with_no_drain_time_ends_every_earlier_session_and_revokes_at_once() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let orphans = Orphans::watch(db).await;
    let first = leasehold.connect("app", db.name()).await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    let second = leasehold.connect("app", db.name()).await;
    second.batch_execute("BEGIN; SELECT 1").await.unwrap();
    assert_eq!(db.roles().await.len(), 2);

    let rotated = leasehold.command(&["rotate", "--drain=0s"]).await;

    assert!(rotated.status.success(), "{rotated:?}");
    assert_eq!(first.ended().await.as_deref(), Some("57P01"));
    assert_eq!(second.ended().await.as_deref(), Some("57P01"), "an open transaction too");
    let third = leasehold.connect("app", db.name()).await;
    let live = third.user().await;
    eventually(SOON, async || same(db.roles().await, [live.clone()])).await;
    eventually(SOON, async || same(vault.leases(&setup.path).await.len(), 1)).await;
    orphans.none_was_seen().await;
    leasehold.until_metric(SOON, "revocations_total", &[("outcome", "lease")], 2.0).await;
    assert_eq!(leasehold.metrics().await.get("sessions_closed_total", &[("cause", "revoked")]), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_between_transactions_and_lets_an_open_one_finish() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(leasehold.connect("app", db.name()).await);
    }
    let busy = leasehold.connect("app", db.name()).await;
    busy.batch_execute("BEGIN; CREATE TABLE finished (n int)").await.unwrap();

    assert!(leasehold.command(&["rotate", "--drain=24s"]).await.status.success());

    // They have their moments in the first half of it, and the transaction goes on in the second.
    for session in idle {
        assert_eq!(session.ended_within(SOON * 3).await.as_deref(), Some("57P01"));
    }
    busy.batch_execute("INSERT INTO finished VALUES (1); COMMIT").await.unwrap();
    assert_eq!(busy.ended_within(SOON * 3).await.as_deref(), Some("57P01"));
    assert_eq!(db.admin.value("SELECT n FROM finished").await, "1");
    leasehold.until_metric(SOON, "sessions_closed_total", &[("cause", "drain")], 11.0).await;
    let live = leasehold.connect("app", db.name()).await.user().await;
    eventually(SOON, async || same(db.roles().await, [live.clone()])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotate_that_fails_exits_1_and_drains_nothing() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, .. } = &backends;
    let fault = vault.forwarder().await;
    let leasehold = backends.leasehold_through(&fault).start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;
    fault.set(Mode::Refuse).await;
    fault.cut();

    let rotated = leasehold.command(&["rotate", "--drain=0s"]).await;

    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    assert_eq!(session.user().await, user, "its session runs on");
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, user);
    let generations = leasehold.generations().await;
    assert_eq!(generations.len(), 1);
    assert_eq!(generations[0]["state"], "current");
    assert!(generations[0]["drain_at"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotate_against_a_sealed_vault_fails_and_a_later_one_succeeds() {
    let backends = Backends::with_vault(bench().own_vault(Storage::Raft).await, Spec::new("app")).await;
    let Backends { db, vault, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;
    vault.seal().await;

    let rotated = leasehold.command(&["rotate", "--drain"]).await;

    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    vault.unseal().await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    assert_eq!(session.user().await, user, "the drain of the first went with it");
    assert_ne!(leasehold.connect("app", db.name()).await.user().await, user);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_outlives_a_dozen_credentials_that_end_before_it_is_done() {
    let server = bench().own_postgres(serde_json::json!({"version": "18"})).await;
    let backends = Backends::on(&server, Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends
        .leasehold()
        .flag("--probe-database", "postgres")
        .flag("--probe-sql", "SELECT 1")
        .flag("--limits-login-wait", "10m")
        .flag("--limits-connect-timeout", "1m")
        .start()
        .await;
    leasehold.wait_ready().await;
    // A role's login comes to its end once it is in the table.
    let gate = "CREATE TABLE gate (role text); GRANT SELECT ON gate TO PUBLIC;
                CREATE FUNCTION wait() RETURNS event_trigger LANGUAGE plpgsql AS $$
                BEGIN
                    WHILE session_user LIKE 'v-%' AND session_user NOT IN (SELECT role FROM public.gate) LOOP
                        PERFORM pg_sleep(0.01);
                    END LOOP;
                END $$;
                CREATE EVENT TRIGGER wait ON login EXECUTE FUNCTION wait();
                ALTER EVENT TRIGGER wait ENABLE ALWAYS;";
    let gatekeeper = server.superuser(db.name()).await;
    gatekeeper.batch_execute(gate).await.unwrap();
    let waiting = format!(
        "SELECT coalesce(max(usename), '') FROM pg_stat_activity
            WHERE datname = '{}' AND usename LIKE 'v-%' AND usename NOT IN (SELECT role FROM gate)",
        db.name()
    );

    let config = leasehold.config("app", db.name());
    let login = async { connect_within(&config, SOON * 12).await };
    let rotations = async {
        for rotation in 0..=12 {
            let role = eventually(SOON, async || match gatekeeper.value(&waiting).await {
                role if role.is_empty() => Err("nobody logs in"),
                role => Ok(role),
            })
            .await;
            if rotation < 12 {
                let rotated = leasehold.command(&["rotate", "--drain=0s"]).await;
                assert!(rotated.status.success(), "{rotated:?}");
            }
            gatekeeper.batch_execute(&format!("INSERT INTO gate VALUES ('{role}')")).await.unwrap();
        }
    };
    let (session, ()) = tokio::join!(login, rotations);

    let session = session.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    assert_eq!(leasehold.metrics().await.get("login_failures_total", &[]), 0.0);
}

/// What belonged to the role of a credential could be altered by no other, and would keep that role from being dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_one_generation_is_altered_by_the_next_under_set_role() {
    let login = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    let spec = || Spec::new("app").creation_statements(&format!("{login} IN ROLE \"{{{{owner}}}}\""));
    for set_role in [true, false] {
        let scene = Scene::with(&bench().postgres().await, spec().policy(Spec::MAY_REVOKE), |builder, db| {
            let builder = builder.upstream(db);
            if set_role { builder.flag("--set-role", &db.owner()) } else { builder }
        })
        .await;
        let first = scene.session().await;
        let maker = first.value("SELECT session_user").await;
        first.batch_execute("CREATE TABLE made (x int)").await.unwrap();
        let owner = first.value("SELECT tableowner FROM pg_tables WHERE tablename = 'made'").await;
        first.close().await;
        scene.rotate(&["--drain=0s"]).await;

        let next = scene.session().await;
        assert_ne!(next.value("SELECT session_user").await, maker);
        let altered = next.batch_execute("ALTER TABLE made ADD COLUMN y int").await;
        next.close().await;
        if set_role {
            assert_eq!(owner, scene.db.owner());
            altered.unwrap();
            eventually(SOON, async || same(scene.db.roles().await.contains(&maker), false)).await;
        } else {
            assert_eq!(owner, maker);
            assert!(altered.is_err(), "it belongs to {maker}");
            assert!(scene.db.roles().await.contains(&maker), "what owns a table cannot be dropped");
        }
    }
}
