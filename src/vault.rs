//! Vault and OpenBao, by their HTTP API: log in, issue, renew, revoke. Floor 2.
//!
//! It asks once and says what came back; when to ask again is for others to decide. vaultrs and rustify build the
//! requests and do not leave this module; `transport` sends them, so that time, size, redirects and TLS are ours.
//! The log targets `vaultrs` and `rustify` are noisy and are to be off.
//!
//! | file | what it is |
//! |---|---|
//! | `config`, `error` | what the module needs to know, and what is wrong with it |
//! | `login`, `wrapped`, `files`, `refusals` | each auth method; a secret_id that comes wrapped; files of secrets; what was refused |
//! | `endpoints`, `replies`, `lease` | requests that vaultrs lacks; what replies hold; the name of a lease |
//! | `examine` | questions of `leasehold check`, and whether a lease is there |
//! | `classify`, `failure` | what an answer means, and how it is told |
//! | `transport`, `address`, `tls` | addresses, bounds, trust |
//! | `bounds`, `pace` | how long a request may take, when it may be sent |

mod address;
mod bounds;
mod classify;
mod config;
mod endpoints;
mod error;
mod examine;
mod failure;
mod files;
mod lease;
mod login;
mod operation;
mod pace;
mod path;
mod refusals;
mod replies;
mod tls;
mod transport;
mod wrapped;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use rustify::endpoint::Endpoint;
use tokio::time::Instant;
use vaultrs::api::EndpointMiddleware;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest};

use crate::metrics::{self, VaultOutcome};
use crate::secret::Secret;

use bounds::Limit;
pub(crate) use bounds::{Bounds, Priority};
use classify::{classify, is_server_trouble};
use endpoints::{Creds, ReadHealth, RenewLease, RevokeLease, StaticCreds};
use login::Held;
pub(crate) use operation::Operation;
use pace::Went;
use refusals::Refusals;
use transport::{NoReply, Reply, Transport};

pub(crate) use address::Address;
pub(crate) use config::{Auth, Config, SecretId};
pub(crate) use error::Error;
pub(crate) use failure::{Failure, Kind};
pub(crate) use lease::{Lease, Leftover};
pub(crate) use login::Login;
pub(crate) use path::{RoleKind, VaultPath, segments};
pub(crate) use replies::{Grant, Renewed, StaticCredential, TokenFacts};

/// Vault, reached as one auth identity.
///
/// Each request is sent once. Its [`Bounds`] hold for all of it from its sending on: connecting, the answer. Whoever wants
/// to hear of a late answer spawns it with longer ones, and gives up earlier.
pub(crate) struct Vault {
    config: Config,
    transport: Transport,
    /// Held by the login in flight.
    login: Arc<tokio::sync::Mutex<Held>>,
    refusals: Arc<Mutex<Refusals>>,
    seen: Arc<Mutex<Seen>>,
}

/// What people ask of Vault.
#[derive(Clone, Copy, Default)]
struct Seen {
    standing: Standing,
    last_success: Option<SystemTime>,
}

/// How Vault stood at the latest request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It answered, and serves.
    Serving,
    /// It answered that it is sealed.
    Sealed,
    /// It answered that it cannot serve: no leader, not set up, a node that serves nothing.
    NotServing,
    /// Nothing that is Vault's came back, or nothing has been asked yet.
    #[default]
    Unreachable,
}

/// The state of a node, as its health tells.
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
    /// Reads the TLS files and checks the rest of the configuration. Asks nothing.
    ///
    /// # Errors
    ///
    /// Names the file or key, and the reason.
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            transport: Transport::new(&config)?,
            config,
            login: Arc::default(),
            refusals: Arc::default(),
            seen: Arc::default(),
        })
    }

    /// Takes over the pace of an earlier one and what it has seen, since both ask the same Vault, and what it knows, where both log in alike: a
    /// wrapped secret_id can be had once only, and one login at a time is in flight.
    #[must_use]
    pub(crate) fn succeeding(mut self, earlier: &Self) -> Self {
        self.transport.pace = Arc::clone(&earlier.transport.pace);
        self.seen = Arc::clone(&earlier.seen);
        if self.config.auth == earlier.config.auth && self.config.namespace == earlier.config.namespace {
            self.login = Arc::clone(&earlier.login);
            self.refusals = Arc::clone(&earlier.refusals);
        }
        self
    }

    /// Somebody asks for a credential at `path` now: one for the login that Vault refused is shown to it again, and what it
    /// refused lately is not waited out.
    pub(crate) fn retry_now(&self, path: &VaultPath) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).retry_now(Instant::now());
        self.transport.pace.retry_now(login::PATH);
        self.transport.pace.retry_now(&creds_path(path));
    }

    /// Whether a credential that came from `path` is of use. One that is not is as good as a refusal of that path, though
    /// the request was answered well.
    pub(crate) fn grant_was_of_use(&self, path: &VaultPath, of_use: bool) {
        self.transport.pace.of_use(&creds_path(path), of_use);
    }

    /// Whether the token of a login is of use. One that is not is as good as a refused login.
    pub(crate) fn login_was_of_use(&self, of_use: bool) {
        self.transport.pace.of_use(login::PATH, of_use);
    }

    /// The address that is asked first: the one that answered last, unless it failed since.
    #[must_use]
    pub(crate) fn addr(&self) -> String {
        self.transport.addr()
    }

    /// How Vault stood at the latest request.
    #[must_use]
    pub(crate) fn standing(&self) -> Standing {
        self.seen().standing
    }

    /// When Vault last answered with success.
    #[must_use]
    pub(crate) fn last_success(&self) -> Option<SystemTime> {
        self.seen().last_success
    }

    /// Issues a credential at `path`, of a dynamic role.
    ///
    /// Not cancel safe: the credential would live on, unknown to anybody, until the token or the lease ends.
    ///
    /// # Errors
    ///
    /// With `outcome_unknown` a credential may have been made all the same; with `left` one was made, and is to be given
    /// back.
    pub(crate) async fn issue(
        &self,
        token: &Secret,
        path: &VaultPath,
        bounds: impl Into<Bounds>,
    ) -> Result<Grant, Failure> {
        let path = path.to_string();
        let request = Creds { path: path.clone() };
        let reply = self.ask_about(&path, Operation::Issue, token, request, bounds).await?;
        replies::grant(&reply.body, &path).map_err(|why| {
            // What is not JSON does not come from Vault, whatever its status says.
            let kind = if why == replies::Unusable::NotJson { Kind::Transient } else { Kind::Refused };
            let failure = Failure::local(Operation::Issue, kind, why.as_str());
            let failure = if why.may_have_made() { failure.with_outcome_unknown() } else { failure };
            failure.leaving(replies::leftover(&reply.body, &path))
        })
    }

    /// Reads the password of a static role at `path`. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Refused` for an unknown role, or one that has no password.
    pub(crate) async fn read_static(
        &self,
        token: &Secret,
        path: &VaultPath,
        bounds: impl Into<Bounds>,
    ) -> Result<StaticCredential, Failure> {
        let request = StaticCreds { path: path.to_string() };
        let reply = self.ask(Operation::Issue, token, request, bounds).await?;
        replies::static_credential(&reply.body)
            .map_err(|why| Failure::local(Operation::Issue, Kind::Refused, why.as_str()))
    }

    /// Renews the lease of this user by what its role gives. Cancel safe, except that a longer life may go unnoticed.
    ///
    /// # Errors
    ///
    /// `Gone` and `CannotExtend` are final. An error of the database is `Gone` only where it names the user.
    pub(crate) async fn renew(
        &self,
        token: &Secret,
        lease: &Lease,
        username: &str,
        bounds: impl Into<Bounds>,
    ) -> Result<Renewed, Failure> {
        let request = RenewLease { path: lease.path("sys/leases/renew"), lease_id: lease.id().to_owned() };
        let reply = self.ask_about(username, Operation::Renew, token, request, bounds).await?;
        replies::renewed(&reply.body).map_err(|why| unreadable(Operation::Renew, why))
    }

    /// Renews the token by what its role gives. Cancel safe, except that a longer life may go unnoticed.
    ///
    /// * Path: `auth/token/renew-self`
    /// * Method: POST
    /// * Response: `auth`
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/token#renew-a-token-self>
    ///
    /// # Errors
    ///
    /// `TokenDead` and `CannotExtend` are final.
    pub(crate) async fn renew_token(
        &self,
        token: &Secret,
        bounds: impl Into<Bounds>,
    ) -> Result<Renewed, Failure> {
        let request = RenewTokenSelfRequest { increment: None };
        let reply = self.ask(Operation::RenewToken, token, request, bounds).await?;
        replies::renewed_token(&reply.body).map_err(|why| unreadable(Operation::RenewToken, why))
    }

    /// Asks what a token is. Cancel safe. Costs a use of a token with a limited number.
    ///
    /// # Errors
    ///
    /// `Forbidden` where the token lives and may not ask.
    pub(crate) async fn look_up_token(
        &self,
        token: &Secret,
        bounds: impl Into<Bounds>,
    ) -> Result<TokenFacts, Failure> {
        self.facts(token, &Limit::new(bounds.into())).await
    }

    /// Revokes a lease, and waits until it is done. Cancel safe. One that is gone already is a success.
    ///
    /// # Errors
    ///
    /// `Forbidden` where the policy does not allow it, which is the default.
    pub(crate) async fn revoke(
        &self,
        token: &Secret,
        lease: &Lease,
        bounds: impl Into<Bounds>,
    ) -> Result<(), Failure> {
        let path = lease.path("sys/leases/revoke");
        let request = RevokeLease { path, lease_id: lease.id().to_owned(), sync: true };
        match self.ask(Operation::Revoke, token, request, bounds).await {
            Err(failure) if failure.kind != Kind::Gone => Err(failure),
            _ => Ok(()),
        }
    }

    /// Revokes the token, and with it every lease that it owns. Cancel safe.
    ///
    /// * Path: `auth/token/revoke-self`
    /// * Method: POST
    /// * Response: none
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/token#revoke-a-token-self>
    ///
    /// # Errors
    ///
    /// `TokenDead` where it is gone already.
    pub(crate) async fn revoke_token(
        &self,
        token: &Secret,
        bounds: impl Into<Bounds>,
    ) -> Result<(), Failure> {
        let request = RevokeTokenSelfRequest {};
        self.ask(Operation::RevokeToken, token, request, bounds).await?;
        Ok(())
    }

    /// As [`Vault::health`], with the node's clock, in whole seconds, where its answer tells it.
    ///
    /// # Errors
    ///
    /// As [`Vault::health`].
    pub(crate) async fn look(&self, within: Duration) -> Result<(Health, Option<SystemTime>), Failure> {
        let request = self.build(Operation::Health, None, ReadHealth {})?;
        let reply = self.exchange(Operation::Health, &request, &Limit::new(within.into())).await?;
        if !is_vaults(Operation::Health, &reply) {
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

    /// Looks the token up.
    ///
    /// * Path: `auth/token/lookup-self`
    /// * Method: GET
    /// * Response: `data` with `ttl`, `expire_time`, `renewable`, `type`, `num_uses`, `explicit_max_ttl`
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self>
    async fn facts(&self, token: &Secret, limit: &Limit) -> Result<TokenFacts, Failure> {
        let request = LookupTokenSelfRequest {};
        let reply = self.call(Operation::LookUp, Some(token), request, limit, &[]).await?;
        replies::token_facts(&reply.body).map_err(|why| unreadable(Operation::LookUp, why))
    }

    /// A request with a token that is about nothing in particular.
    async fn ask<E: Endpoint>(
        &self,
        operation: Operation,
        token: &Secret,
        endpoint: E,
        bounds: impl Into<Bounds>,
    ) -> Result<Reply, Failure> {
        self.ask_about("", operation, token, endpoint, bounds).await
    }

    /// A request with a token. A 403 may mean a dead token or a policy: the token's own look-up tells which, and
    /// where it does not, nothing is concluded. `subject` is the user of the lease that is to be renewed, or the
    /// path at which a credential is read.
    async fn ask_about<E: Endpoint>(
        &self,
        subject: &str,
        operation: Operation,
        token: &Secret,
        endpoint: E,
        bounds: impl Into<Bounds>,
    ) -> Result<Reply, Failure> {
        let limit = Limit::new(bounds.into());
        let failure = match self.call_about(subject, operation, Some(token), endpoint, &limit, &[]).await {
            Err(failure) if failure.kind == Kind::Forbidden => failure,
            other => return other,
        };
        let kind = match self.facts(token, &limit).await {
            Ok(_) => Kind::Forbidden,
            Err(look_up) => match look_up.kind {
                Kind::Forbidden | Kind::TokenDead => look_up.kind,
                _ => Kind::Transient,
            },
        };
        Err(failure.meaning(kind))
    }

    /// A request that is about nothing in particular.
    async fn call<E: Endpoint>(
        &self,
        operation: Operation,
        token: Option<&Secret>,
        endpoint: E,
        limit: &Limit,
        secrets: &[&Secret],
    ) -> Result<Reply, Failure> {
        self.call_about("", operation, token, endpoint, limit, secrets).await
    }

    /// A request whose answer is a success, or a failure with its meaning. `secrets` were sent in its body.
    async fn call_about<E: Endpoint>(
        &self,
        subject: &str,
        operation: Operation,
        token: Option<&Secret>,
        endpoint: E,
        limit: &Limit,
        secrets: &[&Secret],
    ) -> Result<Reply, Failure> {
        let request = self.build(operation, token, endpoint)?;
        let reply = self.exchange(operation, &request, limit).await?;
        let status = reply.status;
        if !is_vaults(operation, &reply) {
            let is_issuance = operation == Operation::Issue;
            let left = is_issuance.then(|| replies::leftover(&reply.body, subject)).flatten();
            return Err(Failure::not_vaults(operation, status).leaving(left));
        }
        if (200..300).contains(&status) {
            return Ok(reply);
        }
        let errors = replies::errors(&reply.body).unwrap_or_default();
        let kind = classify(operation, status, Some(&errors), subject);
        let said = errors.first().map_or("", String::as_str);
        let known: Vec<&Secret> = secrets.iter().copied().chain(token).collect();
        Err(Failure::answered(operation, kind, status, said, &known))
    }

    /// vaultrs panics on a token or namespace that is no header value, so both are checked before: the namespace at
    /// the start, the token here.
    fn build<E: Endpoint>(
        &self,
        operation: Operation,
        token: Option<&Secret>,
        endpoint: E,
    ) -> Result<http::Request<Vec<u8>>, Failure> {
        let middleware = EndpointMiddleware {
            token: token.map_or_else(String::new, |token| token.expose().to_owned()),
            version: "v1".to_owned(),
            wrap: None,
            // Health is the same for all namespaces, and is not served in one.
            namespace: self.config.namespace.clone().filter(|_| operation != Operation::Health),
        };
        let refuse = |why| Failure::local(operation, Kind::Refused, why).of_ours();
        if HeaderValue::from_str(&middleware.token).is_err() {
            return Err(refuse("the token holds a character that no HTTP header may hold"));
        }
        endpoint
            .with_middleware(&middleware)
            .request(&self.transport.base())
            .map_err(|_| refuse("the path cannot be put into a URL"))
    }

    /// Waits for its turn, sends, counts.
    async fn exchange(
        &self,
        operation: Operation,
        request: &http::Request<Vec<u8>>,
        limit: &Limit,
    ) -> Result<Reply, Failure> {
        let not_sent = |why: &str| Failure::local(operation, Kind::Transient, why);
        if Instant::now() >= limit.ends_at() {
            return Err(not_sent("not sent: no time is left for it"));
        }
        let path = request.uri().path();
        let mut turn = self.transport.pace.turn(path, limit).await.map_err(not_sent)?;
        limit.is_sent();
        let sent = Instant::now();
        let result = self.transport.send(request, &mut turn, limit).await;
        let outcome = outcome(operation, &result);
        turn.went(went(outcome), operation == Operation::Issue && result.as_ref().is_ok_and(is_of_path));
        // A quota is the cluster's; a node that is in trouble says nothing of the others.
        if let Ok(Reply { retry_after: Some(span), status, .. }) = result
            && (status == 429 || self.transport.is_alone())
        {
            self.transport.pace.rest(path, span);
        }
        metrics::vault_request(operation.as_str(), outcome, sent.elapsed());
        self.note(standing(operation, &result), outcome);
        result.map_err(|no_reply| match no_reply {
            NoReply::NotSent(why) | NoReply::Untrusted(why) | NoReply::Redirected(why) => not_sent(&why),
            NoReply::Lost(why, body) => {
                let failure = not_sent(&why).with_outcome_unknown();
                let is_issuance = operation == Operation::Issue;
                failure.leaving(
                    is_issuance.then(|| replies::leftover(&body, path.trim_start_matches("/v1/"))).flatten(),
                )
            }
            NoReply::TimedOut => Failure::local(operation, Kind::TimedOut, "no answer in time"),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "people read the time of the last success")]
    fn note(&self, standing: Standing, outcome: VaultOutcome) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.standing = standing;
        if outcome == VaultOutcome::Ok {
            let now = SystemTime::now();
            seen.last_success = Some(now);
            metrics::vault_succeeded(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

/// The path of a creds request, as it is sent.
fn creds_path(path: &VaultPath) -> String {
    format!("/v1/{path}")
}

/// What an outcome says of Vault as a whole.
fn went(outcome: VaultOutcome) -> Went {
    match outcome {
        VaultOutcome::Ok => Went::Well,
        VaultOutcome::Denied | VaultOutcome::ClientError => Went::Refused,
        VaultOutcome::ServerError | VaultOutcome::Timeout | VaultOutcome::Unreachable => Went::Trouble,
    }
}

/// Whether an answer to a creds request is about its path: Vault's own, such as an unknown role's or a broken statement's.
/// A sealed or leaderless node says the same of every path.
fn is_of_path(reply: &Reply) -> bool {
    reply.status != 503 && is_vaults(Operation::Issue, reply)
}

/// Whether an answer is Vault's own word, by its body.
fn is_vaults(operation: Operation, reply: &Reply) -> bool {
    match (operation, reply.status) {
        (Operation::Health, _) => replies::is_health(&reply.body),
        (_, 200..=299) => replies::is_success(reply.status, &reply.body),
        _ => replies::errors(&reply.body).is_some(),
    }
}

/// What an answer says of Vault itself.
fn standing(operation: Operation, result: &Result<Reply, NoReply>) -> Standing {
    let reply = match result {
        Ok(reply) if is_vaults(operation, reply) => reply,
        Err(NoReply::Redirected(_)) => return Standing::NotServing,
        Ok(_) | Err(_) => return Standing::Unreachable,
    };
    let says_sealed = || {
        let errors = replies::errors(&reply.body).unwrap_or_default();
        errors.iter().any(|error| error.contains("is sealed"))
    };
    match reply.status {
        503 if operation == Operation::Health || says_sealed() => Standing::Sealed,
        472 | 501 | 503 => Standing::NotServing,
        473 if operation != Operation::Health => Standing::NotServing,
        _ => Standing::Serving,
    }
}

/// The label of the metric.
fn outcome(operation: Operation, result: &Result<Reply, NoReply>) -> VaultOutcome {
    match result {
        Ok(reply) if !is_vaults(operation, reply) => VaultOutcome::ServerError,
        // That a lease is not there is an answer, and the one that is hoped for.
        Ok(Reply { status: 400, body, .. })
            if operation == Operation::LookUpLease
                && classify(operation, 400, replies::errors(body).as_deref(), "") == Kind::Gone =>
        {
            VaultOutcome::Ok
        }
        Ok(reply) => match reply.status {
            200..=299 => VaultOutcome::Ok,
            403 => VaultOutcome::Denied,
            status if is_server_trouble(status) => VaultOutcome::ServerError,
            _ => VaultOutcome::ClientError,
        },
        Err(NoReply::Redirected(_)) => VaultOutcome::ServerError,
        Err(NoReply::TimedOut) => VaultOutcome::Timeout,
        Err(NoReply::NotSent(_) | NoReply::Untrusted(_) | NoReply::Lost(..)) => VaultOutcome::Unreachable,
    }
}

/// A success that cannot be read: it was done, and we do not know what.
fn unreadable(operation: Operation, why: replies::Unusable) -> Failure {
    Failure::local(operation, Kind::Transient, why.as_str()).with_outcome_unknown()
}

#[cfg(test)]
mod tests;
