//! TLS towards clients, whatever is spoken over it: who we are, whose certificates we take, and reading both again.
//! Floor 2.
//!
//! TLS towards servers is another module's affair.

mod certificate;
mod files;
mod handshake;
mod watch;

use std::sync::{Arc, PoisonError, RwLock};

use crate::files::FileSetting;

pub(crate) use certificate::Identity;
pub(crate) use files::{Error, InForce};
pub(crate) use handshake::{HandshakeError, identity};

/// Which files say who we are, and whom we ask for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// A PEM file of our certificate, with its chain behind it.
    pub(crate) cert: FileSetting,
    /// A PEM file of its key, not encrypted.
    pub(crate) key: FileSetting,
    /// A PEM file of the CAs that sign the certificates of clients; `None`: clients are not asked for one.
    pub(crate) client_ca: Option<FileSetting>,
    /// The protocol that is agreed on by ALPN where a client offers any.
    pub(crate) alpn: &'static [u8],
}

/// What new handshakes are made with; nothing, where TLS is not offered. Handshakes under way, and connections, keep what
/// they began with.
#[derive(Debug, Default)]
pub(crate) struct Acceptor(RwLock<Option<Arc<InForce>>>);

impl Acceptor {
    /// What a handshake is made with now.
    #[must_use]
    pub(crate) fn in_force(&self) -> Option<Arc<InForce>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other certificates in force, or none.
    pub(crate) fn set(&self, fresh: Option<InForce>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh.map(Arc::new);
    }

    /// Puts other certificates in force, unless `before` has given way to something else meanwhile.
    fn succeed(&self, before: &Arc<InForce>, fresh: InForce) -> bool {
        let mut in_force = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_before = in_force.as_ref().is_some_and(|now| Arc::ptr_eq(now, before));
        if is_before {
            *in_force = Some(Arc::new(fresh));
        }
        is_before
    }
}
