//! The end of the process, and what it means for leases. The phases of a shutdown are in `process::stop`.

use reqwest::Method;

use super::SOON;
use crate::harness::{
    Backends, Database, Fault, Mode, Setup, Spec, Vault, bench, connect, eventually, leasehold, same,
};

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
async fn quitquitquit_stops_in_order() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let mut leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let idle = leasehold.connect("app", db.name()).await;

    assert!(leasehold.admin(Method::POST, "/quitquitquit").await.status < 300);

    assert_eq!(idle.ended().await.as_deref(), Some("57P01"));
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    gone(vault, setup, db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_vault_the_process_ends_in_order_all_the_same() {
    let backends = Backends::new(Spec::new("app").ttl("20s", "1h")).await;
    let Backends { vault, .. } = &backends;
    let fault = vault.forwarder().await;
    let mut leasehold = backends.leasehold_through(&fault).start().await;
    leasehold.wait_ready().await;
    fault.set(Mode::Blackhole).await;

    assert_eq!(leasehold.stop().await.code(), Some(0));

    let given_up =
        leasehold.log().messages("not everything could be given back in time; what is left lapses");
    assert_eq!(given_up.len(), 1, "revocations have their time, and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_never_had_a_credential_ends_at_once() {
    let Backends { db, setup, .. } = Backends::new(Spec::new("app")).await;
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
    let slow = Fault::before(&db.server.addr()).await;
    let spec = Spec::new("app").database_addr(&slow.addr().to_string());
    let backends = Backends::with_database(db, spec).await;
    let Backends { db, vault, setup } = &backends;
    let fault = vault.forwarder().await;
    let mut leasehold = backends.leasehold_through(&fault).start().await;
    leasehold.wait_ready().await;
    slow.set(Mode::Blackhole).await;
    let rotating = tokio::spawn({
        let url = format!("http://{}/rotate", leasehold.listening("admin")[0]);
        async move {
            reqwest::Client::new()
                .post(url)
                .header("leasehold-admin", "1")
                .send()
                .await
                .map(|reply| reply.status())
        }
    });
    let get = format!("GET /v1/{} ", setup.path);
    eventually(SOON, async || same(fault.handed_on(&get), 2)).await;

    leasehold.sigterm();
    leasehold.wait_log("shutdown requested").await;
    slow.set(Mode::Pass).await;

    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    assert!(!rotating.await.unwrap().is_ok_and(|status| status.is_success()));
    gone(vault, setup, db).await;
}
