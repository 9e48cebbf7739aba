//! Protocol versions and cancel keys.

use crate::harness::{Fault, Mode, Raw, SOON, Scene, Server, Spec, bench, eventually, key, same, tags};

/// What libpq asks for to see whether anything in between chokes on it.
const GREASE: i32 = 0x0003_270f;

/// Runs a statement that takes long, cancels it by this key, and sees it end.
async fn cancels(scene: &Scene, raw: &mut Raw, key: &[u8]) {
    raw.send('Q', b"SELECT pg_sleep(60)\0").await;
    scene.wait_state("active", 1).await;
    assert!(Raw::cancel(scene.leasehold.addr(), key).await);
    let frames = raw.until("Z").await;
    assert_eq!(tags(&frames), "TEZ", "{frames:?}");
    assert_eq!(frames[1].sqlstate(), "57014");
    assert_eq!(tags(&raw.query("SELECT 1").await), "TDCZ", "the session runs on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_key_is_as_long_as_its_protocol_says() {
    for (server, protocol, length) in [
        (bench().postgres().await, Raw::PROTOCOL_3_0, 8),
        (bench().postgres_18().await, Raw::PROTOCOL_3_0, 8),
        (bench().postgres_18().await, Raw::PROTOCOL_3_2, 36),
    ] {
        let scene = Scene::on(&server).await;
        let (mut raw, frames) = scene.raw_with(protocol, &[]).await;
        let key = key(&frames);
        assert_eq!(key.len(), length);
        assert!(!tags(&frames).contains('v'), "nothing to negotiate");
        cancels(&scene, &mut raw, &key).await;

        scene.rotate(&[]).await;
        assert_ne!(scene.session().await.user().await, scene.db.roles().await[0], "a new generation serves");
        cancels(&scene, &mut raw, &key).await;
        assert_eq!(
            scene.leasehold.metrics().await.get("cancel_requests_total", &[("outcome", "known")]),
            2.0
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_silently_closed() {
    let scene = Scene::on(&bench().postgres_18().await).await;
    let (mut raw, frames) = scene.raw_with(Raw::PROTOCOL_3_2, &[]).await;
    let key = key(&frames);
    raw.send('Q', b"SELECT pg_sleep(60)\0").await;
    scene.wait_state("active", 1).await;

    let mut other = key.to_vec();
    *other.last_mut().unwrap() ^= 1;
    for wrong in [&other[..], &key[..8], &[0; 8], &[1; 36]] {
        assert!(Raw::cancel(scene.leasehold.addr(), wrong).await);
    }
    assert!(raw.is_quiet().await, "it sleeps on");
    assert_eq!(scene.in_state("active").await, 1);
    assert!(Raw::cancel(scene.leasehold.addr(), &key).await);
    assert_eq!(tags(&raw.until("Z").await), "TEZ");

    raw.send('X', &[]).await;
    assert_eq!(raw.recv().await, None);
    eventually(SOON, async || same(scene.sessions().await, 0.0)).await;
    assert!(Raw::cancel(scene.leasehold.addr(), &key).await);
    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("cancel_requests_total", &[("outcome", "known")]), 1.0);
    assert_eq!(
        metrics.get("cancel_requests_total", &[("outcome", "failed")]),
        5.0,
        "the key of a session that has gone too"
    );
}

/// The cancel is delivered when its connection is closed, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_closed_once_the_server_has_it() {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let uri = format!("postgresql://{}/?sslmode=disable", fault.addr());
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    let (mut raw, frames) = scene.raw_with(Raw::PROTOCOL_3_0, &[]).await;
    raw.send('Q', b"SELECT pg_sleep(60)\0").await;
    scene.wait_state("active", 1).await;

    fault.set(Mode::HoldToServer).await;
    let mut cancel = scene.leasehold.connect_raw().await;
    cancel.packet(80_877_102, &key(&frames)).await;
    assert!(cancel.is_quiet().await, "not delivered, not closed");
    assert_eq!(scene.in_state("active").await, 1);
    fault.set(Mode::Pass).await;
    assert_eq!(cancel.byte().await, None);
    assert_eq!(tags(&raw.until("Z").await), "TEZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_goes_through_the_sessions_own_tls() {
    let server = bench().postgres_18().await;
    let fault = Fault::before(&server.addr()).await;
    let ca = server.ca.clone().unwrap();
    let uri = format!("postgresql://{}/?sslrootcert={}", fault.addr(), ca.display());
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    for protocol in [Raw::PROTOCOL_3_0, Raw::PROTOCOL_3_2] {
        let (mut raw, frames) = scene.raw_with(protocol, &[]).await;
        cancels(&scene, &mut raw, &key(&frames)).await;
        raw.send('X', &[]).await;
        assert_eq!(raw.recv().await, None);
    }
    let ssl_request = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    for recording in fault.recordings().iter().filter(|recording| !recording.to_server.is_empty()) {
        assert!(recording.to_server.starts_with(&ssl_request), "nothing goes in the clear");
    }
}

/// The server's NegotiateProtocolVersion, and the client's, must be the same.
async fn negotiates(server: &Server, protocol: i32, parameters: &[(&str, &str)]) {
    let scene = Scene::on(server).await;
    let mut direct = Raw::connect(server.addr().parse().unwrap()).await;
    direct.startup(protocol, &[&[("user", "postgres"), ("database", "postgres")], parameters].concat()).await;
    let wanted = direct.recv().await.unwrap();
    assert_eq!(wanted.tag, 'v', "{wanted:?}");

    let (mut raw, frames) = scene.raw_with(protocol, parameters).await;
    assert_eq!(frames[0], wanted);
    assert_eq!(tags(&frames).matches('v').count(), 1);
    assert!(tags(&frames).starts_with("vR"));
    cancels(&scene, &mut raw, &key(&frames)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn negotiate_protocol_version_passes_once_and_as_it_is() {
    for server in [bench().postgres().await, bench().postgres_18().await] {
        negotiates(&server, GREASE, &[("_pq_.test", "on")]).await;
        negotiates(&server, GREASE, &[]).await;
        negotiates(&server, Raw::PROTOCOL_3_2, &[("_pq_.test", "on"), ("_pq_.another", "")]).await;
    }
    negotiates(&bench().postgres().await, Raw::PROTOCOL_3_2, &[]).await;
}
