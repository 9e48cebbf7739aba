//! The fields of a certificate that leasehold reads: its validity, and the identity of its subject. Floor 2.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The identity in a client's certificate. A CA that we trust has signed the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The subject as RFC 4514 writes it: `CN=app,O=shop`. Empty if the certificate has no subject.
    pub(crate) subject: String,
    /// The `dNSName`s of the subject alternative name, in the order of the certificate.
    pub(crate) dns: Vec<String>,
    /// The `uniformResourceIdentifier`s of the subject alternative name, in the order of the certificate. A SPIFFE ID
    /// is a URI.
    pub(crate) uris: Vec<String>,
    /// The `rfc822Name`s of the subject alternative name, in the order of the certificate.
    pub(crate) emails: Vec<String>,
}

impl Identity {
    /// `None`: the certificate cannot be parsed.
    #[must_use]
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(leaf).ok()?.tbs_certificate;
        let names = certificate.get::<SubjectAltName>().ok()?;
        let mut identity = Self {
            subject: certificate.subject.to_string(),
            dns: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
        };
        for name in names.map_or_else(Vec::new, |(_, names)| names.0) {
            match name {
                GeneralName::DnsName(name) => identity.dns.push(name.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => identity.uris.push(uri.to_string()),
                GeneralName::Rfc822Name(address) => identity.emails.push(address.to_string()),
                _ => {}
            }
        }
        Some(identity)
    }
}

/// Writes `CN=app,O=shop (DNS:app.example, URI:spiffe://example/app)`, on one line of a log.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.subject))?;
        let dns = self.dns.iter().map(|name| ("DNS", name));
        let uris = self.uris.iter().map(|uri| ("URI", uri));
        let emails = self.emails.iter().map(|address| ("email", address));
        let mut is_first = true;
        for (kind, name) in dns.chain(uris).chain(emails) {
            let before = if is_first { " (" } else { ", " };
            write!(f, "{before}{kind}:{}", shown(name))?;
            is_first = false;
        }
        if is_first { Ok(()) } else { f.write_str(")") }
    }
}

/// Escapes and cuts the text: a CA may have signed a name of any length with any characters.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect()
}

/// A SPIFFE ID may have 2048 bytes, but those in use are much shorter.
const SHOWN_CHARACTERS: usize = 256;

/// The validity of a certificate, from `notBefore` to `notAfter`. `None`: the certificate cannot be parsed.
pub(super) fn lifetime(leaf: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let validity = Certificate::from_der(leaf).ok()?.tbs_certificate.validity;
    let at = |since: Duration| UNIX_EPOCH + since;
    Some((at(validity.not_before.to_unix_duration()), at(validity.not_after.to_unix_duration())))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>, common_name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, "shop");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn an_identity_is_the_subject_and_its_names() {
        let names = vec![
            SanType::DnsName("app.example".try_into().unwrap()),
            SanType::URI("spiffe://example/app".try_into().unwrap()),
            SanType::Rfc822Name("app@example".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        let identity = Identity::of(&certificate(names, "app")).unwrap();
        assert_eq!(identity.dns, ["app.example"]);
        assert_eq!(identity.uris, ["spiffe://example/app"]);
        assert_eq!(
            identity.to_string(),
            "O=shop,CN=app (DNS:app.example, URI:spiffe://example/app, email:app@example)"
        );
        assert_eq!(Identity::of(&certificate(Vec::new(), "b")).unwrap().to_string(), "O=shop,CN=b");
        assert_eq!(Identity::of(&CertificateDer::from(vec![0x30, 0])), None);
    }

    #[test]
    fn an_identity_is_one_line_of_bounded_length() {
        let shown = Identity::of(&certificate(Vec::new(), &format!("a\n{}", "x".repeat(5000)))).unwrap();
        let shown = shown.to_string();
        assert!(!shown.contains('\n') && shown.len() < 2 * SHOWN_CHARACTERS, "{shown}");
    }
}
