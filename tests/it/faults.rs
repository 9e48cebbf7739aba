//! What PostgreSQL and its administrators do to a credential and its sessions: real servers, real acts.

mod failover;
mod leftovers;
mod machine;
mod postgres;
mod vault;

use crate::harness::Leasehold;

/// The SQLSTATE of a refused login; empty where it has none.
fn sqlstate(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", tokio_postgres::error::SqlState::code)
}

/// Asserts that the first credential is the only one that was ever asked for.
async fn drew_nothing(leasehold: &Leasehold) {
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[]), 1.0);
    assert_eq!(metrics.get("rotations_total", &[]), 0.0);
}
