//! What the files of the URI hold: whom we trust, and who we are. Floor 2.
//!
//! They are read at the start, and again after a handshake that failed for a certificate: others renew them on disk.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};

use super::ALPN;
use super::revocation::Revocation;
use super::verify::{Level, Trust, Verifier};
use crate::crypto;
use crate::files::{self, FileSetting, Reason};
use crate::postgres::upstream::uri::{ClientFiles, RootCert, SslMode, TlsWords};

/// What was read.
#[derive(Debug)]
pub(super) struct Certificates {
    level: Level,
    trust: Arc<Trust>,
    client: Option<Arc<CertifiedKey>>,
    config: ClientConfig,
}

impl Certificates {
    /// Reads the files that the words name. Blocks on them.
    pub(super) fn read(words: &TlsWords) -> Result<Self, FileError> {
        Self::new(level(words), Arc::new(trust(words)?), client(words)?)
    }

    /// Reads the files again. What cannot be read stays as it is here, with a warning. `None`: nothing has changed. Blocks.
    pub(super) fn reread(&self, words: &TlsWords) -> Option<Self> {
        let trust = trust(words).map(Arc::new).unwrap_or_else(|error| {
            stays(&error);
            Arc::clone(&self.trust)
        });
        let client = client(words).unwrap_or_else(|error| {
            stays(&error);
            self.client.clone()
        });
        let chain = |client: &Option<Arc<CertifiedKey>>| client.as_ref().map(|client| client.cert.clone());
        if trust.is_same(&self.trust) && chain(&client) == chain(&self.client) {
            return None;
        }
        Self::new(self.level, trust, client).inspect_err(stays).ok()
    }

    fn new(level: Level, trust: Arc<Trust>, client: Option<Arc<CertifiedKey>>) -> Result<Self, FileError> {
        let builder = ClientConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .map_err(FileError::Provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(level, Arc::clone(&trust), "")));
        let mut config = match &client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(client))))
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        // PostgreSQL gives no tickets, so a store for them would stay empty.
        config.resumption = Resumption::disabled();
        Ok(Self { level, trust, client, config })
    }

    /// For a handshake with this host, as it was typed.
    pub(super) fn config(&self, host: &str) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        let verifier = Verifier::new(self.level, Arc::clone(&self.trust), host);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }

    /// Whether a certificate of ours is shown.
    pub(super) fn shows_client(&self) -> bool {
        self.client.is_some()
    }
}

fn stays(error: &FileError) {
    tracing::warn!(%error, "a certificate file for the upstream server cannot be read again: the earlier content stays");
}

fn level(words: &TlsWords) -> Level {
    match (words.mode, &words.root_cert) {
        (SslMode::VerifyFull, _) => Level::ChainAndName,
        (SslMode::VerifyCa, _) | (_, Some(RootCert::File(_))) => Level::Chain,
        (SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require, _) => Level::Nothing,
    }
}

fn trust(words: &TlsWords) -> Result<Trust, FileError> {
    let level = level(words);
    let mut trust = match (level, &words.root_cert) {
        (Level::Nothing, _) => Trust::nobody(),
        (_, Some(RootCert::File(file))) => trust_in_file(file)?,
        (_, Some(RootCert::System) | None) => trust_in_system()?,
    };
    if let Some(file) = words.crl.as_ref().filter(|_| level > Level::Nothing) {
        trust.revocation = Some(Revocation::read(file, &trust.roots, &crypto::provider())?);
    }
    Ok(trust)
}

fn trust_in_file(file: &FileSetting) -> Result<Trust, FileError> {
    let mut trust = Trust::nobody();
    for certificate in file.certificates()? {
        // What cannot be a root can still be the server's own certificate.
        let _ = trust.roots.add(certificate.clone());
        trust.own.push(certificate);
    }
    Ok(trust)
}

fn trust_in_system() -> Result<Trust, FileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(FileError::NoSystemRoots);
    }
    Ok(Trust { roots, ..Trust::nobody() })
}

fn client(words: &TlsWords) -> Result<Option<Arc<CertifiedKey>>, FileError> {
    let provider = crypto::provider();
    words.client.as_ref().map(|files| client_certificate(files, &provider).map(Arc::new)).transpose()
}

/// rustls would refuse a certificate of X.509 version 1 here; but it is for the server to judge.
fn client_certificate(files: &ClientFiles, provider: &CryptoProvider) -> Result<CertifiedKey, FileError> {
    let key = provider.key_provider.load_private_key(files.key.private_key()?);
    let key = key.map_err(|_| files.key.fails(Reason::UnknownKey))?;
    let certified = CertifiedKey::new(files.cert.certificates()?, key);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(files.cert.fails(Reason::OtherKey).into())
        }
        _ => Ok(certified),
    }
}

/// Why the files of the URI cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// A file is missing, or does not hold what it should.
    #[error(transparent)]
    File(#[from] files::Error),
    /// No roots on this machine.
    #[error("the system has no root certificates; name a file with sslrootcert")]
    NoSystemRoots,
    /// rustls cannot be set up.
    #[error("no TLS here")]
    Provider(#[source] rustls::Error),
}
