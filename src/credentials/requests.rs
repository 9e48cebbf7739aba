//! The requests of a driver, one tracked task each; each ends in one message to the driver. Floor 3.
//!
//! A request outlives the wait for it where it may have made something: a creds request that was given up is listened to
//! once more as long, and what it brings late is given back, as is what an unusable reply names.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::{Generation, Lease, clock};
use crate::lease::{Failure, Time, TokenId};
use crate::secret::Secret;
use crate::vault::{self, Grant, Leftover, Login, StaticCredential, Vault};

/// What a proof found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A server let the candidate in.
    Accepted {
        /// Its address, as sessions name it.
        address: String,
    },
    /// A host refused it, and none let it in.
    Refused,
    /// No host could say.
    Unprovable,
}

/// Logs in upstream with a candidate: user name and password.
///
/// The future ends within its own bounds, whatever the servers do.
pub type Prove = Arc<dyn Fn(String, Secret) -> Pin<Box<dyn Future<Output = Proof> + Send>> + Send + Sync>;

/// A route's servers, as its driver knows them.
#[derive(Clone)]
pub struct Servers {
    /// How a candidate is proved.
    pub prove: Prove,
    /// How long after its publication a credential may be unknown to one of them, as far as it is known now.
    pub replica_grace: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// What a request brought.
pub(super) enum Done {
    LoggedIn(Time, Login),
    LogInFailed(vault::Failure),
    Granted(Time, Grant),
    Read(Time, StaticCredential),
    IssueFailed(vault::Failure),
    /// Vault has made a lease that nobody uses, asked for at that time.
    LeaseLeft(TokenId, Time, Leftover),
    /// A creds request whose outcome was unknown is settled.
    LateReply(TokenId),
    Proof(u64, Proof),
    LeaseRenewed(u64, Time, vault::Renewed),
    LeaseRenewFailed(u64, vault::Failure),
    TokenRenewed(TokenId, Time, vault::Renewed),
    TokenRenewFailed(TokenId, vault::Failure),
    LeaseRevoked(u64, Result<(), vault::Failure>),
    TokenRevoked(TokenId, Result<(), vault::Failure>),
    /// Whether it is there.
    LeaseLookedUp(u64, Result<bool, vault::Failure>),
}

/// Sends the requests of one route.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) vault: Arc<Vault>,
    pub(super) path: Arc<str>,
    pub(super) client_timeout: Duration,
    pub(super) servers: Servers,
    pub(super) tasks: TaskTracker,
    pub(super) done: mpsc::Sender<Done>,
}

impl Requests {
    pub(super) fn log_in(&self, within: Option<Duration>) {
        let within = within.unwrap_or(self.client_timeout).min(self.client_timeout);
        self.spawn(|this| async move {
            let sent_at = clock::now();
            match this.vault.log_in(within).await {
                Ok(login) => Done::LoggedIn(sent_at, login),
                Err(failure) => Done::LogInFailed(failure),
            }
        });
    }

    pub(super) fn issue(&self, id: TokenId, token: Secret) {
        let within = self.client_timeout;
        let this = self.clone();
        self.tasks.spawn(async move {
            let sent_at = clock::now();
            let request = this.vault.issue(&token, &this.path, within * 2);
            tokio::pin!(request);
            let failure = match tokio::time::timeout(within, &mut request).await {
                Ok(Ok(grant)) => {
                    this.tell(Done::Granted(sent_at, grant)).await;
                    return;
                }
                Ok(Err(failure)) => {
                    let is_settled = !may_have_made(&failure);
                    let left = failure.left.clone();
                    this.tell(Done::IssueFailed(failure)).await;
                    if !is_settled {
                        this.settle(id, sent_at, left).await;
                    }
                    return;
                }
                Err(_) => vault::Failure::gave_up(vault::Operation::Issue),
            };
            this.tell(Done::IssueFailed(failure)).await;
            let left = match request.await {
                Ok(grant) => {
                    tracing::warn!(
                        lease.id = grant.lease.tail(),
                        "a credential came too late and is given back"
                    );
                    Some(Leftover { lease: grant.lease, username: grant.username, ttl: Some(grant.ttl) })
                }
                Err(failure) => failure.left,
            };
            this.settle(id, sent_at, left).await;
        });
    }

    /// A creds request that did not bring a credential comes to its end, with the lease that it has left, if it is known.
    async fn settle(&self, id: TokenId, sent_at: Time, left: Option<Leftover>) {
        if let Some(left) = left {
            self.tell(Done::LeaseLeft(id, sent_at, left)).await;
        }
        self.tell(Done::LateReply(id)).await;
    }

    /// Reads a static role's password.
    pub(super) fn read(&self, token: Secret) {
        self.spawn(|this| async move {
            let sent_at = clock::now();
            match this.vault.read_static(&token, &this.path, this.client_timeout).await {
                Ok(credential) => Done::Read(sent_at, credential),
                Err(failure) => Done::IssueFailed(failure),
            }
        });
    }

    pub(super) fn prove(&self, number: u64, username: String, password: Secret) {
        self.spawn(
            move |this| async move { Done::Proof(number, (this.servers.prove)(username, password).await) },
        );
    }

    pub(super) fn renew_lease(&self, generation: &Generation, token: Secret, within: Duration) {
        let within = within.min(self.client_timeout);
        let (number, lease) = (generation.number(), generation.lease().clone());
        let username = generation.username().to_owned();
        self.spawn(move |this| async move {
            let sent_at = clock::now();
            match this.vault.renew(&token, &lease, &username, within).await {
                Ok(renewed) => Done::LeaseRenewed(number, sent_at, renewed),
                Err(failure) => Done::LeaseRenewFailed(number, failure),
            }
        });
    }

    pub(super) fn renew_token(&self, id: TokenId, token: Secret, within: Duration) {
        let within = within.min(self.client_timeout);
        self.spawn(move |this| async move {
            let sent_at = clock::now();
            match this.vault.renew_token(&token, within).await {
                Ok(renewed) => Done::TokenRenewed(id, sent_at, renewed),
                Err(failure) => Done::TokenRenewFailed(id, failure),
            }
        });
    }

    pub(super) fn revoke_lease(&self, generation: &Generation, token: Secret) {
        let (number, lease) = (generation.number(), generation.lease().clone());
        self.spawn(move |this| async move {
            Done::LeaseRevoked(number, this.vault.revoke(&token, &lease, this.client_timeout).await)
        });
    }

    pub(super) fn look_up_lease(&self, number: u64, token: Secret, lease: Lease) {
        self.spawn(move |this| async move {
            let answer = this.vault.has_lease(&token, &lease, this.client_timeout).await;
            Done::LeaseLookedUp(number, answer)
        });
    }

    pub(super) fn revoke_token(&self, id: TokenId, token: Secret) {
        self.spawn(move |this| async move {
            Done::TokenRevoked(id, this.vault.revoke_token(&token, this.client_timeout).await)
        });
    }

    fn spawn<F: Future<Output = Done> + Send + 'static>(&self, request: impl FnOnce(Self) -> F) {
        let this = self.clone();
        let request = request(this.clone());
        self.tasks.spawn(async move {
            let done = request.await;
            this.tell(done).await;
        });
    }

    async fn tell(&self, done: Done) {
        // Without a driver there is nobody left to mind.
        let _ = self.done.send(done).await;
    }
}

/// Whether Vault may have made a credential that leasehold does not have.
fn may_have_made(failure: &vault::Failure) -> bool {
    failure.outcome_unknown || failure.left.is_some()
}

/// What a failure means to the machines.
pub(super) fn meaning(failure: &vault::Failure) -> Failure {
    match failure.kind {
        vault::Kind::Refused if may_have_made(failure) => Failure::Unusable,
        _ if may_have_made(failure) => Failure::TimedOut,
        vault::Kind::Transient => Failure::Transient,
        vault::Kind::TimedOut => Failure::TimedOut,
        vault::Kind::TokenDead => Failure::TokenDead,
        vault::Kind::Forbidden => Failure::Forbidden,
        vault::Kind::Gone => Failure::Gone,
        vault::Kind::CannotExtend => Failure::CannotExtend,
        vault::Kind::Refused => Failure::Refused,
    }
}
