//! What is said before a session begins, side by side with PostgreSQL 18 itself.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Bed;
use crate::harness::{ClientTls, Raw, packet, startup_body, tags, without_place};

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;

fn ssl() -> Vec<u8> {
    packet(SSL_REQUEST, &[])
}

fn gss() -> Vec<u8> {
    packet(GSS_REQUEST, &[])
}

fn startup(protocol: i32, parameters: &[(&str, &str)]) -> Vec<u8> {
    packet(protocol, &startup_body(parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))))
}

/// Sends each part, takes one byte as the answer to all but the last, and hears the rest to its end, which must be in order.
async fn hear<S: AsyncRead + AsyncWrite + Unpin>(mut raw: Raw<S>, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut heard = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        raw.write(part).await;
        if at + 1 < parts.len() {
            heard.extend(raw.byte().await);
        }
    }
    let (rest, error) = raw.rest().await;
    assert!(error.is_none(), "{parts:?}: {error:?} behind {rest:?}");
    heard.extend(rest);
    without_place(&heard)
}

/// Packets that end a connection, wherever they come.
fn endings() -> Vec<Vec<u8>> {
    vec![
        startup(0x0002_0000, &[("user", "app")]),
        startup(0x0001_0000, &[]),
        packet(0, &[]),
        startup(0x0004_0000, &[("user", "app")]),
        packet(80_877_105, &[]),
        startup(Raw::PROTOCOL_3_0, &[("database", "postgres")]),
        startup(Raw::PROTOCOL_3_0, &[("user", "")]),
        packet(Raw::PROTOCOL_3_0, b"user\0app\0"),
        packet(Raw::PROTOCOL_3_0, b"user\0app\0\0behind"),
        // An unknown key, one that is too short, none.
        packet(80_877_102, &[1; 8]),
        packet(80_877_102, &[1; 5]),
        packet(80_877_102, &[]),
        b"X\0\0\0\x04".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_it_is_said_as_by_postgresql() {
    let bed = Bed::new().await;
    let mut scripts: Vec<Vec<Vec<u8>>> = endings().into_iter().map(|ending| vec![ending]).collect();
    scripts.extend([
        vec![gss(), gss()],
        vec![gss(), startup(0x0002_0000, &[])],
        // Requests have no body that counts.
        vec![packet(GSS_REQUEST, b"body"), gss()],
        vec![[gss(), startup(Raw::PROTOCOL_3_0, &[("user", "app")])].concat()],
        vec![[gss(), ssl()].concat()],
    ]);
    for script in scripts {
        let [server, leasehold] = bed.both();
        let wanted = hear(Raw::connect(server).await, &script).await;
        assert_eq!(hear(Raw::connect(leasehold).await, &script).await, wanted, "{script:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_granted_on_request_as_by_postgresql() {
    let bed = Bed::new().await;
    for requests in [vec![ssl()], vec![gss(), ssl()], vec![packet(SSL_REQUEST, b"a body")]] {
        for addr in bed.both() {
            let mut raw = Raw::connect(addr).await;
            let mut heard = Vec::new();
            for request in &requests {
                raw.write(request).await;
                heard.extend(raw.byte().await);
            }
            assert_eq!(heard.last(), Some(&b'S'), "{requests:?} at {addr}");
            let mut raw = raw.over_tls(&bed.tls()).await.unwrap();
            raw.startup(Raw::PROTOCOL_3_2, &[("user", "app"), ("database", bed.scene.db.name())]).await;
            let frames = raw.until("ZE").await;
            assert!(tags(&frames).ends_with('Z'), "{frames:?} at {addr}");
            assert_eq!(tags(&raw.query("SELECT 1").await), "TDCZ");
        }
    }
}

/// Behind an SSLRequest there is nothing but TLS.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuffed_behind_an_ssl_request_is_never_read_as_a_message() {
    let bed = Bed::new().await;
    let hello = startup(Raw::PROTOCOL_3_0, &[("user", "app")]);
    for addr in bed.both() {
        let mut raw = Raw::connect(addr).await;
        raw.write(&[ssl(), hello.clone()].concat()).await;
        assert_eq!(raw.byte().await, Some(b'S'));
        let (rest, _) = raw.rest().await;
        // An alert of TLS at most.
        assert!(rest.is_empty() || rest.starts_with(&[0x15, 3]), "{rest:?} at {addr}");
    }
}

/// A fresh connection within TLS.
async fn within(addr: SocketAddr, tls: &ClientTls, direct: bool) -> Raw<TlsStream<TcpStream>> {
    let mut raw = Raw::connect(addr).await;
    if !direct {
        raw.write(&ssl()).await;
        assert_eq!(raw.byte().await, Some(b'S'));
    }
    raw.over_tls(tls).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn within_tls_it_is_said_as_by_postgresql() {
    let bed = Bed::new().await;
    let mut scripts: Vec<Vec<Vec<u8>>> = endings().into_iter().map(|ending| vec![ending]).collect();
    scripts.extend([vec![ssl()], vec![gss()]]);
    let ending = startup(0x0004_0000, &[]);
    let directly: Vec<Vec<Vec<u8>>> = vec![
        vec![ssl(), ssl()],
        vec![gss(), gss()],
        vec![ssl(), gss(), ssl()],
        vec![ssl(), gss(), ending.clone()],
        vec![gss(), ssl(), ending.clone()],
        vec![[ssl(), ending].concat()],
    ];
    for (direct, script) in scripts
        .iter()
        .map(|script| (false, script))
        .chain(endings().into_iter().map(|ending| vec![ending]).collect::<Vec<_>>().iter().map(|s| (true, s)))
        .chain(directly.iter().map(|script| (true, script)))
    {
        let [server, leasehold] = bed.both();
        let wanted = hear(within(server, &bed.tls(), direct).await, script).await;
        let heard = hear(within(leasehold, &bed.tls(), direct).await, script).await;
        assert_eq!(heard, wanted, "{script:?}, direct: {direct}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_tls_needs_the_protocols_name() {
    let bed = Bed::new().await;
    for addr in bed.both() {
        // Without ALPN the handshake is done, and then nothing is said but the end.
        let raw = Raw::connect(addr).await.over_tls(&bed.tls().alpn(&[])).await.unwrap();
        assert_eq!(hear(raw, &[Vec::new()]).await, b"", "{addr}");
        for direct in [true, false] {
            let mut raw = Raw::connect(addr).await;
            if !direct {
                raw.write(&ssl()).await;
                assert_eq!(raw.byte().await, Some(b'S'));
            }
            let error = raw.over_tls(&bed.tls().alpn(&[b"http/1.1"])).await.err().unwrap();
            assert!(error.to_string().contains("NoApplicationProtocol"), "{error} at {addr}");
        }
        // On request it need not be named, as libpq before 17 does not.
        let mut raw = within(addr, &bed.tls().alpn(&[]), false).await;
        raw.startup(Raw::PROTOCOL_3_0, &[("user", "app"), ("database", bed.scene.db.name())]).await;
        assert!(tags(&raw.until("ZE").await).ends_with('Z'), "{addr}");
    }
    bed.wait_failures("no_alpn", 1.0).await;
    bed.wait_failures("tls", 2.0).await;
}
