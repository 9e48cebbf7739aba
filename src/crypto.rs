//! The cryptography that every TLS connection uses: rustls' provider on aws-lc-rs, the curve P-521 beside its own groups,
//! and the roots of this machine. Floor 0.

use std::sync::Arc;

use aws_lc_rs::agreement;
use aws_lc_rs::rand::SystemRandom;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, Error, InconsistentKeys, InvalidMessage, NamedGroup,
    PeerIncompatible, PeerMisbehaved, RootCertStore,
};

use crate::files::{self, FileSetting, Reason};

/// What rustls offers by default, and last of all key exchange over P-521: OpenSSL, and with it libpq, offers that too,
/// so a server may be set to accept nothing else (`ssl_ecdh_curve = secp521r1`).
#[must_use]
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.push(&Secp521r1);
    Arc::new(provider)
}

/// A certificate of ours with its key. rustls would refuse one of X.509 version 1 here; but it is for the peer to judge.
/// Blocks.
///
/// # Errors
/// A file cannot be used, or the two do not belong together.
pub(crate) fn certified_key(cert: &FileSetting, key: &FileSetting) -> Result<CertifiedKey, files::Error> {
    let signing = provider().key_provider.load_private_key(key.private_key()?);
    let certified =
        CertifiedKey::new(cert.certificates()?, signing.map_err(|_| key.fails(Reason::UnknownKey))?);
    match certified.keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(cert.fails(Reason::OtherKey)),
        _ => Ok(certified),
    }
}

/// The root certificates of this machine; `None` where it has none. Blocks.
#[must_use]
pub(crate) fn system_roots() -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (!roots.is_empty()).then_some(roots)
}

/// Whether a handshake failed because the two sides have no version of TLS, cipher suite, curve or signature algorithm
/// in common.
#[must_use]
pub(crate) fn is_nothing_in_common(error: &Error) -> bool {
    match error {
        Error::AlertReceived(alert) => matches!(
            alert,
            AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity
        ),
        Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(_)) => false,
        Error::PeerIncompatible(_) => true,
        Error::InvalidCertificate(fault) => matches!(
            fault,
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        ),
        _ => false,
    }
}

/// Whether what answered the begin of a handshake was no record of TLS, as an answer in plain HTTP is not.
#[must_use]
pub(crate) fn is_no_tls(error: &Error) -> bool {
    matches!(error, Error::InvalidMessage(InvalidMessage::InvalidContentType))
}

/// Ephemeral key exchange over P-521, which rustls has a name for and no implementation.
///
/// Source: RFC 8446 section 4.2.8.2, RFC 8422 section 5.4.
#[derive(Debug)]
struct Secp521r1;

impl SupportedKxGroup for Secp521r1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let private = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P521, &SystemRandom::new())
            .map_err(|_| GetRandomFailed)?;
        let public = private.compute_public_key().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Exchange { private, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

/// A key exchange under way.
struct Exchange {
    private: agreement::EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // aws-lc-rs reads other encodings of a point too; TLS knows the uncompressed one only.
        if peer.first() != Some(&UNCOMPRESSED) {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P521, peer);
        agreement::agree_ephemeral(
            self.private,
            peer,
            Error::from(PeerMisbehaved::InvalidKeyShare),
            |secret| Ok(SharedSecret::from(secret)),
        )
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

/// The first byte of a point that is written in full.
///
/// Source: SEC 1, section 2.3.3.
const UNCOMPRESSED: u8 = 4;

/// Whether a handshake failed for a certificate: the peer's was not taken, or ours was not.
#[must_use]
pub(crate) fn is_about_certificates(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(_) => true,
        Error::AlertReceived(alert) => matches!(
            alert,
            AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateRequired
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError
        ),
        _ => false,
    }
}

/// What rustls says comes wrapped into an error of the socket, or into two, which do not name it as their source.
#[must_use]
pub(crate) fn of_rustls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    if let Some(rustls) = error.downcast_ref() {
        return Some(rustls);
    }
    let held: &(dyn std::error::Error + 'static) = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    of_rustls(held)
}
