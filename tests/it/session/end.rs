//! How sessions end: at their lease's end, by the client's going, by the server's.

use serde_json::json;

use crate::harness::{Fault, Raw, SOON, Scene, Spec, bench, eventually, same, tags};

/// A statement that waits for a lock that the administrator holds.
const WAITS: &[u8] = b"SELECT pg_advisory_lock_shared(9)\0";

async fn hold(scene: &Scene) {
    scene.db.admin.batch_execute("SELECT pg_advisory_lock(9)").await.unwrap();
}

async fn release(scene: &Scene) {
    scene.db.admin.batch_execute("SELECT pg_advisory_unlock(9)").await.unwrap();
}

/// The lease comes to its natural end, and by command: both close whatever the session does.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_ends_with_57p01_before_its_role_is_dropped() {
    let conf = json!({"log_disconnections": "on", "log_statement": "ddl"});
    let server = bench().own_postgres(json!({"conf": conf})).await;
    for (spec, command) in
        [(Spec::new("app"), Some("--drain=1s")), (Spec::new("app").ttl("20s", "20s"), None)]
    {
        let scene = Scene::with(&server, spec, |builder, db| builder.upstream(db)).await;
        let mut raw = scene.raw().await;
        // Its own one: the lease may have been followed by another already.
        let said = raw.query("SELECT session_user").await;
        let role = String::from_utf8_lossy(&said[1].body[6..]).into_owned();
        raw.send('Q', b"SELECT pg_sleep(600)\0").await;
        scene.wait_state("active", 1).await;
        match command {
            Some(flag) => scene.rotate(&[flag]).await,
            // The session is there at its end, which no read of ours outlives.
            None => eventually(SOON * 4, async || same(scene.in_state("active").await, 0)).await,
        }

        let fields = raw.until("E").await.pop().unwrap().fields();
        assert_eq!((&*fields[&'S'], &*fields[&'C']), ("FATAL", "57P01"), "{fields:?}");
        assert!(!fields[&'D'].contains("between transactions"), "{fields:?}");
        assert_eq!(raw.recv().await, None);
        drop(raw);
        eventually(SOON * 2, async || same(scene.db.roles().await.contains(&role), false)).await;
        let log = server.log();
        let (before, after) = log.split_at(log.find(&format!("DROP ROLE IF EXISTS \"{role}\"")).unwrap());
        let gone =
            |part: &str| part.lines().any(|line| line.contains("disconnection:") && line.contains(&role));
        assert!(gone(before) && !gone(after), "a backend outlived its role:\n{log}");
        assert_eq!(scene.closed("lease_end_cut").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_at_the_end_and_counted_so() {
    let spec = Spec::new("app").ttl("20s", "20s");
    let scene = Scene::with(&bench().postgres().await, spec, |builder, db| builder.upstream(db)).await;
    let mut raw = scene.raw().await;
    let said = raw.query("SELECT session_user").await;
    let role = String::from_utf8_lossy(&said[1].body[6..]).into_owned();
    raw.send('Q', b"SELECT repeat('x', 100000000)\0").await;
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'ClientWrite'",
        scene.db.name()
    );
    eventually(SOON, async || same(scene.db.admin.value(&blocked).await, "1")).await;

    eventually(SOON * 4, async || same(scene.closed("lease_end_cut").await, 1.0)).await;
    eventually(SOON, async || same(scene.db.backends().await.is_empty(), true)).await;
    eventually(SOON, async || same(scene.db.roles().await.contains(&role), false)).await;
    assert_eq!(tags(&raw.until("E").await), "T", "the row never becomes whole, and nothing stands in it");
}

/// As with a direct connection: what was asked for is done, and the backend ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_takes_its_backend_along() {
    let scene = Scene::on(&bench().postgres().await).await;
    for how in ["reset", "closed", "reset while idle", "closed while idle", "terminated"] {
        hold(&scene).await;
        let mut raw = scene.raw().await;
        let runs = ["reset", "closed"].contains(&how);
        if runs {
            raw.send('Q', WAITS).await;
            scene.wait_state("active", 1).await;
        }
        match how {
            "terminated" => raw.send('X', &[]).await,
            _ if how.starts_with("reset") => raw.reset(),
            _ => drop(raw),
        }
        if runs {
            // A server that waits for a lock does not look at its client.
            assert_eq!(scene.in_state("active").await, 1);
        }
        release(&scene).await;
        scene.wait_sessions(0).await;
    }
    assert_eq!(scene.closed("client").await, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_stops_sending_gets_its_answer() {
    let scene = Scene::on(&bench().postgres().await).await;
    hold(&scene).await;
    let mut raw = scene.raw().await;
    raw.send('Q', WAITS).await;
    scene.wait_state("active", 1).await;
    raw.half_close().await;
    release(&scene).await;
    assert_eq!(tags(&raw.until("Z").await), "TDCZ");
    assert_eq!(raw.recv().await, None);
    drop(raw);
    scene.wait_sessions(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_last_word_reaches_the_client() {
    let server = bench().own_postgres(json!({})).await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| builder.upstream(db)).await;
    let role = scene.db.roles().await.remove(0);
    let (mut idle, mut busy) = (scene.raw().await, scene.raw().await);
    busy.send('Q', b"SELECT pg_sleep(600)\0").await;
    scene.wait_state("active", 1).await;
    scene.db.terminate(&role).await;
    for (raw, before) in [(&mut idle, "E"), (&mut busy, "TE")] {
        let frames = raw.until("E").await;
        assert_eq!(tags(&frames), before);
        let fields = frames.last().unwrap().fields();
        assert_eq!(fields[&'M'], "terminating connection due to administrator command");
        assert_eq!(fields[&'R'], "ProcessInterrupts", "it is the server's own");
        assert_eq!(raw.recv().await, None);
    }
    drop((idle, busy));
    scene.wait_sessions(0).await;
    assert_eq!(scene.closed("upstream").await, 2.0);

    let mut raw = scene.raw().await;
    // A server process that is stopped while it is still sending says nothing.
    scene.wait_read(1).await;
    server.stop("immediate").await;
    let last = raw.until("E").await.pop().unwrap().fields();
    assert!(last[&'M'].starts_with("terminating connection "), "{last:?}");
    assert_eq!(last[&'F'], "postgres.c", "it is the server's own");
    let (_, frames) = Raw::login(scene.leasehold.addr(), "app", scene.db.name()).await;
    assert_eq!(frames[0].sqlstate(), "08001", "{:?}", frames[0].fields());
    server.restart().await;
    let mut after = scene.raw().await;
    assert_eq!(tags(&after.query("SELECT 1").await), "TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lost_without_a_word_is_08006() {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let uri = format!("postgresql://{}/?sslmode=disable", fault.addr());
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    let (mut idle, mut busy) = (scene.raw().await, scene.raw().await);
    busy.send('Q', b"SELECT pg_sleep(600)\0").await;
    scene.wait_state("active", 1).await;
    fault.cut();
    for raw in [&mut idle, &mut busy] {
        let last = raw.until("E").await.pop().unwrap();
        assert_eq!(last.sqlstate(), "08006");
        assert_eq!(raw.recv().await, None);
    }
    drop((idle, busy));
    eventually(SOON, async || same(scene.sessions().await, 0.0)).await;
    assert_eq!(scene.closed("upstream").await, 2.0);
}
