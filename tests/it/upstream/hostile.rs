//! A server that is hostile or broken: its client gets a reason, other sessions and the process notice nothing.
//!
//! PostgreSQL does none of this, so a script stands in for it, once it has let the proof of a credential through to a
//! real one.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Backends, Leasehold, Raw, SOON, Spec, bench, eventually, leasehold, same, tags};

/// What it does with a connection.
#[derive(Clone, Copy, Debug)]
enum Script {
    /// Hands it on to the real server.
    HandOn,
    /// These bytes as the answer to the startup packet, then nothing more.
    Say(&'static [u8]),
    /// AuthenticationOk, then this again and again.
    Repeat(&'static [u8]),
    /// SCRAM, with a nonce of its own.
    ForeignNonce,
    /// SCRAM, with so many rounds.
    Rounds(&'static str),
    /// SCRAM up to its end, with a signature that is none.
    WrongSignature,
    /// A session, in which the answer to the first statement is this.
    Answer(&'static [u8]),
}

/// A server that follows a script.
struct Hostile {
    addr: String,
    script: Arc<Mutex<Script>>,
    /// What clients sent it behind the startup packet, but for SCRAM.
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Hostile {
    async fn before(real: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (script, heard) = (Arc::new(Mutex::new(Script::HandOn)), Arc::default());
        let this = Self { addr, script, heard };
        let (script, heard, real) = (Arc::clone(&this.script), Arc::clone(&this.heard), real.to_owned());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let now = *script.lock().unwrap();
                let (heard, real) = (Arc::clone(&heard), real.clone());
                // A client that goes ends the script.
                tokio::spawn(async move { follow(now, stream, &real, &heard).await.unwrap_or_default() });
            }
        });
        this
    }

    fn set(&self, script: Script) {
        *self.script.lock().unwrap() = script;
        self.heard.lock().unwrap().clear();
    }
}

async fn follow(
    script: Script,
    mut client: TcpStream,
    real: &str,
    heard: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    if matches!(script, Script::HandOn) {
        let mut server = TcpStream::connect(real).await?;
        return copy_bidirectional(&mut client, &mut server).await.map(drop);
    }
    let length = client.read_u32().await?;
    client.read_exact(&mut vec![0; length as usize - 4]).await?;
    match script {
        Script::HandOn => {}
        Script::Say(bytes) => client.write_all(bytes).await?,
        Script::Repeat(bytes) => {
            client.write_all(OK).await?;
            loop {
                client.write_all(bytes).await?;
            }
        }
        Script::ForeignNonce => challenge(&mut client, "foreign", "4096").await.map(drop)?,
        Script::Rounds(rounds) => challenge(&mut client, "", rounds).await.map(drop)?,
        Script::WrongSignature => {
            challenge(&mut client, "", "4096").await?;
            message(&mut client).await?;
            let signature = BASE64.encode([7; 32]);
            let body = [&12_i32.to_be_bytes()[..], b"v=", signature.as_bytes()].concat();
            client.write_all(&[&Raw::message('R', &body)[..], OK, READY].concat()).await?;
        }
        Script::Answer(bytes) => {
            client.write_all(&[OK, READY].concat()).await?;
            message(&mut client).await?;
            client.write_all(bytes).await?;
        }
    }
    // What follows is not answered.
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await?;
    heard.lock().unwrap().extend(rest);
    Ok(())
}

/// Asks for SCRAM, and answers the client's first message. `nonce`: in place of the client's own, unless it is empty.
async fn challenge(client: &mut TcpStream, nonce: &str, rounds: &str) -> std::io::Result<()> {
    let sasl = [&10_i32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
    client.write_all(&Raw::message('R', &sasl)).await?;
    let first = String::from_utf8_lossy(&message(client).await?).into_owned();
    let theirs = first.split_once(",r=").map_or("", |(_, nonce)| nonce);
    let nonce = if nonce.is_empty() { theirs } else { nonce };
    let challenge = format!("r={nonce}more,s={},i={rounds}", BASE64.encode([1; 16]));
    let body = [&11_i32.to_be_bytes()[..], challenge.as_bytes()].concat();
    client.write_all(&Raw::message('R', &body)).await
}

/// The body of the client's next message.
async fn message(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    client.read_u8().await?;
    let mut body = vec![0; client.read_u32().await? as usize - 4];
    client.read_exact(&mut body).await?;
    Ok(body)
}

/// AuthenticationOk.
const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
/// ReadyForQuery.
const READY: &[u8] = b"Z\0\0\0\x05I";
const STATUS: &[u8] = b"S\0\0\0\x0bname\0v\0";

/// What a client of the hostile server's route gets: SQLSTATE, message and detail.
async fn refused(leasehold: &Leasehold, database: &str) -> [String; 3] {
    let (_, frames) = Raw::login(leasehold.addr(), "hostile", database).await;
    let [error] = &frames[..] else { panic!("{frames:?}") };
    let mut fields = error.fields();
    [error.sqlstate(), fields.remove(&'M').unwrap(), fields.remove(&'D').unwrap_or_default()]
}

/// A leasehold with a route to a real server, and one to a hostile one whose credential has been proved.
async fn beside_a_good_route(sslmode: &str) -> (Backends, Hostile, Leasehold) {
    let backends = Backends::on(&bench().postgres_18().await, Spec::new("app")).await;
    let hostile = Hostile::before(&backends.db.server.addr()).await;
    let route = |user: &str, addr: &str, more: &str| {
        format!(
            "[[route]]\nname = \"{user}\"\nuser = \"{user}\"\nvault_path = \"{}\"\n\
             upstream = \"postgresql://{addr}/?{more}\n",
            backends.setup.path,
        )
    };
    let require = "sslmode=disable\"\nrequire_auth = \"scram-sha-256,none\"";
    let toml = [
        route("good", &backends.db.server.addr(), "sslmode=disable\""),
        route("hostile", &hostile.addr, &format!("sslmode={sslmode}\"")),
        route("open", &hostile.addr, require),
    ];
    let builder = leasehold().approle(&backends.setup).vault(&backends.vault).config_toml(&toml.concat());
    let leasehold = builder.flag("--limits-login-wait", "3s").start().await;
    for route in ["good", "hostile", "open"] {
        leasehold.wait_ready_route(route).await;
    }
    (backends, hostile, leasehold)
}

/// A session that was there before, and a new one, are served as ever.
async fn others_go_on(leasehold: &Leasehold, neighbour: &mut Raw, database: &str, what: &str) {
    assert_eq!(tags(&neighbour.query("SELECT 1").await), "TDCZ", "{what}");
    let (_, frames) = Raw::login(leasehold.addr(), "good", database).await;
    assert!(tags(&frames).ends_with('Z'), "{what}: {frames:?}");
    assert_eq!(leasehold.http("/readyz?route=good").await.status, 200, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_show_that_it_knows_the_password_gets_no_session() {
    let (backends, hostile, leasehold) = beside_a_good_route("disable").await;
    let database = backends.db.name();
    let (mut neighbour, _) = Raw::login(leasehold.addr(), "good", database).await;
    let unproved = "It did not show that it knows the password.";
    let without_tls = "Without TLS it has to ask for SCRAM, unless require_auth says otherwise.";
    let broken = "It broke the protocol of authentication.";
    for (script, detail) in [
        (Script::WrongSignature, unproved),
        (Script::ForeignNonce, unproved),
        (Script::Rounds("2147483648"), unproved),
        (Script::Rounds("4294967295"), unproved),
        (Script::Rounds("0"), unproved),
        (Script::Rounds("-1"), unproved),
        (Script::Say(OK), without_tls),
        (Script::Say(b"R\0\0\0\x08\0\0\0\x03"), without_tls),
        (Script::Say(b"R\0\0\0\x0c\0\0\0\x05salt"), without_tls),
        (Script::Say(b"R\0\0\0\x08\0\0\0\x0b"), broken),
        (Script::Say(b"R\0\0\0\x04"), broken),
    ] {
        hostile.set(script);
        let [code, message, said] = refused(&leasehold, database).await;
        let seen = (code.as_str(), message.as_str(), said.as_str());
        assert_eq!(seen, ("28000", "cannot authenticate at the upstream server", detail), "{script:?}");
        others_go_on(&leasehold, &mut neighbour, database, &format!("{script:?}")).await;
        assert!(!hostile.heard.lock().unwrap().contains(&b'p'), "{script:?}: no password was sent");
    }
    // Nothing of it is held against the credential.
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[("route", "hostile")]), 1.0);
    hostile.set(Script::HandOn);
    eventually(SOON, async || {
        let (_, frames) = Raw::login(leasehold.addr(), "hostile", database).await;
        same(tags(&frames).ends_with('Z'), true)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_the_protocol_ends_that_login_alone() {
    let (backends, hostile, leasehold) = beside_a_good_route("disable").await;
    let database = backends.db.name();
    let (mut neighbour, _) = Raw::login(leasehold.addr(), "good", database).await;
    for (script, code) in [
        (Script::Repeat(STATUS), "08P01"),
        (Script::Repeat(b"N\0\0\0\x05\0"), "08P01"),
        (Script::Say(b"R\x7f\xff\xff\xff\0\0\0\0"), "08P01"),
        (Script::Say(b"R\0\0\0\x08\0\0\0\0S\x7f\xff\xff\xff"), "08P01"),
        (Script::Say(b"R\0\0\0\x08\0\0\0\0S\0\0\0\x03"), "08P01"),
        (Script::Say(b"R\xff\xff\xff\xff\0\0\0\0"), "08P01"),
        (Script::Say(b"R\0\0\0\x08\0\0\0\0D\0\0\0\x06\0\0"), "08P01"),
        (Script::Say(b"\xff\xfe\xfd\xfc\xfb\xfa"), "08P01"),
        (Script::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "08001"),
        (Script::Say(b"SSH-2.0-OpenSSH_9.9\r\n"), "08001"),
    ] {
        hostile.set(script);
        let (_, frames) = Raw::login(leasehold.addr(), "open", database).await;
        let [error] = &frames[..] else { panic!("{script:?}: {frames:?}") };
        assert_eq!(error.sqlstate(), code, "{script:?}: {:?}", error.fields());
        others_go_on(&leasehold, &mut neighbour, database, &format!("{script:?}")).await;
    }
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[("route", "open")]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_the_middle_of_a_session_ends_that_session_alone() {
    let (backends, hostile, leasehold) = beside_a_good_route("disable").await;
    let database = backends.db.name();
    let (mut neighbour, _) = Raw::login(leasehold.addr(), "good", database).await;
    // What is a message is forwarded; behind half a header a client can be sent nothing.
    for (garbage, messages) in [
        (&[0xff; 64][..], "E"),
        (b"D\0\0\0\x03", "E"),
        (b"T\0\0\0\x06\0\0D\0\0\0\x06\0\0D\xff\xff\xff\xff", "TDE"),
    ] {
        hostile.set(Script::Answer(garbage));
        let (mut raw, frames) = Raw::login(leasehold.addr(), "open", database).await;
        assert!(tags(&frames).ends_with('Z'), "{frames:?}");
        raw.send('Q', b"SELECT 1\0").await;
        let heard = raw.until("").await;
        assert_eq!(tags(&heard), messages, "{garbage:?}");
        let last = heard.last().unwrap();
        assert_eq!(last.sqlstate(), "08P01", "{:?}", last.fields());
        others_go_on(&leasehold, &mut neighbour, database, &format!("{garbage:?}")).await;
    }
}

/// Bytes behind the 'S' that are not TLS's may have been put there by somebody in between (CVE-2021-23222).
#[tokio::test(flavor = "multi_thread")]
async fn bytes_stuffed_behind_the_answer_to_sslrequest_are_not_taken_for_the_servers() {
    let (backends, hostile, leasehold) = beside_a_good_route("prefer").await;
    let database = backends.db.name();
    let (mut neighbour, _) = Raw::login(leasehold.addr(), "good", database).await;
    let stuffed = [&b"S"[..], OK, READY].concat().leak();
    hostile.set(Script::Say(stuffed));
    let [code, message, _] = refused(&leasehold, database).await;
    assert!(["08001", "08P01"].contains(&code.as_str()), "{code} {message}");
    others_go_on(&leasehold, &mut neighbour, database, "stuffed").await;
}
