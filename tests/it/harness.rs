//! The language of the integration tests.
//!
//! ```ignore
//! let backends = Backends::new(Spec::new("app").ttl("20s", "1m")).await; // a database, and a Vault role for it
//! let leasehold = backends.leasehold().start().await;
//! let session = leasehold.connect("app", backends.db.name()).await;      // no password
//! eventually(SOON, async || same(backends.db.roles().await, [session.user().await])).await;
//! ```
//!
//! Nothing here sleeps for a fixed time in place of a condition; every wait has a bound and says what it last saw.

mod backends;
mod balancer;
pub(crate) mod broken_routes;
mod browser;
mod client_tls;
mod clock;
mod collector;
mod fault;
mod http;
mod identity;
mod leasehold;
mod memory;
mod pki;
mod postgres;
mod raw;
mod scene;
mod servers;
mod vault;
mod writers;

use std::fmt::Debug;
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use backends::{Backends, Forwarded};
pub(crate) use balancer::{Balancer, Spoil};
pub(crate) use browser::Browser;
pub(crate) use client_tls::ClientTls;
pub(crate) use clock::WallClock;
pub(crate) use collector::{Collector, traced};
pub(crate) use fault::{Fault, Mode};
pub(crate) use identity::{Certificate, Issuer, TokenReview};
pub(crate) use leasehold::{Builder, Leasehold, Log, field, leasehold};
pub(crate) use memory::Memory;
pub(crate) use pki::{Authority, Files};
pub(crate) use postgres::{Database, Server, Session, connect, connect_within};
pub(crate) use raw::{Frame, Raw, key, packet, startup_body, tags, without_place};
pub(crate) use scene::Scene;
pub(crate) use servers::bench;
pub(crate) use vault::{Setup, Spec, Storage, Vault, through};
pub(crate) use writers::Writers;

/// Long enough for anything that should happen at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Polls every 20 ms until `probe` is `Ok`; panics with its last `Err` after `within`.
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + within;
        loop {
            match tokio::time::timeout_at(deadline + SOON, probe()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) if Instant::now() > deadline => {
                    panic!("{caller}: not within {within:?}; last seen: {seen:?}")
                }
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => panic!("{caller}: one look took longer than {:?}", within + SOON),
            }
        }
    }
}

/// A condition for [`eventually`]: `seen` equals `wanted`.
pub(crate) fn same<A: PartialEq<B> + Debug, B: Debug>(seen: A, wanted: B) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{seen:?}, not {wanted:?}")) }
}

/// Waits for what must end soon; panics with `what` if it does not.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}
