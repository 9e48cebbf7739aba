//! Connections that break, fall silent or are not read, on either side of leasehold.

use std::process::Command;

use crate::harness::{Builder, Fault, Mode, Raw, SOON, Scene, Spec, bench, eventually, same, tags};

/// A scene whose server is reached through a forwarder.
async fn behind_a_fault(spec: Spec) -> (Scene, Fault) {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let uri = format!("postgresql://{}/?sslmode=disable", fault.addr());
    let describe = |builder: Builder, _: &_| builder.upstream_uri(&uri).flag("--max-sigterm-delay", "3s");
    (Scene::with(&server, spec, describe).await, fault)
}

/// A client of this scene that comes through this forwarder.
async fn through(fault: &Fault, scene: &Scene) -> Raw {
    let (raw, frames) = Raw::login(fault.addr(), "app", scene.db.name()).await;
    assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "{frames:?}");
    raw
}

/// A statement of a megabyte, as bytes.
fn long_insert() -> Vec<u8> {
    let text = "x".repeat(1_000_000);
    Raw::message('Q', format!("INSERT INTO marks VALUES ('{text}')\0").as_bytes())
}

async fn marks(scene: &Scene) -> String {
    scene.db.admin.value("SELECT count(*) FROM marks").await
}

/// Vault's answer comes a moment after the end of the role.
async fn is_given_back(scene: &Scene) {
    let given_back =
        async || scene.leasehold.metrics().await.get("revocations_total", &[("outcome", "lease")]);
    eventually(SOON, async || same(given_back().await, 1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_cut_off_within_a_message_is_a_bare_end_and_within_the_clients_is_08006() {
    let (scene, fault) = behind_a_fault(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let mut raw = scene.raw().await;
    raw.query("CREATE TABLE marks (what text)").await;
    let role = scene.db.roles().await.remove(0);

    // Half of a row: nothing can be said behind it.
    fault.set(Mode::CutToClientAfter(100_000)).await;
    raw.send('Q', b"SELECT repeat('x', 1000000)\0").await;
    assert_eq!(tags(&raw.until("E").await), "T", "the row never becomes whole");
    assert_eq!(raw.recv().await, None);
    scene.wait_sessions(0).await;
    assert_eq!(scene.closed("upstream").await, 1.0);

    // Half of a statement: the server has not run it.
    fault.set(Mode::Pass).await;
    let mut raw = scene.raw().await;
    raw.write(&long_insert()[..500_000]).await;
    // The latest connection may be that of a proof.
    let arrived = async || fault.recordings().iter().any(|recording| recording.to_server.len() >= 500_000);
    eventually(SOON, async || same(arrived().await, true)).await;
    fault.cut();
    let last = raw.until("E").await.pop().unwrap();
    assert_eq!(last.sqlstate(), "08006", "{:?}", last.fields());
    assert_eq!(raw.recv().await, None);
    scene.wait_sessions(0).await;
    assert_eq!(scene.closed("upstream").await, 2.0);
    assert_eq!(marks(&scene).await, "0");

    // Neither cost the credential anything, and it can be given back.
    assert_eq!(scene.session().await.user().await, role);
    assert_eq!(scene.leasehold.http("/readyz").await.status, 200);
    scene.rotate(&["--drain=0s"]).await;
    eventually(SOON, async || same(scene.db.roles().await.contains(&role), false)).await;
    is_given_back(&scene).await;
    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("suspect_logins_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cut_off_within_a_message_either_way_takes_its_session_along() {
    let spec = Spec::new("app").policy(Spec::MAY_REVOKE);
    let scene = Scene::with(&bench().postgres().await, spec, Builder::upstream).await;
    let fault = Fault::before(&scene.leasehold.addr().to_string()).await;
    scene.raw().await.query("CREATE TABLE marks (what text)").await;
    scene.wait_sessions(0).await;
    let role = scene.db.roles().await.remove(0);

    let mut raw = through(&fault, &scene).await;
    raw.write(&long_insert()[..500_000]).await;
    let relayed =
        async || scene.leasehold.metrics().await.get("relayed_bytes_total", &[("direction", "upstream")]);
    eventually(SOON, async || same(relayed().await >= 500_000.0, true)).await;
    fault.cut();
    scene.wait_sessions(0).await;
    assert_eq!(marks(&scene).await, "0", "half of a statement does not run");

    let mut raw = through(&fault, &scene).await;
    fault.set(Mode::CutToClientAfter(100_000)).await;
    raw.send('Q', b"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)\0").await;
    while raw.recv().await.is_some() {}
    scene.wait_sessions(0).await;
    assert_eq!(scene.closed("client").await, 3.0);

    scene.rotate(&[]).await;
    eventually(SOON, async || same(scene.db.roles().await.contains(&role), false)).await;
    is_given_back(&scene).await;
}

/// The way to the server, the way back, both.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_to_the_server_holds_up_neither_the_end_of_a_session_nor_of_the_process() {
    for mode in [Mode::HoldToServer, Mode::HoldToClient, Mode::Blackhole] {
        let (mut scene, fault) = behind_a_fault(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
        let (mut idle, mut busy) = (scene.raw().await, scene.raw().await);
        busy.send('Q', b"SELECT pg_sleep(600)\0").await;
        scene.wait_state("active", 1).await;
        fault.set(mode).await;

        scene.leasehold.sigterm();
        for raw in [&mut idle, &mut busy] {
            let last = raw.recv().await.unwrap();
            assert_eq!(last.sqlstate(), "57P01", "{mode:?}");
            assert_eq!(raw.recv().await, None);
        }
        assert_eq!(scene.leasehold.wait_exit().await.code(), Some(0), "{mode:?}");
        let log = scene.leasehold.log();
        assert_eq!(
            log.messages("upstream did not close: its session may outlive this one").len(),
            2,
            "{mode:?}"
        );
        // Whether the server still has them is not known, so their lease is left to lapse.
        assert_eq!(log.messages("left to lapse").len(), 1, "{mode:?}");
        assert!(log.messages("revoked").is_empty(), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_silent_for_a_while_costs_logins_their_time_and_sessions_nothing() {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let uri = format!("postgresql://{}/?sslmode=disable&connect_timeout=2", fault.addr());
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    let session = scene.session().await;
    let user = session.user().await;
    session.batch_execute("CREATE TABLE marks (what text); BEGIN").await.unwrap();
    fault.set(Mode::Blackhole).await;

    let insert = session.batch_execute("INSERT INTO marks VALUES ('x'); COMMIT");
    let meanwhile = async {
        let error = scene.leasehold.try_connect("app", scene.db.name()).await.err().unwrap();
        assert_eq!(error.code().unwrap().code(), "08001", "{error:?}");
        assert_eq!(scene.leasehold.http("/readyz").await.status, 200, "the credential is of use");
        assert_eq!(scene.leasehold.status().await["routes"][0]["sessions"], 1);
        fault.set(Mode::Pass).await;
    };
    let (inserted, ()) = tokio::join!(insert, meanwhile);

    inserted.unwrap();
    assert_eq!(marks(&scene).await, "1");
    assert_eq!(session.user().await, user);
    assert_eq!(scene.session().await.user().await, user);
    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("login_failures_total", &[("reason", "timeout")]), 1.0);
    for (name, wanted) in [("suspect_logins_total", 0.0), ("rotations_total", 0.0), ("issuances_total", 1.0)]
    {
        assert_eq!(metrics.get(name, &[]), wanted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_reading_gigabytes_cost_no_memory_and_are_cut_at_the_lease_end() {
    let spec = Spec::new("app").ttl("40s", "40s");
    let scene = Scene::with(&bench().postgres().await, spec, Builder::upstream).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(scene.raw().await);
    }
    let before = scene.leasehold.resident();
    for raw in &mut clients {
        raw.send('Q', b"SELECT repeat('x', 10000) FROM generate_series(1, 1000000)\0").await;
    }
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'ClientWrite'",
        scene.db.name()
    );
    let all_blocked =
        async || eventually(SOON, async || same(scene.db.admin.value(&blocked).await, "4")).await;
    all_blocked().await;
    // A hundred megabytes, and then no more.
    for raw in &mut clients {
        assert_eq!(raw.recv().await.unwrap().tag, 'T');
        for _ in 0..2_500 {
            assert_eq!(raw.recv().await.unwrap().body.len(), 10_006);
        }
    }
    all_blocked().await;
    let after = scene.leasehold.resident();
    assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB after");
    assert_eq!(scene.sessions().await, 4.0);

    eventually(SOON * 6, async || same(scene.closed("lease_end_cut").await, 4.0)).await;
    assert!(scene.db.backends().await.is_empty());
    assert_eq!(scene.session().await.value("SELECT 1").await, "1");
}

/// Cable pulled, machine gone: no FIN, no RST, nothing is acknowledged by anybody who matters.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_without_a_word_are_ended_with_their_credential() {
    let spec = Spec::new("app").policy(Spec::MAY_REVOKE);
    let scene = Scene::with(&bench().postgres().await, spec, Builder::upstream).await;
    let fault = Fault::before(&scene.leasehold.addr().to_string()).await;
    let (_idle, mut open, mut amid) =
        (through(&fault, &scene).await, through(&fault, &scene).await, through(&fault, &scene).await);
    open.query("BEGIN").await;
    amid.send('Q', b"SELECT repeat('x', 10000) FROM generate_series(1, 1000000)\0").await;
    assert_eq!(amid.recv().await.unwrap().tag, 'T');
    fault.set(Mode::Blackhole).await;
    let role = scene.db.roles().await.remove(0);

    // The kernel asks after each that says nothing, as PostgreSQL has it do for its own clients.
    let port = scene.leasehold.addr().port();
    let seen =
        Command::new("ss").args(["-Htno", "state", "established", &format!("sport = :{port}")]).output();
    let seen = String::from_utf8(seen.unwrap().stdout).unwrap();
    assert!(seen.contains("timer:(keepalive,"), "{seen}");

    scene.rotate(&["--drain=1s"]).await;
    scene.wait_sessions(0).await;
    eventually(SOON, async || same(scene.db.roles().await.contains(&role), false)).await;
    is_given_back(&scene).await;
    assert_eq!(scene.session().await.value("SELECT 1").await, "1");
}
