//! Questions to Vault that change nothing. Floor 2.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::bounds::{Bounds, Limit};
use super::endpoints::{CapabilitiesSelf, LookUpLease, ReadHealth, ReadRole};
use super::exchange::unreadable;
use super::operation::Operation;
use super::{Failure, Kind, Lease, Vault, outcome, replies};
use crate::secret::Secret;

/// The state of a node, by the answer about its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Unsealed and active.
    Active,
    /// Unsealed; it forwards what it is asked.
    Standby,
    /// Of a cluster that takes over after a disaster; it serves nothing.
    DisasterRecoverySecondary,
    /// Unsealed; serves reads itself.
    PerformanceStandby,
    /// Not set up.
    Uninitialized,
    /// Sealed: it serves nothing until it is unsealed.
    Sealed,
}

impl Vault {
    /// The state of the node that answers, and its clock in whole seconds, if its answer has it. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Transient` where what answers is not Vault, or says nothing that is known.
    pub(crate) async fn look(&self, within: Duration) -> Result<(Health, Option<SystemTime>), Failure> {
        let request = self.build(Operation::Health, None, ReadHealth {})?;
        let reply = self.exchange(Operation::Health, &request, &Limit::new(within.into())).await?;
        if !outcome::is_vaults(Operation::Health, &reply) {
            return Err(Failure::not_vaults(Operation::Health, reply.status));
        }
        let health = match reply.status {
            200..=299 => Health::Active,
            429 => Health::Standby,
            472 => Health::DisasterRecoverySecondary,
            473 => Health::PerformanceStandby,
            501 => Health::Uninitialized,
            503 => Health::Sealed,
            status => return Err(Failure::answered(Operation::Health, Kind::Transient, status, "", &[])),
        };
        Ok((health, reply.date))
    }

    /// The `max_ttl` of a role, at `{mount}/roles/{role}`; `None`: its mount's holds. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Forbidden` as a rule: the least policy does not allow it.
    pub(crate) async fn role_max_ttl(
        &self,
        token: &Secret,
        path: &str,
        within: Duration,
    ) -> Result<Option<Duration>, Failure> {
        let request = ReadRole { path: path.trim_matches('/').to_owned() };
        let reply = self.ask(Operation::Capabilities, token, request, within).await?;
        replies::role_max_ttl(&reply.body).map_err(|why| unreadable(Operation::Capabilities, why))
    }

    /// Asks what the token may do at these paths: for each of them words such as `read`, `update`, `deny`, `root`.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// `Forbidden` where it may not even ask.
    pub(crate) async fn capabilities(
        &self,
        token: &Secret,
        paths: Vec<String>,
        within: Duration,
    ) -> Result<BTreeMap<String, Vec<String>>, Failure> {
        let reply = self.ask(Operation::Capabilities, token, CapabilitiesSelf { paths }, within).await?;
        replies::capabilities(&reply.body).map_err(|why| unreadable(Operation::Capabilities, why))
    }

    /// Whether a lease is still there; one that could not be revoked is. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Forbidden` for a token without the default policy.
    pub(crate) async fn has_lease(
        &self,
        token: &Secret,
        lease: &Lease,
        bounds: impl Into<Bounds>,
    ) -> Result<bool, Failure> {
        let path = lease.path("sys/leases/lookup");
        let request = LookUpLease { path, lease_id: lease.id().to_owned() };
        let limit = Limit::new(bounds.into());
        match self.call(Operation::LookUpLease, Some(token), request, &limit, &[]).await {
            Err(failure) if failure.kind == Kind::Gone => Ok(false),
            answer => answer.map(|_| true),
        }
    }
}
