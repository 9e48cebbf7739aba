//! The auth methods, by their words. Floor 6.

use super::values::Bad;

/// How to log in, before it is known with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
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
    /// All of them.
    pub(super) const ALL: [Self; 7] = [
        Self::Token,
        Self::TokenFile,
        Self::Kubernetes,
        Self::Jwt,
        Self::AppRole,
        Self::Cert,
        Self::Userpass,
    ];

    /// The method by its word.
    ///
    /// # Errors
    /// For any other word.
    pub(crate) fn parse(text: &str) -> Result<Self, Bad> {
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

    pub(super) fn word(self) -> &'static str {
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
    pub(super) fn reads(self, key: &str) -> bool {
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
