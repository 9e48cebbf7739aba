//! The configuration of the vault module. Floor 2.

use std::time::Duration;

use http::HeaderValue;

use crate::files::FileSetting;
use crate::secret::Secret;

use super::{Address, Error};

/// How to reach Vault, and how to log in. The meaning of each is that of the `vault` and `bao` command lines.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The servers of one cluster, tried in order; never empty.
    pub(crate) addrs: Vec<Address>,
    /// The namespace, sent as `X-Vault-Namespace`.
    pub(crate) namespace: Option<String>,
    /// A PEM file; where given, only its certificates are trusted.
    pub(crate) ca_cert: Option<FileSetting>,
    /// The same as text (`VAULT_CACERT_BYTES`); it beats `ca_cert`, as in the `vault` command line.
    pub(crate) ca_cert_bytes: Option<String>,
    /// A directory of PEM files.
    pub(crate) ca_path: Option<FileSetting>,
    /// A client certificate, with `client_key`.
    pub(crate) client_cert: Option<FileSetting>,
    pub(crate) client_key: Option<FileSetting>,
    /// The name to verify instead of the URL's host.
    pub(crate) tls_server_name: Option<String>,
    /// Whether the server's certificate goes unverified.
    pub(crate) skip_verify: bool,
    /// How long a request may take.
    pub(crate) client_timeout: Duration,
    /// How to log in.
    pub(crate) auth: Auth,
}

/// An auth method. A mount has no `auth/` in front. Files are read again at each login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// A token that leasehold is given.
    Token {
        /// The token; `None` where nothing is asked of Vault, and it was not read.
        token: Option<Secret>,
    },
    /// A file in which another program keeps a token, such as Vault Agent's sink.
    TokenFile { path: FileSetting },
    /// <https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login>
    Kubernetes {
        /// Default `kubernetes`.
        mount: String,
        /// The role of the auth method.
        role: String,
        /// Default `/var/run/secrets/kubernetes.io/serviceaccount/token`.
        jwt_file: FileSetting,
    },
    /// <https://developer.hashicorp.com/vault/api-docs/auth/jwt#jwt-login>
    Jwt {
        /// Default `jwt`.
        mount: String,
        /// The role of the auth method.
        role: String,
        /// A file in which another program keeps a fresh JWT.
        jwt_file: FileSetting,
    },
    /// <https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle>
    AppRole {
        /// Default `approle`.
        mount: String,
        role_id: String,
        /// Where the secret_id comes from.
        secret_id: SecretId,
    },
    /// `client_cert`, shown in the TLS handshake, identifies leasehold.
    ///
    /// <https://developer.hashicorp.com/vault/api-docs/auth/cert#login-with-tls-certificate-method>
    Cert {
        /// Default `cert`.
        mount: String,
        /// The certificate role; without one Vault tries each.
        name: Option<String>,
    },
    /// <https://developer.hashicorp.com/vault/api-docs/auth/userpass#login>
    Userpass {
        /// Default `userpass`.
        mount: String,
        username: String,
        /// The file of the password.
        password_file: FileSetting,
    },
}

impl Auth {
    /// The identity that it logs in as, without any secret: method, mount and name.
    #[must_use]
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Token { .. } => "token".to_owned(),
            Self::TokenFile { .. } => "token-file".to_owned(),
            Self::Kubernetes { mount, role, .. } => format!("kubernetes {mount} {role}"),
            Self::Jwt { mount, role, .. } => format!("jwt {mount} {role}"),
            Self::AppRole { mount, role_id, .. } => format!("approle {mount} {role_id}"),
            Self::Cert { mount, name } => format!("cert {mount} {}", name.as_deref().unwrap_or("")),
            Self::Userpass { mount, username, .. } => format!("userpass {mount} {username}"),
        }
    }
}

impl Auth {
    /// The file that it reads a secret from at each login.
    #[must_use]
    pub(crate) fn secret_file(&self) -> Option<&FileSetting> {
        match self {
            Self::TokenFile { path: file }
            | Self::Kubernetes { jwt_file: file, .. }
            | Self::Jwt { jwt_file: file, .. }
            | Self::Userpass { password_file: file, .. }
            | Self::AppRole { secret_id: SecretId::File(file) | SecretId::Wrapped { file, .. }, .. } => {
                Some(file)
            }
            Self::Token { .. } | Self::AppRole { secret_id: SecretId::Absent, .. } | Self::Cert { .. } => {
                None
            }
        }
    }
}

/// Where AppRole's secret_id comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretId {
    /// None is sent (`bind_secret_id=false`).
    Absent,
    /// A file holds it.
    File(FileSetting),
    /// A file holds a wrapping token, which is exchanged for it once.
    Wrapped {
        file: FileSetting,
        /// The name of the AppRole that it must have been made for; without one any of the mount.
        role: Option<String>,
    },
}

impl Config {
    /// Which Vault this is: its addresses in any order, and the namespace.
    #[must_use]
    pub(crate) fn server(&self) -> String {
        let mut addrs: Vec<_> = self.addrs.iter().map(Address::to_string).collect();
        addrs.sort_unstable();
        format!("{} {}", addrs.join(","), self.namespace.as_deref().unwrap_or(""))
    }

    /// Whether what does not need a file can work: TLS is checked where its files are read.
    pub(super) fn check(&self) -> Result<(), Error> {
        if let Some(namespace) = &self.namespace
            && HeaderValue::from_str(namespace).is_err()
        {
            return Err(Error::Header { what: "namespace" });
        }
        match &self.auth {
            Auth::Token { token: None } => Ok(()),
            Auth::Token { token: Some(token) } => {
                let text = token.expose();
                HeaderValue::from_str(text).map_err(|_| Error::Header { what: "token" })?;
                required("token", &[("a token", text)])
            }
            Auth::TokenFile { .. } => Ok(()),
            Auth::Kubernetes { mount, role, .. } => {
                required("kubernetes", &[("mount", mount), ("role", role)])
            }
            Auth::Jwt { mount, role, .. } => required("jwt", &[("mount", mount), ("role", role)]),
            Auth::AppRole { mount, role_id, .. } => {
                required("approle", &[("mount", mount), ("role_id", role_id)])
            }
            Auth::Cert { mount, .. } => {
                let cert = if self.client_cert.is_some() { "yes" } else { "" };
                required("cert", &[("mount", mount), ("client_cert", cert)])
            }
            Auth::Userpass { mount, username, .. } => {
                required("userpass", &[("mount", mount), ("username", username)])
            }
        }
    }
}

fn required(method: &'static str, settings: &[(&'static str, &str)]) -> Result<(), Error> {
    match settings.iter().find(|(_, value)| value.is_empty()) {
        Some((setting, _)) => Err(Error::AuthSetting { method, setting }),
        None => Ok(()),
    }
}
