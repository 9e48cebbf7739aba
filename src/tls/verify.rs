//! Verifies a server's certificate, at the level of the settings. Floor 2.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::certificate::{Leaf, Lifetime};
use super::name::fits as name_fits;
use super::revocation::Revocation;
use crate::crypto;

/// How much of a certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Only the handshake's signature is checked.
    Nothing,
    /// A trusted root has signed the certificate, through any intermediate CAs.
    Chain,
    /// The certificate is also for the host as written.
    ChainAndName,
}

/// The trusted certificates.
#[derive(Debug)]
pub(super) struct Trust {
    /// CAs that may sign a server's certificate.
    pub(super) roots: RootCertStore,
    /// Certificates that are trusted as a server's own: all of the file of roots. So PostgreSQL's classic self-signed
    /// `server.crt` is accepted although it is marked as a CA, as in libpq.
    pub(super) own: Vec<CertificateDer<'static>>,
    /// The revocation lists, if any are configured.
    pub(super) revocation: Option<Revocation>,
}

impl Trust {
    pub(super) fn nobody() -> Self {
        Self { roots: RootCertStore::empty(), own: Vec::new(), revocation: None }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        let lists = |trust: &Self| trust.revocation.as_ref().map(|revocation| revocation.lists().to_vec());
        self.roots.roots == other.roots.roots && self.own == other.own && lists(self) == lists(other)
    }
}

#[derive(Debug)]
pub(super) struct Verifier {
    level: Level,
    trust: Arc<Trust>,
    /// The host as written: rustls removes a dot at its end.
    host: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(level: Level, trust: Arc<Trust>, host: &str) -> Self {
        let algorithms = crypto::provider().signature_verification_algorithms;
        Self { level, trust, host: host.to_owned(), algorithms }
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.trust.own.iter().any(|own| own == leaf) {
            let leaf = Leaf::read(leaf).ok_or(CertificateError::BadEncoding)?;
            return match leaf.lifetime(now) {
                Lifetime::Running => match &self.trust.revocation {
                    Some(revocation) => revocation.verify_own(&leaf, now),
                    None => Ok(()),
                },
                Lifetime::Over => Err(CertificateError::Expired.into()),
                Lifetime::Ahead => Err(CertificateError::NotValidYet.into()),
            };
        }
        let (roots, all) = (&self.trust.roots, self.algorithms.all);
        let verified = match &self.trust.revocation {
            Some(revocation) => revocation.verify_chain(leaf, intermediates, name, now),
            None => verify_server_cert_signed_by_trust_anchor(parsed, roots, intermediates, now, all),
        };
        verified.map_err(|error| match error {
            // webpki reports a CA certificate used by a server with an error of its own, before it looks for the
            // issuer.
            Error::InvalidCertificate(CertificateError::Other(_))
                if Leaf::read(leaf).is_some_and(|leaf| leaf.is_ca()) =>
            {
                Flaw::Ca.into()
            }
            other => other,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if Leaf::read(leaf).is_some_and(|leaf| !leaf.is_version_3()) {
            return Err(Flaw::Version.into());
        }
        if self.level >= Level::Chain {
            let parsed = ParsedCertificate::try_from(leaf)?;
            self.verify_chain(leaf, &parsed, intermediates, name, now)?;
            if self.level == Level::ChainAndName {
                verify_server_name(&parsed, name)
                    .or_else(|error| if name_fits(leaf, &self.host) { Ok(()) } else { Err(error) })?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Faults that rustls has no error for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The certificate is marked as a CA, is used by a server, and is not in the file of roots.
    Ca,
    /// The X.509 version is below 3, as plain `openssl x509 -req` made it for a long time. rustls cannot parse it.
    Version,
}

impl From<Flaw> for Error {
    fn from(flaw: Flaw) -> Self {
        CertificateError::Other(OtherError(Arc::new(flaw))).into()
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "certificate is a CA",
            Self::Version => "certificate is not of X.509 version 3",
        })
    }
}

impl std::error::Error for Flaw {}
