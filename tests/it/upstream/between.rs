//! Somebody on the network between leasehold and PostgreSQL, who ends TLS with a certificate of his own. The server is a
//! real one, and so is its answer to what he changes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Authority, Backends, ClientTls, Files, Leasehold, Raw, SOON, Spec, bench, eventually, leasehold, tags,
};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is handed on as it is.
    HandOn,
    /// TLS ends here, and what the server says is handed on.
    EndTls,
    /// The same, and SCRAM-SHA-256-PLUS is taken out of the server's offer.
    Downgrade,
    /// TLS ends here, and a password is asked for in clear.
    AskForPassword,
}

struct Between {
    addr: String,
    way: Arc<Mutex<Way>>,
    /// The types of the messages that came behind the startup packet of the latest connection.
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Between {
    async fn before(real: &str, shown: &Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let this = Self { addr, way: Arc::new(Mutex::new(Way::HandOn)), heard: Arc::default() };
        let (way, heard) = (Arc::clone(&this.way), Arc::clone(&this.heard));
        let (real, acceptor) = (real.to_owned(), acceptor(shown));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (now, heard) = (*way.lock().unwrap(), Arc::clone(&heard));
                let (real, acceptor) = (real.clone(), acceptor.clone());
                // Whoever refuses the certificate ends it.
                tokio::spawn(async move {
                    follow(now, stream, &real, &acceptor, &heard).await.unwrap_or_default();
                });
            }
        });
        this
    }

    fn set(&self, way: Way) {
        *self.way.lock().unwrap() = way;
        self.heard.lock().unwrap().clear();
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

fn acceptor(shown: &Files) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_file_iter(&shown.cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&shown.key).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn follow(
    way: Way,
    mut client: TcpStream,
    real: &str,
    acceptor: &TlsAcceptor,
    heard: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    if way == Way::HandOn {
        let mut server = TcpStream::connect(real).await?;
        return copy_bidirectional(&mut client, &mut server).await.map(drop);
    }
    client.read_exact(&mut [0; 8]).await?;
    client.write_all(b"S").await?;
    let mut client = acceptor.accept(client).await?;
    let length = client.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    client.read_exact(&mut startup).await?;
    if way == Way::AskForPassword {
        client.write_all(b"R\0\0\0\x08\0\0\0\x03").await?;
        client.flush().await?;
        let tag = client.read_u8().await?;
        heard.lock().unwrap().push(tag);
        return Ok(());
    }
    let mut server = Raw::secured(real.parse().unwrap(), &ClientTls::trusting_anything()).await?;
    server.write(&[&length.to_be_bytes()[..], &startup].concat()).await;
    let mut offer = server.recv().await.unwrap().bytes();
    if way == Way::Downgrade {
        offer = Raw::message('R', &[&10_i32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat());
    }
    client.write_all(&offer).await?;
    client.flush().await?;
    loop {
        let tag = client.read_u8().await?;
        heard.lock().unwrap().push(tag);
        let mut body = vec![0; client.read_u32().await? as usize - 4];
        client.read_exact(&mut body).await?;
        server.send(char::from(tag), &body).await;
        let Some(answer) = server.recv().await else { return Ok(()) };
        client.write_all(&answer.bytes()).await?;
        client.flush().await?;
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A leasehold with a route for each of some words of the URI, all of which lead through somebody who shows a certificate
/// of the server's CA for another host. Their credentials have been proved at the server itself.
async fn through_somebody(routes: &[(&str, &str)]) -> (Backends, Between, Leasehold) {
    let authority = Authority::new(&bench().directory().await, "ca");
    let own = authority.issue("db", 1);
    let options = json!({"version": "18", "ssl": {"cert": own.cert, "key": own.key, "ca": own.cert}});
    let backends = Backends::on(&bench().own_postgres(options).await, Spec::new("app")).await;
    let stolen = authority.issue_for_dns("stolen", "other.example");
    let between = Between::before(&backends.db.server.addr(), &stolen).await;
    let route = |(user, words): &(&str, &str)| {
        format!(
            "[[route]]\nname = \"{user}\"\nuser = \"{user}\"\nvault_path = \"{}\"\n\
             upstream = \"postgresql://{}/?{}\n",
            backends.setup.path,
            between.addr,
            words.replace("CA", shown(&authority.ca)),
        )
    };
    let toml: String = routes.iter().map(route).collect();
    let builder = leasehold().approle(&backends.setup).vault(&backends.vault).config_toml(&toml);
    let leasehold = builder.flag("--limits-login-wait", "9s").start().await;
    for (route, _) in routes {
        leasehold.wait_ready_route(route).await;
    }
    (backends, between, leasehold)
}

/// SQLSTATE, message and detail of the error that a client of this route gets.
async fn refused(leasehold: &Leasehold, route: &str, database: &str) -> [String; 3] {
    let (_, frames) = Raw::login(leasehold.addr(), route, database).await;
    let [error] = &frames[..] else { panic!("{route}: {frames:?}") };
    let mut fields = error.fields();
    [error.sqlstate(), fields.remove(&'M').unwrap(), fields.remove(&'D').unwrap_or_default()]
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_without_its_channel_binding_is_noticed_by_the_server_or_refused_by_us() {
    let words = [("prefer", "sslmode=require\""), ("require", "sslmode=require&channel_binding=require\"")];
    let (backends, between, leasehold) = through_somebody(&words).await;
    let database = backends.db.name();

    // With the binding, the server sees that the certificate is not its own.
    for route in ["prefer", "require"] {
        between.set(Way::EndTls);
        let [code, message, _] = refused(&leasehold, route, database).await;
        assert_eq!((code.as_str(), message.as_str()), ("28000", "SCRAM channel binding check failed"));
        assert_eq!(between.heard(), b"pp", "{route}");
    }
    // Where its offer was changed, it sees that from our flag.
    between.set(Way::Downgrade);
    let [code, message, _] = refused(&leasehold, "prefer", database).await;
    assert_eq!((code.as_str(), message.as_str()), ("28000", "SCRAM channel binding negotiation error"));
    between.set(Way::Downgrade);
    let [code, _, detail] = refused(&leasehold, "require", database).await;
    assert_eq!(
        (code.as_str(), detail.as_str()),
        ("28000", "It did not bind the login to its TLS certificate.")
    );
    assert_eq!(between.heard(), b"", "nothing was sent that the password is in");

    between.set(Way::HandOn);
    for route in ["prefer", "require"] {
        assert_eq!(leasehold.metrics().await.get("issuances_total", &[("route", route)]), 1.0);
        let (_, frames) = Raw::login(leasehold.addr(), route, database).await;
        assert!(tags(&frames).ends_with('Z'), "{route}: {frames:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_clear_is_for_servers_that_are_verified() {
    let words = [
        ("unverified", "sslmode=require\""),
        ("if-there-is-tls", "sslmode=prefer\""),
        ("written", "sslmode=require\"\nrequire_auth = \"password,scram-sha-256\""),
    ];
    let (backends, between, leasehold) = through_somebody(&words).await;
    let detail = "It asks for a cleartext password, and its certificate is not verified: sslmode=verify-full or sslrootcert \
         would, or require_auth=password allows it.";
    for route in ["unverified", "if-there-is-tls"] {
        between.set(Way::AskForPassword);
        let [code, _, said] = refused(&leasehold, route, backends.db.name()).await;
        assert_eq!((code.as_str(), said.as_str()), ("28000", detail), "{route}");
        assert_eq!(between.heard(), b"", "{route}");
    }
    between.set(Way::AskForPassword);
    let [code, ..] = refused(&leasehold, "written", backends.db.name()).await;
    assert_eq!((code.as_str(), between.heard()), ("08006", b"p".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_host_lets_nobody_in_between() {
    let words = [("full", "sslmode=verify-full&sslrootcert=CA\""), ("default", "sslrootcert=CA\"")];
    let (backends, between, leasehold) = through_somebody(&words).await;
    between.set(Way::EndTls);
    for route in ["full", "default"] {
        let [code, message, _] = refused(&leasehold, route, backends.db.name()).await;
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("08001", "no TLS with the upstream server"),
            "{route}"
        );
    }
    assert_eq!(between.heard(), b"", "not even a user name was sent");
    eventually(SOON, async || {
        let log = leasehold.log();
        if log.0.contains("sslmode=verify-ca would not compare names") { Ok(()) } else { Err("no reason") }
    })
    .await;
}
