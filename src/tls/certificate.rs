//! The fields of a server's certificate that rustls does not give: validity, names, and whether it is a CA. Floor 2.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::{Certificate, Version};

/// A parsed server certificate.
pub(super) struct Leaf(Certificate);

/// The position of a time relative to the validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    Ahead,
    Running,
    Over,
}

impl Leaf {
    /// `None`: the bytes are not an X.509 certificate.
    pub(super) fn read(leaf: &CertificateDer<'_>) -> Option<Self> {
        Certificate::from_der(leaf).ok().map(Self)
    }

    pub(super) fn lifetime(&self, now: UnixTime) -> Lifetime {
        let validity = &self.0.tbs_certificate.validity;
        if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
            Lifetime::Ahead
        } else if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
            Lifetime::Over
        } else {
            Lifetime::Running
        }
    }

    pub(super) fn is_version_3(&self) -> bool {
        self.0.tbs_certificate.version == Version::V3
    }

    pub(super) fn issuer(&self) -> &Name {
        &self.0.tbs_certificate.issuer
    }

    pub(super) fn serial_number(&self) -> &SerialNumber {
        &self.0.tbs_certificate.serial_number
    }

    /// The `dNSName`s of the subject alternative name.
    pub(super) fn dns_names(&self) -> Vec<String> {
        let names = self.0.tbs_certificate.get::<SubjectAltName>().ok().flatten();
        let names = names.map_or_else(Vec::new, |(_, names)| names.0);
        let dns = names.into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            _ => None,
        });
        dns.collect()
    }

    pub(super) fn is_ca(&self) -> bool {
        let constraints = self.0.tbs_certificate.get::<BasicConstraints>();
        constraints.ok().flatten().is_some_and(|(_, constraints)| constraints.ca)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_has_two_ends() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap();
        let leaf = Leaf::read(params.self_signed(&key).unwrap().der()).unwrap();
        let at = |seconds| leaf.lifetime(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)));
        assert_eq!(at(0), Lifetime::Ahead);
        assert_eq!(at(1_800_000_000), Lifetime::Running);
        assert_eq!(at(100_000_000_000), Lifetime::Over);
        assert!(!leaf.is_ca());
    }
}
