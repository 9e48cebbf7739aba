//! Channel binding: the data that represents a server's certificate in SCRAM. Floor 2.

use aws_lc_rs::digest::{self, Algorithm};
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Any, Decode as _, Encode as _, SliceReader, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

/// The `tls-server-end-point` data of a server's certificate: its hash, by the hash function of its signature, or
/// SHA-256 in place of MD5 and SHA-1. `None`: the signature has no separate hash function, as with Ed25519.
///
/// Source: RFC 5929 section 4.1.
#[must_use]
pub(super) fn end_point(leaf: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let algorithm = signature_hash(&Certificate::from_der(leaf).ok()?.signature_algorithm)?;
    Some(digest::digest(algorithm, leaf).as_ref().to_vec())
}

fn signature_hash(signature: &AlgorithmIdentifierOwned) -> Option<&'static Algorithm> {
    if signature.oid == RSA_PSS {
        return pss_hash(signature.parameters.as_ref()?);
    }
    SIGNATURES.iter().find(|(oid, _)| *oid == signature.oid).map(|(_, algorithm)| *algorithm)
}

/// Reads the first field of `RSASSA-PSS-params`, `hashAlgorithm [0]`. If it is absent, the hash is SHA-1.
///
/// Source: RFC 4055 section 3.1.
fn pss_hash(parameters: &Any) -> Option<&'static Algorithm> {
    let encoded = parameters.to_der().ok()?;
    let body = Any::from_der(&encoded).ok()?;
    let mut reader = SliceReader::new(body.value()).ok()?;
    let field =
        ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(&mut reader, TagNumber::N0).ok()?;
    let oid = field.map_or(SHA1, |field| field.value.oid);
    HASHES.iter().find(|(known, _)| *known == oid).map(|(_, algorithm)| *algorithm)
}

const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");

const HASHES: [(ObjectIdentifier, &Algorithm); 5] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.5"), &digest::SHA256),
    (SHA1, &digest::SHA256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), &digest::SHA256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), &digest::SHA384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), &digest::SHA512),
];

/// RSA (PKCS #1 v1.5) with MD5, SHA-1, SHA-256, SHA-384, SHA-512; ECDSA with SHA-1, SHA-256, SHA-384, SHA-512.
const SIGNATURES: [(ObjectIdentifier, &Algorithm); 9] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"), &digest::SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), &digest::SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), &digest::SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), &digest::SHA384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), &digest::SHA512),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), &digest::SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), &digest::SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), &digest::SHA384),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), &digest::SHA512),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_by(algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap().self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn end_point_follows_the_hash_of_the_signature() {
        let leaf = signed_by(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(end_point(&leaf).unwrap(), digest::digest(&digest::SHA256, &leaf).as_ref());
        let leaf = signed_by(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(end_point(&leaf).unwrap(), digest::digest(&digest::SHA384, &leaf).as_ref());
        assert_eq!(end_point(&signed_by(&rcgen::PKCS_ED25519)), None);
        assert_eq!(end_point(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
