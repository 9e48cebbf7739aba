//! TLS towards a server, for any protocol: trusted roots, our client certificate, and the renewal of both. Floor 2.
//!
//! [`Settings`] say how much of the server's certificate is checked. In every case the handshake's signature must fit
//! the certificate.

mod certificate;
mod connector;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod name;
mod revocation;
#[cfg(test)]
mod tests;
mod verify;

use crate::files::FileSetting;

pub(crate) use connector::Connector;
pub(crate) use error::Error;
pub(crate) use files::FileError;
pub(crate) use verify::Level;

/// The TLS settings for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How much of the server's certificate is checked.
    pub(crate) level: Level,
    /// A PEM file of the roots that are trusted; `None`: the system's.
    pub(crate) roots: Option<FileSetting>,
    /// A PEM file of certificate revocation lists (CRLs).
    pub(crate) revocation_lists: Option<FileSetting>,
    /// The client certificate.
    pub(crate) client: Option<ClientFiles>,
    /// The protocol that is offered by ALPN.
    pub(crate) alpn: &'static [u8],
}

/// The PEM files of the client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    /// The certificate, followed by its chain.
    pub(crate) cert: FileSetting,
    /// The private key of the certificate, not encrypted.
    pub(crate) key: FileSetting,
}
