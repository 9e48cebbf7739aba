//! `client_ca_file`: clients show who they are.

use rustls::HandshakeKind;

use super::{Bed, shown};
use crate::harness::{Authority, ClientTls, Raw, bench, connect, tags};

/// A bed that asks for certificates, with a Unix socket in this directory.
async fn asking() -> (Bed, std::path::PathBuf) {
    asking_for(&[]).await
}

/// The same with these flags.
async fn asking_for(flags: &[(&str, &str)]) -> (Bed, std::path::PathBuf) {
    let directory = bench().directory().await;
    let listen = format!("127.0.0.1:0,{}", directory.display());
    let bed = Bed::with(|builder, authority| {
        let builder = builder.flag("--tls-client-ca-file", shown(&authority.ca)).flag("--listen", &listen);
        flags.iter().fold(builder, |builder, (name, value)| builder.flag(name, value))
    })
    .await;
    (bed, directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_certificate_stands_for_is_kept_with_the_session() {
    let (bed, _) = asking().await;
    let ca = &bed.authority.ca;
    let workload = bed.authority.issue_for_uri("workload", "spiffe://example/ns/shop/sa/app");
    let named = bed.authority.issue_for_dns("named", "app.example");
    for (files, identity) in [
        (&workload, "CN=workload (URI:spiffe://example/ns/shop/sa/app)"),
        (&named, "CN=named (DNS:app.example)"),
    ] {
        let (mut raw, _) = bed.session(&ClientTls::showing(ca, files)).await;
        assert_eq!(tags(&raw.query("SELECT 1").await), "TDCZ");
        bed.scene.leasehold.wait_log(identity).await;
    }
    let log = bed.scene.leasehold.log();
    let opened = log.messages("session opened");
    assert_eq!(opened.len(), 2);
    assert!(opened.iter().all(|line| crate::harness::field(line, "client.tls") == "TLSv1.3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nobody_gets_in_over_tcp() {
    let (bed, directory) = asking().await;
    let addr = bed.scene.leasehold.addr();
    let parameters = [("user", "app"), ("database", bed.scene.db.name())];
    let mut plain = Raw::connect(addr).await;
    plain.startup(Raw::PROTOCOL_3_0, &parameters).await;
    let error = plain.recv().await.unwrap();
    assert_eq!(error.sqlstate(), "28000");
    assert_eq!(error.fields()[&'M'], "connection requires a valid client certificate");
    let (mut without, frames) = bed.login(addr, &bed.tls()).await;
    assert_eq!((tags(&frames).as_str(), frames[0].sqlstate()), ("E", "28000".to_owned()));
    assert!(without.rest().await.1.is_none());

    // Of a stranger, out of date, or for servers alone: the alert of TLS says so.
    let stranger = Authority::new(&bench().directory().await, "stranger").issue("stranger", 9);
    let expired = bed.authority.issue_expired("expired");
    let of_server = bed.authority.issue_with("of_server", |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    for (files, alert) in
        [(&stranger, "UnknownCA"), (&expired, "CertificateExpired"), (&of_server, "Certificate")]
    {
        let tls = ClientTls::showing(&bed.authority.ca, files);
        // By TLS 1.3 a client has shaken hands before its certificate is looked at.
        let mut raw = Raw::secured(addr, &tls).await.unwrap();
        let (said, error) = raw.rest().await;
        assert!(said.is_empty(), "{said:?}");
        let error = error.unwrap().to_string();
        assert!(error.contains("received fatal alert") && error.contains(alert), "{error}");
    }
    bed.wait_failures("no_certificate", 2.0).await;
    bed.wait_failures("tls", 3.0).await;

    // Over a Unix socket there is no TLS, and with it no certificate.
    let mut config = tokio_postgres::Config::new();
    config.host_path(&directory).port(6432).user("app").dbname(bed.scene.db.name());
    assert_eq!(connect(&config).await.unwrap().value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_for_the_names_of_certificates_that_it_lists() {
    let names = "spiffe://example/ns/shop/sa/app,app.example";
    let (bed, directory) = asking_for(&[("--client-san", names)]).await;
    let (ca, addr) = (&bed.authority.ca, bed.scene.leasehold.addr());
    let workload = bed.authority.issue_for_uri("workload", "spiffe://example/ns/shop/sa/app");
    let named = bed.authority.issue_for_dns("named", "app.example");
    for files in [&workload, &named] {
        let (mut raw, _) = bed.session(&ClientTls::showing(ca, files)).await;
        assert_eq!(tags(&raw.query("SELECT 1").await), "TDCZ");
    }
    // The subject alone is no such name, though it says the same.
    let other = bed.authority.issue_for_uri("other", "spiffe://example/ns/shop/sa/other");
    let subject = bed.authority.issue("app.example", 77);
    let elsewhere = bed.authority.issue_for_dns("elsewhere", "app.example.com");
    for files in [&other, &subject, &elsewhere] {
        let (_, frames) = bed.login(addr, &ClientTls::showing(ca, files)).await;
        let [error] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(error.sqlstate(), "28000");
        assert!(error.fields()[&'H'].contains("client_san"), "{:?}", error.fields());
    }
    // Over a Unix socket nobody can show one.
    let mut config = tokio_postgres::Config::new();
    config.host_path(&directory).port(6432).user("app").dbname(bed.scene.db.name());
    assert_eq!(connect(&config).await.err().unwrap().code().unwrap().code(), "28000");
    let denied = bed.scene.leasehold.metrics().await;
    assert_eq!(denied.get("login_failures_total", &[("reason", "denied")]), 4.0);
}

/// A cancel shows its key: libpq before 17 sends it without TLS.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_needs_no_certificate() {
    let (bed, _) = asking().await;
    let ours = bed.authority.issue("client", 5);
    let (mut raw, key) = bed.session(&ClientTls::showing(&bed.authority.ca, &ours)).await;
    raw.send('Q', b"SELECT pg_sleep(60)\0").await;
    bed.scene.wait_state("active", 1).await;
    assert!(Raw::cancel(bed.scene.leasehold.addr(), &key).await);
    assert_eq!(raw.until("Z").await[1].sqlstate(), "57014");
}

/// A session of TLS is taken up again, but where a certificate would not be looked at for that.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_tls_are_resumed_unless_certificates_are_asked_for() {
    async fn second(bed: &Bed, tls: &ClientTls) -> Option<HandshakeKind> {
        // What it is resumed with comes behind the handshake.
        let (mut first, _) = bed.session(tls).await;
        assert_eq!(tags(&first.query("SELECT 1").await), "TDCZ");
        bed.session(tls).await.0.tls().handshake_kind()
    }
    let bed = Bed::new().await;
    assert_eq!(second(&bed, &bed.tls()).await, Some(HandshakeKind::Resumed));
    let (bed, _) = asking().await;
    let ours = bed.authority.issue("client", 5);
    let tls = ClientTls::showing(&bed.authority.ca, &ours);
    assert_eq!(second(&bed, &tls).await, Some(HandshakeKind::Full));
}

/// A Unix socket has no TLS to offer, as PostgreSQL's has none.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_unix_socket_tls_is_declined() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let (bed, directory) = asking().await;
    let ask = async |path: &std::path::Path, bytes: &[u8]| {
        let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    let server = bed.server();
    let sockets =
        [server.socket_dir.join(format!(".s.PGSQL.{}", server.port)), directory.join(".s.PGSQL.6432")];
    for path in sockets {
        assert_eq!(ask(&path, &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await, b"N", "{}", path.display());
        assert_eq!(ask(&path, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await, b"");
    }
}
