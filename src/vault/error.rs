//! What is wrong with the configuration of Vault, found before anything is asked. Floor 2.

use crate::files;

/// The configuration cannot work. The text names the file or key, and the reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A value that cannot go into an HTTP header.
    #[error("the {what} holds a character that cannot be sent in an HTTP header, such as a newline")]
    Header { what: &'static str },
    /// A setting that the auth method needs.
    #[error("the Vault auth method {method} needs {setting}")]
    AuthSetting { method: &'static str, setting: &'static str },
    /// A file or directory that cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
    /// CA certificates in the environment that cannot be used.
    #[error("BAO_CACERT_BYTES or VAULT_CACERT_BYTES: cannot be used: {0}")]
    CaText(files::Reason),
    /// rustls cannot be set up.
    #[error("no TLS here")]
    Tls(#[source] rustls::Error),
    /// A client certificate without its key, or the reverse.
    #[error("client_cert and client_key go together")]
    ClientCertificateHalf,
    /// No roots to trust.
    #[error("the system has no CA certificates; name the CA of Vault by ca_cert")]
    NoSystemRoots,
    /// A name that cannot be verified.
    #[error("tls_server_name must be a DNS name")]
    ServerName,
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}
