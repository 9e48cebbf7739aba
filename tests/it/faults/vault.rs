//! What goes wrong on Vault's side, by real acts: what clients see, what is shown, how it heals, how often Vault is asked.
//!
//! Each leasehold here reaches Vault by way of a forwarder, which counts what comes. Other modules tell of single faults
//! (`lease::outage`, `lease::healing`, `vault::addresses`, `vault::tokens`, `vault::wrapped`); here is what they leave out.

mod broken_routes;
mod hostile;
mod login;
mod lost;
mod rate;
mod shown;
mod spoilt;
mod statements;

use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::harness::{Database, Forwarded, Leasehold, SOON, Spec, eventually};

/// Waits until the log has so many lines with this message.
async fn said(leasehold: &Leasehold, within: Duration, message: &str, times: usize) {
    eventually(within, async || {
        let found = leasehold.log().messages(message).len();
        if found >= times { Ok(()) } else { Err(format!("{found} times {message}")) }
    })
    .await;
}

/// A login is refused for want of a credential.
async fn is_told_57p03(leasehold: &Leasehold, db: &Database) {
    let Err(refused) = leasehold.try_connect("app", db.name()).await else {
        panic!("no credential is usable")
    };
    assert_eq!(refused.code().map(|code| code.code()), Some("57P03"));
}

/// The most requests that have piled up in a bucket from which five a second run out. Requests that arrive late, as on a busy
/// machine, do not make it more.
fn piled_up(times: &[Instant]) -> f64 {
    let (mut level, mut most) = (0.0_f64, 0.0_f64);
    for (index, at) in times.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| times.get(before)).unwrap_or(at);
        level = (level - at.duration_since(*before).as_secs_f64() * 5.0).max(0.0) + 1.0;
        most = most.max(level);
    }
    most
}

#[test]
fn requests_pile_up_beyond_five_a_second() {
    let start = Instant::now();
    let every = |millis: u64| -> Vec<_> {
        (0..40).map(|number| start + Duration::from_millis(number * millis)).collect()
    };
    assert!(piled_up(&every(200)) <= 1.5);
    assert!(piled_up(&every(125)) > 10.0);
    assert!((piled_up(&every(0)) - 40.0).abs() < 0.1);
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
