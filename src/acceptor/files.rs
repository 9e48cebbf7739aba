//! Reads the files of the server's certificate and key, and of the CAs of client certificates. Floor 2.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};

use super::{Settings, certificate};
use crate::crypto;
use crate::files::{self, FileSetting, Reason};

/// What was read from the files, and the rustls configuration made of it.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(super) settings: Settings,
    /// The state of the files just before they were read.
    pub(super) stamps: Stamps,
    pub(super) config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    warnings: Vec<Warning>,
}

impl InForce {
    /// Reads the files. Blocks on them.
    ///
    /// # Errors
    /// The files cannot serve any client. An expired certificate is a [`Warning`], not an error.
    pub(crate) fn read(settings: &Settings) -> Result<Self, Error> {
        let stamps = Stamps::of(settings);
        let provider = crypto::provider();
        let ours = crypto::certified_key(&settings.cert, &settings.key)?;
        let leaf =
            ours.cert.first().cloned().ok_or(Error::Provider(rustls::Error::NoCertificatesPresented))?;
        let asks = settings.client_ca.is_some();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::Provider)?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => builder.with_client_cert_verifier(client_verifier(file, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(ours)));
        config.alpn_protocols = vec![settings.alpn.to_vec()];
        if asks {
            // A resumed session would outlive the client's certificate, which is checked only in a full handshake.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let since_epoch = Duration::from_secs(UnixTime::now().as_secs());
        let warnings = Warning::of(&settings.cert, &leaf, UNIX_EPOCH + since_epoch).into_iter().collect();
        Ok(Self { settings: settings.clone(), stamps, config: Arc::new(config), leaf, warnings })
    }

    /// Reads the files again, to replace `before`. Blocks on them.
    ///
    /// # Errors
    /// As [`InForce::read`]. An expired certificate is an error too if it would replace a different certificate.
    pub(crate) fn reread(settings: &Settings, before: Option<&Self>) -> Result<Self, Error> {
        let fresh = Self::read(settings)?;
        let is_other = before.is_some_and(|before| before.leaf != fresh.leaf);
        match fresh.warnings.first() {
            Some(warning) if is_other => Err(Error::OutOfDate(warning.clone())),
            _ => Ok(fresh),
        }
    }

    /// A fault that does not keep clients from being served.
    #[must_use]
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether clients have to send a certificate.
    #[must_use]
    pub(crate) fn asks_for_certificate(&self) -> bool {
        self.settings.client_ca.is_some()
    }

    /// The text for the log: `good until 2027-01-01T00:00:00Z`.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match certificate::lifetime(&self.leaf) {
            Some((_, until)) => format!("good until {}", humantime::format_rfc3339_seconds(until)),
            None => "of an unknown lifetime".to_owned(),
        }
    }
}

/// The server's certificate has expired, or is not valid yet. Clients that do not verify it can still connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    file: FileSetting,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Over(SystemTime),
    Ahead(SystemTime),
}

impl Warning {
    fn of(file: &FileSetting, leaf: &CertificateDer<'_>, now: SystemTime) -> Option<Self> {
        let (from, until) = certificate::lifetime(leaf)?;
        let fault = match now {
            now if now > until => Fault::Over(until),
            now if now < from => Fault::Ahead(from),
            _ => return None,
        };
        Some(Self { file: file.clone(), fault })
    }
}

/// Writes `leasehold.toml:3: tls.cert_file: /etc/tls/tls.crt: the certificate expired at 2026-01-01T00:00:00Z`.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::Over(until) => {
                write!(
                    f,
                    "{}: the certificate expired at {}",
                    self.file,
                    humantime::format_rfc3339_seconds(until)
                )
            }
            Fault::Ahead(from) => {
                let from = humantime::format_rfc3339_seconds(from);
                write!(f, "{}: the certificate holds only from {from} on", self.file)
            }
        }
    }
}

/// Accepts a client without a certificate, so that it can get an error message of its own protocol later.
fn client_verifier(
    file: &FileSetting,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in file.certificates()? {
        roots.add(certificate).map_err(|_| file.fails(Reason::UnknownCertificate))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(Error::Verifier)
}

/// Identifies the content of the files: it changes when a file is written or replaced. A missing file has no stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Stamps {
    /// Reads the metadata of the files behind all links. Blocks.
    pub(super) fn of(settings: &Settings) -> Self {
        let files = [Some(&settings.cert), Some(&settings.key), settings.client_ca.as_ref()];
        Self(files.into_iter().flatten().map(|file| stamp(file).ok()).collect())
    }
}

fn stamp(file: &FileSetting) -> std::io::Result<Stamp> {
    let data = std::fs::metadata(file.path())?;
    let (modified, changed) = ((data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec()));
    Ok((data.dev(), data.ino(), data.len(), modified.0, modified.1, changed.0, changed.1))
}

/// The reason why TLS cannot be served with these files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file is missing, or its content cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The certificate has expired or is not valid yet, and would replace a different certificate.
    #[error("{0}")]
    OutOfDate(Warning),
    /// The file of CAs cannot be used.
    #[error("no client's certificate can be verified")]
    Verifier(#[source] VerifierBuilderError),
    /// rustls refused the configuration.
    #[error("no TLS here")]
    Provider(#[source] rustls::Error),
}
