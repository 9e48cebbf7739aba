//! Logs in with each auth method. Floor 2.

use std::sync::PoisonError;
use std::time::Duration;

use rustify::endpoint::Endpoint;
use tokio::sync::oneshot;
use tokio::time::Instant;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use vaultrs::api::auth::userpass::requests::LoginRequest as UserpassLoginRequest;
use vaultrs::api::token::requests::RevokeTokenSelfRequest;

use crate::secret::Secret;

use super::bounds::{Bounds, Limit};
use super::endpoints::LogInByCertificate;
use super::failure::login_failed;
use super::files::Files;
use super::operation::Operation;
use super::pace::Went;
use super::refusals::Counted;
use super::replies::{self, TokenFacts};
use super::transport::{Refreshing, Reply};
use super::wrapped::{Origin, Wrapped};
use super::{Auth, Failure, Kind, SecretId, Vault};

/// A token with its properties.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) token: Secret,
    /// The token was given to us (`token`, `token-file`). Others may use it, so leasehold never revokes it.
    pub(crate) handed: bool,
    /// The TTL, from the sending of the login. `None`: no end is known.
    pub(crate) ttl: Option<Duration>,
    /// Whether Vault stated `ttl`. False only for a given token that may not look itself up.
    pub(crate) ttl_known: bool,
    /// Whether the token can be renewed.
    pub(crate) renewable: bool,
    /// A batch token can be neither renewed nor revoked.
    pub(crate) batch: bool,
    /// The remaining uses; 0 = without limit. Otherwise, creds read with the last use are revoked at once.
    pub(crate) num_uses: u64,
}

impl Login {
    fn new(token: Secret, handed: bool, facts: TokenFacts) -> Self {
        Self {
            token,
            handed,
            ttl: facts.ttl,
            ttl_known: true,
            renewable: facts.renewable,
            batch: facts.batch,
            num_uses: facts.num_uses,
        }
    }
}

/// The state that a login leaves for the next login.
#[derive(Default)]
pub(super) struct Held {
    wrapped: Wrapped,
    files: Files,
    /// A read of the client certificate that timed out.
    certificate: Option<Refreshing>,
}

impl Vault {
    /// Logs in, or takes the token that was given to us. Only one login runs at a time; a second caller waits. `ttl`
    /// counts from the sending of its first request, see [`Bounds::waited`].
    ///
    /// Not cancel safe: a token that Vault made may be lost, and lives until its end.
    ///
    /// # Errors
    ///
    /// `Refused` if Vault refuses the login or a given token is dead; `Transient` if a file cannot be read.
    pub(crate) async fn log_in(&self, bounds: impl Into<Bounds>) -> Result<Login, Failure> {
        let limit = Limit::new(bounds.into());
        let turn = self.transport.pace.alone(PATH, &limit).await;
        let turn = turn.map_err(|why| login_failed(Kind::Transient, why))?;
        limit.has_login_in_hand();
        // Only the task that has the turn locks this.
        let result = self.log_in_alone(&mut *self.login.lock().await, &limit).await;
        match &result {
            Ok(login) => {
                turn.went(Went::Well, true);
                self.hand_out(login);
            }
            Err(refusal @ Failure { kind: Kind::Refused, status: Some(_), .. })
                if refusal.again_in().is_none() =>
            {
                turn.went(Went::Refused, true);
            }
            Err(_) => {}
        }
        result
    }

    /// The token of the next login, for questions about what it may do. A token whose uses are counted is not handed out.
    pub(crate) fn next_token(&self) -> oneshot::Receiver<Secret> {
        let (sender, token) = oneshot::channel();
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        token
    }

    fn hand_out(&self, login: &Login) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(wanted) = wanted.filter(|_| login.num_uses == 0) {
            // Whoever wanted it may have gone.
            let _ = wanted.send(login.token.clone());
        }
    }

    async fn log_in_alone(&self, held: &mut Held, limit: &Limit) -> Result<Login, Failure> {
        let files = &mut held.files;
        let reply = match &self.config.auth {
            Auth::Token { token: Some(token) } => return self.take(token.clone(), limit).await,
            Auth::Token { token: None } => return Err(login_failed(Kind::Refused, "no token was read")),
            Auth::TokenFile { path } => {
                let token = files.secret(path, limit.ends_at()).await?;
                return self.take(token, limit).await;
            }
            Auth::Kubernetes { mount, role, jwt_file } => {
                let jwt = files.secret(jwt_file, limit.ends_at()).await?;
                self.show(&jwt, Counted::No, self.log_in_kubernetes(mount, role, &jwt, limit)).await?
            }
            Auth::Jwt { mount, role, jwt_file } => {
                let jwt = files.secret(jwt_file, limit.ends_at()).await?;
                self.show(&jwt, Counted::No, self.log_in_jwt(mount, role, &jwt, limit)).await?
            }
            Auth::AppRole { mount, role_id, secret_id } => {
                let secret_id = self.secret_id(held, mount, secret_id, limit).await?;
                let login = self.log_in_approle(mount, role_id, &secret_id, limit);
                self.show(&secret_id, Counted::Yes, login).await?
            }
            Auth::Cert { mount, name } => {
                self.transport.refresh_identity(&mut held.certificate, halfway(limit.ends_at())).await;
                self.log_in_cert(mount, name.as_deref(), limit).await?
            }
            Auth::Userpass { mount, username, password_file } => {
                let password = files.secret(password_file, limit.ends_at()).await?;
                let login = self.log_in_userpass(mount, username, &password, limit);
                self.show(&password, Counted::Yes, login).await?
            }
        };
        self.admit(&reply, limit).await
    }

    /// Sends Vault a credential, unless Vault refused it recently. Vault counts a 400 towards a user lockout, if it is
    /// enabled. A 403 means that the lockout is in force, or that something else forbids the login.
    async fn show(
        &self,
        credential: &Secret,
        counted: Counted,
        login: impl Future<Output = Result<Reply, Failure>>,
    ) -> Result<Reply, Failure> {
        let refusals = || self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((refusal, wait)) = refusals().withheld(credential, Instant::now()) {
            return Err(refusal.clone().not_asked_for(wait));
        }
        let result = login.await;
        match &result {
            Ok(_) => refusals().accepted(),
            Err(refusal @ Failure { kind: Kind::Refused, status: Some(status), .. }) => {
                let counted = if *status == 400 { counted } else { Counted::No };
                refusals().refused(credential, refusal, counted, Instant::now(), rand::random());
            }
            Err(_) => {}
        }
        result
    }

    /// AppRole's secret_id; empty if none is sent.
    async fn secret_id(
        &self,
        held: &mut Held,
        mount: &str,
        source: &SecretId,
        limit: &Limit,
    ) -> Result<Secret, Failure> {
        match source {
            SecretId::Absent => Ok(Secret::new(String::new())),
            SecretId::File(path) => held.files.secret(path, limit.ends_at()).await,
            SecretId::Wrapped { file, role } => {
                // If the file hangs, there must still be time to log in with the earlier secret_id.
                let ends_at = limit.ends_at();
                let until = if held.wrapped.has_secret_id() { halfway(ends_at) } else { ends_at };
                let token = held.files.secret(file, until).await;
                let origin = Origin { mount, role: role.as_deref() };
                self.unwrapped(&mut held.wrapped, token, &origin, limit).await
            }
        }
    }

    /// Logs in with a service account's token.
    ///
    /// * Path: `auth/{mount}/login`
    /// * Method: POST
    /// * Response: `auth`
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login>
    async fn log_in_kubernetes(
        &self,
        mount: &str,
        role: &str,
        jwt: &Secret,
        limit: &Limit,
    ) -> Result<Reply, Failure> {
        let request = LoginWithKubernetesRequest {
            mount: mount.to_owned(),
            role: role.to_owned(),
            jwt: jwt.expose().to_owned(),
        };
        self.send_login(request, limit, &[jwt]).await
    }

    /// Logs in with a role_id and a secret_id. An empty secret_id counts as none.
    ///
    /// * Path: `auth/{mount}/login`
    /// * Method: POST
    /// * Response: `auth`
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle>
    async fn log_in_approle(
        &self,
        mount: &str,
        role_id: &str,
        secret_id: &Secret,
        limit: &Limit,
    ) -> Result<Reply, Failure> {
        let request = LoginWithApproleRequest {
            mount: mount.to_owned(),
            role_id: role_id.to_owned(),
            secret_id: secret_id.expose().to_owned(),
        };
        self.send_login(request, limit, &[secret_id]).await
    }

    /// Logs in with a JWT.
    ///
    /// * Path: `auth/{mount}/login`
    /// * Method: POST
    /// * Response: `auth`
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/jwt#jwt-login>
    async fn log_in_jwt(
        &self,
        mount: &str,
        role: &str,
        jwt: &Secret,
        limit: &Limit,
    ) -> Result<Reply, Failure> {
        let request = JWTLoginRequest {
            mount: mount.to_owned(),
            jwt: jwt.expose().to_owned(),
            role: Some(role.to_owned()),
        };
        self.send_login(request, limit, &[jwt]).await
    }

    /// Logs in with the client certificate of the connection.
    async fn log_in_cert(&self, mount: &str, name: Option<&str>, limit: &Limit) -> Result<Reply, Failure> {
        let request =
            LogInByCertificate { mount: mount.to_owned(), name: name.unwrap_or_default().to_owned() };
        self.send_login(request, limit, &[]).await
    }

    /// Logs in with a user name and a password.
    ///
    /// * Path: `auth/{mount}/login/{username}`
    /// * Method: POST
    /// * Response: `auth`
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/userpass#login>
    async fn log_in_userpass(
        &self,
        mount: &str,
        username: &str,
        password: &Secret,
        limit: &Limit,
    ) -> Result<Reply, Failure> {
        let request = UserpassLoginRequest {
            mount: mount.to_owned(),
            username: username.to_owned(),
            password: password.expose().to_owned(),
        };
        self.send_login(request, limit, &[password]).await
    }

    /// Sends a login. A token in an answer that cannot be used is given back.
    async fn send_login<E: Endpoint>(
        &self,
        request: E,
        limit: &Limit,
        secrets: &[&Secret],
    ) -> Result<Reply, Failure> {
        let mut result = self.call(Operation::LogIn, None, request, limit, secrets).await;
        if let Err(failure) = &mut result
            && let Some(token) = failure.unused_token.take()
        {
            self.give_back(&token, limit).await;
        }
        result
    }

    /// Takes the token from a login's reply. A look-up gives more exact properties. If it fails, or would cost one of
    /// the token's uses, those of the reply are used.
    async fn admit(&self, reply: &Reply, limit: &Limit) -> Result<Login, Failure> {
        let unusable =
            |reason: replies::Unusable| login_failed(Kind::Refused, reason.as_str()).with_outcome_unknown();
        let auth = match replies::login(&reply.body) {
            Ok(auth) => auth,
            Err(reason) => {
                if let Some(token) = replies::unused_token(&reply.body) {
                    self.give_back(&token, limit).await;
                }
                return Err(unusable(reason));
            }
        };
        let mut facts = auth.facts();
        let token =
            auth.client_token.filter(|token| !token.same(&Secret::new(String::new()))).ok_or_else(|| {
                login_failed(Kind::Refused, "the login gives no token: it may ask for a second factor")
            })?;
        if facts.num_uses == 0
            && let Ok(found) = self.facts(&token, &limit.part(REFINE_WITHIN)).await
        {
            facts = found;
        }
        Ok(Login::new(token, false, facts))
    }

    /// Revokes a token that a login gave and that cannot be used. Without an answer it lives to its end.
    async fn give_back(&self, token: &Secret, limit: &Limit) {
        let limit = limit.afterwards(GIVE_BACK_WITHIN);
        let request = RevokeTokenSelfRequest {};
        if let Err(failure) = self.call(Operation::RevokeToken, Some(token), request, &limit, &[]).await {
            tracing::warn!(reason = failure.reason(), error = %failure, "the token of an unusable login could not be given back");
        }
    }

    /// Looks up a token that was given to us.
    async fn take(&self, token: Secret, limit: &Limit) -> Result<Login, Failure> {
        match self.facts(&token, limit).await {
            Ok(facts) => Ok(Login::new(token, true, facts)),
            Err(failure) if failure.kind == Kind::Forbidden => {
                Ok(Login { ttl_known: false, ..Login::new(token, true, UNKNOWN) })
            }
            Err(failure) if failure.kind == Kind::TokenDead => Err(failure.meaning(Kind::Refused)),
            Err(failure) => Err(failure),
        }
    }
}

/// The path of logins in the rate limiter, for every method: only one login runs at a time.
pub(super) const PATH: &str = "login";

/// The assumed properties of a token that may not look itself up: it has no end, and cannot be renewed.
const UNKNOWN: TokenFacts = TokenFacts {
    ttl: None,
    renewable: false,
    batch: false,
    num_uses: 0,
    period: None,
    explicit_max_ttl: None,
    orphan: false,
};

/// Half of the remaining time.
fn halfway(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// The limit of the look-up after a login. The login has succeeded already, so its token is not delayed for more exact
/// properties.
const REFINE_WITHIN: Duration = Duration::from_secs(2);

/// The limit of giving back a token that cannot be used, which delays the next login.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(2);
