//! TLS towards clients, for any protocol: our certificate, the CAs of client certificates, and the renewal of both.
//! Floor 2.
//!
//! TLS towards servers is in [`tls`](crate::tls).

mod certificate;
mod files;
mod handshake;
mod watch;

use std::sync::{Arc, PoisonError, RwLock};

use crate::files::FileSetting;

pub(crate) use certificate::Identity;
pub(crate) use files::{Error, InForce};
pub(crate) use handshake::{HandshakeError, identity};

/// The files of the server's certificate, and of the CAs of client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// A PEM file with the server's certificate, followed by its chain.
    pub(crate) cert: FileSetting,
    /// A PEM file with the private key of the certificate, not encrypted.
    pub(crate) key: FileSetting,
    /// A PEM file of the CAs that sign client certificates. `None`: no client certificate is requested.
    pub(crate) client_ca: Option<FileSetting>,
    /// The protocol that the server selects by ALPN if a client offers any.
    pub(crate) alpn: &'static [u8],
}

/// The certificates for new handshakes; empty if TLS is not offered. Connections and handshakes that have begun keep
/// the certificates that they began with.
#[derive(Debug, Default)]
pub(crate) struct Acceptor(RwLock<Option<Arc<InForce>>>);

impl Acceptor {
    /// The certificates for a handshake that begins now.
    #[must_use]
    pub(crate) fn in_force(&self) -> Option<Arc<InForce>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the certificates; `None` turns TLS off.
    pub(crate) fn set(&self, fresh: Option<InForce>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh.map(Arc::new);
    }

    /// Replaces the certificates, unless `before` has been replaced by others meanwhile.
    fn succeed(&self, before: &Arc<InForce>, fresh: InForce) -> bool {
        let mut in_force = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_before = in_force.as_ref().is_some_and(|now| Arc::ptr_eq(now, before));
        if is_before {
            *in_force = Some(Arc::new(fresh));
        }
        is_before
    }
}
