//! `[vault.auth]`: how to log in. Floor 6.

use std::path::PathBuf;

use crate::secret::Secret;
use crate::vault::Auth;

use super::error::{Error, Origin};
use super::flags::VaultFlags;
use super::merge::{Found, Sources, UNBUILT};
use super::values::{self, Bad};
use super::vault::ambient;

/// How to log in, before it is known with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A token handed to us.
    Token,
    /// A file with a token.
    TokenFile,
    /// A service account.
    Kubernetes,
    /// A role_id, and mostly a secret_id.
    AppRole,
}

impl Method {
    /// The method by its word.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(text: &str) -> Result<Self, Bad> {
        match text {
            "token" => Ok(Self::Token),
            "token-file" => Ok(Self::TokenFile),
            "kubernetes" => Ok(Self::Kubernetes),
            "approle" => Ok(Self::AppRole),
            "jwt" | "cert" | "userpass" => Err(Bad(format!("{text}: {UNBUILT}"))),
            _ => Err("none of token, token-file, kubernetes, approle".into()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::TokenFile => "token-file",
            Self::Kubernetes => "kubernetes",
            Self::AppRole => "approle",
        }
    }

    /// Which keys of `[vault.auth]` it reads.
    fn reads(self, key: &str) -> bool {
        match self {
            Self::Token => false,
            Self::TokenFile => key == "token_file",
            Self::Kubernetes => matches!(key, "mount" | "role" | "jwt_file"),
            Self::AppRole => matches!(key, "mount" | "role_id" | "secret_id_file"),
        }
    }
}

/// The method, and what it needs.
pub(super) fn merge(sources: &Sources<'_>, flags: &VaultFlags) -> Result<Auth, Error> {
    let file = &sources.file.vault.auth;
    let method = sources.pick_or(
        "vault.auth.method",
        flags.vault_auth_method.as_ref(),
        file.method.as_ref(),
        Method::parse,
        Method::Token,
    )?;
    let keys = Keys {
        mount: sources.pick(
            "vault.auth.mount",
            flags.vault_auth_mount.as_ref(),
            file.mount.as_ref(),
            values::mount,
        )?,
        role: sources.pick(
            "vault.auth.role",
            flags.vault_auth_role.as_ref(),
            file.role.as_ref(),
            values::text,
        )?,
        role_id: sources.pick(
            "vault.auth.role_id",
            flags.vault_auth_role_id.as_ref(),
            file.role_id.as_ref(),
            values::text,
        )?,
        secret_id_file: sources.pick(
            "vault.auth.secret_id_file",
            flags.vault_auth_secret_id_file.as_ref(),
            file.secret_id_file.as_ref(),
            values::path,
        )?,
        jwt_file: sources.pick(
            "vault.auth.jwt_file",
            flags.vault_auth_jwt_file.as_ref(),
            file.jwt_file.as_ref(),
            values::path,
        )?,
        token_file: sources.pick(
            "vault.auth.token_file",
            flags.vault_auth_token_file.as_ref(),
            file.token_file.as_ref(),
            values::path,
        )?,
    };
    keys.refuse_idle(method)?;
    let needs = |key: &str| Error::Missing {
        key: format!("vault.auth.{key}"),
        reason: format!("the method {} needs it", method.word()),
    };
    let mount = keys.mount.map_or_else(|| method.word().to_owned(), |found| found.value);
    match method {
        Method::Token => token(sources).map(|token| Auth::Token { token }),
        Method::TokenFile => {
            Ok(Auth::TokenFile { path: keys.token_file.ok_or_else(|| needs("token_file"))?.value })
        }
        Method::Kubernetes => Ok(Auth::Kubernetes {
            mount,
            role: keys.role.ok_or_else(|| needs("role"))?.value,
            jwt_file: keys.jwt_file.map_or_else(|| PathBuf::from(SERVICE_ACCOUNT), |found| found.value),
        }),
        Method::AppRole => Ok(Auth::AppRole {
            mount,
            role_id: keys.role_id.ok_or_else(|| needs("role_id"))?.value,
            secret_id_file: keys.secret_id_file.map(|found| found.value),
        }),
    }
}

/// `BAO_TOKEN`, `VAULT_TOKEN`, then `~/.vault-token`.
fn token(sources: &Sources<'_>) -> Result<Secret, Error> {
    let secret = |text: &str| values::header_safe(text).map(Secret::new);
    if let Some(found) = ambient(sources, "TOKEN", secret)? {
        return Ok(found.value);
    }
    let missing = || Error::Missing {
        key: "vault.auth.method".to_owned(),
        reason: "token: neither BAO_TOKEN nor VAULT_TOKEN nor ~/.vault-token holds one".to_owned(),
    };
    let path = PathBuf::from(sources.env.get("HOME").ok_or_else(missing)?).join(".vault-token");
    match std::fs::read_to_string(&path) {
        Ok(text) => secret(&text).map_err(|reason| Error::Invalid {
            origin: Origin::Default(path.display().to_string()),
            reason: reason.to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
        Err(source) => Err(Error::File { path, source }),
    }
}

struct Keys {
    mount: Option<Found<String>>,
    role: Option<Found<String>>,
    role_id: Option<Found<String>>,
    secret_id_file: Option<Found<PathBuf>>,
    jwt_file: Option<Found<PathBuf>>,
    token_file: Option<Found<PathBuf>>,
}

impl Keys {
    /// A key that the method does not read is a slip: `role` for `role_id` and the like.
    fn refuse_idle(&self, method: Method) -> Result<(), Error> {
        let given = [
            ("mount", self.mount.as_ref().map(|found| &found.origin)),
            ("role", self.role.as_ref().map(|found| &found.origin)),
            ("role_id", self.role_id.as_ref().map(|found| &found.origin)),
            ("secret_id_file", self.secret_id_file.as_ref().map(|found| &found.origin)),
            ("jwt_file", self.jwt_file.as_ref().map(|found| &found.origin)),
            ("token_file", self.token_file.as_ref().map(|found| &found.origin)),
        ];
        for (key, origin) in given {
            if let Some(origin) = origin
                && !method.reads(key)
            {
                return Err(Error::invalid(
                    origin.clone(),
                    format!("the method {} does not read it", method.word()),
                ));
            }
        }
        Ok(())
    }
}

/// Where Kubernetes mounts the service account's token.
///
/// Source: <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api>
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
