//! Errors of the configuration of Vault, found before any request. Floor 2.

use crate::files;

/// The configuration cannot work. The text names the file or key, and the reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A value cannot be sent in an HTTP header.
    #[error("the {what} holds a character that cannot be sent in an HTTP header, such as a newline")]
    Header { what: &'static str },
    /// A setting that the auth method needs is missing.
    #[error("the Vault auth method {method} needs {setting}")]
    AuthSetting { method: &'static str, setting: &'static str },
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The CA certificates in the environment cannot be used.
    #[error("BAO_CACERT_BYTES or VAULT_CACERT_BYTES: cannot be used: {0}")]
    CaText(files::Reason),
    /// rustls refused the configuration.
    #[error("no TLS here")]
    Tls(#[source] rustls::Error),
    /// Only one of `client_cert` and `client_key` is set.
    #[error("client_cert and client_key go together")]
    ClientCertificateHalf,
    /// There are no trusted roots.
    #[error("the system has no CA certificates; name the CA of Vault by ca_cert")]
    NoSystemRoots,
    /// The name cannot be verified.
    #[error("tls_server_name must be a DNS name")]
    ServerName,
    /// The HTTP client cannot be created.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}
