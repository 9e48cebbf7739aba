//! TLS towards a server, whatever is spoken over it: whom we trust, who we are, and reading both again. Floor 2.
//!
//! Who connects says how much of the server's certificate is checked, in [`Settings`]. In every case the handshake's
//! signature must fit the certificate shown.

mod certificate;
mod connector;
mod error;
mod files;
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

/// How to speak TLS with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How much of the server's certificate is checked.
    pub(crate) level: Level,
    /// A PEM file of the roots that are trusted; `None`: the system's.
    pub(crate) roots: Option<FileSetting>,
    /// A PEM file of revocation lists.
    pub(crate) revocation_lists: Option<FileSetting>,
    /// Who we are.
    pub(crate) client: Option<ClientFiles>,
    /// What is offered by ALPN.
    pub(crate) alpn: &'static [u8],
}

/// PEM files that show the server who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    /// The certificate, with its chain.
    pub(crate) cert: FileSetting,
    /// Its key, not encrypted.
    pub(crate) key: FileSetting,
}
