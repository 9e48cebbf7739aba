//! The process suspended, without file descriptors, with a log that cannot be written.

use std::fs::OpenOptions;

use rustix::process::Resource;
use serde_json::json;

use crate::harness::{Backends, Builder, Fault, Memory, Mode, SOON, Scene, Spec, bench, eventually, same};
use crate::process::OnSockets;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_suspended_past_its_lease_serves_nothing_of_it_and_then_a_fresh_one() {
    let spec = Spec::new("app").ttl("20s", "1h");
    let scene = Scene::with(&bench().postgres().await, spec, Builder::upstream).await;
    let (mut idle, mut open) = (scene.raw().await, scene.raw().await);
    idle.query("CREATE TABLE marks (what text)").await;
    open.query("BEGIN").await;
    open.query("INSERT INTO marks VALUES ('in a transaction')").await;
    let role = scene.db.roles().await.remove(0);
    let relayed =
        async || scene.leasehold.metrics().await.get("relayed_bytes_total", &[("direction", "upstream")]);
    let before = relayed().await;

    scene.leasehold.suspend();
    idle.send('Q', b"INSERT INTO marks VALUES ('while it slept')\0").await;
    open.send('Q', b"COMMIT\0").await;
    eventually(SOON * 6, async || same(scene.db.roles().await.contains(&role), false)).await;
    scene.leasehold.resume();

    for raw in [&mut idle, &mut open] {
        let frames = raw.until("E").await;
        assert_eq!(frames.len(), 1, "nothing was answered: {frames:?}");
        assert_eq!(frames[0].sqlstate(), "57P01", "{:?}", frames[0].fields());
        assert_eq!(raw.recv().await, None);
    }
    assert_eq!(relayed().await, before, "no byte of it went upstream");
    assert_ne!(scene.session().await.user().await, role);
    assert_eq!(scene.db.admin.value("SELECT count(*) FROM marks").await, "0");
    drop((idle, open));
    scene.wait_sessions(0).await;
    assert_eq!(scene.closed("lease_end").await, 2.0);
    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    assert_eq!(metrics.get("issuances_total", &[]), 2.0);
    assert_eq!(scene.leasehold.http("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_under_way_while_the_process_is_suspended_past_its_lease_gets_the_next_credential() {
    // The server lets the login in with its first answer, which the way there holds back.
    let server = bench().own_postgres(json!({"hba": ["host all all all trust"]})).await;
    let way = Fault::before(&server.addr()).await;
    let backends = Backends::on(&server, Spec::new("app").ttl("20s", "1h")).await;
    let Backends { db, .. } = &backends;
    let uri = format!("postgresql://{}/?sslmode=disable&connect_timeout=60", way.addr());
    // What the first credential took of the login's time counts, and it took about twenty seconds.
    let builder = backends.leasehold_at(&uri).trusted();
    let leasehold = builder.flag("--limits-login-wait", "60s").start().await;
    leasehold.wait_ready().await;
    let role = db.roles().await.remove(0);
    way.set(Mode::HoldToClient).await;
    let config = leasehold.config("app", db.name());
    let login = tokio::spawn(async move { config.connect(tokio_postgres::NoTls).await });
    eventually(SOON, async || same(db.backends().await, [Some(role.clone())])).await;

    leasehold.suspend();
    eventually(SOON * 6, async || same(db.roles().await.contains(&role), false)).await;
    way.set(Mode::Pass).await;
    leasehold.resume();

    let (client, connection) = tokio::time::timeout(SOON, login).await.unwrap().unwrap().expect("it gets in");
    tokio::spawn(connection);
    let user: String = client.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
    assert_ne!(user, role);
    eventually(SOON, async || same(db.backends().await, [Some(user.clone())])).await;
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("sessions_opened_total", &[]), 1.0);
    assert_eq!(metrics.get("sessions_closed_total", &[]), 0.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_suspended_for_less_than_its_lease_renews_and_nobody_notices() {
    // Renewed after 25 s at the latest, used for 37 s.
    let spec = Spec::new("app").ttl("40s", "1h");
    let scene = Scene::with(&bench().postgres().await, spec, Builder::upstream).await;
    let vault = bench().vault().await;
    let session = scene.session().await;
    let user = session.user().await;
    let lease = vault.leases(&scene.setup.path).await.remove(0);
    let left = async || vault.lease(&lease).await.unwrap()["ttl"].as_u64().unwrap();

    scene.leasehold.suspend();
    // A renewal is due, and 11 s are left for it.
    eventually(SOON * 6, async || if left().await <= 14 { Ok(()) } else { Err("it has longer") }).await;
    scene.leasehold.resume();

    eventually(SOON, async || if left().await > 25 { Ok(()) } else { Err("it was not renewed") }).await;
    assert_eq!(session.user().await, user);
    assert_eq!(scene.session().await.user().await, user);
    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[]), 1.0);
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "lease_end")]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_nothing_is_doubted_and_all_goes_on_when_there_are_some() {
    let vault = bench().vault().await;
    let between = vault.forwarder().await;
    // Renewed after 25 s at the latest, used for 37 s.
    let backends = Backends::with_vault(vault, Spec::new("app").ttl("40s", "1h")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold_through(&between).start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let user = session.user().await;

    // Enough for a client, not for its upstream.
    for _ in 0..3 {
        let error = eventually(SOON, async || {
            leasehold.leave_files(1);
            // A descriptor that was only just given back may still serve.
            leasehold.try_connect("app", db.name()).await.err().ok_or("it got in")
        })
        .await;
        let error = error.as_db_error().expect("an answer");
        assert_eq!(error.code().code(), "53300");
        assert_eq!(error.message(), "the proxy has no file descriptors left");
        assert!(error.hint().is_some());
    }

    // None at all, and Vault has hung up: it would have to be dialled.
    let renewed = async || leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]);
    let before = renewed().await;
    between.cut();
    eventually(SOON * 6, async || {
        leasehold.leave_files(0);
        assert_eq!(session.user().await, user, "who is in goes on");
        let failed = leasehold.log().messages("could not renew").len();
        if failed > 0 { Ok(()) } else { Err("no renewal yet") }
    })
    .await;
    leasehold.limit(Resource::Nofile, None);
    assert_eq!(leasehold.log().messages("cannot accept clients, retrying").len(), 0, "no client waited");

    eventually(SOON, async || same(renewed().await > before, true)).await;
    assert_eq!(leasehold.connect("app", db.name()).await.user().await, user);
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("login_failures_total", &[("reason", "limit")]) >= 3.0);
    assert!(metrics.get("renewals_total", &[("outcome", "failed")]) >= 1.0);
    for (name, wanted) in [("suspect_logins_total", 0.0), ("rotations_total", 0.0), ("issuances_total", 1.0)]
    {
        assert_eq!(metrics.get(name, &[]), wanted, "{name}");
    }
    assert_eq!(leasehold.http("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_may_not_grow_costs_lines_that_are_counted_and_nothing_else() {
    let scene = Scene::on(&bench().postgres().await).await;
    let dropped = async || scene.leasehold.metrics().await.get("log_lines_dropped_total", &[]);
    assert_eq!(dropped().await, 0.0);
    let before = scene.session().await;
    // In the middle of the next line.
    let full = std::fs::metadata(scene.leasehold.directory().join("log")).unwrap().len() + 40;
    scene.leasehold.limit(Resource::Fsize, Some(full));

    scene.rotate(&[]).await;
    assert_ne!(scene.session().await.user().await, before.user().await);
    assert_eq!(before.value("SELECT 1").await, "1");
    eventually(SOON, async || same(dropped().await >= 3.0, true)).await;
    assert_eq!(scene.leasehold.http("/readyz").await.status, 200);

    scene.leasehold.limit(Resource::Fsize, None);
    scene.session().await.close().await;
    eventually(SOON, async || {
        let log = scene.leasehold.log();
        let spoilt =
            log.0.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
        same((log.messages("session closed").len(), spoilt <= 1), (1, true))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_holds_nobody_up() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app")).await;
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut running = OnSockets::start(&db, &vault, &setup, full.into(), &[]).await;

    assert_eq!(running.connect("app", db.name()).await.value("SELECT 1").await, "1");
    assert!(running.command(&["rotate"]).await.status.success());
    assert_eq!(running.connect("app", db.name()).await.value("SELECT 2").await, "2");
    eventually(SOON, async || same(running.metric("leasehold_log_lines_dropped_total").await >= 3.0, true))
        .await;
    assert!(running.command(&["shutdown", "--wait"]).await.status.success());
    assert_eq!(running.wait_exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_that_had_no_room_is_written_as_soon_as_it_has() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let memory = Memory::new();
    let path = memory.file();
    let describe = || backends.leasehold().flag("--state-file", path.to_str().unwrap());
    let mut first = describe().start().await;
    first.wait_ready().await;
    let before = first.connect("app", db.name()).await.user().await;
    first.limit(Resource::Fsize, Some(10));

    first.rotate().await;
    let session = first.connect("app", db.name()).await;
    let user = session.user().await;
    assert_ne!(user, before, "it serves on");
    // From here on nothing happens that would have to be written.
    eventually(SOON, async || same(db.roles().await, [user.clone()])).await;
    eventually(SOON, async || same(first.generations().await.len(), 1)).await;
    let saved = || std::fs::read_to_string(&path).unwrap_or_default();
    assert!(saved().contains(&before) && !saved().contains(&user), "the file says what was");
    first.limit(Resource::Fsize, None);

    eventually(SOON, async || same(saved().contains(&user), true)).await;
    first.kill9();
    let second = describe().start().await;
    second.wait_ready().await;
    assert_eq!(second.connect("app", db.name()).await.user().await, user, "it is taken up");
    assert_eq!(second.metrics().await.get("issuances_total", &[]), 0.0);
}
