//! Several addresses of Vault: dead and sealed ones, and a cluster that changes its leader.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::harness::{Backends, Mode, SOON, Spec, Storage, Vault, bench, eventually, leasehold, same};

/// A cluster of two that may each become its leader.
pub(crate) async fn cluster() -> (Vault, Vault) {
    let leader = bench().own_vault(Storage::Raft).await;
    let settle = json!({"server_stabilization_time": "1s"});
    leader.write("sys/storage/raft/autopilot/configuration", settle).await;
    let standby = bench().join(&leader).await;
    eventually(SOON * 3, async || {
        let config = leader.read("sys/storage/raft/configuration").await;
        let servers = config["data"]["config"]["servers"].as_array().unwrap().clone();
        let voters = servers.iter().filter(|server| server["voter"] == true).count();
        same(voters, 2)
    })
    .await;
    (leader, standby)
}

/// Waits until a standby has heard of all that there is: what it is yet to hear of it would refuse by itself.
async fn has_heard(standby: &Vault, leader: &Vault) {
    let committed = leader.read("sys/leader").await["raft_committed_index"].as_u64().unwrap();
    eventually(SOON, async || {
        let applied = standby.read("sys/leader").await["raft_applied_index"].as_u64();
        if applied >= Some(committed) { Ok(()) } else { Err((applied, committed)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_and_sealed_addresses_are_passed_over() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app")).await;
    let sealed = bench().own_vault(Storage::Raft).await;
    sealed.seal().await;
    eventually(SOON, async || same(sealed.health().await, 503)).await;
    let dead = vault.forwarder().await;
    dead.set(Mode::Refuse).await;
    let addrs = format!("http://{},{},{}", dead.addr(), sealed.addr, vault.addr);
    let leasehold = leasehold().upstream(&db).vault_addr(&addrs).login(&setup).start().await;
    leasehold.wait_ready().await;

    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");
    let status = leasehold.status().await;
    assert_eq!(status["vault"]["addr"], vault.addr);
    leasehold.wait_log("\"published\"").await;
    let log = leasehold.log();
    assert_eq!(log.messages("could not log in").len(), 0, "the first try found the third address");
    assert_eq!(log.messages("address passed over").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_serves_and_a_step_down_is_ridden_out() {
    let (leader, standby) = cluster().await;
    let Backends { db, vault: leader, setup } = Backends::with_vault(leader, Spec::new("app")).await;
    assert_eq!((leader.health().await, standby.health().await), (200, 429));
    has_heard(&standby, &leader).await;
    let addrs = format!("{},{}", standby.addr, leader.addr);
    let leasehold = leasehold().upstream(&db).vault_addr(&addrs).login(&setup).start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    assert_eq!(
        leasehold.status().await["vault"]["addr"],
        standby.addr,
        "the standby answered for the leader"
    );

    leader.write("sys/step-down", json!({})).await;

    // Whatever it is told on the way, sessions and logins do not notice, and a fresh credential comes.
    eventually(SOON * 4, async || {
        assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 1").await, "1");
        let rotated = leasehold.command(&["rotate"]).await;
        if rotated.status.success() { Ok(()) } else { Err(rotated) }
    })
    .await;
    eventually(SOON * 2, async || same((leader.health().await, standby.health().await), (429, 200))).await;
    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    leasehold.rotate().await;
    assert_eq!(leasehold.metrics().await.get("login_failures_total", &[]), 0.0);

    // Without its other half the cluster has no leader: nothing is served, and nothing is lost.
    standby.stop("KILL").await;
    let rotated = leasehold.command(&["rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 1").await, "1");
    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    standby.restart().await;
    eventually(SOON * 4, async || {
        let rotated = leasehold.command(&["rotate"]).await;
        if rotated.status.success() { Ok(()) } else { Err(rotated) }
    })
    .await;
    leasehold.shows_none_of([leader.root_token.clone()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_an_address_that_is_not_listed_gets_nothing() {
    let (leader, standby) = cluster().await;
    let Backends { db, vault: leader, setup } = Backends::with_vault(leader, Spec::new("app")).await;
    has_heard(&standby, &leader).await;
    // A standby whose leader has died sends everybody there. By then somebody else may have the address.
    leader.stop("KILL").await;
    let stranger = TcpListener::bind(("127.0.0.1", leader.port)).await.unwrap();

    let leasehold = leasehold().upstream(&db).vault_addr(&standby.addr).login(&setup).start().await;

    let said = format!("redirected to {}, which is not one of the configured addresses", leader.addr);
    eventually(SOON * 2, async || {
        let log = leasehold.log().0;
        if log.matches(&said).count() >= 2 { Ok(()) } else { Err(log) }
    })
    .await;
    let came = timeout(Duration::ZERO, stranger.accept()).await;
    assert!(came.is_err(), "nobody came: {came:?}");
}

/// The reason that the status shows for a route whose Vault has this scheme in place of its own.
async fn reason_with(backends: &Backends, from: &str, to: &str) -> String {
    let ca = bench().postgres_18().await.ca.unwrap();
    let addr = backends.vault.addr.replace(from, to);
    let other = Vault::new(&json!({"name": "none", "addr": addr, "port": 1, "root_token": ""}));
    let leasehold = leasehold()
        .upstream(&backends.db)
        .vault(&other)
        .login(&backends.setup)
        .flag("--vault-ca-cert", ca.to_str().unwrap())
        .start()
        .await;
    let reason = async || leasehold.status().await["routes"][0]["last_error"]["reason"].clone();
    eventually(SOON, async || same(reason().await.is_string(), true)).await;
    reason().await.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_scheme_of_the_address_is_named() {
    let plain = Backends::new(Spec::new("app")).await;
    let reason = reason_with(&plain, "http://", "https://").await;
    assert!(reason.contains("does not speak TLS") && reason.contains("write http://"), "{reason}");
    let tls = Backends::with_vault(bench().own_vault(Storage::MemoryTls).await, Spec::new("app")).await;
    let reason = reason_with(&tls, "https://", "http://").await;
    assert!(
        reason.contains("/login: the server speaks TLS, and was sent plain HTTP: write https://"),
        "{reason}"
    );
}
