//! Startup packets of any bytes. Floor 1.

use bytes::{BufMut as _, BytesMut};

use super::{CANCEL_REQUEST, Packet, StartupMessage, parse};

/// Parses packets as they come, and writes those of sessions for an upstream.
pub(crate) fn packet(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    loop {
        let before = buffer.clone();
        let Ok(packet) = parse(&mut buffer) else { return };
        let Some(packet) = packet else {
            assert_eq!(buffer, before, "nothing is taken of half a packet");
            return;
        };
        let taken = before.len() - buffer.len();
        assert!(taken >= 8 && before.ends_with(&buffer));
        let mut half = BytesMut::from(before.get(..taken - 1).unwrap_or_default());
        assert!(matches!(parse(&mut half), Ok(None)), "a packet ends with its last byte");
        match packet {
            Packet::Startup(message) => rewrite(&message),
            Packet::Cancel(cancel) => {
                let encoded = cancel.encode();
                assert_eq!(Some(&encoded[..]), before.get(..taken));
                assert_eq!(encoded.get(4..8), Some(&CANCEL_REQUEST.to_be_bytes()[..]));
            }
            Packet::SslRequest | Packet::GssEncRequest => {}
        }
    }
}

/// What goes upstream is again a startup packet, with the user and the database that leasehold names, and with what the
/// client wrote otherwise.
fn rewrite(message: &StartupMessage) {
    assert!(!format!("{message:?}").is_empty());
    let _ = (message.replicates_cluster(), message.protocol_options());
    let Ok(mut written) = message.for_upstream("v-app", b"myapp", Some("app owner")) else { return };
    let Ok(Some(Packet::Startup(upstream))) = parse(&mut written) else {
        unreachable!("what is written can be read");
    };
    assert!(written.is_empty());
    assert_eq!((upstream.user(), upstream.database()), (&b"v-app"[..], Some(&b"myapp"[..])));
    assert_eq!(upstream.protocol(), message.protocol());
    assert!(upstream.parameter(b"options").is_some_and(|options| options.ends_with(b"-c role=app\\ owner")));
    for name in [&b"application_name"[..], b"client_encoding", b"replication", b"_pq_.x"] {
        assert_eq!(upstream.parameter(name), message.parameter(name));
    }
    // A length that is too small makes the rest another packet.
    let mut short = BytesMut::new();
    short.put_u32(8);
    short.put_u32(message.protocol());
    assert!(parse(&mut short).is_err());
}
