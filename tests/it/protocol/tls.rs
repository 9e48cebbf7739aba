//! The way to the server: TLS as the URI says, authentication of every kind, several hosts.

use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{Builder, Fault, Mode, Raw, SOON, Scene, Server, Spec, bench, eventually, field};

/// What becomes of a login by way of this URI: whether it has TLS, or what the log says of the failure.
async fn login(server: &Server, uri: &str) -> Result<bool, String> {
    login_with(server, uri, |builder| builder).await
}

/// The same with what `describe` adds.
async fn login_with(
    server: &Server,
    uri: &str,
    describe: impl FnOnce(Builder) -> Builder,
) -> Result<bool, String> {
    let spec = Spec::new("app");
    let scene = Scene::started(server, spec, |builder, _| describe(builder.upstream_uri(uri))).await;
    match scene.leasehold.try_connect("app", scene.db.name()).await {
        Ok(session) => {
            // Only the superuser may see it of a session whose role is not its own.
            let pid = session.value("SELECT pg_backend_pid()").await;
            let tls = scene.db.admin.value(&format!("SELECT ssl FROM pg_stat_ssl WHERE pid = {pid}")).await;
            Ok(tls == "t")
        }
        Err(error) => {
            let code = error.code().map(|code| code.code());
            assert!(matches!(code, Some("08001" | "28000")), "{uri}: {error:?}");
            let said = eventually(SOON, async || {
                scene.leasehold.log().messages("login failed").pop().ok_or("the log does not say why")
            });
            Err(field(&said.await, "error"))
        }
    }
}

async fn fails(server: &Server, uri: &str, words: &[&str]) {
    let error = login(server, uri).await.expect_err(uri);
    assert!(words.iter().all(|word| error.contains(word)), "{uri}: {error:?} does not say {words:?}");
}

fn ca(server: &Server) -> String {
    server.ca.as_deref().and_then(Path::to_str).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_means_what_it_means_to_libpq() {
    let listen = json!({"listen_addresses": "127.0.0.1,127.0.0.2"});
    let server = bench().own_postgres(json!({"ssl": true, "conf": listen})).await;
    let (stranger, plain) = (bench().postgres_18().await, bench().postgres().await);
    // The certificate is for 127.0.0.1.
    let (right, wrong) = (format!("127.0.0.1:{}", server.port), format!("127.0.0.2:{}", server.port));
    let (own, other) = (format!("sslrootcert={}", ca(&server)), format!("sslrootcert={}", ca(&stranger)));
    let uri = |host: &str, words: &str| format!("postgresql://{host}/?{words}");

    for (host, words, tls) in [
        (&right, "sslmode=disable", false),
        (&right, "sslmode=allow", false),
        (&right, "sslmode=prefer", true),
        (&right, "sslmode=require", true),
        (&wrong, &format!("sslmode=require&{own}"), true),
        (&wrong, &format!("sslmode=verify-ca&{own}"), true),
        (&right, &format!("sslmode=verify-full&{own}"), true),
        (&right, &own, true),
        (&plain.addr(), "sslmode=prefer", false),
    ] {
        let server = if *host == plain.addr() { &plain } else { &server };
        assert_eq!(login(server, &uri(host, words)).await, Ok(tls), "{words}");
    }
    fails(&server, &uri(&wrong, &own), &["name", "sslmode=verify-ca"]).await;
    fails(&server, &uri(&right, &other), &["another key", "sslrootcert"]).await;
    fails(&server, &uri(&right, &format!("sslmode=verify-ca&{other}")), &["sslrootcert"]).await;
    fails(&server, &uri(&right, &format!("sslmode=require&{other}")), &["sslrootcert"]).await;
    fails(&plain, &uri(&plain.addr(), "sslmode=require"), &["does not support TLS", "sslmode=disable"]).await;
    fails(&plain, &uri(&plain.addr(), &own), &["does not support TLS", "sslmode=disable"]).await;
    let direct = format!("sslnegotiation=direct&sslmode=verify-full&{other}");
    assert_eq!(login(&stranger, &uri(&stranger.addr(), &direct)).await, Ok(true), "18 takes TLS at once");
    let direct = format!("sslnegotiation=direct&sslmode=verify-full&{own}");
    fails(&server, &uri(&right, &direct), &["sslnegotiation=postgres"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_binds_to_the_certificates_own_digest() {
    for version in ["system", "18"] {
        for digest in ["sha256", "sha384"] {
            let server = bench().own_postgres(json!({"version": version, "ssl": {"digest": digest}})).await;
            let uri = |words: &str| format!("postgresql://{}/?channel_binding={words}", server.addr());
            let bound = uri(&format!("require&sslrootcert={}", ca(&server)));
            assert_eq!(login(&server, &bound).await, Ok(true), "{version} {digest}");
            let unbound = uri(&format!("disable&sslrootcert={}", ca(&server)));
            assert_eq!(login(&server, &unbound).await, Ok(true));
            fails(&server, &uri("require&sslmode=disable"), &["channel"]).await;
        }
    }
}

/// PostgreSQL 16 and later can be told how many rounds a password's hash has; OWASP recommends 600,000.
#[tokio::test(flavor = "multi_thread")]
async fn scram_with_as_many_rounds_as_owasp_asks_for_lets_in() {
    let conf = json!({"scram_iterations": "600000"});
    let server = bench().own_postgres(json!({"version": "18", "conf": conf})).await;
    let uri = format!("postgresql://{}/?sslmode=disable", server.addr());
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    for _ in 0..3 {
        scene.leasehold.connect("app", scene.db.name()).await.close().await;
    }
    let hash =
        scene.db.admin.value("SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'v-%' LIMIT 1").await;
    assert!(hash.starts_with("SCRAM-SHA-256$600000:"));
}

/// What the client is told of a failed login, and what the log says.
async fn failure(scene: &Scene) -> (String, String, String) {
    let failed = scene.leasehold.try_connect("app", scene.db.name()).await.err().expect("no session");
    let told = failed.as_db_error().expect("a message").clone();
    let said = eventually(SOON, async || {
        scene.leasehold.log().messages("login failed").pop().ok_or("the log does not say why")
    });
    (told.code().code().to_owned(), told.message().to_owned(), field(&said.await, "error"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_fork_is_quoted() {
    const WORDS: &str = "could not fork new process for connection: Resource temporarily unavailable";
    for (version, words) in [("system", "disable"), ("18", "disable"), ("18", "require")] {
        let server = bench().own_postgres(json!({"version": version, "ssl": true})).await;
        let uri = format!("postgresql://{}/?sslmode={words}", server.addr());
        let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;

        server.may_fork(false).await;
        let (sqlstate, told, logged) = failure(&scene).await;
        server.may_fork(true).await;

        assert_eq!(sqlstate, "08001", "{version} {words}");
        // Before TLS nothing vouches for a server's words: libpq does not show them either.
        let expected = if words == "disable" {
            WORDS
        } else {
            "the upstream server answered the request for TLS with an error"
        };
        assert_eq!(told, expected, "{version} {words}");
        assert!(logged.contains(WORDS), "{logged}");
        scene.leasehold.connect("app", scene.db.name()).await.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_or_ssh_server_at_the_address_is_named() {
    let server = bench().postgres().await;
    let there = Scene::on(&server).await;
    let http = there.leasehold.listening("http")[0].clone();
    let ssh = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ssh_addr = ssh.local_addr().unwrap().to_string();
    let greeting = tokio::spawn(async move {
        loop {
            let (mut client, _) = ssh.accept().await.unwrap();
            client.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n").await.unwrap();
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    });
    for (addr, name) in [(http, "an HTTP server answers"), (ssh_addr, "an SSH server answers")] {
        for mode in ["disable", "require"] {
            fails(&server, &format!("postgresql://{addr}/?sslmode={mode}"), &[name]).await;
        }
    }
    greeting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn md5_is_spoken_where_it_is_written_and_a_clear_password_only_in_tls() {
    let conf = json!({"password_encryption": "md5"});
    let server = bench().own_postgres(json!({"conf": conf, "hba": ["host all all all md5"]})).await;
    let plain = format!("postgresql://{}/?sslmode=disable", server.addr());
    let written = |builder: Builder| builder.flag("--require-auth", "md5");
    assert_eq!(login_with(&server, &plain, written).await, Ok(false));
    fails(&server, &plain, &["md5", "without TLS only require_auth allows"]).await;

    let server = bench().own_postgres(json!({"ssl": true, "hba": ["host all all all password"]})).await;
    let fault = Fault::before(&server.addr()).await;
    let through = format!("postgresql://{}/", fault.addr());
    assert_eq!(login(&server, &format!("{through}?sslrootcert={}", ca(&server))).await, Ok(true));
    let before = fault.recordings().len();
    fails(&server, &format!("{through}?sslmode=disable"), &["password", "without TLS"]).await;
    let unverified = format!("postgresql://{}/?sslmode=require", server.addr());
    fails(&server, &unverified, &["password", "without a verified certificate"]).await;
    let passwords = |builder: Builder| builder.flag("--require-auth", "password");
    assert_eq!(login_with(&server, &unverified, passwords).await, Ok(true));
    let error = login_with(&server, &format!("{through}?sslmode=disable"), passwords).await.unwrap_err();
    assert!(error.contains("clear"), "{error}");
    let sent = fault.recordings().split_off(before);
    assert!(!sent.is_empty());
    for recording in sent.iter().filter(|recording| recording.to_server.len() > 8) {
        let length = u32::from_be_bytes(recording.to_server[..4].try_into().unwrap());
        assert_eq!(recording.to_server.len(), length as usize, "nothing followed the startup message");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_host_is_tried_where_one_is_dead_or_silent() {
    let server = bench().postgres().await;
    let silent = Fault::before(&server.addr()).await;
    silent.set(Mode::Blackhole).await;
    let (silent, addr) = (silent, server.addr());
    for hosts in [format!("127.0.0.1:1,{addr}"), format!("{},{addr}", silent.addr())] {
        let uri = format!("postgresql://{hosts}/?sslmode=disable&connect_timeout=1");
        assert_eq!(login(&server, &uri).await, Ok(false), "{hosts}");
    }
    let alone = format!("postgresql://{}/?sslmode=disable&connect_timeout=1", silent.addr());
    fails(&server, &alone, &["not ready within 1s"]).await;
    fails(&server, "postgresql://127.0.0.1:1/?sslmode=disable", &["cannot reach"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_upstream_needs_no_tls() {
    let server = bench().postgres().await;
    let directory = server.socket_dir.to_str().unwrap().replace('/', "%2F");
    let uri = format!("postgresql://{directory}:{}/?sslmode=verify-full", server.port);
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    let (mut raw, frames) = scene.raw_with(Raw::PROTOCOL_3_0, &[]).await;
    raw.send('Q', b"SELECT pg_sleep(60)\0").await;
    scene.wait_state("active", 1).await;
    assert!(Raw::cancel(scene.leasehold.addr(), &crate::harness::key(&frames)).await);
    assert_eq!(raw.until("Z").await.pop().unwrap().tag, 'Z');
}
