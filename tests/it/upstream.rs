//! The upstream URI's words about where the server is, each against a real PostgreSQL.

mod between;
mod hostile;
mod pooler;
mod tls;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::{
    Backends, Fault, Leasehold, Mode, SOON, Spec, bench, eventually, field, leasehold, same,
};

impl Backends {
    async fn on_18() -> Self {
        Self::on(&bench().postgres_18().await, Spec::new("app")).await
    }

    /// On a server that listens on two addresses.
    async fn on_two_addresses() -> Self {
        let conf = json!({"listen_addresses": "127.0.0.1,127.0.0.2"});
        let server = bench().own_postgres(json!({"version": "18", "conf": conf})).await;
        Self::on(&server, Spec::new("app")).await
    }

    async fn ready_at(&self, uri: &str) -> Leasehold {
        let leasehold = self.leasehold_at(uri).start().await;
        leasehold.wait_ready().await;
        leasehold
    }

    /// Where a new session through this leasehold is, as the server sees it; empty for a Unix socket.
    async fn address(&self, leasehold: &Leasehold) -> String {
        let session = leasehold.connect("app", self.db.name()).await;
        let address = session.value("SELECT host(inet_server_addr())").await;
        session.close().await;
        address
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_cannot_be_ends_the_start_and_is_named() {
    for (words, why) in [
        ("aplication_name=x", "upstream has the unknown word aplication_name"),
        ("target_session_attrs=master", "target_session_attrs in upstream takes any, read-write, read-only"),
        ("require_auth=md5", "upstream has the unknown word require_auth"),
    ] {
        let uri = format!("postgresql://db/?{words}");
        let builder = leasehold().upstream_uri(&uri).path("database/creds/app").env("VAULT_TOKEN", "t");
        let (status, log) = builder.run_to_end().await;
        assert_eq!(status.code(), Some(64), "{}", log.0);
        assert!(log.0.contains(why), "{}", log.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_the_address_is_the_only_one() {
    let backends = Backends::on_18().await;
    let name = backends.db.name();
    let leasehold = backends
        .ready_at(&format!("postgresql://{}/{name}?sslmode=disable", backends.db.server.addr()))
        .await;

    let named = leasehold.connect("app", name).await;
    assert_eq!(named.value("SELECT current_database()").await, name);
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(leasehold.addr().port()).user("app");
    let unnamed = crate::harness::connect(&config).await.unwrap();
    assert_eq!(unnamed.value("SELECT current_database()").await, name);
    let other = leasehold.try_connect("app", "postgres").await.err().unwrap();
    assert_eq!(other.code().unwrap().code(), "3D000");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_tried_in_order_each_with_its_port() {
    let backends = Backends::on_18().await;
    let first = Fault::before(&backends.db.server.addr()).await;
    first.set(Mode::Refuse).await;
    let (dead, live) = (first.addr().port(), backends.db.server.port);
    let uri = format!("postgresql://localhost:{dead},127.0.0.1:{live}/?sslmode=disable");
    let leasehold = backends.ready_at(&uri).await;
    assert_eq!(backends.address(&leasehold).await, "127.0.0.1");
    let reached = || first.recordings().iter().filter(|recording| !recording.to_server.is_empty()).count();
    assert_eq!(reached(), 0);

    first.set(Mode::Pass).await;
    backends.address(&leasehold).await;
    assert_eq!(reached(), 1, "the first comes first again");

    let words = format!("postgresql:///?host=127.0.0.1,127.0.0.1&port={dead},{live}&sslmode=disable");
    let leasehold = backends.ready_at(&words).await;
    backends.address(&leasehold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_no_host_lets_in_is_logged_with_the_reason_of_each_host() {
    let backends = Backends::on_18().await;
    let first = Fault::before(&backends.db.server.addr()).await;
    let second = Fault::before(&backends.db.server.addr()).await;
    let (first_addr, second_addr) = (first.addr(), second.addr());
    let leasehold =
        backends.ready_at(&format!("postgresql://{first_addr},{second_addr}/?sslmode=disable")).await;
    first.set(Mode::Refuse).await;
    second.set(Mode::CutToClientAfter(5)).await;
    leasehold.try_connect("app", backends.db.name()).await.err().unwrap();
    leasehold.wait_log("login failed").await;
    let failed = leasehold.log().messages("login failed");
    let error = field(&failed[0], "error");
    let (of_first, of_second) = error.split_once("; ").expect(&error);
    let refused = format!("{first_addr}: cannot reach the upstream server: Connection refused");
    assert!(of_first.contains(&refused), "{error}");
    assert!(of_second.starts_with(&format!("{second_addr}: ")), "{error}");
    assert!(of_second.contains("during the login"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_timeout_bounds_each_host() {
    let backends = Backends::on_18().await;
    let silent = Fault::before(&backends.db.server.addr()).await;
    silent.set(Mode::Blackhole).await;
    let words = "sslmode=disable&connect_timeout=3";
    let uri = format!("postgresql://{},{}/?{words}", silent.addr(), backends.db.server.addr());
    // Without the word in the URI a host would have all the time in the world.
    let leasehold = backends.leasehold_at(&uri).flag("--limits-connect-timeout", "600s").start().await;
    leasehold.wait_ready().await;
    let begun = Instant::now();
    backends.address(&leasehold).await;
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());

    let alone = backends.leasehold_at(&format!("postgresql://{}/?{words}", silent.addr())).start().await;
    alone.wait_ready().await;
    eventually(SOON, async || {
        let error = alone.try_connect("app", backends.db.name()).await.err().unwrap();
        let told = error.as_db_error().map(|told| (told.code().code().to_owned(), told.message().to_owned()));
        same(told, Some(("08001".to_owned(), "the upstream server did not answer in time".to_owned())))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_reached_without_tls() {
    let backends = Backends::on_18().await;
    let (directory, port) =
        (backends.db.server.socket_dir.to_str().unwrap().to_owned(), backends.db.server.port);
    let encoded = directory.replace('/', "%2F");
    for uri in [
        format!("postgresql:///?host={directory}&port={port}"),
        format!("postgresql://{encoded}:{port}/?sslmode=verify-full"),
    ] {
        let leasehold = backends.ready_at(&uri).await;
        assert_eq!(backends.address(&leasehold).await, "", "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balance_hosts_spreads_the_sessions() {
    let backends = Backends::on_two_addresses().await;
    let port = backends.db.server.port;
    let seen = async |word: &str| {
        let uri = format!("postgresql://127.0.0.1:{port},127.0.0.2:{port}/?sslmode=disable&{word}");
        let leasehold = backends.ready_at(&uri).await;
        let mut seen = BTreeSet::new();
        // Of 40 in a random order, all the same have a chance of 1 in 2^39.
        for _ in 0..40 {
            seen.insert(backends.address(&leasehold).await);
        }
        seen.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(seen("load_balance_hosts=disable").await, ["127.0.0.1"]);
    assert_eq!(seen("load_balance_hosts=random").await, ["127.0.0.1", "127.0.0.2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_is_asked_again_at_each_connect() {
    let backends = Backends::on_two_addresses().await;
    let hosts = bench().directory().await.join("hosts");
    let points_to = |address: &str| std::fs::write(&hosts, format!("{address} db.test\n")).unwrap();
    points_to("127.0.0.1");
    let uri = format!("postgresql://db.test:{}/?sslmode=disable", backends.db.server.port);
    let leasehold = backends.leasehold_at(&uri).hosts_file(&hosts).start().await;
    leasehold.wait_ready().await;
    assert_eq!(backends.address(&leasehold).await, "127.0.0.1");

    points_to("127.0.0.2");

    assert_eq!(backends.address(&leasehold).await, "127.0.0.2");
    points_to("127.0.0.1");
    assert_eq!(backends.address(&leasehold).await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalives_are_sent_for_a_session() {
    let backends = Backends::on_18().await;
    let between = Fault::before(&backends.db.server.addr()).await;
    let words = "sslmode=disable&keepalives_idle=41&tcp_user_timeout=60000";
    let leasehold = backends.ready_at(&format!("postgresql://{}/?{words}", between.addr())).await;
    let _session = leasehold.connect("app", backends.db.name()).await;

    // The kernel's own view of the sockets towards the forwarder: a keepalive timer that runs down; two hours by default.
    let destination = format!("dport = :{}", between.addr().port());
    let seen = Command::new("ss").args(["-Htno", "state", "established", &destination]).output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    let is_ours = |left: u32| seen.contains(&format!("timer:(keepalive,{left}sec,0)"));
    assert!((11..=41).any(is_ours), "{seen}");
}
