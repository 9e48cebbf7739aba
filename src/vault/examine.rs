//! Requests to Vault that change nothing. Floor 2.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::bounds::{Bounds, Limit};
use super::endpoints::{CapabilitiesSelf, LookUpLease, ReadHealth, ReadRole};
use super::exchange::unreadable;
use super::operation::Operation;
use super::{Failure, Kind, Lease, Vault, outcome, replies};
use crate::secret::Secret;

/// The state of a node, by its answer to a health request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Unsealed and active.
    Active,
    /// Unsealed; it forwards requests to the active node.
    Standby,
    /// A disaster recovery secondary; it serves no requests.
    DisasterRecoverySecondary,
    /// Unsealed; it answers read requests itself.
    PerformanceStandby,
    /// Not initialized.
    Uninitialized,
    /// Sealed; it serves no requests until it is unsealed.
    Sealed,
}

impl Vault {
    /// The state of the node that answers, and its clock in whole seconds if the answer contains it. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Transient` if the answer is not Vault's, or its status is unknown.
    pub(crate) async fn look(&self, within: Duration) -> Result<(Health, Option<SystemTime>), Failure> {
        let request = self.build(Operation::Health, None, ReadHealth {})?;
        let reply = self.exchange(Operation::Health, &request, &Limit::new(within.into())).await?;
        if !outcome::is_vaults(Operation::Health, &reply) {
            return Err(Failure::not_vaults(Operation::Health, reply.status, &reply.body));
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

    /// The `max_ttl` of a role, at `{mount}/roles/{role}`. `None`: the mount's value applies. Cancel safe.
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

    /// The token's capabilities on these paths, such as `read`, `update`, `deny`, `root` for each. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Forbidden` if the token may not read its capabilities.
    pub(crate) async fn capabilities(
        &self,
        token: &Secret,
        paths: Vec<String>,
        within: Duration,
    ) -> Result<BTreeMap<String, Vec<String>>, Failure> {
        let reply = self.ask(Operation::Capabilities, token, CapabilitiesSelf { paths }, within).await?;
        replies::capabilities(&reply.body).map_err(|why| unreadable(Operation::Capabilities, why))
    }

    /// Whether a lease still exists. A lease whose revocation failed exists. Cancel safe.
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
