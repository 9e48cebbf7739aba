//! What is wrong with the configuration of Vault, found before anything is asked. Floor 2.

use std::io;
use std::path::PathBuf;

use crate::error::Blame;

/// The configuration cannot work. The text names the file or key, and the reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address at all.
    #[error("no Vault address is configured")]
    NoAddress,
    /// An address that cannot be used.
    #[error("the Vault address {addr} {reason}")]
    Address {
        /// The address; its place in the list where it may hold a password.
        addr: String,
        /// Why, as the end of a sentence.
        reason: &'static str,
    },
    /// A value that cannot go into an HTTP header.
    #[error("the {what} holds a character that cannot be sent in an HTTP header, such as a newline")]
    Header {
        /// Which value.
        what: &'static str,
    },
    /// A setting that the auth method needs.
    #[error("the Vault auth method {method} needs {setting}")]
    AuthSetting {
        /// The method.
        method: &'static str,
        /// The setting.
        setting: &'static str,
    },
    /// A file or directory that cannot be read.
    #[error("cannot read {what} {}", path.display())]
    Unreadable {
        /// Which setting names it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file without what it should hold.
    #[error("{what} {origin} holds no {wanted} in PEM")]
    NotPem {
        /// Which setting.
        what: &'static str,
        /// The file, or where else the text came from.
        origin: String,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// A certificate that rustls does not take.
    #[error("{what} {origin} cannot be used")]
    Certificate {
        /// Which setting.
        what: &'static str,
        /// The file, or where else the text came from.
        origin: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
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

impl Error {
    /// Who has to act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        Blame::Config
    }
}
