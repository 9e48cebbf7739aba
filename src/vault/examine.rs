//! What is asked of Vault to find out, and changes nothing that serves. Floor 2.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bounds::{Bounds, Limit};
use super::endpoints::{CapabilitiesSelf, LookUpLease, ReadRole};
use super::operation::Operation;
use super::{Failure, Kind, Lease, Vault, replies, unreadable};
use crate::secret::Secret;

impl Vault {
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
