//! The TLS that Vault is reached by: which roots are trusted, who we are. Floor 2.
//!
//! Where a CA is named, only that CA is trusted; otherwise the system's roots are.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::{fmt, fs};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use secrecy::zeroize::Zeroizing;

use super::{Config, Error};
use crate::crypto;

/// Reads the files that `config` names. `in_use` tells whether any address is `https`: where none is, the system's
/// roots are not looked for, while files that were named must still be good.
pub(super) fn client_config(
    config: &Config,
    in_use: bool,
) -> Result<(ClientConfig, Option<Arc<Identity>>), Error> {
    let provider = crypto::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Certificate { what: "TLS", origin: "versions".to_owned(), source })?;
    let builder = if config.skip_verify {
        tracing::warn!(
            "the certificate of Vault is not verified (skip_verify): its credentials can be stolen"
        );
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(roots(config, in_use)?)
    };
    match (&config.client_cert, &config.client_key) {
        (None, None) => Ok((builder.with_no_client_auth(), None)),
        (Some(cert), Some(key)) => {
            let identity = Arc::new(Identity::read(cert.clone(), key.clone())?);
            let shown: Arc<dyn ResolvesClientCert> = Arc::clone(&identity) as _;
            let mut tls = builder.with_client_cert_resolver(shown);
            // A resumed session would speak for the certificate that it began with.
            tls.resumption = Resumption::disabled();
            Ok((tls, Some(identity)))
        }
        _ => Err(Error::ClientCertificateHalf),
    }
}

/// Our certificate. It is renewed on disk by others, so it is read again at each login by it; connections made from
/// then on show the new one.
pub(super) struct Identity {
    cert: PathBuf,
    key: PathBuf,
    now: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    fn read(cert: PathBuf, key: PathBuf) -> Result<Self, Error> {
        let now = RwLock::new(Arc::new(certified(&cert, &key)?));
        Ok(Self { cert, key, now })
    }

    /// Reads the files again; where that fails the earlier certificate stays. Blocks.
    pub(super) fn refresh(&self) -> Result<(), Error> {
        let fresh = Arc::new(certified(&self.cert, &self.key)?);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
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

fn certified(cert: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain = certificates("client_cert", &cert.display().to_string(), &read("client_cert", cert)?)?;
    let key_der = PrivateKeyDer::from_pem_slice(&read("client_key", key)?).map_err(|_| Error::NotPem {
        what: "client_key",
        origin: key.display().to_string(),
        wanted: "private key",
    })?;
    let provider = crypto::provider();
    CertifiedKey::from_der(chain, key_der, &provider).map_err(|source| Error::Certificate {
        what: "client_cert",
        origin: cert.display().to_string(),
        source,
    })
}

fn roots(config: &Config, in_use: bool) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    if let Some(text) = &config.ca_cert_bytes {
        add(&mut store, "the CA of Vault", "in the environment", text.as_bytes())?;
    } else if let Some(path) = &config.ca_cert {
        add(&mut store, "ca_cert", &path.display().to_string(), &read("ca_cert", path)?)?;
    } else if let Some(path) = &config.ca_path {
        add_directory(&mut store, path)?;
    } else if in_use {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            return Err(Error::NoSystemRoots);
        }
    }
    Ok(store)
}

/// Every file of the directory that holds certificates; names with a leading dot and directories are passed over,
/// as a mounted Secret has them beside its files.
fn add_directory(store: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let unreadable = |source| Error::Unreadable { what: "ca_path", path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || !file.is_file() {
            continue;
        }
        let origin = file.display().to_string();
        match add(store, "ca_path", &origin, &read("ca_path", &file)?) {
            Ok(()) | Err(Error::NotPem { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    if store.is_empty() {
        return Err(Error::NotPem {
            what: "ca_path",
            origin: path.display().to_string(),
            wanted: "certificate",
        });
    }
    Ok(())
}

fn add(store: &mut RootCertStore, what: &'static str, origin: &str, pem: &[u8]) -> Result<(), Error> {
    for certificate in certificates(what, origin, pem)? {
        store.add(certificate).map_err(|source| Error::Certificate {
            what,
            origin: origin.to_owned(),
            source,
        })?;
    }
    Ok(())
}

fn certificates(what: &'static str, origin: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let not_pem = || Error::NotPem { what, origin: origin.to_owned(), wanted: "certificate" };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(not_pem()),
    }
}

fn read(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    fs::read(path).map(Zeroizing::new).map_err(|source| Error::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

/// Takes any certificate. The signature of the handshake is still checked, so the peer holds the key of the
/// certificate that it shows.
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
