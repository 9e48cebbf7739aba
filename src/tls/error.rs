//! The reasons why a handshake fails. The texts are facts; the caller adds the name of the setting that corrects them.
//! Floor 2.

use std::io;

use rustls::CertificateError;

use super::verify::Flaw;
use crate::crypto;

/// The reason why a TLS connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The host can be in no certificate.
    #[error("host is neither a DNS name nor an address, so TLS cannot name it")]
    HostName,
    /// The server's certificate is marked as a CA, and is not in the file of roots.
    #[error("server's certificate is its own CA")]
    LeafIsCa,
    /// The certificate is of X.509 version 1, which is refused at every level of checks.
    #[error(
        "server's certificate is of X.509 version 1; issue one of version 3, with a subject alternative name"
    )]
    Version,
    /// No trusted root signed the certificate.
    #[error("server's certificate is signed by none of the roots")]
    UnknownIssuer,
    /// A CA with the name of a root signed the certificate with another key. Nearly always the CA was made anew.
    #[error("server's certificate is signed with another key than that of the root by its issuer's name")]
    Signature(#[source] rustls::Error),
    /// The certificate is for another host. The common name does not count.
    #[error("server's certificate has no subject alternative name for this host")]
    WrongName(#[source] rustls::Error),
    /// The certificate is in a revocation list.
    #[error("server's certificate, or that of a CA between, is revoked")]
    Revoked,
    /// There is no revocation list for a certificate of the chain.
    #[error("there is no revocation list of a CA that signed the server's certificate")]
    NoRevocationList,
    /// A revocation list is past its `nextUpdate`.
    #[error("the revocation list of a CA that signed the server's certificate is out of date")]
    OldRevocationList,
    /// The certificate has another fault.
    #[error("server's certificate is not valid")]
    Certificate(#[source] rustls::Error),
    /// The two sides have no TLS version or cipher suite in common.
    #[error(
        "server and leasehold have no algorithm or version of TLS in common; leasehold speaks TLS 1.2 and 1.3, and \
         keeps out what is known to be weak"
    )]
    NothingInCommon(#[source] rustls::Error),
    /// The handshake failed.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
}

impl Error {
    /// Whether the next attempt fails in the same way until a setting or a certificate changes.
    #[must_use]
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            // Any other kind of I/O error means that the connection broke.
            Self::Handshake(error) => error.kind() == io::ErrorKind::InvalidData,
            _ => true,
        }
    }

    /// Whether a certificate was rejected: the server's by us, or ours by the server.
    #[must_use]
    pub(crate) fn is_about_certificates(&self) -> bool {
        match self {
            Self::LeafIsCa
            | Self::Version
            | Self::UnknownIssuer
            | Self::Signature(_)
            | Self::WrongName(_)
            | Self::Revoked
            | Self::NoRevocationList
            | Self::OldRevocationList
            | Self::Certificate(_) => true,
            Self::NothingInCommon(error) => crypto::is_about_certificates(error),
            Self::Handshake(error) => crypto::of_rustls(error).is_some_and(crypto::is_about_certificates),
            Self::HostName => false,
        }
    }

    /// Takes the certificate error of rustls out of the I/O error.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        match crypto::of_rustls(&error) {
            Some(rustls) if crypto::is_nothing_in_common(rustls) => Self::NothingInCommon(rustls.clone()),
            Some(rustls::Error::InvalidCertificate(fault)) => Self::of_certificate(fault),
            _ => Self::Handshake(error),
        }
    }

    fn of_certificate(fault: &CertificateError) -> Self {
        match fault {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::BadSignature => Self::Signature(fault.clone().into()),
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::NoRevocationList,
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::OldRevocationList,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName(fault.clone().into())
            }
            CertificateError::Other(other) => match other.0.downcast_ref() {
                Some(Flaw::Ca) => Self::LeafIsCa,
                Some(Flaw::Version) => Self::Version,
                None => Self::Certificate(fault.clone().into()),
            },
            _ => Self::Certificate(fault.clone().into()),
        }
    }
}
