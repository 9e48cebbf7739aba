//! The requests of a driver, one tracked task each; each ends in one message to the driver. Floor 3.
//!
//! A request outlives the wait for it where it may have made something: a creds request that was given up is listened to
//! once more as long, and what it brings late is given back, as is what an unusable reply names.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::client::VaultClient;
use super::proof::{Obstacle, Proof};
use super::{Generation, Lease};
use crate::clock;
use crate::lease::{Failure, GenerationId, TokenId};
use crate::secret::Secret;
use crate::time::Time;
use crate::traces::{Kind, RouteTraces, Span};
use crate::vault::{self, Bounds, Grant, Leftover, Login, Priority, StaticCredential, VaultPath};

/// Logs in upstream with a candidate: user name and password.
///
/// The future ends within its own bounds, whatever the servers do.
pub(crate) type Prove =
    Arc<dyn Fn(String, Secret) -> Pin<Box<dyn Future<Output = Proof> + Send>> + Send + Sync>;

/// A route's servers, as its driver knows them.
#[derive(Clone)]
pub(crate) struct Servers {
    /// How a candidate is proved.
    pub(crate) prove: Prove,
    /// How long after its publication a credential may be unknown to one of them, as far as it is known now.
    pub(crate) replica_grace: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// What a request brought.
pub(super) enum VaultReply {
    LoggedIn(Time, Login),
    LogInFailed(vault::Failure),
    Granted(Time, Grant),
    Read(Time, StaticCredential),
    IssueFailed(vault::Failure),
    /// Vault has made a lease that is of no use, asked for at that time.
    LeaseLeft(TokenId, Time, Leftover),
    /// A creds request whose outcome was unknown is settled.
    LateReply(TokenId),
    Proof(GenerationId, Proof),
    /// Of a generation that is published already.
    PublishedProof(GenerationId, Proof),
    LeaseRenewed(GenerationId, Time, vault::Renewed),
    LeaseRenewFailed(GenerationId, vault::Failure),
    TokenRenewed(TokenId, Time, vault::Renewed),
    TokenRenewFailed(TokenId, vault::Failure),
    LeaseRevoked(GenerationId, Result<(), vault::Failure>),
    TokenRevoked(TokenId, Result<(), vault::Failure>),
    /// Whether it is there.
    LeaseLookedUp(GenerationId, Result<bool, vault::Failure>),
}

/// What credentials are issued from, and where they are for.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) path: Arc<VaultPath>,
    pub(super) servers: Servers,
}

/// Sends the requests of one route. What their tasks log has the route of the driver's span.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) vault: Arc<dyn VaultClient>,
    /// `None`: nothing is issued, and what there is is given back.
    pub(super) target: Option<Target>,
    pub(super) client_timeout: Duration,
    pub(super) tasks: TaskTracker,
    pub(super) done: mpsc::Sender<VaultReply>,
    /// Logins and creds requests that still wait for their turn are given up once it is cancelled.
    pub(super) withdrawn: CancellationToken,
    /// The generation that new sessions use.
    pub(super) published: watch::Receiver<Option<Arc<Generation>>>,
    pub(super) traces: RouteTraces,
}

impl Requests {
    /// What was asked for and has not been sent is not wanted any more.
    pub(super) fn withdraw(&mut self) {
        std::mem::take(&mut self.withdrawn).cancel();
    }

    /// Whether the credential that came is of use.
    pub(super) fn grant_was_of_use(&self, of_use: bool) {
        if let Some(target) = &self.target {
            self.vault.grant_was_of_use(&target.path, of_use);
        }
    }

    /// A credential is wanted now: what Vault refused lately is not waited out.
    pub(super) fn retry_now(&self) {
        if let Some(target) = &self.target {
            self.vault.retry_now(&target.path);
        }
    }

    /// `span` is that of the request, here as below.
    pub(super) fn log_in(&self, priority: Priority, within: Option<Duration>, span: Span) {
        let within = within.unwrap_or(self.client_timeout).min(self.client_timeout);
        self.spawn(|this| async move {
            let bounds = Bounds::new(priority, within).withdrawn_by(this.withdrawn.clone());
            let begun_at = clock::now();
            let answer = this.vault.log_in(bounds.clone()).await;
            end(span, &answer);
            match answer {
                Ok(login) => VaultReply::LoggedIn(begun_at + bounds.waited(), login),
                Err(failure) => VaultReply::LogInFailed(failure),
            }
        });
    }

    pub(super) fn issue(
        &self,
        path: Arc<VaultPath>,
        priority: Priority,
        id: TokenId,
        token: Secret,
        span: Span,
    ) {
        let within = self.client_timeout;
        let this = self.clone();
        let task = async move {
            let bounds = Bounds::new(priority, within * 2).withdrawn_by(this.withdrawn.clone());
            let begun_at = clock::now();
            let request = this.vault.issue(&token, &path, bounds.clone());
            tokio::pin!(request);
            let answered = tokio::select! {
                answer = &mut request => Some(answer),
                () = bounds.sent() => match tokio::time::timeout(within, &mut request).await {
                    // Vault serves requests in their order. While no credential is usable, a request that was repeated would
                    // have to wait behind those of all others, and the credential that comes late would be given back.
                    Err(_) if this.published.borrow().is_none() => {
                        tokio::time::timeout(within, &mut request).await.ok()
                    }
                    answered => answered.ok(),
                },
            };
            match &answered {
                Some(answer) => end(span, answer),
                None => end::<Grant>(span, &Err(vault::Failure::gave_up(vault::Operation::Issue))),
            }
            let failure = match answered {
                Some(Ok(grant)) => {
                    this.send(VaultReply::Granted(begun_at + bounds.waited(), grant)).await;
                    return;
                }
                Some(Err(failure)) => {
                    let is_settled = !may_have_made(&failure);
                    let left = failure.left.clone().map(|left| *left);
                    this.send(VaultReply::IssueFailed(failure)).await;
                    if !is_settled {
                        this.settle(id, begun_at + bounds.waited(), left).await;
                    }
                    return;
                }
                None => vault::Failure::gave_up(vault::Operation::Issue),
            };
            this.send(VaultReply::IssueFailed(failure)).await;
            let left = match request.await {
                Ok(grant) => {
                    tracing::warn!(
                        lease.id = grant.lease.tail(),
                        db.user = grant.username,
                        "a credential came too late and is given back"
                    );
                    Some(Leftover { lease: grant.lease, username: grant.username, ttl: Some(grant.ttl) })
                }
                Err(failure) => failure.left.map(|left| *left),
            };
            this.settle(id, begun_at + bounds.waited(), left).await;
        };
        self.tasks.spawn(task.in_current_span());
    }

    /// A creds request that did not bring a credential comes to its end, with the lease that it has left, if it is known.
    async fn settle(&self, id: TokenId, sent_at: Time, left: Option<Leftover>) {
        if let Some(left) = left {
            self.send(VaultReply::LeaseLeft(id, sent_at, left)).await;
        }
        self.send(VaultReply::LateReply(id)).await;
    }

    /// Reads a static role's password.
    pub(super) fn read(&self, path: Arc<VaultPath>, priority: Priority, token: Secret, span: Span) {
        self.spawn(move |this| async move {
            let bounds = Bounds::new(priority, this.client_timeout).withdrawn_by(this.withdrawn.clone());
            let begun_at = clock::now();
            let answer = this.vault.read_static(&token, &path, bounds.clone()).await;
            end(span, &answer);
            match answer {
                Ok(credential) => VaultReply::Read(begun_at + bounds.waited(), credential),
                Err(failure) => VaultReply::IssueFailed(failure),
            }
        });
    }

    pub(super) fn prove(&self, number: GenerationId, username: String, password: Secret, span: Span) {
        self.spawn(move |this| async move {
            let proof = this.proof(username, password).await;
            end_of_proof(span, &proof);
            VaultReply::Proof(number, proof)
        });
    }

    /// Proves what is published already.
    pub(super) fn prove_published(
        &self,
        number: GenerationId,
        username: String,
        password: Secret,
        span: Span,
    ) {
        self.spawn(move |this| async move {
            let proof = this.proof(username, password).await;
            end_of_proof(span, &proof);
            VaultReply::PublishedProof(number, proof)
        });
    }

    async fn proof(&self, username: String, password: Secret) -> Proof {
        match &self.target {
            Some(target) => (target.servers.prove)(username, password).await,
            None => Proof::Unprovable(Obstacle::Passing("the route is gone".to_owned())),
        }
    }

    pub(super) fn renew_lease(
        &self,
        priority: Priority,
        generation: &Generation,
        token: Secret,
        within: Duration,
    ) {
        let bounds = Bounds::new(priority, within.min(self.client_timeout));
        let (number, lease) = (generation.number(), generation.lease().clone());
        let username = generation.username().to_owned();
        let span = self.about("vault.renew", number);
        self.spawn(move |this| async move {
            let begun_at = clock::now();
            let answer = this.vault.renew(&token, &lease, &username, bounds.clone()).await;
            end(span, &answer);
            match answer {
                Ok(renewed) => VaultReply::LeaseRenewed(number, begun_at + bounds.waited(), renewed),
                Err(failure) => VaultReply::LeaseRenewFailed(number, failure),
            }
        });
    }

    pub(super) fn renew_token(&self, priority: Priority, id: TokenId, token: Secret, within: Duration) {
        let bounds = Bounds::new(priority, within.min(self.client_timeout));
        let span = self.traces.begin(Kind::Client, "vault.renew_token");
        self.spawn(move |this| async move {
            let begun_at = clock::now();
            let answer = this.vault.renew_token(&token, bounds.clone()).await;
            end(span, &answer);
            match answer {
                Ok(renewed) => VaultReply::TokenRenewed(id, begun_at + bounds.waited(), renewed),
                Err(failure) => VaultReply::TokenRenewFailed(id, failure),
            }
        });
    }

    pub(super) fn revoke_lease(&self, priority: Priority, generation: &Generation, token: Secret) {
        let (number, lease) = (generation.number(), generation.lease().clone());
        let span = self.about("vault.revoke", number);
        self.spawn(move |this| async move {
            let bounds = Bounds::new(priority, this.client_timeout);
            let answer = this.vault.revoke(&token, &lease, bounds).await;
            end(span, &answer);
            VaultReply::LeaseRevoked(number, answer)
        });
    }

    pub(super) fn look_up_lease(
        &self,
        priority: Priority,
        number: GenerationId,
        token: Secret,
        lease: Lease,
    ) {
        let span = self.about("vault.look_up", number);
        self.spawn(move |this| async move {
            let bounds = Bounds::new(priority, this.client_timeout);
            let answer = this.vault.has_lease(&token, &lease, bounds).await;
            end(span, &answer);
            VaultReply::LeaseLookedUp(number, answer)
        });
    }

    pub(super) fn revoke_token(&self, priority: Priority, id: TokenId, token: Secret) {
        let span = self.traces.begin(Kind::Client, "vault.revoke_token");
        self.spawn(move |this| async move {
            let bounds = Bounds::new(priority, this.client_timeout);
            let answer = this.vault.revoke_token(&token, bounds).await;
            end(span, &answer);
            VaultReply::TokenRevoked(id, answer)
        });
    }

    /// The span of a request about this generation.
    fn about(&self, name: &'static str, number: GenerationId) -> Span {
        let mut span = self.traces.begin(Kind::Client, name);
        span.number("lease.generation", number.get());
        span
    }

    fn spawn<F: Future<Output = VaultReply> + Send + 'static>(&self, request: impl FnOnce(Self) -> F) {
        let this = self.clone();
        let request = request(this.clone());
        let task = async move {
            let done = request.await;
            this.send(done).await;
        };
        self.tasks.spawn(task.in_current_span());
    }

    async fn send(&self, done: VaultReply) {
        // Without a driver the reply is of no use.
        let _ = self.done.send(done).await;
    }
}

/// Ends the span of a request that has been answered.
fn end<T>(mut span: Span, answer: &Result<T, vault::Failure>) {
    match answer {
        Ok(_) => span.word("outcome", "ok"),
        Err(failure) => span.fail(failure.kind.as_str(), &failure.reason()),
    }
}

fn end_of_proof(mut span: Span, proof: &Proof) {
    match proof {
        Proof::Accepted { address, .. } => {
            span.text("upstream.addr", address);
            span.word("outcome", "ok");
        }
        Proof::Refused { reason } => span.fail("refused", reason),
        Proof::Lags => span.fail("unprovable", &"the server that sessions go to does not know it yet"),
        Proof::Unprovable(obstacle) => span.fail("unprovable", &obstacle.reason()),
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
        kind => kind.into(),
    }
}
