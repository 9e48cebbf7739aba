//! What is asked of Vault to find out, and changes nothing that serves. Floor 2.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bounds::{Bounds, Limit};
use super::classify::Operation;
use super::endpoints::{CapabilitiesSelf, ExtendLease, LookUpLease};
use super::{Failure, Kind, Lease, Renewed, Vault, replies, unreadable};
use crate::secret::Secret;

impl Vault {
    /// Renews the lease of this user by at most `by`; how far its maximum lets that be is the answer. Cancel safe, except that a longer
    /// life may go unnoticed. A plain renewal brings it back to what its role gives.
    ///
    /// # Errors
    ///
    /// As [`Vault::renew`].
    pub async fn extend(
        &self,
        token: &Secret,
        lease: &Lease,
        username: &str,
        by: Duration,
        within: Duration,
    ) -> Result<Renewed, Failure> {
        let path = lease.path("sys/leases/renew");
        let request = ExtendLease { path, lease_id: lease.id().to_owned(), increment: by.as_secs() };
        let reply = self.ask_about(username, Operation::Renew, token, request, within).await?;
        replies::renewed(&reply.body).map_err(|why| unreadable(Operation::Renew, why))
    }

    /// Asks what the token may do at these paths: for each of them words such as `read`, `update`, `deny`, `root`.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// `Forbidden` where it may not even ask.
    pub async fn capabilities(
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
    pub async fn has_lease(
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
