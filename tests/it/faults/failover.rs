//! A primary that is lost, a standby in its place, and a replica that is late.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Backends, Builder, Database, Leasehold, SOON, Server, Spec, bench, eventually, same};

/// A primary with its standby; Vault asks whichever of the two takes writes.
struct Pair {
    db: Database,
    standby: Server,
    builder: Builder,
}

impl Pair {
    async fn new(words: &str) -> Self {
        let primary = bench().own_postgres(json!({"version": "18"})).await;
        let standby = primary.standby("18").await;
        let db = primary.database().await;
        standby.catch_up(&db.admin).await;
        let backends = Backends::with_database(db, Spec::new("app")).await;
        let Backends { db, vault, setup } = &backends;
        let (user, password) = db.vault_user();
        let url = format!(
            "host=127.0.0.1,127.0.0.1 port={},{} dbname={} user={user} password={password} sslmode=disable \
             target_session_attrs=read-write connect_timeout=2",
            primary.port,
            standby.port,
            db.name()
        );
        let connection =
            json!({"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url});
        vault.write(&format!("{}/config/db", setup.mount()), connection).await;
        let hosts = format!("{},{}", primary.addr(), standby.addr());
        let uri = format!("postgresql://{hosts}/?sslmode=disable&{words}");
        let builder = backends.leasehold_at(&uri).flag("--probe-database", db.name());
        Self { db: backends.db, standby, builder }
    }

    /// Whether the standby has this role.
    async fn standby_has(&self, role: &str) -> bool {
        let standby = self.standby.superuser("postgres").await;
        standby.value(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'")).await == "1"
    }

    /// The user of the generation that serves now.
    async fn serves(&self, leasehold: &Leasehold) -> String {
        let generations = leasehold.generations().await;
        let current = generations.iter().find(|generation| generation["state"] == "current").unwrap();
        current["username"].as_str().unwrap().to_owned()
    }

    /// Ends the primary without a word, and has the standby take its place.
    async fn fail_over(&self) {
        self.db.server.stop("KILL").await;
        assert_eq!(self.standby.superuser("postgres").await.value("SELECT pg_promote()").await, "t");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_keeps_a_credential_that_the_standby_replays_at_its_promotion() {
    let pair = Pair::new("target_session_attrs=read-write").await;
    let leasehold = pair.builder.clone().start().await;
    leasehold.wait_ready().await;
    pair.standby.catch_up(&pair.db.admin).await;
    pair.standby.pause_replay().await;
    leasehold.rotate().await;
    let user = pair.serves(&leasehold).await;
    let session = leasehold.connect("app", pair.db.name()).await;
    assert_eq!(session.user().await, user);
    // It has got the record of the role, and has not replayed it.
    let written = pair.db.admin.value("SELECT pg_current_wal_insert_lsn()").await;
    // A record of its own makes the primary flush what came before.
    pair.db.admin.batch_execute("CHECKPOINT").await.unwrap();
    let received = format!("SELECT pg_last_wal_receive_lsn() >= '{written}'");
    let standby = pair.standby.superuser("postgres").await;
    eventually(SOON, async || same(standby.value(&received).await, "t")).await;
    assert!(!pair.standby_has(&user).await);

    pair.fail_over().await;

    let last = session.ended().await.unwrap();
    assert!(["57P01", "08006"].contains(&last.as_str()), "{last}");
    let again = leasehold.connect("app", pair.db.name()).await;
    assert_eq!(again.user().await, user, "the lease is kept");
    assert_eq!(again.value("SELECT pg_is_in_recovery()").await, "f");
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 2.0, "the first, and the rotation's");
    assert_eq!(leasehold.http("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_has_lost_the_fresh_role_heals_at_the_next_login() {
    let pair = Pair::new("target_session_attrs=read-write").await;
    let leasehold = pair.builder.clone().start().await;
    leasehold.wait_ready().await;
    pair.standby.catch_up(&pair.db.admin).await;
    // Nothing of the primary reaches the standby any more.
    let standby = pair.standby.superuser("postgres").await;
    standby.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    standby.value("SELECT pg_reload_conf()").await;
    let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
    eventually(SOON, async || same(standby.value(receivers).await, "0")).await;
    let first = pair.serves(&leasehold).await;
    leasehold.rotate().await;
    let lost = pair.serves(&leasehold).await;

    pair.fail_over().await;
    let session = leasehold.connect("app", pair.db.name()).await;

    let user = session.user().await;
    assert_eq!(user, first, "Vault has found the fresh role gone, and the one before it serves again");
    assert_eq!(session.value("SELECT pg_is_in_recovery()").await, "f");
    eventually(SOON, async || same(pair.serves(&leasehold).await == first, false)).await;
    let serves = pair.serves(&leasehold).await;
    assert_eq!(leasehold.connect("app", pair.db.name()).await.user().await, serves);
    assert!(!pair.standby_has(&lost).await && pair.standby_has(&serves).await);
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0, "no client has seen it");
    assert_eq!(metrics.get("rotations_total", &[("reason", "revoked")]), 1.0);
    assert_eq!(metrics.get("issuances_total", &[("outcome", "ok")]), 3.0);
    assert_eq!(leasehold.http("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_replays_20_seconds_late_takes_the_credential_before_and_draws_no_other() {
    let pair = Pair::new("target_session_attrs=prefer-standby").await;
    let leasehold = pair.builder.clone().start().await;
    leasehold.wait_ready().await;
    pair.standby.catch_up(&pair.db.admin).await;
    let before = leasehold.connect("app", pair.db.name()).await;
    assert_eq!(before.value("SELECT pg_is_in_recovery()").await, "t");
    let before_user = before.user().await;
    let standby = pair.standby.superuser("postgres").await;
    standby.batch_execute("ALTER SYSTEM SET recovery_min_apply_delay = '20s'").await.unwrap();
    standby.value("SELECT pg_reload_conf()").await;
    eventually(SOON, async || same(standby.value("SHOW recovery_min_apply_delay").await, "20s")).await;

    leasehold.rotate().await;
    let user = pair.serves(&leasehold).await;
    assert!(user != before_user && !pair.standby_has(&user).await);
    let logins: Vec<_> = (0..4)
        .map(|_| {
            let mut config = leasehold.config("app", pair.db.name());
            config.connect_timeout(Duration::from_secs(60));
            tokio::spawn(async move { config.connect(tokio_postgres::NoTls).await })
        })
        .collect();

    // None of them sees an error, nor waits for the replica.
    for login in logins {
        let (client, connection) = login.await.unwrap().unwrap();
        let end = tokio::spawn(connection);
        let row = client.query_one("SELECT session_user::text, pg_is_in_recovery()", &[]).await.unwrap();
        assert_eq!((row.get::<_, String>(0), row.get::<_, bool>(1)), (before_user.clone(), true));
        drop(client);
        end.await.unwrap().unwrap();
    }
    let begun = Instant::now();
    eventually(SOON * 4, async || {
        let session = leasehold.connect("app", pair.db.name()).await;
        assert_eq!(session.value("SELECT pg_is_in_recovery()").await, "t");
        same(session.user().await, user.as_str())
    })
    .await;
    assert_eq!(before.user().await, before_user, "the session from before runs on");
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("suspect_logins_total", &[]) >= 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    assert_eq!(metrics.get("issuances_total", &[]), 2.0, "the first, and the rotation's");
    assert_eq!(metrics.get("rotations_total", &[]), 1.0);
    // However many come, the lease is looked at every 5 s at most.
    let looks = metrics.get("renewals_total", &[]);
    assert!(looks <= 3.0 + begun.elapsed().as_secs_f64() / 5.0, "{looks}");
}
