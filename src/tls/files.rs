//! Reads the files of the settings: the trusted roots and our certificate. Floor 2.
//!
//! The files are read at the start, and again after a handshake that failed because of a certificate, since other
//! programs renew them.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::revocation::Revocation;
use super::verify::{Level, Trust, Verifier};
use super::{ClientFiles, Settings};
use crate::crypto;
use crate::files::{self, FileSetting};

/// What was read from the files.
#[derive(Debug)]
pub(super) struct Certificates {
    level: Level,
    trust: Arc<Trust>,
    client: Option<Arc<CertifiedKey>>,
    config: ClientConfig,
}

impl Certificates {
    /// Reads the files of the settings. Blocks on them.
    pub(super) fn read(settings: &Settings) -> Result<Self, FileError> {
        Self::new(settings, Arc::new(trust(settings)?), client(settings)?)
    }

    /// Reads the files again. A file that cannot be read leaves its earlier content in force, with a warning. `None`:
    /// nothing has changed. Blocks.
    pub(super) fn reread(&self, settings: &Settings) -> Option<Self> {
        let trust = trust(settings).map(Arc::new).unwrap_or_else(|error| {
            stays(&error);
            Arc::clone(&self.trust)
        });
        let client = client(settings).unwrap_or_else(|error| {
            stays(&error);
            self.client.clone()
        });
        let chain = |client: &Option<Arc<CertifiedKey>>| client.as_ref().map(|client| client.cert.clone());
        if trust.is_same(&self.trust) && chain(&client) == chain(&self.client) {
            return None;
        }
        Self::new(settings, trust, client).inspect_err(stays).ok()
    }

    fn new(
        settings: &Settings,
        trust: Arc<Trust>,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, FileError> {
        let level = settings.level;
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
        config.alpn_protocols = vec![settings.alpn.to_vec()];
        // A resumed session would skip the certificates in force. PostgreSQL issues no session tickets anyway.
        config.resumption = Resumption::disabled();
        Ok(Self { level, trust, client, config })
    }

    /// The configuration for a handshake with this host, as written in the settings.
    pub(super) fn config(&self, host: &str) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        let verifier = Verifier::new(self.level, Arc::clone(&self.trust), host);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }

    /// Whether we send a client certificate.
    pub(super) fn shows_client(&self) -> bool {
        self.client.is_some()
    }
}

fn stays(error: &FileError) {
    tracing::warn!(%error, "a certificate file for the upstream server cannot be read again: the earlier content stays");
}

fn trust(settings: &Settings) -> Result<Trust, FileError> {
    if settings.level == Level::Nothing {
        return Ok(Trust::nobody());
    }
    let mut trust = match &settings.roots {
        Some(file) => trust_in_file(file)?,
        None => Trust { roots: crypto::system_roots().ok_or(FileError::NoSystemRoots)?, ..Trust::nobody() },
    };
    if let Some(file) = &settings.revocation_lists {
        trust.revocation = Some(Revocation::read(file, &trust.roots, &crypto::provider())?);
    }
    Ok(trust)
}

fn trust_in_file(file: &FileSetting) -> Result<Trust, FileError> {
    let mut trust = Trust::nobody();
    for certificate in file.certificates()? {
        // A certificate that cannot be a root can still be the server's own certificate.
        let _ = trust.roots.add(certificate.clone());
        trust.own.push(certificate);
    }
    Ok(trust)
}

fn client(settings: &Settings) -> Result<Option<Arc<CertifiedKey>>, FileError> {
    let Some(ClientFiles { cert, key }) = &settings.client else { return Ok(None) };
    Ok(Some(Arc::new(crypto::certified_key(cert, key)?)))
}

/// The reason why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// A file is missing, or its content cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The system has no root certificates.
    #[error("the system has no root certificates")]
    NoSystemRoots,
    /// rustls refused the configuration.
    #[error("no TLS here")]
    Provider(#[source] rustls::Error),
}
