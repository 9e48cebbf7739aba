//! What the files hold: our certificate and its key, and the CAs of clients. Floor 2.

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

/// What was read, and what handshakes are made with.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(super) settings: Settings,
    /// The files as they were just before they were read.
    pub(super) stamps: Stamps,
    pub(super) config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    warnings: Vec<Warning>,
}

impl InForce {
    /// Reads the files. Blocks on them.
    ///
    /// # Errors
    /// Where a client could not be served with them; a certificate that is out of date is a [`Warning`].
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
            // A session that is resumed would outlive the client's certificate, which is checked at its begin alone.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let since_epoch = Duration::from_secs(UnixTime::now().as_secs());
        let warnings = Warning::of(&settings.cert, &leaf, UNIX_EPOCH + since_epoch).into_iter().collect();
        Ok(Self { settings: settings.clone(), stamps, config: Arc::new(config), leaf, warnings })
    }

    /// Reads the files in place of what is in force, if anything is. Blocks on them.
    ///
    /// # Errors
    /// As [`InForce::read`], and where another certificate is out of date than the one in force.
    pub(crate) fn reread(settings: &Settings, before: Option<&Self>) -> Result<Self, Error> {
        let fresh = Self::read(settings)?;
        let is_other = before.is_some_and(|before| before.leaf != fresh.leaf);
        match fresh.warnings.first() {
            Some(warning) if is_other => Err(Error::OutOfDate(warning.clone())),
            _ => Ok(fresh),
        }
    }

    /// What is not as it should be, though clients can be served with it.
    #[must_use]
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether clients have to show a certificate.
    #[must_use]
    pub(crate) fn asks_for_certificate(&self) -> bool {
        self.settings.client_ca.is_some()
    }

    /// What is said of it in the log: `good until 2027-01-01T00:00:00Z`.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match certificate::lifetime(&self.leaf) {
            Some((_, until)) => format!("good until {}", humantime::format_rfc3339_seconds(until)),
            None => "of an unknown lifetime".to_owned(),
        }
    }
}

/// That our certificate is out of date, which a client that does not verify it does not mind.
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

/// `leasehold.toml:3: tls.cert_file: /etc/tls/tls.crt: the certificate expired at 2026-01-01T00:00:00Z`
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

/// A client without a certificate passes here, so that it can get an error of its own protocol later.
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

/// What tells that a file was written anew, or that another one has come into its place. A missing file has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Stamps {
    /// Looks at the files behind all links. Blocks.
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

/// Why clients cannot be served TLS with these files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file is missing, or does not hold what it should.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A certificate that would take the place of another one, and is out of date.
    #[error("{0}")]
    OutOfDate(Warning),
    /// The CAs of clients cannot be used.
    #[error("no client's certificate can be verified")]
    Verifier(#[source] VerifierBuilderError),
    /// rustls cannot be set up.
    #[error("no TLS here")]
    Provider(#[source] rustls::Error),
}
