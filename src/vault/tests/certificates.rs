//! Certificate files that are replaced while requests are made.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::crypto;
use crate::files::FileSetting;

/// A CA as PEM, and a server certificate that it has signed.
struct Authority {
    pem: String,
    served: Arc<rustls::ServerConfig>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
        let served = rustls::ServerConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Self { pem, served: Arc::new(served) }
    }
}

/// A server that answers each request with a credential, and uses the certificate that is set at the time.
async fn serve(shown: watch::Receiver<Arc<rustls::ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(&shown.borrow()));
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(socket).await else { return };
                drop(tls.read(&mut [0; 16 * 1024]).await);
                let reply = stub::ok(GRANT).replacen("\r\n", "\r\nconnection: close\r\n", 1);
                drop(tls.write_all(reply.as_bytes()).await);
                drop(tls.shutdown().await);
            });
        }
    });
    addr
}

#[tokio::test]
async fn the_ca_of_vault_is_read_again_when_its_certificate_is_not_taken() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (show, shown) = watch::channel(Arc::clone(&old.served));
    let addr = serve(shown).await;
    let file = std::env::temp_dir().join(format!("leasehold-ca-{}", std::process::id()));
    std::fs::write(&file, &old.pem).unwrap();
    let mut config = config(&[&format!("https://{addr}")]);
    config.ca_cert = Some(FileSetting::new(&file, "vault.ca_cert"));
    let vault = Vault::new(config).unwrap();
    vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();

    // The file contains both CAs for a while, as is usual. Then Vault uses the new certificate.
    std::fs::write(&file, format!("{}{}", old.pem, new.pem)).unwrap();
    show.send_replace(Arc::clone(&new.served));
    vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();

    // An unchanged file is not read for each request. A broken file leaves the earlier certificates in force.
    std::fs::write(&file, "no certificate").unwrap();
    let stranger = Authority::new("stranger");
    show.send_replace(Arc::clone(&stranger.served));
    for _ in 0..3 {
        let failure = vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
        assert!(failure.is_about_certificate(), "{failure}");
        assert!(!failure.outcome_unknown);
    }
    show.send_replace(Arc::clone(&new.served));
    vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
    std::fs::remove_file(file).unwrap();
}
