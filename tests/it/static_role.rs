//! Static roles: a rotation changes the password in place, closes nothing and fails no login.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Backends, Database, Leasehold, SOON, Setup, Spec, bench, eventually, same};

struct Story {
    db: Database,
    setup: Setup,
    leasehold: Leasehold,
    username: String,
}

/// A static role with this rotation period, and leasehold on it.
async fn story(period: &str) -> Story {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, setup, .. } = &backends;
    let username = format!("fixed_{}", db.name());
    db.admin.batch_execute(&format!("CREATE ROLE {username} LOGIN")).await.unwrap();
    let path = setup.static_role(&username, period).await;
    let leasehold = backends.without_login().approle(setup).path(&path).start().await;
    leasehold.wait_ready().await;
    let Backends { db, setup, .. } = backends;
    Story { db, setup, leasehold, username }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_of_a_static_role_under_load_close_nothing_and_fail_no_login() {
    let Story { db, leasehold, username, .. } = story("5s").await;
    let leasehold = Arc::new(leasehold);
    let lasting = leasehold.connect("fixed", db.name()).await;
    assert_eq!(lasting.user().await, username);
    let stop = Arc::new(AtomicBool::new(false));
    let logins = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (leasehold, stop, logins) = (Arc::clone(&leasehold), Arc::clone(&stop), Arc::clone(&logins));
            let database = db.name().to_owned();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let session = leasehold.try_connect("fixed", &database).await.expect("no login fails");
                    assert_eq!(session.value("SELECT 1").await, "1");
                    session.close().await;
                    logins.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    // Three periods, each up to its own 5 s and the tick of Vault's queue.
    let rotated = async || leasehold.metrics().await.get("rotations_total", &[("reason", "schedule")]);
    eventually(Duration::from_secs(45), async || {
        let seen = rotated().await;
        if seen >= 3.0 { Ok(()) } else { Err(seen) }
    })
    .await;

    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(logins.load(Ordering::Relaxed) > 10);
    assert_eq!(lasting.value("SELECT 2").await, "2", "the first session has lived through every rotation");
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "drain")]), 0.0);
    assert_eq!(metrics.get("login_failures_total", &[("route", "fixed")]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_role_rotated_by_hand_is_read_again_at_the_first_refused_login() {
    let Story { db, setup, leasehold, .. } = story("1h").await;
    let before = leasehold.connect("fixed", db.name()).await;

    setup.rotate_static_role().await;

    let after = leasehold.connect("fixed", db.name()).await;
    assert_eq!(after.value("SELECT 1").await, "1");
    assert_eq!(before.value("SELECT 1").await, "1");
    let generations = leasehold.generations().await;
    assert_eq!(generations.last().unwrap()["state"], "current");
    assert_eq!(generations.last().unwrap()["ends_at"], serde_json::Value::Null);
    before.close().await;
    eventually(SOON, async || same(leasehold.generations().await.len(), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_static_role_has_no_end_and_a_shutdown_leaves_it_alone() {
    let Story { db, mut leasehold, username, .. } = story("1h").await;
    let status = leasehold.status().await;
    let route = &status["routes"][0];
    assert_eq!(route["kind"], "static");
    assert_eq!(route["ready"], true);
    assert_eq!(route["runway_seconds"], serde_json::Value::Null);
    assert!(leasehold.command(&["rotate"]).await.status.success(), "it is read again");
    let table = leasehold.command(&["status"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("static"), "{table:?}");

    assert_eq!(leasehold.stop().await.code(), Some(0));

    let there = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{username}'");
    assert_eq!(db.admin.value(&there).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotate_that_finds_a_static_role_unchanged_says_so_and_one_with_a_drain_fails() {
    let Story { db, setup, leasehold, .. } = story("1h").await;
    let session = leasehold.connect("fixed", db.name()).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let plain = leasehold.command(&["rotate"]).await;
    assert!(plain.status.success(), "{plain:?}");
    assert!(text(&plain.stdout).starts_with("fixed: unchanged since 20"), "{plain:?}");

    for drain in ["--drain", "--drain=0s"] {
        let drained = leasehold.command(&["rotate", drain]).await;
        assert_eq!(drained.status.code(), Some(1), "{drained:?}");
        let said = text(&drained.stderr);
        assert!(said.contains("unchanged since 20"), "{said}");
        assert!(said.contains(&format!("vault write -f {}/rotate-role/fixed", setup.mount())), "{said}");
    }

    setup.rotate_static_role().await;
    let changed = leasehold.command(&["rotate"]).await;
    assert!(text(&changed.stdout).contains("fixed: generation 2 is published"), "{changed:?}");
    setup.rotate_static_role().await;
    let drained = leasehold.command(&["rotate", "--drain=0s"]).await;
    assert_eq!(drained.status.code(), Some(1), "{drained:?}");
    assert!(
        text(&drained.stderr).contains("generation 3 is published, and no session is ended"),
        "{drained:?}"
    );
    assert_eq!(session.value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_role_that_the_server_refuses_is_not_ready_until_it_lets_in() {
    let Story { db, setup, leasehold, username } = story("1h").await;
    let vault = bench().vault().await;
    let path = format!("{}/static-creds/fixed", setup.mount());
    let password = vault.read(&path).await["data"]["password"].as_str().unwrap().to_owned();
    let change = async |to: &str| {
        db.admin.batch_execute(&format!("ALTER ROLE {username} PASSWORD '{to}'")).await.unwrap();
    };

    change("another").await;
    let mut config = leasehold.config("fixed", db.name());
    config.connect_timeout(SOON * 3);
    let refused = config.connect(tokio_postgres::NoTls).await.err().expect("no password fits");
    assert_eq!(refused.code().unwrap().code(), "28000");

    let route = leasehold.status().await["routes"][0].clone();
    assert_eq!(route["ready"], false);
    assert_eq!(route["last_error"]["kind"], "prove: the server refuses the current credential");
    let reply = leasehold.http("/readyz").await;
    assert_eq!(reply.status, 503);
    assert!(reply.text.contains("the server refuses the current credential"), "{}", reply.text);

    // No client comes, as nothing is sent to what is not ready.
    change(&password).await;
    eventually(SOON * 5, async || same(leasehold.http("/readyz").await.status, 200)).await;
    assert_eq!(leasehold.connect("fixed", db.name()).await.user().await, username);
}
