//! Certificate revocation lists. Floor 2.
//!
//! As in libpq, each certificate of the chain needs a list of its CA that is not out of date. Unlike in libpq, a file
//! that cannot be read is an error.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use super::FileError;
use super::certificate::Leaf;
use crate::files::{FileSetting, Reason};

/// The revocation lists of one file.
#[derive(Debug)]
pub(super) struct Revocation {
    lists: Vec<CertificateList>,
    /// `None`: there are no roots, so no chain is valid.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl Revocation {
    /// Reads a PEM file. Blocks on it.
    pub(super) fn read(
        file: &FileSetting,
        roots: &RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, FileError> {
        let files = file.revocation_lists()?;
        let lists = files.iter().map(|list| CertificateList::from_der(list));
        let lists: Vec<_> =
            lists.collect::<Result<_, _>>().map_err(|_| file.fails(Reason::UnknownRevocationList))?;
        if roots.is_empty() {
            return Ok(Self { lists, chain: None });
        }
        let roots = Arc::new(roots.clone());
        let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
            .with_crls(files)
            .enforce_revocation_expiration()
            .build()
            .map_err(|_| file.fails(Reason::UnknownRevocationList))?;
        Ok(Self { lists, chain: Some(chain) })
    }

    pub(super) fn lists(&self) -> &[CertificateList] {
        &self.lists
    }

    /// Checks a chain up to a root against these lists, and then the name. The caller may ignore an error of the name,
    /// since the name is checked last.
    pub(super) fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain = self.chain.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        match chain.verify_server_cert(leaf, intermediates, name, &[], now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ))
            | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks a certificate that is itself trusted.
    pub(super) fn verify_own(&self, leaf: &Leaf, now: UnixTime) -> Result<(), Error> {
        let mut of_issuer = self.lists.iter().map(|list| &list.tbs_cert_list);
        let list = of_issuer
            .find(|list| list.issuer == *leaf.issuer())
            .ok_or(CertificateError::UnknownRevocationStatus)?;
        if list.next_update.is_some_and(|end| end.to_unix_duration().as_secs() < now.as_secs()) {
            return Err(CertificateError::ExpiredRevocationList.into());
        }
        let revoked = list.revoked_certificates.iter().flatten();
        if revoked.into_iter().any(|revoked| revoked.serial_number == *leaf.serial_number()) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(())
    }
}
