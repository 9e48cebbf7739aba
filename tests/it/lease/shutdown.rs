//! The end of the process: in order, in time, and now.

use std::time::Duration;

use reqwest::Method;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::SOON;
use crate::harness::{
    Database, Fault, Leasehold, Mode, Setup, Spec, Vault, bench, connect, eventually, leasehold, same,
    through,
};

async fn start(min: &str, max: &str) -> (Database, Vault, Setup, Leasehold) {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault(&vault)
        .login(&setup)
        .flag("--min-sigterm-delay", min)
        .flag("--max-sigterm-delay", max)
        .start()
        .await;
    leasehold.wait_ready().await;
    (db, vault, setup, leasehold)
}

/// Vault drops what a revoked token owned a moment after it has said yes.
async fn gone(vault: &Vault, setup: &Setup, db: &Database) {
    eventually(SOON, async || {
        same(
            (vault.leases(&setup.path).await, db.roles().await),
            (Vec::<String>::new(), Vec::<String>::new()),
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_may_finish_after_sigterm() {
    let (db, vault, setup, mut leasehold) = start("0s", "20s").await;
    let idle = leasehold.connect("app", db.name()).await;
    let busy = leasehold.connect("app", db.name()).await;
    busy.batch_execute("BEGIN; CREATE TABLE finished (n int)").await.unwrap();

    leasehold.sigterm();

    assert_eq!(idle.ended().await.as_deref(), Some("57P01"));
    eventually(SOON, async || same(TcpStream::connect(leasehold.addr()).await.is_err(), true)).await;
    assert_eq!(leasehold.http("/readyz").await.status, 503);
    assert_eq!(db.roles().await.len(), 1, "the lease is kept for the transaction");
    busy.batch_execute("INSERT INTO finished VALUES (1); COMMIT").await.unwrap();
    assert_eq!(busy.ended().await.as_deref(), Some("57P01"));
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    assert_eq!(db.admin.value("SELECT n FROM finished").await, "1");
    gone(&vault, &setup, &db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_does_not_finish_ends_at_the_max_delay() {
    let (db, vault, setup, mut leasehold) = start("0s", "2s").await;
    let busy = leasehold.connect("app", db.name()).await;
    busy.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let began = Instant::now();

    leasehold.sigterm();

    assert_eq!(busy.ended().await.as_deref(), Some("57P01"));
    assert!(began.elapsed() >= Duration::from_millis(1900), "it had its two seconds");
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    gone(&vault, &setup, &db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_are_taken_until_the_min_delay() {
    let (db, _vault, _setup, mut leasehold) = start("3s", "20s").await;
    let idle = leasehold.connect("app", db.name()).await;
    let began = Instant::now();

    leasehold.sigterm();

    eventually(SOON, async || same(leasehold.http("/readyz").await.status, 503)).await;
    let new = leasehold.connect("app", db.name()).await;
    assert!(began.elapsed() < Duration::from_secs(3), "this machine is too slow to tell");
    new.value("SELECT 1").await;
    assert_eq!(idle.ended().await.as_deref(), Some("57P01"));
    assert!(began.elapsed() >= Duration::from_millis(2900), "idle sessions live until then too");
    assert_eq!(new.ended().await.as_deref(), Some("57P01"));
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    eventually(SOON, async || same(db.roles().await.len(), 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_means_now() {
    let (db, _vault, _setup, mut leasehold) = start("0s", "10m").await;
    let busy = leasehold.connect("app", db.name()).await;
    busy.batch_execute("BEGIN; SELECT 1").await.unwrap();
    leasehold.sigterm();
    eventually(SOON, async || same(leasehold.http("/readyz").await.status, 503)).await;

    leasehold.sigterm();

    leasehold.wait_exit().await;
    drop(busy.ended().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn quitquitquit_stops_in_order() {
    let (db, vault, setup, mut leasehold) = start("0s", "20s").await;
    let idle = leasehold.connect("app", db.name()).await;

    assert!(leasehold.admin(Method::POST, "/quitquitquit").await.status < 300);

    assert_eq!(idle.ended().await.as_deref(), Some("57P01"));
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    gone(&vault, &setup, &db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_vault_the_process_ends_in_order_all_the_same() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app").ttl("20s", "1h")).await;
    let fault = Fault::before(&format!("127.0.0.1:{}", vault.port)).await;
    let mut leasehold = leasehold().upstream(&db).vault(&through(&vault, &fault)).login(&setup).start().await;
    leasehold.wait_ready().await;
    fault.set(Mode::Blackhole).await;
    let began = Instant::now();

    assert_eq!(leasehold.stop().await.code(), Some(0));

    assert!(began.elapsed() < Duration::from_secs(9), "revocations have five seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_never_had_a_credential_ends_at_once() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let mut leasehold =
        leasehold().upstream(&db).vault_addr("http://127.0.0.1:1").login(&setup).start().await;
    let waiting = tokio::spawn({
        let config = leasehold.config("app", db.name());
        async move { connect(&config).await.map(drop) }
    });
    eventually(SOON, async || same(leasehold.log().0.contains("could not log in"), true)).await;

    assert_eq!(leasehold.stop().await.code(), Some(0));

    let refused = waiting.await.unwrap().unwrap_err();
    assert!(refused.code().is_none_or(|code| ["57P01", "57P03"].contains(&code.code())), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_under_way_at_sigterm_is_awaited_and_given_back() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let slow = Fault::before(&db.server.addr()).await;
    let spec = Spec::new("app").database_addr(&slow.addr().to_string());
    let setup = vault.setup(&db, spec).await;
    let fault = Fault::before(&format!("127.0.0.1:{}", vault.port)).await;
    let mut leasehold = leasehold().upstream(&db).vault(&through(&vault, &fault)).login(&setup).start().await;
    leasehold.wait_ready().await;
    slow.set(Mode::Delay(Duration::from_millis(100))).await;
    let rotating = tokio::spawn({
        let url = format!("http://{}/rotate", leasehold.listening("admin")[0]);
        async move { reqwest::Client::new().post(url).send().await.map(|reply| reply.status()) }
    });
    let get = format!("GET /v1/{} ", setup.path);
    eventually(SOON, async || {
        let asked: usize = fault
            .recordings()
            .iter()
            .map(|recording| String::from_utf8_lossy(&recording.to_server).matches(&get).count())
            .sum();
        same(asked, 2)
    })
    .await;

    assert_eq!(leasehold.stop().await.code(), Some(0));

    slow.set(Mode::Pass).await;
    assert!(!rotating.await.unwrap().is_ok_and(|status| status.is_success()));
    gone(&vault, &setup, &db).await;
}
