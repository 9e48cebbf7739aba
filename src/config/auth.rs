//! `[vault.auth]`: how to log in. Floor 6.

use std::path::PathBuf;

use crate::files::FileSetting;
use crate::secret::Secret;
use crate::vault::{Auth, SecretId};

use super::error::{Error, Origin};
use super::flags::VaultFlags;
use super::merge::{Found, Sources};
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
    /// A signed token of another issuer.
    Jwt,
    /// A role_id, and mostly a secret_id.
    AppRole,
    /// A TLS client certificate.
    Cert,
    /// A user name and a password.
    Userpass,
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
            "jwt" => Ok(Self::Jwt),
            "cert" => Ok(Self::Cert),
            "userpass" => Ok(Self::Userpass),
            _ => Err("none of token, token-file, kubernetes, approle, jwt, cert, userpass".into()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::TokenFile => "token-file",
            Self::Kubernetes => "kubernetes",
            Self::Jwt => "jwt",
            Self::AppRole => "approle",
            Self::Cert => "cert",
            Self::Userpass => "userpass",
        }
    }

    /// Which keys of `[vault.auth]` it reads.
    fn reads(self, key: &str) -> bool {
        match self {
            Self::Token => false,
            Self::TokenFile => key == "token_file",
            Self::Kubernetes | Self::Jwt => matches!(key, "mount" | "role" | "jwt_file"),
            Self::AppRole => matches!(key, "mount" | "role_id" | "secret_id_file" | "secret_id_wrapped"),
            Self::Cert => matches!(key, "mount" | "cert_name"),
            Self::Userpass => matches!(key, "mount" | "username" | "password_file"),
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
        secret_id_wrapped: sources.pick(
            "vault.auth.secret_id_wrapped",
            flags.vault_auth_secret_id_wrapped.as_ref(),
            file.secret_id_wrapped.as_ref(),
            values::boolean,
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
        username: sources.pick(
            "vault.auth.username",
            flags.vault_auth_username.as_ref(),
            file.username.as_ref(),
            values::segment,
        )?,
        password_file: sources.pick(
            "vault.auth.password_file",
            flags.vault_auth_password_file.as_ref(),
            file.password_file.as_ref(),
            values::path,
        )?,
        cert_name: sources.pick(
            "vault.auth.cert_name",
            flags.vault_auth_cert_name.as_ref(),
            file.cert_name.as_ref(),
            values::text,
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
            Ok(Auth::TokenFile { path: keys.token_file.ok_or_else(|| needs("token_file"))?.into_file() })
        }
        Method::Kubernetes => Ok(Auth::Kubernetes {
            mount,
            role: keys.role.ok_or_else(|| needs("role"))?.value,
            jwt_file: keys.jwt_file.map_or_else(service_account, Found::into_file),
        }),
        Method::Jwt => Ok(Auth::Jwt {
            mount,
            role: keys.role.ok_or_else(|| needs("role"))?.value,
            jwt_file: keys.jwt_file.ok_or_else(|| needs("jwt_file"))?.into_file(),
        }),
        Method::AppRole => {
            let file = keys.secret_id_file.map(Found::into_file);
            let role = keys.role.map(|found| found.value);
            Ok(Auth::AppRole {
                mount,
                role_id: keys.role_id.ok_or_else(|| needs("role_id"))?.value,
                secret_id: match (keys.secret_id_wrapped.filter(|found| found.value), file) {
                    (None, None) => SecretId::Absent,
                    (None, Some(file)) => SecretId::File(file),
                    (Some(_), Some(file)) => SecretId::Wrapped { file, role },
                    (Some(wrapped), None) => {
                        return Err(Error::invalid(
                            wrapped.origin,
                            "needs vault.auth.secret_id_file with it",
                        ));
                    }
                },
            })
        }
        Method::Cert => Ok(Auth::Cert { mount, name: keys.cert_name.map(|found| found.value) }),
        Method::Userpass => Ok(Auth::Userpass {
            mount,
            username: keys.username.ok_or_else(|| needs("username"))?.value,
            password_file: keys.password_file.ok_or_else(|| needs("password_file"))?.into_file(),
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
    if !path.exists() {
        return Err(missing());
    }
    let text = FileSetting::new(path, "the token").secret().map_err(Error::File)?;
    secret(&text).map_err(|reason| Error::Missing {
        key: "vault.auth.method".to_owned(),
        reason: format!("token: ~/.vault-token {reason}"),
    })
}

fn service_account() -> FileSetting {
    FileSetting::new(SERVICE_ACCOUNT, Origin::Default("vault.auth.jwt_file".to_owned()))
}

struct Keys {
    mount: Option<Found<String>>,
    role: Option<Found<String>>,
    role_id: Option<Found<String>>,
    secret_id_file: Option<Found<PathBuf>>,
    secret_id_wrapped: Option<Found<bool>>,
    jwt_file: Option<Found<PathBuf>>,
    token_file: Option<Found<PathBuf>>,
    username: Option<Found<String>>,
    password_file: Option<Found<PathBuf>>,
    cert_name: Option<Found<String>>,
}

impl Keys {
    /// A key that the method does not read is a slip: `role` for `role_id` and the like. AppRole reads `role` only to
    /// check what a wrapped secret_id was made for.
    fn refuse_idle(&self, method: Method) -> Result<(), Error> {
        let given = [
            ("mount", self.mount.as_ref().map(|found| &found.origin)),
            ("role", self.role.as_ref().map(|found| &found.origin)),
            ("role_id", self.role_id.as_ref().map(|found| &found.origin)),
            ("secret_id_file", self.secret_id_file.as_ref().map(|found| &found.origin)),
            ("secret_id_wrapped", self.secret_id_wrapped.as_ref().map(|found| &found.origin)),
            ("jwt_file", self.jwt_file.as_ref().map(|found| &found.origin)),
            ("token_file", self.token_file.as_ref().map(|found| &found.origin)),
            ("username", self.username.as_ref().map(|found| &found.origin)),
            ("password_file", self.password_file.as_ref().map(|found| &found.origin)),
            ("cert_name", self.cert_name.as_ref().map(|found| &found.origin)),
        ];
        let wrapped =
            method == Method::AppRole && self.secret_id_wrapped.as_ref().is_some_and(|found| found.value);
        for (key, origin) in given {
            if let Some(origin) = origin
                && !method.reads(key)
                && !(wrapped && key == "role")
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
