//! What is asked of Vault to find out what works, and not to serve. Floor 2.

use std::collections::BTreeMap;
use std::time::Duration;

use super::classify::Operation;
use super::endpoints::{CapabilitiesSelf, ExtendLease};
use super::{Failure, Renewed, Vault, replies, unreadable};
use crate::secret::Secret;

impl Vault {
    /// Renews a lease by at most `by`; how far its maximum lets that be is the answer. Cancel safe, except that a longer
    /// life may go unnoticed. A plain renewal brings it back to what its role gives.
    ///
    /// # Errors
    ///
    /// As [`Vault::renew`].
    pub async fn extend(
        &self,
        token: &Secret,
        lease_id: &str,
        by: Duration,
        within: Duration,
    ) -> Result<Renewed, Failure> {
        let request = ExtendLease { lease_id: lease_id.to_owned(), increment: by.as_secs() };
        let reply = self.ask(Operation::Renew, token, request, within).await?;
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
}
