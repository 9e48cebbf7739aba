//! What a client sends without waiting to be let in, and the longest startup packets, side by side with PostgreSQL.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::{Frame, Raw, Scene, Spec, bench, packet, startup_body, tags};

/// A server that lets both in without a password, so that both see all that it says; and where each of the two is.
async fn beside() -> (Scene, [SocketAddr; 2]) {
    let server = bench().own_postgres(json!({"version": "18", "hba": ["host all all all trust"]})).await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| builder.upstream(db).trusted()).await;
    scene.db.admin.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    let both = [server.addr().parse().unwrap(), scene.leasehold.addr()];
    (scene, both)
}

/// A startup packet of this user, with an `application_name` of so many bytes.
fn hello(database: &str, name: usize) -> Vec<u8> {
    let name = "n".repeat(name);
    let parameters = [("user", "app"), ("database", database), ("application_name", &name)];
    packet(Raw::PROTOCOL_3_0, &startup_body(parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))))
}

/// All messages to the end, without the key and the role's name.
async fn heard(mut raw: Raw) -> Vec<Frame> {
    let mut frames = raw.until("").await;
    frames.retain(|frame| frame.tag != 'K' && !frame.body.starts_with(b"session_authorization\0"));
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_before_a_client_is_let_in_is_answered_as_by_postgresql() {
    let (scene, both) = beside().await;
    let query = Raw::message('Q', b"SELECT 40 + 2\0");
    let end = Raw::message('X', &[]);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("a query", [&query[..], &end].concat(), "ZTDCZ"),
        ("three queries", [&query[..], &query, &query, &end].concat(), "ZTDCZTDCZTDCZ"),
        // Nobody has asked for it.
        ("a password", Raw::message('p', b"a password\0"), "ZE"),
        ("the end of the session", end.clone(), "Z"),
        ("a message of no type", Raw::message('y', b"what?"), "ZE"),
        ("half a message", query[..8].to_vec(), "Z"),
    ];
    for (what, behind, ends) in cases {
        let sent = [hello(scene.db.name(), 3), behind].concat();
        for pieces in [sent.len(), 1] {
            let mut answers = Vec::new();
            for addr in both {
                let mut raw = Raw::connect(addr).await;
                for piece in sent.chunks(pieces) {
                    // A server that has given the client up reads no more.
                    if raw.try_write(piece).await.is_err() {
                        break;
                    }
                }
                let _ = raw.try_half_close().await;
                answers.push(heard(raw).await);
            }
            assert!(tags(&answers[0]).ends_with(ends), "{what}: {:?}", answers[0]);
            assert_eq!(answers[0], answers[1], "{what} in pieces of {pieces}");
        }
    }
}

/// The role's name is longer than the app's, so the last few bytes that PostgreSQL has room for are missing.
#[tokio::test(flavor = "multi_thread")]
async fn long_parameters_arrive_and_those_that_have_no_room_are_told_so() {
    let (scene, [direct, through]) = beside().await;
    let database = scene.db.name();
    // MAX_STARTUP_PACKET_LENGTH, and the length field.
    let most = 10_004 - hello(database, 0).len();
    let begun = async |addr, name| {
        let mut raw = Raw::connect(addr).await;
        raw.write(&hello(database, name)).await;
        let frames = raw.until("ZE").await;
        (raw, frames)
    };
    for (addr, name) in [(direct, most), (direct, most - 100), (through, most - 100)] {
        let (mut raw, frames) = begun(addr, name).await;
        assert!(tags(&frames).ends_with('Z'), "{name} bytes at {addr}: {frames:?}");
        // The server cuts it to the length of an identifier.
        let shown = raw.query("SHOW application_name").await;
        assert!(shown.iter().any(|frame| frame.body.ends_with(&[b'n'; 63])), "{shown:?}");
    }
    let (mut raw, frames) = begun(through, most).await;
    assert_eq!(tags(&frames), "E");
    assert_eq!(frames[0].sqlstate(), "08P01");
    assert_eq!(frames[0].fields()[&'M'], "startup packet too long");
    assert_eq!(raw.recv().await, None);
    for addr in [direct, through] {
        let (_, frames) = begun(addr, most + 1).await;
        assert!(frames.is_empty(), "PostgreSQL closes without a word, and {addr} said {frames:?}");
    }
}
