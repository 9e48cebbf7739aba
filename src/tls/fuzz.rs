//! A server's certificate of any bytes, and PEM files. Floor 2.

use rustls::pki_types::{CertificateDer, UnixTime};

use super::certificate::Leaf;
use super::name;
use crate::files::pem;

/// A server that is not verified yet sends the former.
pub(crate) fn certificate(data: &[u8]) {
    let der = CertificateDer::from(data);
    if let Some(leaf) = Leaf::read(&der) {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let _ = (leaf.lifetime(now), leaf.is_version_3(), leaf.is_ca(), leaf.issuer(), leaf.serial_number());
        assert!(leaf.dns_names().len() <= data.len());
    }
    let _ = (name::fits(&der, "db.example"), name::fits(&der, "127.0.0.1."));
    let _ = (pem::certificates(data), pem::private_key(data), pem::revocation_lists(data));
}
