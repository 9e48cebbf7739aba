//! A server that stops, dies, is full, is given another certificate, or speaks another language; a role that is changed by hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::Instant;

use super::{drew_nothing, sqlstate};
use crate::harness::{
    Authority, Backends, Builder, Files, Leasehold, SOON, Scene, Server, Session, Spec, bench, eventually,
    same,
};

async fn scene_on(server: &Server) -> Scene {
    Scene::with(server, Spec::new("app"), |builder, db| builder.upstream(db)).await
}

/// A server of the test's own that forgets nothing it has acknowledged, as others here may.
async fn durable() -> Server {
    bench().own_postgres(json!({"conf": {"synchronous_commit": "on"}})).await
}

/// The process of a session's server side.
async fn backend(session: &Session) -> Pid {
    pid(&session.value("SELECT pg_backend_pid()").await)
}

fn pid(number: &str) -> Pid {
    number.trim().parse().ok().and_then(Pid::from_raw).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_log_in_any_more_is_replaced_and_no_client_sees_it() {
    let server = bench().postgres().await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| {
        // As long as a credential may be unknown to a host, a refusal is not held against it.
        builder.upstream(db).flag("--limits-replica-grace", "1s")
    })
    .await;
    let old = scene.session().await;
    let old_user = old.user().await;
    scene.db.admin.batch_execute(&format!("ALTER ROLE \"{old_user}\" NOLOGIN")).await.unwrap();

    let fresh = scene.session().await;

    assert_ne!(fresh.user().await, old_user);
    assert_eq!(old.user().await, old_user, "its lease lives, and its session with it");
    let metrics = scene.leasehold.metrics().await;
    assert!(metrics.get("suspect_logins_total", &[]) >= 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    assert_eq!(metrics.get("rotations_total", &[("reason", "refused")]), 1.0);
    assert_eq!(metrics.get("sessions_closed_total", &[]), 0.0);
    assert_eq!(scene.leasehold.http("/readyz").await.status, 200);
    let states: Vec<_> = scene.leasehold.generations().await.iter().map(|g| g["state"].clone()).collect();
    assert_eq!(states, ["retiring", "current"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_database_that_refuses_a_good_credential_says_so_itself_and_nothing_is_replaced() {
    // The roles have MD5 secrets, and one database demands SCRAM.
    let hba = ["host otherdb all all scram-sha-256", "host all all all md5"];
    let options = json!({"conf": {"password_encryption": "md5"}, "hba": hba});
    let server = bench().own_postgres(options).await;
    server.superuser("postgres").await.batch_execute("CREATE DATABASE otherdb").await.unwrap();
    let describe =
        |builder: Builder, db: &_| builder.upstream(db).flag("--require-auth", "scram-sha-256,md5");
    let scene = Scene::with(&server, Spec::new("app"), describe).await;
    let user = scene.session().await.user().await;
    let other = || scene.leasehold.try_connect("app", "otherdb");

    let begun = Instant::now();
    let mut tries = 0.0;
    while tries < 30.0 || begun.elapsed() < Duration::from_secs(11) {
        let (refused, another) = tokio::join!(other(), other());
        for refused in [refused, another] {
            let refused = refused.err().expect("MD5 is not SCRAM");
            let told = refused.as_db_error().expect("an answer");
            assert_eq!((told.code().code(), told.routine()), ("28P01", Some("auth_failed")), "{told:?}");
        }
        tries += 1.0;
    }

    assert_eq!(scene.session().await.user().await, user);
    drew_nothing(&scene.leasehold).await;
    let metrics = scene.leasehold.metrics().await;
    let proofs = metrics.get("proofs_total", &[]);
    assert!(proofs <= 3.0 + begun.elapsed().as_secs_f64() / 5.0, "{proofs} proofs of {tries} tries");
    assert_eq!(metrics.get("proofs_total", &[("outcome", "ok")]), proofs);
    assert_eq!(metrics.get("login_failures_total", &[("reason", "upstream_error")]), tries * 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_or_is_killed_costs_its_sessions_and_no_credential() {
    for how in ["fast", "immediate", "KILL"] {
        let scene = scene_on(&durable().await).await;
        let (session, direct) = (scene.session().await, scene.db.server.superuser("postgres").await);
        let user = session.user().await;
        scene.db.server.stop(how).await;

        // What the server says at its end, or that it says nothing, as without a proxy.
        let last = direct.ended().await;
        assert_eq!(session.ended().await, last, "{how}");
        assert!(how != "fast" || last.as_deref() == Some("57P01"), "{last:?}");
        let refused = scene.leasehold.try_connect("app", scene.db.name()).await.err().unwrap();
        assert_eq!(sqlstate(&refused), "08001", "{how}");
        // Readiness asks for a credential, which is there; that there is no server is said beside it.
        let server = scene.db.server.addr();
        says_why(&scene.leasehold, &format!("{server}: cannot reach the upstream server: ")).await;
        scene.db.server.restart().await;
        // No client has to come for that.
        no_longer_says_why(&scene.leasehold).await;

        let again = scene.session().await;
        assert_eq!(again.user().await, user, "{how}: the lease is kept");
        drew_nothing(&scene.leasehold).await;
        let metrics = scene.leasehold.metrics().await;
        assert_eq!(metrics.get("login_failures_total", &[("reason", "unreachable")]), 1.0, "{how}");
        assert_eq!(scene.closed("upstream").await, 1.0, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_killed_takes_the_others_along_and_new_logins_get_in() {
    let scene = scene_on(&durable().await).await;
    let (victim, neighbour) = (scene.session().await, scene.session().await);
    let direct = scene.db.server.superuser("postgres").await;
    let user = neighbour.user().await;
    let killed = backend(&victim).await;
    // As the kernel does when memory runs out.
    kill_process(killed, Signal::KILL).unwrap();

    assert_eq!(victim.ended().await, None, "nobody is left who could say anything");
    assert_eq!(neighbour.ended().await, direct.ended().await, "as without a proxy");
    // While the server recovers, it says so itself.
    let again = eventually(SOON, async || {
        let answer = scene.leasehold.try_connect("app", scene.db.name()).await;
        answer.inspect_err(|refused| {
            assert!(["57P03", "08001", "08006"].contains(&sqlstate(refused)), "{refused:?}");
        })
    })
    .await;
    assert_eq!(again.user().await, user);
    drew_nothing(&scene.leasehold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_shuts_down_tells_new_logins_itself() {
    let scene = scene_on(&durable().await).await;
    let session = scene.session().await;
    let user = session.user().await;
    let watcher = scene.db.server.superuser("postgres").await;
    let postmaster = watcher.value("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)").await;
    // It waits for its sessions, and takes no more.
    kill_process(pid(&postmaster), Signal::TERM).unwrap();

    eventually(SOON, async || {
        let answer = scene.leasehold.try_connect("app", scene.db.name()).await;
        let refused = answer.err().ok_or("it still takes logins")?;
        let told =
            refused.as_db_error().map(|told| (told.code().code().to_owned(), told.message().to_owned()));
        let own = ("57P03".to_owned(), "the database system is shutting down".to_owned());
        if told == Some(own) { Ok(()) } else { Err("another error") }
    })
    .await;

    assert_eq!(session.value("SELECT 1").await, "1", "the session goes on");
    session.close().await;
    drop(watcher);
    scene.db.server.restart().await;
    assert_eq!(scene.session().await.user().await, user);
    drew_nothing(&scene.leasehold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_out_of_connections_says_so_itself_and_no_credential_is_drawn() {
    let server = bench().own_postgres(json!({"conf": {"max_connections": "14"}})).await;
    let scene = scene_on(&server).await;
    let mut sessions = vec![scene.session().await];
    let user = sessions[0].user().await;
    let refused = loop {
        match scene.leasehold.try_connect("app", scene.db.name()).await {
            Ok(session) => sessions.push(session),
            Err(refused) => break refused,
        }
        assert!(sessions.len() < 14, "it takes more than it may");
    };

    let told = refused.as_db_error().unwrap();
    assert_eq!(told.code().code(), "53300");
    assert_eq!(told.routine(), Some("InitPostgres"), "it is the server's own: {told:?}");
    let full = format!("{}: upstream server refused with 53300 (too_many_connections)", server.addr());
    says_why(&scene.leasehold, &full).await;
    sessions.pop().unwrap().close().await;
    no_longer_says_why(&scene.leasehold).await;
    let again = eventually(SOON, async || scene.leasehold.try_connect("app", scene.db.name()).await).await;
    assert_eq!(again.user().await, user);
    drew_nothing(&scene.leasehold).await;
    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("suspect_logins_total", &[]), 0.0);
    let failures = metrics.get("login_failures_total", &[]);
    assert_eq!(metrics.get("login_failures_total", &[("reason", "upstream_error")]), failures);
}

/// A server that no role but a superuser can log in to any more, before leasehold has seen it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_at_the_start_is_shown_before_any_client_comes() {
    let server = bench().own_postgres(json!({"conf": {"max_connections": "14"}})).await;
    let backends = Backends::on(&server, Spec::new("app")).await;
    // Vault keeps its connection.
    let (user, password) = backends.db.vault_user();
    let mut sessions = Vec::new();
    let refused = loop {
        match server.login(&user, password, backends.db.name()).await {
            Ok(session) => sessions.push(session),
            Err(refused) => break refused,
        }
        assert!(sessions.len() < 14, "it takes more than it may");
    };
    assert_eq!(sqlstate(&refused), "53300");

    let leasehold = backends.leasehold().start().await;

    leasehold.wait_ready().await;
    let full = format!("{}: upstream server refused with 53300 (too_many_connections)", server.addr());
    eventually(SOON, async || same(why(&leasehold).await.contains(&full), true)).await;
    says_why(&leasehold, &full).await;
    assert_eq!(leasehold.metrics().await.get("login_failures_total", &[]), 0.0, "no client has come");
    sessions.pop().unwrap().close().await;
    no_longer_says_why(&leasehold).await;
    let log = leasehold.log();
    assert_eq!(log.messages("no server gives sessions").len(), 1, "one line a change, not one a try");
    assert_eq!(log.messages("a server gives sessions again").len(), 1);
}

/// A database with a limit of its own is full for its clients, and the server gives sessions in others.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_is_no_full_server() {
    let scene = scene_on(&bench().postgres().await).await;
    let full = format!("{}_full", scene.db.name());
    let admin = &scene.db.admin;
    admin.batch_execute(&format!("CREATE DATABASE {full} CONNECTION LIMIT 0")).await.unwrap();

    let Err(refused) = scene.leasehold.try_connect("app", &full).await else { panic!("it is full") };

    assert_eq!(refused.as_db_error().unwrap().routine(), Some("CheckMyDatabase"), "{refused:?}");
    eventually(SOON, async || same(scene.leasehold.metrics().await.get("login_failures_total", &[]), 1.0))
        .await;
    assert_eq!(why(&scene.leasehold).await, "");
    admin.batch_execute(&format!("DROP DATABASE {full}")).await.unwrap();
}

/// Why no server gives sessions, as the status has it; empty where one does.
async fn why(leasehold: &Leasehold) -> String {
    let status = leasehold.status().await;
    status["routes"][0]["upstream_error"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// It is ready, and both status and readiness say why there is no session to be had.
async fn says_why(leasehold: &Leasehold, reason: &str) {
    let shown = why(leasehold).await;
    assert!(shown.contains(reason), "{shown:?}, not {reason:?}");
    assert_eq!(leasehold.status().await["routes"][0]["ready"], true);
    let ready = leasehold.http("/readyz").await;
    let detail = "; no server gives sessions (";
    assert!(ready.text.contains(detail) && ready.text.contains(reason), "{ready:?}");
    assert_eq!(ready.status, 200);
    let table = leasehold.command(&["status"]).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("app: no server gives sessions, "), "{table}");
}

async fn no_longer_says_why(leasehold: &Leasehold) {
    eventually(SOON * 2, async || same(why(leasehold).await, String::new())).await;
    let ready = leasehold.http("/readyz").await;
    assert!(ready.status == 200 && !ready.text.contains("no server"), "{ready:?}");
}

/// A server with TLS whose certificate is changed while it runs.
struct Changing {
    backends: Backends,
    data: PathBuf,
}

impl Changing {
    async fn new(files: &Files) -> Self {
        let ssl = json!({"cert": files.cert, "key": files.key, "ca": files.cert});
        let server = bench().own_postgres(json!({"version": "18", "ssl": ssl})).await;
        let backends = Backends::on(&server, Spec::new("app")).await;
        let data = PathBuf::from(backends.db.admin.value("SHOW data_directory").await);
        Self { backends, data }
    }

    /// Puts other files in place, as an administrator does, and has the server read them.
    async fn change(&self, files: &Files) {
        // Written over, so that they stay the server's own.
        for (from, to) in [(&files.cert, "server.cert"), (&files.key, "server.key")] {
            std::fs::write(self.data.join(to), std::fs::read(from).unwrap()).unwrap();
        }
        let since = self.backends.db.server.log().len();
        self.backends.db.admin.value("SELECT pg_reload_conf()").await;
        let log = || self.backends.db.server.log().split_off(since);
        eventually(SOON, async || same(log().contains("received SIGHUP, reloading"), true)).await;
        assert!(!log().contains("SSL configuration was not reloaded"), "{}", log());
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_checked_at_the_next_login_and_sessions_run_on() {
    let directory = bench().directory().await;
    let (ours, theirs) = (Authority::new(&directory, "ca"), Authority::new(&directory, "other-ca"));
    let server = Changing::new(&ours.issue("before", 1)).await;
    let trusted = directory.join("trusted.pem");
    std::fs::copy(&ours.ca, &trusted).unwrap();
    let uri = format!("postgresql://{}/?sslrootcert={}", server.backends.db.server.addr(), shown(&trusted));
    let leasehold = server.backends.leasehold_at(&uri).start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", server.backends.db.name()).await;
    let user = session.user().await;
    let closed = async |answer: Result<Session, tokio_postgres::Error>| {
        let refused = answer.err().ok_or("it gets in")?;
        let told = refused.as_db_error().unwrap();
        same((told.code().code(), told.message()), ("08001", "no TLS with the upstream server"))
            .map_err(|_| "another error")
    };

    // The postmaster reads its files a moment after the signal.
    server.change(&theirs.issue("stranger", 2)).await;
    eventually(SOON, async || closed(leasehold.try_connect("app", server.backends.db.name()).await).await)
        .await;
    assert_eq!(session.user().await, user, "an open session is not asked again");
    says_why(&leasehold, "no TLS with the upstream server: ").await;

    server.change(&ours.issue("after", 3)).await;
    let renewed = eventually(SOON, async || {
        leasehold.try_connect("app", server.backends.db.name()).await.map_err(drop)
    })
    .await;
    assert_eq!(renewed.user().await, user);

    // Another CA is trusted once a reload has read its file.
    server.change(&theirs.issue("theirs", 4)).await;
    eventually(SOON, async || closed(leasehold.try_connect("app", server.backends.db.name()).await).await)
        .await;
    let both = [std::fs::read(&ours.ca).unwrap(), std::fs::read(&theirs.ca).unwrap()].concat();
    std::fs::write(&trusted, both).unwrap();
    assert!(leasehold.command(&["reload"]).await.status.success());
    assert_eq!(leasehold.connect("app", server.backends.db.name()).await.user().await, user);
    drew_nothing(&leasehold).await;
    assert_eq!(leasehold.metrics().await.get("suspect_logins_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_german_is_understood_by_its_sqlstates() {
    // With this the messages of the C.UTF-8 locale are German, where the server's package has them.
    let options = json!({"env": {"LANGUAGE": "de"}, "conf": {"lc_messages": "C.UTF-8"}});
    let server = bench().own_postgres(options).await;
    let refused = server.login("nobody", "x", "postgres").await.err().unwrap();
    if !refused.as_db_error().unwrap().message().starts_with("Passwort-Authentifizierung") {
        eprintln!("not shown: this PostgreSQL has no German messages");
        return;
    }
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--limits-replica-grace", "1s")
    })
    .await;
    let first = scene.session().await;
    let first_user = first.user().await;

    // 28P01, and 42704 of Vault's renewal.
    scene.db.drop_role(&first_user).await;
    let second = scene.session().await;
    assert_ne!(second.user().await, first_user);
    assert_eq!(first.ended().await.as_deref(), Some("57P01"));
    // 28000 of a role that may not log in.
    let second_user = second.user().await;
    scene.db.admin.batch_execute(&format!("ALTER ROLE \"{second_user}\" NOLOGIN")).await.unwrap();
    assert_ne!(scene.session().await.user().await, second_user);

    let metrics = scene.leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "revoked")]), 1.0);
    assert_eq!(metrics.get("rotations_total", &[("reason", "refused")]), 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    // What is not about the credential passes in the server's own words.
    let refused = scene.leasehold.try_connect("app", "nirgends").await.err().unwrap();
    let told = refused.as_db_error().unwrap();
    assert_eq!((told.code().code(), told.message()), ("3D000", "Datenbank »nirgends« existiert nicht"));
}
