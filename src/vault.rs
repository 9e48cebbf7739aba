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
//! | `examine` | questions that change nothing: of `leasehold check`, of the health, whether a lease is there |
//! | `exchange` | builds a request, waits for its turn, sends it, says what came of it |
//! | `classify`, `outcome`, `failure` | what an answer means for the request, and for Vault as a whole; its text |
//! | `transport`, `address`, `tls` | addresses, bounds, trust |
//! | `bounds`, `pace` | how long a request may take, when it may be sent |

mod address;
mod bounds;
mod classify;
mod config;
mod endpoints;
mod error;
mod examine;
mod exchange;
mod failure;
mod files;
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

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest};

use crate::secret::Secret;

use bounds::Limit;
pub(crate) use bounds::{Bounds, Priority, WAIT_MOST};
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

/// Vault, reached as one auth identity.
///
/// Each request is sent once. Its [`Bounds`] hold from its sending on, for the connection and the answer. A caller that
/// needs a late answer too spawns the request with longer bounds, and stops waiting earlier.
pub(crate) struct Vault {
    config: Config,
    transport: Transport,
    /// Held by the login in flight.
    login: Arc<tokio::sync::Mutex<Held>>,
    refusals: Arc<Mutex<Refusals>>,
    seen: Arc<Mutex<Seen>>,
}

/// What is shown of Vault.
#[derive(Clone, Copy, Default)]
struct Seen {
    standing: Standing,
    last_success: Option<SystemTime>,
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

    /// Goes on with the rate limiter of an earlier client and with what it has seen, since both ask the same Vault; also with
    /// its login state where both log in alike: a wrapped secret_id can be unwrapped once only, and one login at a time is in
    /// flight.
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

    /// Forgets the waits after refusals of the login and of `path`, as a credential is wanted now. A secret that Vault refused
    /// is shown to it again.
    pub(crate) fn retry_now(&self, path: &VaultPath) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).retry_now(Instant::now());
        self.transport.pace.retry_now(login::PATH);
        self.transport.pace.retry_now(&creds_path(path));
    }

    /// Says whether a credential that came from `path` is of use. A useless one counts as a refusal of that path, although
    /// the request succeeded.
    pub(crate) fn grant_was_of_use(&self, path: &VaultPath, of_use: bool) {
        self.transport.pace.of_use(&creds_path(path), of_use);
    }

    /// Says whether the token of a login is of use. A useless one counts as a refused login.
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
    /// Not cancel safe: the credential would live on unused until the token or the lease ends.
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

#[cfg(test)]
mod tests;
