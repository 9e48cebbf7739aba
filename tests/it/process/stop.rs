//! How it ends: SIGTERM in its phases, `/quitquitquit`, the second signal, other signals, and a kill.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{Backends, Builder, Fault, Mode, Raw, SOON, Spec, eventually, leasehold, same};
use crate::process::OnSockets;

impl Backends {
    /// leasehold may revoke leases.
    async fn that_may_revoke() -> Self {
        Self::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await
    }

    /// A leasehold that takes so long to stop.
    fn stopping(&self, min: &str, max: &str) -> Builder {
        self.leasehold().flag("--min-sigterm-delay", min).flag("--max-sigterm-delay", max)
    }

    /// Nothing is left in Vault and none of its roles in the database.
    async fn assert_given_back(&self) {
        assert!(self.vault.leases(&self.setup.path).await.is_empty());
        assert!(self.db.roles().await.is_empty());
    }
}

async fn accepts(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_minimum_it_is_not_ready_but_lets_clients_in_and_then_closes_idle_sessions_alone() {
    let backends = Backends::that_may_revoke().await;
    let db = &backends.db;
    let mut leasehold = backends.stopping("8s", "60s").start().await;
    leasehold.wait_ready().await;
    let idle = leasehold.connect("app", db.name()).await;
    let (mut busy, _) = Raw::login(leasehold.addr(), "app", db.name()).await;
    busy.query("BEGIN; CREATE TABLE kept (x int)").await;

    let asked_at = Instant::now();
    leasehold.sigterm();

    eventually(SOON, async || same(leasehold.http("/readyz").await.status, 503)).await;
    let ready = leasehold.http("/readyz").await;
    assert!(ready.text.starts_with("shutting down\n"), "{ready:?}");
    assert_eq!(leasehold.status().await["state"], "draining");
    assert_eq!(leasehold.http("/livez").await.status, 200);
    assert_eq!(leasehold.http("/startup").await.status, 200);
    let late = leasehold.connect("app", db.name()).await;
    assert_eq!(late.value("SELECT 1").await, "1");
    assert_eq!(idle.value("SELECT 2").await, "2");

    assert_eq!(idle.ended_within(SOON * 2).await.as_deref(), Some("57P01"));
    assert!(asked_at.elapsed() >= Duration::from_secs(8));
    assert_eq!(late.ended().await.as_deref(), Some("57P01"));
    eventually(SOON, async || same(accepts(leasehold.addr()).await, false)).await;
    let inserted = busy.query("INSERT INTO kept VALUES (1)").await;
    assert!(inserted.iter().any(|frame| frame.tag == 'C'), "the open transaction goes on: {inserted:?}");
    // It is still there to be asked.
    eventually(SOON, async || same(leasehold.status().await["routes"][0]["sessions"].clone(), 1)).await;

    busy.send('Q', b"COMMIT\0").await;
    let committed = busy.until("E").await;
    let tags: String = committed.iter().map(|frame| frame.tag).collect();
    assert!(tags.ends_with("CZE"), "it commits, is told so, and only then ended: {tags}");
    assert_eq!(committed.last().unwrap().fields()[&'C'], "57P01");
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    assert_eq!(db.admin.value("SELECT count(*) FROM kept").await, "1");
    backends.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_maximum_a_session_is_closed_whatever_it_does() {
    let backends = Backends::that_may_revoke().await;
    let mut leasehold = backends.stopping("0s", "1s").start().await;
    leasehold.wait_ready().await;
    let (mut open, _) = Raw::login(leasehold.addr(), "app", backends.db.name()).await;
    open.query("BEGIN").await;
    let (mut running, _) = Raw::login(leasehold.addr(), "app", backends.db.name()).await;
    running.send('Q', b"SELECT pg_sleep(600)\0").await;

    let asked_at = Instant::now();
    leasehold.sigterm();

    for session in [&mut open, &mut running] {
        let last = session.until("E").await.pop().unwrap();
        assert_eq!(last.fields()[&'C'], "57P01", "{last:?}");
        assert_eq!(session.recv().await, None);
    }
    assert!(asked_at.elapsed() >= Duration::from_secs(1));
    assert_eq!(leasehold.wait_exit().await.code(), Some(0), "also after forced closes");
    assert!(backends.db.backends().await.is_empty(), "the running statement was cancelled");
    backends.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_client_that_says_nothing_nor_a_login_that_hangs_holds_up_the_stop() {
    let backends = Backends::that_may_revoke().await;
    let hangs = Fault::before(&backends.db.server.addr()).await;
    let mut leasehold = leasehold()
        .upstream_uri(&format!("postgresql://{}/?sslmode=disable", hangs.addr()))
        .vault(&backends.vault)
        .login(&backends.setup)
        .flag("--max-sigterm-delay", "600s")
        .flag("--limits-handshake-timeout", "600s")
        .flag("--limits-connect-timeout", "600s")
        .flag("--limits-login-wait", "600s")
        .start()
        .await;
    leasehold.wait_ready().await;
    let mut silent = leasehold.connect_raw().await;
    let mut half = leasehold.connect_raw().await;
    half.write(&[0, 0, 0, 30, 0, 3]).await;
    hangs.set(Mode::Blackhole).await;
    let dialled = hangs.recordings().len();
    let mut waiting = leasehold.connect_raw().await;
    waiting.startup(Raw::PROTOCOL_3_0, &[("user", "app"), ("database", backends.db.name())]).await;
    eventually(SOON, async || same(hangs.recordings().len() > dialled, true)).await;

    leasehold.sigterm();

    let told = waiting.until("E").await.pop().unwrap();
    assert_eq!(told.sqlstate(), "57P01", "{told:?}");
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    assert_eq!(silent.recv().await, None);
    assert_eq!(half.recv().await, None);
    backends.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_term_ends_it_now() {
    let backends = Backends::that_may_revoke().await;
    let mut leasehold = backends.stopping("600s", "600s").start().await;
    leasehold.wait_ready().await;
    let (mut session, _) = Raw::login(leasehold.addr(), "app", backends.db.name()).await;
    session.query("BEGIN").await;
    let role = backends.db.roles().await.remove(0);
    leasehold.sigterm();
    eventually(SOON, async || same(leasehold.http("/readyz").await.status, 503)).await;

    leasehold.sigterm();

    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    session.until("E").await;
    assert_eq!(session.recv().await, None);
    let log = leasehold.log();
    let waits = log.lines().into_iter().find(|line| line["message"].to_string().contains("a second signal"));
    let waits = waits.expect("the first signal says what is waited for");
    assert_eq!((&waits["sessions"], &waits["leases"]), (&1.into(), &1.into()), "{waits}");
    let left = log.messages("left to lapse").remove(0);
    assert_eq!(left["lease.role"].as_str(), Some(role.as_str()), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_hook_and_the_signal_behind_it_are_one_request() {
    let backends = Backends::that_may_revoke().await;
    let mut leasehold = backends.stopping("0s", "60s").start().await;
    leasehold.wait_ready().await;
    let (mut session, _) = Raw::login(leasehold.addr(), "app", backends.db.name()).await;
    session.query("BEGIN").await;
    for _ in 0..2 {
        assert_eq!(leasehold.admin(reqwest::Method::POST, "/quitquitquit").await.status, 200);
    }
    leasehold.sigterm();
    eventually(SOON, async || same(leasehold.log().messages("shutdown requested").len(), 3)).await;
    assert_eq!(session.query("SELECT 1").await.len(), 4, "the transaction goes on");
    session.send('Q', b"COMMIT\0").await;
    session.until("E").await;
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    backends.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_pipes_unknown_signals_and_unread_replies_do_not_end_it() {
    let backends = Backends::that_may_revoke().await;
    let Backends { db, vault, setup } = &backends;
    let mut running = OnSockets::start(db, vault, setup, Stdio::null(), &[]).await;
    let session = running.connect("app", db.name()).await;
    for signal in [Signal::PIPE, Signal::USR1, Signal::USR2, Signal::ALARM] {
        running.signal(signal);
    }
    drop(tokio::net::UnixStream::connect(running.client_socket()).await.unwrap());
    assert_eq!(session.value("SELECT 1").await, "1");
    assert!(running.child.try_wait().unwrap().is_none());

    running.signal(Signal::INT);
    assert_eq!(running.wait_exit().await.code(), Some(0));
    assert!(!running.client_socket().exists(), "its files are removed");
    assert!(!running.admin_socket().exists());
    backends.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_means_nothing_is_said_to_and_quit_ends_it_as_term_does() {
    let backends = Backends::that_may_revoke().await;
    let mut leasehold = backends.stopping("0s", "60s").start().await;
    leasehold.wait_ready().await;
    let (mut session, _) = Raw::login(leasehold.addr(), "app", backends.db.name()).await;
    session.query("BEGIN").await;
    for (signal, name) in [(Signal::USR1, "USR1"), (Signal::USR2, "USR2")] {
        leasehold.signal(signal);
        eventually(SOON, async || {
            let ignored = leasehold.log().messages("this signal means nothing to leasehold and is ignored");
            same(ignored.iter().any(|line| line["signal"] == name), true)
        })
        .await;
    }

    leasehold.signal(Signal::QUIT);

    eventually(SOON, async || same(leasehold.http("/readyz").await.status, 503)).await;
    assert_eq!(session.query("SELECT 1").await.len(), 4, "the transaction goes on");
    session.send('Q', b"COMMIT\0").await;
    session.until("E").await;
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    backends.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_closes_ends_in_order_what_has_no_file_to_read_again() {
    let backends = Backends::that_may_revoke().await;
    let mut leasehold = backends.stopping("0s", "60s").start().await;
    leasehold.wait_ready().await;
    let (mut session, _) = Raw::login(leasehold.addr(), "app", backends.db.name()).await;
    session.query("BEGIN").await;
    // The shell says it, and then the system.
    leasehold.sighup();
    eventually(SOON, async || same(leasehold.http("/readyz").await.status, 503)).await;
    leasehold.sighup();
    assert_eq!(session.query("SELECT 1").await.len(), 4, "the transaction goes on");
    session.send('Q', b"COMMIT\0").await;
    session.until("E").await;
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    backends.assert_given_back().await;

    // Under nohup it goes on.
    let mut kept = backends.stopping("0s", "1s").ignoring_hangups().start().await;
    kept.wait_ready().await;
    kept.sighup();
    assert_eq!(kept.connect("app", backends.db.name()).await.value("SELECT 1").await, "1");
    assert_eq!(kept.stop().await.code(), Some(0));
    assert!(kept.log().messages("shutdown requested: there is no file to be read again").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_one_leaves_sockets_that_the_next_one_replaces() {
    let backends = Backends::that_may_revoke().await;
    let Backends { db, vault, setup } = &backends;
    let mut killed = OnSockets::start(db, vault, setup, Stdio::null(), &[]).await;
    let directory = killed.directory.to_str().unwrap().to_owned();
    let admin = killed.admin_socket().to_str().unwrap().to_owned();
    let at_the_same = |flag: &str| {
        backends.stopping("0s", "1s").flag("--listen", &directory).flag(flag, &admin).flag("--http", "off")
    };
    let (refused, log) = at_the_same("--admin").run_to_end().await;
    assert_eq!(refused.code(), Some(71), "while it lives nobody takes its sockets: {}", log.0);
    assert!(log.0.contains(".s.PGSQL.6432"), "{}", log.0);
    drop(killed.child.kill());
    drop(killed.child.wait());
    assert!(killed.client_socket().exists() && killed.admin_socket().exists());

    let mut next = at_the_same("--admin").start().await;

    let connected = eventually(SOON, async || {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&directory).port(6432).user("app").dbname(db.name());
        crate::harness::connect(&config).await
    })
    .await;
    assert_eq!(connected.value("SELECT 1").await, "1");
    drop(connected);
    assert_eq!(next.stop().await.code(), Some(0));
    assert!(!killed.client_socket().exists() && !killed.admin_socket().exists());
    // What the killed one held lapses with its lease: without a state file nobody knows of it.
    assert_eq!(vault.leases(&setup.path).await.len(), 1);
}
