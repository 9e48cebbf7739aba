//! Sessions upstream that are logged in ahead of need.

use crate::harness::{Builder, Frame, Raw, SOON, Scene, Spec, bench, eventually, field, key, same};

/// A route that keeps at most so many.
async fn scene(warm: &str) -> Scene {
    let server = bench().postgres().await;
    Scene::with(&server, Spec::new("app"), |leasehold: Builder, db| {
        leasehold.upstream(db).flag("--warm", warm)
    })
    .await
}

/// The process that a BackendKeyData names.
pub(super) fn pid(frames: &[Frame]) -> i32 {
    i32::from_be_bytes(key(frames)[..4].try_into().unwrap())
}

/// The processes of the database's sessions, ours and Vault's excepted.
pub(super) async fn pids(scene: &Scene) -> Vec<i32> {
    let sql = format!(
        "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE datname = '{}' AND
            backend_type = 'client backend' AND state = 'idle' AND pid <> pg_backend_pid() AND usename <> '{}'",
        scene.db.name(),
        scene.db.vault_user().0
    );
    scene.db.admin.value(&sql).await.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Waits until one session is ready ahead of need that is none of these clients'; its process. The server knows of it before
/// leasehold has it ready.
async fn wait_for_warm(scene: &Scene, clients: &[i32]) -> i32 {
    eventually(SOON, async || {
        let ready = scene.leasehold.log().messages("an upstream session is ready ahead of need");
        let ready: Vec<_> = ready.iter().map(|line| field(line, "upstream.pid")).collect();
        let mut there = pids(scene).await;
        there.retain(|pid| ready.contains(&pid.to_string()) && !clients.contains(pid));
        if let [one] = there[..] { Ok(one) } else { Err(there) }
    })
    .await
}

pub(super) async fn connect(scene: &Scene) -> (Raw, Vec<Frame>) {
    scene.raw_with(Raw::PROTOCOL_3_0, &[]).await
}

/// What a session could be told apart by: all its settings, who it is, and what is left in it.
pub(super) const EVERYTHING: &str = "SELECT name, setting, source FROM pg_settings UNION ALL
    SELECT 'state', concat_ws(' ', session_user, current_user, current_database(), a.application_name, a.client_addr,
        a.query, a.backend_xid, a.leader_pid), (SELECT count(*)::text FROM pg_locks WHERE pid = pg_backend_pid())
      FROM pg_stat_activity a WHERE pid = pg_backend_pid() UNION ALL
    SELECT 'left', (SELECT count(*)::text FROM pg_prepared_statements), (SELECT count(*)::text FROM pg_cursors)
    ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_session_cannot_be_told_from_a_fresh_one() {
    let scene = scene("1").await;
    let (mut fresh, said_to_fresh) = connect(&scene).await;
    let ready = wait_for_warm(&scene, &[]).await;
    let (mut warm, said_to_warm) = connect(&scene).await;
    assert_eq!(pid(&said_to_warm), ready, "it was logged in ahead of need");

    let without_key = |frames: &[Frame]| -> Vec<_> {
        frames.iter().filter(|frame| frame.tag != 'K').map(Frame::bytes).collect()
    };
    assert_eq!(without_key(&said_to_warm), without_key(&said_to_fresh));
    let rows =
        async |raw: &mut Raw| -> Vec<_> { raw.query(EVERYTHING).await.iter().map(Frame::bytes).collect() };
    assert_eq!(rows(&mut warm).await, rows(&mut fresh).await);

    // Its key cancels it.
    warm.send('Q', b"SELECT pg_sleep(600)\0").await;
    scene.wait_state("active", 1).await;
    assert!(Raw::cancel(scene.leasehold.addr(), &key(&said_to_warm)).await);
    assert_eq!(warm.error().await, "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_serves_one_client_and_others_take_its_place() {
    let scene = scene("1").await;
    let (_first, _) = connect(&scene).await;
    let mut served = Vec::new();
    for clients in 1..=3 {
        let ready = wait_for_warm(&scene, &[]).await;
        let (raw, said) = connect(&scene).await;
        assert_eq!(pid(&said), ready, "client {clients} found none");
        assert!(!served.contains(&pid(&said)), "client {clients} got one that was used");
        served.push(pid(&said));
        drop(raw);
        eventually(SOON, async || same(pids(&scene).await.contains(&pid(&said)), false)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_differ_get_fresh_sessions() {
    let scene = scene("1").await;
    let (_first, _) = connect(&scene).await;
    let ready = wait_for_warm(&scene, &[]).await;
    let (mut other, said) = scene.raw_with(Raw::PROTOCOL_3_0, &[("application_name", "other")]).await;
    assert_ne!(pid(&said), ready);
    let shown: Vec<u8> = other.query("SHOW application_name").await.iter().flat_map(Frame::bytes).collect();
    assert!(shown.windows(5).any(|word| word == b"other"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_ends_those_of_the_earlier_role_and_its_lease() {
    let scene = scene("2").await;
    let (client, _) = connect(&scene).await;
    wait_for_warm(&scene, &[]).await;
    let earlier = scene.db.roles().await;
    drop(client);
    scene.rotate(&[]).await;
    // They would keep the earlier lease alive: none of its clients is left.
    eventually(SOON, async || {
        let roles = scene.db.roles().await;
        same((roles.len(), roles == earlier), (1, false))
    })
    .await;
    let ready = wait_for_warm(&scene, &[]).await;
    let (_raw, said) = connect(&scene).await;
    assert_eq!(pid(&said), ready, "the new role has as many");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_the_server_has_ended_is_given_to_nobody() {
    let scene = scene("2").await;
    let (_first, _) = connect(&scene).await;
    let ended = wait_for_warm(&scene, &[]).await;
    scene.db.admin.value(&format!("SELECT pg_terminate_backend({ended})")).await;
    eventually(SOON, async || same(pids(&scene).await.contains(&ended), false)).await;
    wait_for_warm(&scene, &[]).await;
    let (mut raw, said) = connect(&scene).await;
    assert_ne!(pid(&said), ended);
    assert_eq!(raw.query("SELECT 1").await.last().map(|frame| frame.tag), Some('Z'));
}

#[tokio::test(flavor = "multi_thread")]
async fn they_give_way_where_the_server_has_no_more_connections() {
    let scene = scene("2").await;
    let (admin, name) = (&scene.db.admin, scene.db.name());
    let others = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
    let limit = admin.value(&others).await.parse::<u32>().unwrap() + 3;
    admin.batch_execute(&format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}")).await.unwrap();
    let [(first, said_to_first), (second, said_to_second)] = [connect(&scene).await, connect(&scene).await];
    wait_for_warm(&scene, &[pid(&said_to_first), pid(&said_to_second)]).await;
    let mut clients = vec![first, second];
    clients.push(scene.raw_with(Raw::PROTOCOL_3_0, &[("application_name", "third")]).await.0);
    let mut refused = scene.leasehold.connect_raw().await;
    let parameters = [("user", "app"), ("database", scene.db.name()), ("application_name", "fourth")];
    refused.startup(Raw::PROTOCOL_3_0, &parameters).await;
    assert_eq!(refused.error().await, "53300", "all three are clients'");
}

#[tokio::test(flavor = "multi_thread")]
async fn they_hold_up_no_shutdown() {
    let mut scene = scene("2").await;
    let (client, _) = connect(&scene).await;
    wait_for_warm(&scene, &[]).await;
    drop(client);
    assert!(scene.leasehold.stop().await.success());
    assert_eq!(scene.db.roles().await, [""; 0], "everything is given back");
}
