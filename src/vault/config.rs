//! The configuration of the vault module. Floor 2.

use std::time::Duration;

use http::HeaderValue;

use crate::files::FileSetting;
use crate::secret::Secret;

use super::{Address, Error};

/// The servers of Vault, their TLS, and the auth method. Each setting means the same as for the `vault` and `bao`
/// commands.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The servers of one cluster, tried in order; never empty.
    pub(crate) addrs: Vec<Address>,
    /// The namespace, sent as `X-Vault-Namespace`.
    pub(crate) namespace: Option<String>,
    /// A PEM file. If given, only its certificates are trusted.
    pub(crate) ca_cert: Option<FileSetting>,
    /// The same as text (`VAULT_CACERT_BYTES`). It takes precedence over `ca_cert`, as for the `vault` command.
    pub(crate) ca_cert_bytes: Option<String>,
    /// A directory of PEM files.
    pub(crate) ca_path: Option<FileSetting>,
    /// A client certificate; `client_key` is its key.
    pub(crate) client_cert: Option<FileSetting>,
    pub(crate) client_key: Option<FileSetting>,
    /// The name to verify instead of the URL's host.
    pub(crate) tls_server_name: Option<String>,
    /// Whether the server's certificate is not verified.
    pub(crate) skip_verify: bool,
    /// The time limit of a request.
    pub(crate) client_timeout: Duration,
    /// The auth method.
    pub(crate) auth: Auth,
}

/// An auth method. A mount is written without `auth/`. Files are read again at each login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// A token from the configuration.
    Token {
        /// The token. `None`: nothing is requested from Vault, so it was not read.
        token: Option<Secret>,
    },
    /// A file that another program updates with a token, such as Vault Agent's sink.
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
        /// A file that another program updates with a fresh JWT.
        jwt_file: FileSetting,
    },
    /// <https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle>
    AppRole {
        /// Default `approle`.
        mount: String,
        role_id: String,
        /// The source of the secret_id.
        secret_id: SecretId,
    },
    /// `client_cert` identifies leasehold in the TLS handshake.
    ///
    /// <https://developer.hashicorp.com/vault/api-docs/auth/cert#login-with-tls-certificate-method>
    Cert {
        /// Default `cert`.
        mount: String,
        /// The certificate role. Without it Vault tries each role.
        name: Option<String>,
    },
    /// <https://developer.hashicorp.com/vault/api-docs/auth/userpass#login>
    Userpass {
        /// Default `userpass`.
        mount: String,
        username: String,
        /// The file that holds the password.
        password_file: FileSetting,
    },
}

impl Auth {
    /// The identity of the login without any secret: method, mount and name.
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
    /// The file with a secret that each login reads.
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

/// The source of AppRole's secret_id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretId {
    /// No secret_id is sent (`bind_secret_id=false`).
    Absent,
    /// A file contains the secret_id.
    File(FileSetting),
    /// A file contains a wrapping token, which is unwrapped once.
    Wrapped {
        file: FileSetting,
        /// The AppRole for which the token must have been made. Without it, any AppRole of the mount.
        role: Option<String>,
    },
}

impl Config {
    /// Identifies the Vault: its addresses in any order, and the namespace.
    #[must_use]
    pub(crate) fn server(&self) -> String {
        let mut addrs: Vec<_> = self.addrs.iter().map(Address::to_string).collect();
        addrs.sort_unstable();
        format!("{} {}", addrs.join(","), self.namespace.as_deref().unwrap_or(""))
    }

    /// Checks everything that needs no file. TLS is checked when its files are read.
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
