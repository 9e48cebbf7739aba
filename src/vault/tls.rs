//! TLS for connections to Vault: trusted roots and our client certificate. Floor 2.
//!
//! If a CA is configured, only that CA is trusted; otherwise the system's roots are.

use std::sync::{Arc, PoisonError, RwLock};
use std::{fmt, fs, io};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Config, Error};
use crate::crypto;
use crate::files::{FileSetting, Missing, Reason, pem};

/// The certificates that come from files, which may change while the process runs.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    trust: Option<Arc<Trusted>>,
    pub(super) identity: Option<Arc<Identity>>,
}

impl Certificates {
    /// Reads all files again; a file that cannot be read leaves its earlier content in force. Returns whether anything
    /// has changed. Blocks.
    pub(super) fn refresh(&self) -> Result<bool, Error> {
        let trust = self.trust.as_ref().map_or(Ok(false), |trust| trust.refresh());
        let identity = self.identity.as_ref().map_or(Ok(false), |identity| identity.refresh());
        match (trust, identity) {
            (Ok(false), other) | (other, Ok(false)) => other,
            (Ok(true), _) | (_, Ok(true)) => Ok(true),
            (failed, Err(_)) => failed,
        }
    }
}

/// Reads the files of `config`. `in_use` says whether any address is `https`. If none is, the system's roots are not
/// read; configured files must be valid all the same.
pub(super) fn client_config(config: &Config, in_use: bool) -> Result<(ClientConfig, Certificates), Error> {
    let provider = crypto::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?;
    let mut certificates = Certificates::default();
    let builder = if config.skip_verify {
        tracing::warn!(
            "the certificate of Vault is not verified (skip_verify): its credentials can be stolen"
        );
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        let roots = roots(config, in_use)?;
        if roots.is_empty() {
            // No connection uses TLS.
            builder.with_root_certificates(roots)
        } else {
            let trust = Arc::new(Trusted::new(config.clone(), roots)?);
            certificates.trust = Some(Arc::clone(&trust));
            builder.dangerous().with_custom_certificate_verifier(trust)
        }
    };
    match (&config.client_cert, &config.client_key) {
        (None, None) => Ok((builder.with_no_client_auth(), certificates)),
        (Some(cert), Some(key)) => {
            let identity = Arc::new(Identity::read(cert.clone(), key.clone())?);
            let shown: Arc<dyn ResolvesClientCert> = Arc::clone(&identity) as _;
            let mut tls = builder.with_client_cert_resolver(shown);
            // A resumed session would keep the client certificate of its first connection.
            tls.resumption = Resumption::disabled();
            certificates.identity = Some(identity);
            Ok((tls, certificates))
        }
        _ => Err(Error::ClientCertificateHalf),
    }
}

/// Our client certificate. Other programs renew its file, so each login with it reads the file again. Later connections
/// use the new certificate.
pub(super) struct Identity {
    cert: FileSetting,
    key: FileSetting,
    now: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    fn read(cert: FileSetting, key: FileSetting) -> Result<Self, Error> {
        let now = RwLock::new(Arc::new(certified(&cert, &key)?));
        Ok(Self { cert, key, now })
    }

    /// Reads both files again. If this fails, or they do not match, the earlier pair stays in force. Returns whether
    /// the certificate has changed. Blocks.
    pub(super) fn refresh(&self) -> Result<bool, Error> {
        let fresh = Arc::new(certified(&self.cert, &self.key)?);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let has_changed = now.cert != fresh.cert;
        *now = fresh;
        Ok(has_changed)
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// The trusted roots, which are read again after a certificate was rejected.
struct Trusted {
    config: Config,
    now: RwLock<(RootCertStore, Arc<WebPkiServerVerifier>)>,
}

impl Trusted {
    fn new(config: Config, roots: RootCertStore) -> Result<Self, Error> {
        let verifier = verifier(&roots)?;
        Ok(Self { config, now: RwLock::new((roots, verifier)) })
    }

    /// Reads the roots again. If this fails, the earlier roots stay in force. Returns whether they have changed.
    /// Blocks.
    fn refresh(&self) -> Result<bool, Error> {
        let roots = roots(&self.config, true)?;
        let verifier = verifier(&roots)?;
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let has_changed = now.0.roots != roots.roots;
        *now = (roots, verifier);
        Ok(has_changed)
    }

    fn verifier(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).1)
    }
}

fn verifier(roots: &RootCertStore) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let roots = Arc::new(roots.clone());
    let built = WebPkiServerVerifier::builder_with_provider(roots, crypto::provider()).build();
    built.map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trusted").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier().verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

fn certified(cert: &FileSetting, key: &FileSetting) -> Result<CertifiedKey, Error> {
    let chain = cert.certificates()?;
    let provider = crypto::provider();
    CertifiedKey::from_der(chain, key.private_key()?, &provider).map_err(|error| {
        let fails = match error {
            rustls::Error::InconsistentKeys(_) => cert.fails(Reason::OtherKey),
            rustls::Error::InvalidCertificate(_) => cert.fails(Reason::UnknownCertificate),
            _ => key.fails(Reason::UnknownKey),
        };
        fails.into()
    })
}

fn roots(config: &Config, in_use: bool) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    if let Some(text) = &config.ca_cert_bytes {
        let certificates = pem::certificates(text.as_bytes()).map_err(Reason::Pem);
        certificates.and_then(|found| add(&mut store, found)).map_err(Error::CaText)?;
    } else if let Some(file) = &config.ca_cert {
        add(&mut store, file.certificates()?).map_err(|reason| file.fails(reason))?;
    } else if let Some(directory) = &config.ca_path {
        add_directory(&mut store, directory)?;
    } else if in_use {
        store = crypto::system_roots().ok_or(Error::NoSystemRoots)?;
    }
    Ok(store)
}

/// Adds each file of the directory that contains certificates. Directories and names with a leading dot are skipped: a
/// mounted Secret has them beside its files.
fn add_directory(store: &mut RootCertStore, directory: &FileSetting) -> Result<(), Error> {
    let unreadable = |error: io::Error| {
        directory.fails(match error.kind() {
            io::ErrorKind::NotFound => Reason::Missing(Box::new(Missing::directory(directory.path()))),
            _ => Reason::of(&error),
        })
    };
    for entry in fs::read_dir(directory.path()).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || !path.is_file() {
            continue;
        }
        let file = directory.within(path);
        match file.certificates() {
            Ok(found) => add(store, found).map_err(|reason| file.fails(reason))?,
            Err(error) if matches!(error.reason(), Reason::Pem(fault) if fault.is_absence()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if store.is_empty() {
        return Err(directory.fails(Reason::NoCertificates).into());
    }
    Ok(())
}

fn add(store: &mut RootCertStore, certificates: Vec<CertificateDer<'static>>) -> Result<(), Reason> {
    for certificate in certificates {
        store.add(certificate).map_err(|_| Reason::UnknownCertificate)?;
    }
    Ok(())
}

/// Accepts any certificate. The signature of the handshake is still checked, so the peer has the certificate's private
/// key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
