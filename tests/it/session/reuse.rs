//! Upstream sessions that serve another client once theirs has left (`reuse`).

use super::warm::{EVERYTHING, connect, pid, pids};
use crate::harness::{
    Builder, Fault, Frame, Mode, Raw, SOON, Scene, Spec, bench, eventually, field, key, same,
};

async fn scene(flags: &[(&str, &str)]) -> Scene {
    let server = bench().postgres().await;
    Scene::with(&server, Spec::new("app"), |leasehold: Builder, db| {
        flags.iter().fold(leasehold.upstream(db).switch("--reuse"), |leasehold, (flag, value)| {
            leasehold.flag(flag, value)
        })
    })
    .await
}

async fn behind_a_fault() -> (Fault, Scene) {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let uri = format!("postgresql://{}/?sslmode=disable", fault.addr());
    let scene =
        Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri).switch("--reuse"))
            .await;
    (fault, scene)
}

/// Sends Terminate and waits until the server has ended the session, or it is ready for its next client.
async fn leave(scene: &Scene, mut client: Raw, process: i32) {
    let ready = || {
        let lines = scene.leasehold.log().messages("an upstream session is ready for its next client");
        lines.iter().filter(|line| field(line, "upstream.pid") == process.to_string()).count()
    };
    let before = ready();
    client.send('X', b"").await;
    assert_eq!(client.byte().await, None);
    eventually(SOON, async || same(ready() > before || !pids(scene).await.contains(&process), true)).await;
}

/// Whether the next client of the same kind gets the session with this process.
async fn next_gets(scene: &Scene, process: i32) -> bool {
    let (client, said) = connect(scene).await;
    leave(scene, client, pid(&said)).await;
    pid(&said) == process
}

fn shown(frames: &[Frame]) -> String {
    frames.iter().map(|frame| String::from_utf8_lossy(&frame.bytes()).into_owned()).collect()
}

fn without_key(frames: &[Frame]) -> Vec<Vec<u8>> {
    frames.iter().filter(|frame| frame.tag != 'K').map(Frame::bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_client_finds_nothing_of_the_one_before() {
    let scene = scene(&[]).await;
    let (mut fresh, said_to_fresh) = connect(&scene).await;
    let rows =
        async |raw: &mut Raw| -> Vec<_> { raw.query(EVERYTHING).await.iter().map(Frame::bytes).collect() };
    let of_fresh = rows(&mut fresh).await;
    for sql in [
        "SET timezone = 'Asia/Tokyo'",
        "SET application_name = 'first'",
        "SET my.secret = 'first'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "PREPARE plan AS SELECT 1",
        "BEGIN",
        "DECLARE kept CURSOR WITH HOLD FOR SELECT 1",
        "COMMIT",
        "LISTEN news",
        "SELECT pg_advisory_lock(1)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "CREATE TEMP TABLE mine (a int)",
    ] {
        let answer = fresh.query(sql).await;
        assert!(answer.iter().all(|frame| frame.tag != 'E'), "{sql}: {}", shown(&answer));
    }
    leave(&scene, fresh, pid(&said_to_fresh)).await;

    let (mut next, said_to_next) = connect(&scene).await;
    assert_eq!(pid(&said_to_next), pid(&said_to_fresh), "it is the same session");
    assert_ne!(key(&said_to_next), key(&said_to_fresh), "a key is one client's");
    assert_eq!(without_key(&said_to_next), without_key(&said_to_fresh));
    assert_eq!(rows(&mut next).await, of_fresh);
    assert!(shown(&next.query("SELECT to_regclass('mine') IS NULL").await).contains('t'));
    assert!(
        shown(&next.query("SELECT coalesce(current_setting('my.secret', true), '') = ''").await)
            .contains('t')
    );
    scene.db.admin.batch_execute("NOTIFY news").await.unwrap();
    assert!(!next.query("SELECT 1").await.iter().any(|frame| frame.tag == 'A'), "it does not listen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_cancels_its_own_client_alone() {
    let scene = scene(&[]).await;
    let (first, said_to_first) = connect(&scene).await;
    leave(&scene, first, pid(&said_to_first)).await;
    let (mut next, said_to_next) = connect(&scene).await;
    assert_eq!(pid(&said_to_next), pid(&said_to_first));
    next.send('Q', b"SELECT pg_sleep(600)\0").await;
    scene.wait_state("active", 1).await;
    // A request is answered by the close once it has been dealt with.
    Raw::cancel(scene.leasehold.addr(), &key(&said_to_first)).await;
    assert_eq!(scene.in_state("active").await, 1);
    assert!(next.stays_quiet());
    assert!(Raw::cancel(scene.leasehold.addr(), &key(&said_to_next)).await);
    assert_eq!(next.error().await, "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_cancel_request_under_way_serves_nobody_else() {
    let (fault, scene) = behind_a_fault().await;
    let (mut client, said) = connect(&scene).await;
    let connections = fault.recordings().len();
    fault.set(Mode::HoldToServer).await;
    let mut cancel = scene.leasehold.connect_raw().await;
    cancel.packet(80_877_102, &key(&said)).await;
    // One by which the mode was tried, and that of the request.
    eventually(SOON, async || same(fault.recordings().len(), connections + 2)).await;
    assert!(cancel.stays_quiet(), "not delivered, not closed");
    client.send('X', b"").await;
    assert_eq!(client.byte().await, None);
    fault.set(Mode::Pass).await;
    eventually(SOON, async || same(pids(&scene).await.contains(&pid(&said)), false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_cancel_request_was_given_up_serves_nobody_else() {
    let (fault, scene) = behind_a_fault().await;
    let (client, said) = connect(&scene).await;
    fault.set(Mode::HoldToServer).await;
    assert!(Raw::cancel(scene.leasehold.addr(), &key(&said)).await);
    let failed = [("outcome", "failed")];
    eventually(SOON, async || {
        same(scene.leasehold.metrics().await.get("cancel_requests_total", &failed), 1.0)
    })
    .await;
    fault.set(Mode::Pass).await;
    leave(&scene, client, pid(&said)).await;
    eventually(SOON, async || same(pids(&scene).await.contains(&pid(&said)), false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_did_not_end_well_serves_nobody_else() {
    let scene = scene(&[]).await;
    let leave = Raw::message('X', b"");
    let together = [Raw::message('Q', b"SELECT 1\0"), leave.clone()].concat();
    // What a client does, and what it sends last.
    for (sql, last) in [("BEGIN", &leave), ("SELECT 1/0", &leave), ("SELECT 1", &together)] {
        let (mut client, said) = connect(&scene).await;
        client.query(sql).await;
        client.write(last).await;
        eventually(SOON, async || same(pids(&scene).await.contains(&pid(&said)), false)).await;
        assert!(!next_gets(&scene, pid(&said)).await, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_is_no_client_that_leaves() {
    let scene = scene(&[]).await;
    let (client, said) = connect(&scene).await;
    drop(client);
    eventually(SOON, async || same(pids(&scene).await.len(), 0)).await;
    assert!(!next_gets(&scene, pid(&said)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_differ_do_not_share() {
    let scene = scene(&[]).await;
    let (client, said) = connect(&scene).await;
    let waiting = pid(&said);
    leave(&scene, client, waiting).await;
    let (_other, said_to_other) = scene.raw_with(Raw::PROTOCOL_3_0, &[("application_name", "other")]).await;
    assert_ne!(pid(&said_to_other), pid(&said));
    assert!(next_gets(&scene, waiting).await, "it still waits for its like");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_server_has_changed_meanwhile_are_what_the_next_client_gets() {
    let scene = scene(&[]).await;
    let (mut client, said) = connect(&scene).await;
    let set = format!("ALTER DATABASE {} SET timezone = 'Asia/Tokyo'", scene.db.name());
    scene.db.admin.batch_execute(&set).await.unwrap();
    // The session's own default stays what it was at its login: it is the database's of that time.
    client.query("SET timezone = 'Europe/Rome'").await;
    leave(&scene, client, pid(&said)).await;
    let (mut next, said_to_next) = connect(&scene).await;
    assert_eq!(pid(&said_to_next), pid(&said));
    let told = shown(&said_to_next);
    let zone = told.split("TimeZone\0").nth(1).and_then(|rest| rest.split('\0').next()).unwrap().to_owned();
    assert!(shown(&next.query("SHOW timezone").await).contains(&zone), "{zone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_ends_those_that_wait_and_the_lease() {
    let scene = scene(&[]).await;
    let (client, said) = connect(&scene).await;
    leave(&scene, client, pid(&said)).await;
    let earlier = scene.db.roles().await;
    assert_eq!(pids(&scene).await.len(), 1);
    scene.rotate(&[]).await;
    eventually(SOON, async || {
        let roles = scene.db.roles().await;
        same((roles.len(), roles == earlier, pids(&scene).await.len()), (1, false, 0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_retired_generation_is_not_returned() {
    let scene = scene(&[("--drain", "60s")]).await;
    let (client, said) = connect(&scene).await;
    scene.rotate(&[]).await;
    leave(&scene, client, pid(&said)).await;
    eventually(SOON, async || same(pids(&scene).await.contains(&pid(&said)), false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_holds_up_no_shutdown() {
    let mut scene = scene(&[]).await;
    let (client, said) = connect(&scene).await;
    leave(&scene, client, pid(&said)).await;
    assert!(scene.leasehold.stop().await.success());
    assert_eq!(scene.db.roles().await, [""; 0], "everything is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_does_not_end_is_cancelled_and_its_session_closed() {
    let scene = scene(&[]).await;
    let (mut client, said) = connect(&scene).await;
    client.query("CREATE TEMP TABLE held ()").await;
    let other = scene.db.server.superuser(scene.db.name()).await;
    // DISCARD ALL drops the table, and waits for its lock.
    let held = "SELECT relnamespace::regnamespace || '.held' FROM pg_class WHERE relname = 'held'";
    let held = other.value(held).await;
    other.batch_execute(&format!("BEGIN; LOCK TABLE {held} IN ACCESS SHARE MODE")).await.unwrap();

    client.send('X', b"").await;
    assert_eq!(client.byte().await, None);

    // No other statement of this kind fails in the tests of this server.
    let cancelled = || scene.db.server.log().contains("STATEMENT:  DISCARD ALL");
    eventually(SOON * 2, async || same(cancelled(), true)).await;
    // Its end drops the table too.
    other.batch_execute("ROLLBACK").await.unwrap();
    eventually(SOON, async || same(pids(&scene).await.contains(&pid(&said)), false)).await;
    assert!(!next_gets(&scene, pid(&said)).await);
}
