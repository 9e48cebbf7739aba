//! What goes wrong on Vault's side, by real acts: what clients see, what is shown, how it heals, how often Vault is asked.
//!
//! Each leasehold here reaches Vault by way of a forwarder, which counts what comes. Other modules tell of single faults
//! (`lease::outage`, `lease::healing`, `vault::addresses`, `vault::tokens`, `vault::wrapped`); here is what they leave out.

mod broken_routes;
mod login;
mod lost;
mod rate;
mod shown;
mod spoilt;
mod statements;

use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::harness::{Database, Fault, Leasehold, SOON, Setup, Spec, Vault, bench, eventually, leasehold};

/// A database, a role in a Vault, and the forwarder by which leasehold reaches it.
struct Stage {
    db: Database,
    vault: Vault,
    setup: Setup,
    fault: Fault,
    /// Another node of its cluster.
    other: Option<Vault>,
}

impl Stage {
    async fn on(vault: Vault, spec: Spec) -> Self {
        let db = bench().postgres().await.database().await;
        let setup = vault.setup(&db, spec).await;
        let fault = Fault::before(&format!("127.0.0.1:{}", vault.port)).await;
        Self { db, vault, setup, fault, other: None }
    }

    async fn shared(spec: Spec) -> Self {
        Self::on(bench().vault().await, spec).await
    }

    /// With one route, where Vault is asked through the forwarder.
    async fn start(&self, flags: &[(&str, &str)]) -> Leasehold {
        let builder = leasehold()
            .upstream(&self.db)
            .vault_addr(&format!("http://{}", self.fault.addr()))
            .login(&self.setup);
        flags.iter().fold(builder, |builder, (name, value)| builder.flag(name, value)).start().await
    }

    /// How many requests for paths with this in them have come.
    fn asked(&self, path: &str) -> usize {
        self.fault.asked().iter().filter(|asked| asked.line.contains(path)).count()
    }
}

/// Waits until the log has so many lines with this message.
async fn said(leasehold: &Leasehold, within: Duration, message: &str, times: usize) {
    eventually(within, async || {
        let found = leasehold.log().messages(message).len();
        if found >= times { Ok(()) } else { Err(format!("{found} times {message}")) }
    })
    .await;
}

/// `last_error` of the first route.
async fn last_error(leasehold: &Leasehold) -> String {
    let status = leasehold.status().await;
    status["routes"][0]["last_error"]["kind"].as_str().unwrap_or_default().to_owned()
}

/// A login is refused for want of a credential.
async fn is_told_57p03(leasehold: &Leasehold, db: &Database) {
    let Err(refused) = leasehold.try_connect("app", db.name()).await else {
        panic!("no credential is usable")
    };
    assert_eq!(refused.code().map(|code| code.code()), Some("57P03"));
}

/// The most requests that came within any span of this length.
fn most_within(span: Duration, times: &[Instant]) -> usize {
    let from = |begin: &Instant| times.iter().filter(|at| (*begin..*begin + span).contains(at)).count();
    times.iter().map(from).max().unwrap_or(0)
}

/// Does all of these at the same time.
async fn at_once(all: impl IntoIterator<Item = impl Future<Output = ()> + 'static>) {
    let local = LocalSet::new();
    let all: Vec<_> = all.into_iter().map(|one| local.spawn_local(one)).collect();
    local
        .run_until(async {
            for one in all {
                one.await.unwrap();
            }
        })
        .await;
}

/// Waits until a metric is at least this.
async fn until_metric(leasehold: &Leasehold, name: &str, labels: &[(&str, &str)], least: f64) {
    eventually(SOON * 2, async || {
        let value = leasehold.metrics().await.get(name, labels);
        if value >= least { Ok(()) } else { Err(format!("{name} {labels:?} is {value}, not {least}")) }
    })
    .await;
}
