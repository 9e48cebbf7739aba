//! Handshakes with a test server, by host names that are not resolved.

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::crypto;

/// Performs a handshake with `host`, as written, and a server whose certificate has the single `dNSName` `name`.
async fn shake_hands(name: &str, host: &str) -> Result<(), Error> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut served = rustls::ServerConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    served.alpn_protocols = vec![ALPN.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let serve = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = TlsAcceptor::from(Arc::new(served)).accept(tcp).await;
    };

    let file = std::env::temp_dir().join(format!("leasehold-{name}-{host}-{}", std::process::id()));
    std::fs::write(&file, certificate.pem()).unwrap();
    let settings = Settings {
        level: Level::ChainAndName,
        roots: Some(FileSetting::new(&file, "test")),
        revocation_lists: None,
        client: None,
        alpn: ALPN,
    };
    let connector = Connector::new(settings).unwrap();
    std::fs::remove_file(&file).unwrap();
    let (shaken, ()) = tokio::join!(connector.connect(tcp, host), serve);
    shaken.map(|_| ())
}

#[tokio::test]
async fn a_host_is_compared_with_the_certificates_names_as_typed() {
    for (name, host, fits) in [
        ("db.example.com.", "db.example.com.", true),
        ("db.example.com.", "DB.example.com.", true),
        ("db.example.com.", "db.example.com", false),
        ("*.example.com.", "db.example.com.", true),
        ("other.example.com.", "db.example.com.", false),
        ("db.example.com", "db.example.com", true),
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
    ] {
        let shaken = shake_hands(name, host).await;
        match (&shaken, fits) {
            (Ok(()), true) | (Err(Error::WrongName(_)), false) => {}
            _ => panic!("{name} {host}: {shaken:?}"),
        }
    }
}

const ALPN: &[u8] = b"db";
