//! A certification authority of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P521_SHA512, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};

/// A CA, with its certificate in `ca`.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// That of all its keys.
    algorithm: &'static SignatureAlgorithm,
    /// Its certificate.
    pub(crate) ca: PathBuf,
    /// It as a server: signed by itself and marked as a CA, as PostgreSQL's classic `server.crt`.
    pub(crate) itself: Files,
}

/// PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// One of this name, with its files in this directory.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        Self::of(directory, name, &PKCS_ECDSA_P256_SHA256)
    }

    /// The same, with keys on the curve P-521.
    pub(crate) fn p_521(directory: &Path, name: &str) -> Self {
        Self::of(directory, name, &PKCS_ECDSA_P521_SHA512)
    }

    fn of(directory: &Path, name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = for_localhost(name);
        params.serial_number = Some(SerialNumber::from(Self::SERIAL));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let itself = write(directory, name, &params.self_signed(&key).unwrap().pem(), &key);
        let ca = itself.cert.clone();
        Self { directory: directory.to_owned(), issuer: Issuer::new(params, key), algorithm, ca, itself }
    }

    /// The serial number of its own certificate.
    pub(crate) const SERIAL: u64 = 1000;

    /// A certificate of this common name for localhost.
    pub(crate) fn issue(&self, name: &str, serial: u64) -> Files {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let mut params = for_localhost(name);
        params.serial_number = Some(SerialNumber::from(serial));
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        write(&self.directory, name, &cert.pem(), &key)
    }

    /// A certificate of this common name whose only alternative name is this `dNSName`.
    pub(crate) fn issue_for_dns(&self, name: &str, dns_name: &str) -> Files {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let mut params = for_localhost(name);
        params.subject_alt_names = vec![SanType::DnsName(dns_name.try_into().unwrap())];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        write(&self.directory, name, &cert.pem(), &key)
    }

    /// A certificate of this common name for localhost, with what else is to be in it.
    pub(crate) fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Files {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let mut params = for_localhost(name);
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        write(&self.directory, name, &cert.pem(), &key)
    }

    /// One for localhost that has been out of date since 2021.
    pub(crate) fn issue_expired(&self, name: &str) -> Files {
        self.issue_with(name, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// One of a client, with this URI as its only alternative name.
    pub(crate) fn issue_for_uri(&self, name: &str, uri: &str) -> Files {
        self.issue_with(name, |params| {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        })
    }

    /// A list of the serial numbers that it has taken back, up to date until the first day of that year.
    pub(crate) fn revoke(&self, serials: &[u64], until: i32) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.directory.join(format!("{serials:?}-{until}.crl"));
        std::fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }
}

impl Files {
    /// Signed by itself, with Ed25519; by openssl, which cannot read rcgen's keys of this kind.
    pub(crate) fn ed25519(directory: &Path) -> Self {
        let files = Self { cert: directory.join("ed25519.pem"), key: directory.join("ed25519.key") };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=localhost", "-keyout"]);
        let done = openssl.arg(&files.key).arg("-out").arg(&files.cert).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        files
    }
}

fn for_localhost(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(directory: &Path, name: &str, cert: &str, key: &KeyPair) -> Files {
    let files =
        Files { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}
