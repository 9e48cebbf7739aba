//! A response-wrapped secret_id: it is unwrapped once, then kept in memory. Floor 2.
//!
//! A wrapping token can be used once. If it was used before leasehold used it, the secret_id may be stolen. This raises
//! an alarm: one line at level error for each such token, beside the refused login. A token is looked up before it is
//! used, since an attacker may have replaced it with another wrapping token.
//!
//! Reference: <https://developer.hashicorp.com/vault/docs/concepts/response-wrapping#response-wrapping-token-validation>

use vaultrs::api::sys::requests::{UnwrapRequest, WrappingLookupRequest};

use crate::secret::Secret;

use super::bounds::Limit;
use super::failure::login_failed;
use super::operation::Operation;
use super::{Failure, Kind, Vault, replies};

/// The state of the wrapping tokens so far.
#[derive(Default)]
pub(super) struct Wrapped {
    /// The latest wrapping token.
    token: Option<Secret>,
    fate: Outcome,
    /// The secret_id of the latest wrapping token that was unwrapped.
    secret_id: Option<Secret>,
}

impl Wrapped {
    /// Whether there is a secret_id to log in with, whatever the file contains.
    pub(super) fn has_secret_id(&self) -> bool {
        self.secret_id.is_some()
    }
}

/// The state of the latest wrapping token.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    Fresh,
    /// The request to unwrap was sent, and its answer has not arrived.
    Sent,
    /// leasehold has unwrapped it.
    Unwrapped,
    /// The alarm was raised. The token is tried again, since a node that lags may not have known it.
    Alarmed,
}

impl Vault {
    /// The secret_id of the wrapping token in the file. A token that was unwrapped already is not sent again. A new
    /// token in the file is unwrapped; while this fails, the earlier secret_id is used.
    ///
    /// Not cancel safe: a secret_id in a pending answer is lost, which the next attempt reports.
    pub(super) async fn unwrapped(
        &self,
        wrapped: &mut Wrapped,
        token: Result<Secret, Failure>,
        origin: &Origin<'_>,
        limit: &Limit,
    ) -> Result<Secret, Failure> {
        let token = match token {
            Ok(token) => token,
            Err(failure) => return wrapped.secret_id.clone().ok_or(failure),
        };
        if wrapped.token.as_ref().is_none_or(|known| !known.same(&token)) {
            wrapped.token = Some(token.clone());
            wrapped.fate = Outcome::Fresh;
        }
        if let (Outcome::Unwrapped, Some(secret_id)) = (wrapped.fate, &wrapped.secret_id) {
            return Ok(secret_id.clone());
        }
        match self.unwrap(wrapped, &token, origin, limit).await {
            Ok(secret_id) => {
                wrapped.fate = Outcome::Unwrapped;
                wrapped.secret_id = Some(secret_id.clone());
                Ok(secret_id)
            }
            Err(failure) => wrapped.secret_id.clone().ok_or(failure),
        }
    }

    /// Looks the token up and unwraps it.
    ///
    /// * Path: `sys/wrapping/lookup`, then `sys/wrapping/unwrap` with the wrapping token as the client's
    /// * Method: POST
    /// * Response: `data.creation_path`; `data.secret_id`
    /// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/wrapping-unwrap>
    async fn unwrap(
        &self,
        wrapped: &mut Wrapped,
        token: &Secret,
        origin: &Origin<'_>,
        limit: &Limit,
    ) -> Result<Secret, Failure> {
        let look_up = WrappingLookupRequest { token: token.expose().to_owned() };
        let reply = match self.call(Operation::LogIn, None, look_up, limit, &[token]).await {
            Err(failure) if is_unknown_token(&failure) => return Err(wrapped.used_before()),
            other => other?,
        };
        let unusable = |why: replies::Unusable| login_failed(Kind::Refused, why.as_str());
        let path = replies::creation_path(&reply.body).map_err(unusable)?;
        if !origin.made(&path) {
            return Err(wrapped.foreign(&path));
        }
        // If the answer is lost after this, the secret_id is lost as well.
        wrapped.fate = Outcome::Sent;
        match self.call(Operation::LogIn, Some(token), UnwrapRequest { token: None }, limit, &[]).await {
            Ok(reply) => replies::secret_id(&reply.body).map_err(unusable),
            Err(failure) if failure.outcome_unknown => Err(failure),
            Err(failure) => {
                wrapped.fate = Outcome::Fresh;
                Err(if is_unknown_token(&failure) { wrapped.used_before() } else { failure })
            }
        }
    }
}

impl Wrapped {
    /// Handles a token that Vault does not know any more.
    fn used_before(&mut self) -> Failure {
        if self.fate == Outcome::Sent {
            tracing::error!(
                "the secret_id was lost: Vault's answer to its unwrapping did not arrive, and a wrapping token can be \
                 used once; put a new one into secret_id_file"
            );
        } else if self.fate != Outcome::Alarmed {
            tracing::error!(
                "ALARM: the wrapping token in secret_id_file was unwrapped by somebody else, or it expired unused: the \
                 secret_id may be in foreign hands. Destroy it (its accessor is in Vault's audit log), find out who \
                 used it, and put a new wrapping token into the file"
            );
        }
        self.fate = Outcome::Alarmed;
        login_failed(Kind::Refused, "the wrapping token has been used, or has expired")
    }

    /// Handles a token that another request than expected made.
    fn foreign(&mut self, path: &str) -> Failure {
        if self.fate != Outcome::Alarmed {
            tracing::error!(
                vault.path = %path.escape_debug(),
                "ALARM: the wrapping token in secret_id_file was not made by this AppRole's secret-id endpoint: somebody \
                 may have put it in place of the right one. It is not used"
            );
        }
        self.fate = Outcome::Alarmed;
        login_failed(Kind::Refused, "the wrapping token was not made by this AppRole's secret-id endpoint")
    }
}

/// Whether Vault does not know the wrapping token. A 400 that is not Vault's does not count.
fn is_unknown_token(failure: &Failure) -> bool {
    failure.kind == Kind::Refused && failure.status == Some(400)
}

/// The request that must have made a wrapping token.
pub(super) struct Origin<'a> {
    pub(super) mount: &'a str,
    pub(super) role: Option<&'a str>,
}

impl Origin<'_> {
    /// Whether the path of a token's creation is the expected `auth/{mount}/role/{role}/secret-id`.
    fn made(&self, path: &str) -> bool {
        let name = path
            .strip_prefix("auth/")
            .and_then(|rest| rest.strip_prefix(self.mount.trim_matches('/')))
            .and_then(|rest| rest.strip_prefix("/role/"))
            .and_then(|rest| rest.strip_suffix("/secret-id"));
        match (name, self.role) {
            (Some(name), Some(role)) => name == role,
            (Some(name), None) => !name.is_empty() && !name.contains('/'),
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapping_token_is_ours_by_the_path_that_made_it() {
        let made = |mount, role, path| Origin { mount, role }.made(path);
        assert!(made("approle", None, "auth/approle/role/app/secret-id"));
        assert!(made("team/a", Some("app"), "auth/team/a/role/app/secret-id"));
        for path in [
            "auth/approle/role/other/secret-id",
            "auth/approle2/role/app/secret-id",
            "auth/approle/role/app/custom-secret-id",
            "auth/approle/role/app/secret-id/x",
            "auth/approle/role//secret-id",
            "auth/approle/role/a/role/app/secret-id",
            "sys/wrapping/wrap",
            "",
        ] {
            assert!(!made("approle", Some("app"), path), "{path}");
        }
        assert!(!made("approle", None, "auth/approle/role/a/role/app/secret-id"));
        assert!(!made("approle", None, "auth/approle/role//secret-id"));
    }
}
