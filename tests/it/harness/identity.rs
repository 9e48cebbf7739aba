//! Who an app is, as others vouch for it: an issuer of JWTs, client certificates, and Kubernetes' TokenReview.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Signs JWTs with ES256.
pub(crate) struct Issuer {
    pair: EcdsaKeyPair,
    /// What Vault checks them by.
    pub(crate) public_key: String,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der());
        Self { pair: pair.unwrap(), public_key: key.public_key_pem() }
    }

    /// A JWT of an hour; each is another one.
    #[expect(clippy::disallowed_methods, reason = "a JWT has an end by the wall clock")]
    pub(crate) fn jwt(&self, mut claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        claims["iat"] = json!(now.as_secs());
        claims["nbf"] = json!(now.as_secs() - 60);
        claims["exp"] = json!(now.as_secs() + 3600);
        claims["jti"] = json!(now.as_nanos().to_string());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT"})), part(&claims));
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A self-signed certificate and its key, in PEM.
pub(crate) struct Certificate {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Certificate {
    /// For a server or client of this name or address.
    pub(crate) fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// As `cert.pem` and `key.pem` in this directory.
    pub(crate) fn write(&self, directory: &Path) {
        std::fs::write(directory.join("cert.pem"), &self.cert).unwrap();
        std::fs::write(directory.join("key.pem"), &self.key).unwrap();
    }
}

/// The part of Kubernetes' API that Vault asks whether a service account's token is good, by https.
///
/// Reference: <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/>
pub(crate) struct TokenReview {
    addr: SocketAddr,
    pub(crate) ca: String,
    shared: Arc<Reviews>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Reviews {
    good: Mutex<BTreeSet<String>>,
    asked: Mutex<Vec<String>>,
}

impl TokenReview {
    pub(crate) async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Reviews::default());
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&shared)));
        Self { addr, ca: made.cert.pem(), shared, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// From now on this token is the only good one.
    pub(crate) fn vouch_for(&self, token: &str) {
        *self.shared.good.lock().unwrap() = BTreeSet::from([token.to_owned()]);
    }

    /// The tokens that were asked about, oldest first.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for TokenReview {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Reviews>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                review(stream, &shared).await;
            }
        });
    }
}

/// Answers one request.
async fn review(stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Reviews) {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let token = asked["spec"]["token"].as_str().unwrap().to_owned();
    let good = shared.good.lock().unwrap().contains(&token);
    shared.asked.lock().unwrap().push(token);
    let status = if good {
        json!({"authenticated": true, "audiences": ["vault"], "user": {
            "username": "system:serviceaccount:default:app", "uid": "uid-1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default"]}})
    } else {
        json!({"authenticated": false, "error": "token is not good"})
    };
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
    let body = body.to_string();
    let reply = format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    drop(stream.write_all(reply.as_bytes()).await);
    drop(stream.shutdown().await);
}
