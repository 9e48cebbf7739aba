//! A client of the HTTP API of Vault and OpenBao: log in, issue, renew, revoke. Floor 2.
//!
//! It sends each request once and returns the result; its callers decide about repetition. vaultrs and rustify build
//! the requests and are used only here. `transport` sends them, so that timeouts, sizes, redirects and TLS are under
//! our control. The log targets `vaultrs` and `rustify` are noisy and should be off.
//!
//! | file | what it is |
//! |---|---|
//! | `config`, `error` | the configuration, and its errors |
//! | `login`, `wrapped`, `files`, `refusals` | auth methods; wrapped secret_ids; files with secrets; refused logins |
//! | `endpoints`, `replies`, `lease` | requests that vaultrs lacks; the content of replies; the lease_id |
//! | `examine` | read-only requests: for `leasehold check`, for the health, for whether a lease exists |
//! | `exchange` | builds a request, waits for its turn, sends it, records its outcome |
//! | `classify`, `outcome`, `failure` | the meaning of an answer for the request and for Vault; failures |
//! | `transport`, `address`, `tls` | HTTP, addresses, trusted certificates |
//! | `bounds`, `pace` | how long a request may take, and when it may be sent |

mod address;
mod bounds;
mod changes;
mod classify;
mod config;
mod endpoints;
mod error;
mod examine;
mod exchange;
mod failure;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lease;
mod login;
mod operation;
mod outcome;
mod pace;
mod path;
mod refusals;
mod replies;
mod tls;
mod transport;
mod wrapped;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest};

use crate::clock;
use crate::secret::Secret;
use crate::time::Time;

use bounds::Limit;
pub(crate) use bounds::{Bounds, Priority, WAIT_MOST};
use changes::Changes;
use endpoints::{Creds, RenewLease, RevokeLease, StaticCreds};
use exchange::unreadable;
use login::Held;
pub(crate) use operation::Operation;
use refusals::Refusals;
use transport::Transport;

pub(crate) use address::Address;
pub(crate) use config::{Auth, Config, SecretId};
pub(crate) use error::Error;
pub(crate) use examine::Health;
pub(crate) use failure::{Failure, Kind};
pub(crate) use lease::{Lease, Leftover};
pub(crate) use login::Login;
pub(crate) use outcome::{Standing, Verdict, judge, judge_silence};
pub(crate) use pace::turns::{Place, Sent, Turns, Went};
pub(crate) use path::{RoleKind, VaultPath, segments};
pub(crate) use replies::{Grant, Renewed, StaticCredential, TokenFacts};

/// A client of Vault that logs in with one auth method.
///
/// Each request is sent once. Its [`Bounds`] begin when it is sent, and include the connection and the answer. A caller
/// that also needs a late answer spawns the request with longer bounds, and stops waiting earlier.
pub(crate) struct Vault {
    config: Config,
    transport: Transport,
    /// Locked by the login that runs.
    login: Arc<tokio::sync::Mutex<Held>>,
    refusals: Arc<Mutex<Refusals>>,
    seen: Arc<Mutex<Seen>>,
    /// Who wants the token of the next login.
    wanted: Arc<Mutex<Option<oneshot::Sender<Secret>>>>,
}

/// Changes of its state are remembered that long.
const REMEMBERED: Duration = Duration::from_hours(1);

/// The state of Vault, for the status.
#[derive(Default)]
struct Seen {
    standing: Standing,
    last_success: Option<SystemTime>,
    changes: Changes,
}

impl Vault {
    /// Reads the TLS files and checks the rest of the configuration. Sends nothing.
    ///
    /// # Errors
    ///
    /// The error names the file or key, and the reason.
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            transport: Transport::new(&config)?,
            config,
            login: Arc::default(),
            refusals: Arc::default(),
            seen: Arc::default(),
            wanted: Arc::default(),
        })
    }

    /// Takes over the rate limiter and the observed state of an earlier client, since both use the same Vault. If the
    /// auth settings are equal, it takes over the login state as well: a wrapped secret_id can be unwrapped only once,
    /// and only one login may run at a time.
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

    /// Ends the waits after refused logins and refusals of `path`, because a credential is wanted now. A secret that
    /// Vault refused is sent again.
    pub(crate) fn retry_now(&self, path: &VaultPath) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).retry_now(Instant::now());
        self.transport.pace.retry_now(login::PATH);
        self.transport.pace.retry_now(&creds_path(path));
    }

    /// Records whether a credential from `path` could be used. A credential that could not counts as a refusal of the
    /// path, although the request succeeded.
    pub(crate) fn grant_was_of_use(&self, path: &VaultPath, of_use: bool) {
        self.transport.pace.of_use(&creds_path(path), of_use);
    }

    /// Records whether the token of a login could be used. A token that could not counts as a refused login.
    pub(crate) fn login_was_of_use(&self, of_use: bool) {
        self.transport.pace.of_use(login::PATH, of_use);
    }

    /// The address that is tried first: the address that answered last, unless it has failed since.
    #[must_use]
    pub(crate) fn addr(&self) -> String {
        self.transport.addr()
    }

    /// The state of Vault at the latest request.
    #[must_use]
    pub(crate) fn standing(&self) -> Standing {
        self.seen().standing
    }

    /// How the state of Vault has changed in the last hour: since when it was what, oldest first, at most
    /// [`Changes::MOST`]. Empty as long as no request has been sent.
    #[must_use]
    pub(crate) fn changes(&self) -> Vec<(Time, Standing)> {
        self.seen().changes.since(clock::now() - REMEMBERED)
    }

    /// The time of Vault's latest successful answer.
    #[must_use]
    pub(crate) fn last_success(&self) -> Option<SystemTime> {
        self.seen().last_success
    }

    /// Issues a credential of the dynamic role at `path`.
    ///
    /// Not cancel safe: the credential would exist without use until its token or its lease ends.
    ///
    /// # Errors
    ///
    /// With `outcome_unknown` Vault may have made a credential although the request failed. With `left` it has made a
    /// credential, which must be revoked.
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
            // A body that is not JSON does not come from Vault, whatever the status.
            let kind = if why == replies::Unusable::NotJson { Kind::Transient } else { Kind::Refused };
            let failure = Failure::local(Operation::Issue, kind, why.as_str());
            let failure = if why.may_have_made() { failure.with_outcome_unknown() } else { failure };
            failure.with_granted(&reply.body, &path)
        })
    }

    /// Reads the password of the static role at `path`. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Refused` for an unknown role, or a role without a password.
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

    /// Renews the lease of this user by its role's TTL. Cancel safe, except that a longer TTL may go unnoticed.
    ///
    /// # Errors
    ///
    /// `Gone` and `CannotExtend` are final. An error of the database is `Gone` only if it names the user.
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

    /// Renews the token by its role's TTL. Cancel safe, except that a longer TTL may go unnoticed.
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

    /// Looks up the token's properties. Cancel safe. This costs a use of a token with limited uses.
    ///
    /// # Errors
    ///
    /// `Forbidden` if the token is valid but may not look itself up.
    pub(crate) async fn look_up_token(
        &self,
        token: &Secret,
        bounds: impl Into<Bounds>,
    ) -> Result<TokenFacts, Failure> {
        self.facts(token, &Limit::new(bounds.into())).await
    }

    /// Revokes a lease, and waits until this is done. Cancel safe. It also succeeds if the lease does not exist any
    /// more.
    ///
    /// # Errors
    ///
    /// `Forbidden` if the policy does not allow it, which is the default.
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

    /// Revokes the token, and with it each lease that it owns. Cancel safe.
    ///
    /// * Path: `auth/token/revoke-self`
    /// * Method: POST
    /// * Response: none
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/token#revoke-a-token-self>
    ///
    /// # Errors
    ///
    /// `TokenDead` if the token does not exist any more.
    pub(crate) async fn revoke_token(
        &self,
        token: &Secret,
        bounds: impl Into<Bounds>,
    ) -> Result<(), Failure> {
        let request = RevokeTokenSelfRequest {};
        self.ask(Operation::RevokeToken, token, request, bounds).await?;
        Ok(())
    }

    /// Looks up the token.
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

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

/// The path of a creds request.
fn creds_path(path: &VaultPath) -> String {
    format!("/v1/{path}")
}

#[cfg(test)]
mod tests;
