//! Few file descriptors, or none: what keeps leases alive has its own, and clients are told when there are none for them.

use std::time::Duration;

use rustix::process::Resource;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{Backends, Builder, Leasehold, Raw, SOON, Scene, Spec, bench, eventually, key, same};

const TOLD: &str = "the proxy has no file descriptors left";

#[tokio::test(flavor = "multi_thread")]
async fn with_a_low_limit_clients_are_turned_away_and_no_lease_ends() {
    // Used for 21 s, if it is not renewed. Renewals are 12.6 s apart at least, the first excepted.
    let spec = Spec::new("app").ttl("24s", "1h");
    let began = Instant::now();
    let scene = Scene::with(&bench().postgres().await, spec, |builder, db| {
        Builder::upstream(builder, db).limit_files(64)
    })
    .await;
    let mut sessions = Vec::new();
    for _ in 0..50 {
        match scene.leasehold.try_connect("app", scene.db.name()).await {
            Ok(session) => sessions.push(session),
            Err(error) => {
                let error = error.as_db_error().expect("an answer");
                assert_eq!((error.code().code(), error.message()), ("53300", TOLD));
            }
        }
    }
    assert!((8..=20).contains(&sessions.len()), "{} got in", sessions.len());
    let user = sessions[0].user().await;

    let renewed = async || scene.leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]) >= 3.0;
    eventually(SOON * 8, async || same(renewed().await, true)).await;

    assert!(began.elapsed() > Duration::from_secs(24), "longer than a lease");
    for session in &sessions {
        assert_eq!(session.user().await, user);
    }
    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("renewals_total", &[("outcome", "failed")]), 0.0);
    assert_eq!(metrics.get("sessions_closed_total", &[]), 0.0);
    assert_eq!(
        metrics.get("login_failures_total", &[("route", "app"), ("reason", "limit")]),
        50.0 - sessions.len() as f64
    );
    // A fresh credential is issued, proved and published all the same.
    scene.rotate(&[]).await;
    let gone = sessions.pop();
    drop(gone);
    eventually(SOON, async || scene.leasehold.try_connect("app", scene.db.name()).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_count_and_keep_no_probe_and_no_command_waiting() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    // Those that say nothing keep their places for as long as this takes.
    let builder = backends.leasehold().limit_files(64);
    let leasehold = builder.flag("--limits-handshake-timeout", "5m").start().await;
    leasehold.wait_ready().await;
    let (mut running, frames) = Raw::login(leasehold.addr(), "app", db.name()).await;
    let cancel = key(&frames);
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(TcpStream::connect(leasehold.addr()).await.unwrap());
    }
    let silent_http = TcpStream::connect(&leasehold.listening("http")[0]).await.unwrap();

    for _ in 0..5 {
        assert_eq!(leasehold.http("/livez").await.status, 200);
        assert_eq!(leasehold.status().await["state"], "serving");
        leasehold.rotate().await;
    }
    // Whoever says what it wants is told that there is no room, and a cancel works.
    assert_told(&leasehold, db.name()).await;
    running.send('Q', b"SELECT pg_sleep(600)\0").await;
    eventually(SOON, async || same(db.backends().await.len(), 1)).await;
    assert!(Raw::cancel(leasehold.addr(), &cancel).await);
    let told = running.until("Z").await;
    assert!(told.iter().any(|frame| frame.tag == 'E' && frame.sqlstate() == "57014"), "{told:?}");
    let warned = "the limit of open files leaves no room for more clients: they get 53300; raise it";
    assert_eq!(leasehold.log().messages(warned).len(), 1, "once is enough");
    assert!(leasehold.log().messages("cannot accept clients, retrying").is_empty());
    assert!(leasehold.log().messages("cannot accept, retrying").is_empty());

    drop((silent, silent_http));
    eventually(SOON, async || leasehold.try_connect("app", db.name()).await.map(drop)).await;
}

/// There is no room for a client, and it is told so.
async fn assert_told(leasehold: &Leasehold, database: &str) {
    let error = leasehold.try_connect("app", database).await.err().expect("there is no room");
    let error = error.as_db_error().expect("an answer");
    assert_eq!((error.code().code(), error.message()), ("53300", TOLD));
    assert!(error.hint().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let describe = || backends.leasehold();
    let leasehold = describe().limit_files_softly(40, 1_000).start().await;
    leasehold.wait_ready().await;
    let mut sessions = Vec::new();
    for _ in 0..30 {
        sessions.push(leasehold.connect("app", db.name()).await);
    }
    let said = leasehold.log().messages("the limit of open files leaves room for so many clients");
    assert_eq!((said.len(), &said[0]["limit"]), (1, &1_000.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_descriptor_it_waits_and_then_goes_on() {
    let scene = Scene::on(&bench().postgres().await).await;
    let leasehold = &scene.leasehold;
    let session = scene.session().await;
    // An operator may lower the limit while it runs.
    leasehold.limit(Resource::Nofile, Some(64));
    let mut others = Vec::new();
    let error = eventually(SOON, async || match leasehold.try_connect("app", scene.db.name()).await {
        Ok(other) => {
            others.push(other);
            Err("it got in")
        }
        Err(error) => Ok(error),
    })
    .await;
    assert_eq!(error.as_db_error().expect("an answer").message(), TOLD);
    assert!(others.len() < 20, "{}", others.len());
    drop(others);
    // Whatever is free by then is taken by the first ones.
    leasehold.leave_files(0);
    let (mut clients, mut probes) = (Vec::new(), Vec::new());
    let refused = async |listener: &str, message: &str, taken: &mut Vec<TcpStream>| {
        eventually(SOON, async || {
            leasehold.leave_files(0);
            taken.push(TcpStream::connect(&leasehold.listening(listener)[0]).await.unwrap());
            same(leasehold.log().messages(message).is_empty(), false)
        })
        .await;
    };
    refused("client", "cannot accept clients, retrying", &mut clients).await;
    refused("http", "cannot accept, retrying", &mut probes).await;
    assert_eq!(session.value("SELECT 1").await, "1", "who is in goes on");
    let busy = || {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", leasehold.pid())).unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (ticks, since) = (busy(), Instant::now());
    // The loops that accept must not spin: a second of it would be a hundred ticks.
    eventually(SOON, async || same(since.elapsed() > Duration::from_secs(1), true)).await;
    assert!(busy() - ticks < 60, "{} ticks", busy() - ticks);
    assert_eq!(leasehold.log().messages("cannot accept, retrying").len(), 1, "once is enough");
    drop((clients, probes));
    leasehold.limit(Resource::Nofile, None);

    eventually(SOON, async || leasehold.try_connect("app", scene.db.name()).await.map(drop)).await;
    assert_eq!(leasehold.http("/livez").await.status, 200);
    assert_eq!(session.value("SELECT 2").await, "2");
}
