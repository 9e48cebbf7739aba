//! Tests logins at a scripted server that does not report its state, like PostgreSQL before 14.

use tokio::net::TcpListener;

use super::super::uri::Uri;
use super::super::{Settings, Shared};
use super::*;
use crate::postgres::protocol::auth;

const STARTUP: &[u8] = b"\0\0\0\x0f\0\x03\0\0user\0v\0";
const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

/// Returns the result of the login, and what the server received after the StartupMessage.
async fn login(word: &str, answer: &'static [u8]) -> (Result<UpstreamSession, Error>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!(
        "postgresql://{}/?sslmode=disable&target_session_attrs={word}",
        listener.local_addr().unwrap()
    );
    let settings = Settings {
        connect_timeout: Duration::from_secs(5),
        // These servers let everybody in.
        require_auth: "scram-sha-256,none".parse().unwrap(),
        replica_grace: None,
        shared: Shared::default(),
    };
    let upstream = Upstream::new(Uri::parse(&uri).unwrap(), settings).unwrap();
    let server = async {
        let (mut server, _) = listener.accept().await.unwrap();
        let mut hello = [0; STARTUP.len()];
        server.read_exact(&mut hello).await.unwrap();
        server.write_all(&[LET_IN, answer].concat()).await.unwrap();
        let mut heard = Vec::new();
        let mut chunk = [0; 64];
        // PostgreSQL ends the connection at Terminate too.
        while !heard.ends_with(&terminate()) {
            match timeout(Duration::from_secs(3), server.read(&mut chunk)).await {
                Ok(Ok(read)) if read > 0 => heard.extend_from_slice(&chunk[..read]),
                _ => break,
            }
        }
        heard
    };
    let password = Secret::new("secret".to_owned());
    let client = upstream.login(upstream.order()[0], STARTUP, "v", &password);
    tokio::join!(client, server)
}

const SHOW: &[u8] = b"Q\0\0\0\x1fSHOW transaction_read_only\0";
const ROW_OFF: &[u8] =
    b"T\0\0\0\x06\0\0D\0\0\0\x0d\0\x01\0\0\0\x03offC\0\0\0\x09SHOW\0N\0\0\0\x05\0Z\0\0\0\x05I";

#[tokio::test]
async fn what_an_older_server_answers_stays_with_leasehold() {
    let (session, heard) = login("read-write", ROW_OFF).await;
    let session = session.unwrap();
    assert_eq!(heard, SHOW);
    assert_eq!(session.prologue, LET_IN);
    assert_eq!(session.rest, b"N\0\0\0\x05\0".as_slice(), "a notice is the client's");
}

#[tokio::test]
async fn a_server_that_does_not_suit_is_told_goodbye() {
    let (session, heard) = login("read-only", ROW_OFF).await;
    assert!(matches!(session, Err(Error::Unsuitable(_))));
    assert_eq!(heard, [SHOW, &terminate()].concat());
    // A server that does not report its state does not match either.
    let (session, heard) = login("standby", b"E\0\0\0\x05\0Z\0\0\0\x05I").await;
    assert!(matches!(session, Err(Error::Unsuitable(_))));
    assert!(heard.ends_with(b"SELECT pg_catalog.pg_is_in_recovery()\0X\0\0\0\x04"));
}

#[tokio::test]
async fn any_server_is_asked_nothing() {
    let (session, heard) = login("any", b"").await;
    assert!(session.is_ok());
    assert!(heard.is_empty());
}

/// A server that asks for the maximum of rounds and then waits for the client-final-message.
async fn asks_for_much(listener: TcpListener) {
    let (mut server, _) = listener.accept().await.unwrap();
    let mut chunk = [0; 512];
    server.read_exact(&mut chunk[..STARTUP.len()]).await.unwrap();
    server.write_all(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").await.unwrap();
    let read = server.read(&mut chunk).await.unwrap();
    let first = String::from_utf8_lossy(&chunk[..read]).into_owned();
    let nonce = first.rsplit_once("r=").unwrap().1;
    let challenge = format!("r={nonce}x,s=AAAA,i={}", auth::scram::MAX_ITERATIONS);
    let length = u32::try_from(challenge.len() + 8).unwrap().to_be_bytes();
    server
        .write_all(&[b"R", length.as_slice(), &[0, 0, 0, 11], challenge.as_bytes()].concat())
        .await
        .unwrap();
    assert!(server.read(&mut chunk).await.unwrap() > 0, "the client proves itself");
}

async fn upstream_of(listener: &TcpListener, shared: &Shared) -> Upstream {
    let uri = format!("postgresql://{}/?sslmode=disable", listener.local_addr().unwrap());
    let settings = Settings {
        connect_timeout: Duration::from_secs(60),
        // These servers let everybody in.
        require_auth: "scram-sha-256,none".parse().unwrap(),
        replica_grace: None,
        shared: shared.clone(),
    };
    Upstream::new(Uri::parse(&uri).unwrap(), settings).unwrap()
}

/// One thread runs the whole test, so rounds on that thread would block all else.
#[tokio::test]
async fn a_server_that_asks_for_many_rounds_keeps_no_other_login_waiting() {
    let shared = Shared::default();
    let password = Secret::new("secret".to_owned());
    let (greedy, plain) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let asking = upstream_of(&greedy, &shared).await;
    let other = upstream_of(&plain, &shared).await;
    let mut slow = std::pin::pin!(async {
        let login = asking.login(asking.order()[0], STARTUP, "v", &password);
        tokio::join!(login, asks_for_much(greedy)).0
    });
    let quick = async {
        for _ in 0..20 {
            let server = async {
                let (mut server, _) = plain.accept().await.unwrap();
                let mut hello = [0; STARTUP.len()];
                server.read_exact(&mut hello).await.unwrap();
                server.write_all(LET_IN).await.unwrap();
                server
            };
            let login = other.login(other.order()[0], STARTUP, "v", &password);
            let (session, _server) = tokio::join!(login, server);
            session.unwrap();
        }
    };
    // The twentieth login at the other server must be complete first.
    tokio::select! {
        biased;
        slow = &mut slow => panic!("the rounds were done first: {slow:?}"),
        () = quick => {}
    }
    assert!(matches!(slow.await, Err(Error::Closed | Error::Lost(_))));
}
