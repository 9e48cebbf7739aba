//! Tests startup packets with examples and with random ones.

use bytes::{BufMut as _, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::cancel::CancelKey;
use super::{CancelRequest, Error, MAX_STARTUP, Packet, StartupMessage, parse};
use crate::postgres::protocol::fatal::SqlState;
use crate::postgres::protocol::written::ssl_request;

fn packet(code: u32, rest: &[u8]) -> BytesMut {
    let mut packet = BytesMut::new();
    packet.put_u32(u32::try_from(8 + rest.len()).unwrap());
    packet.put_u32(code);
    packet.put_slice(rest);
    packet
}

fn startup(rest: &[u8]) -> StartupMessage {
    match parse(&mut packet(0x0003_0000, rest)) {
        Ok(Some(Packet::Startup(message))) => message,
        other => panic!("not a startup message: {other:?}"),
    }
}

fn error(mut packet: BytesMut) -> Error {
    parse(&mut packet).unwrap_err()
}

#[test]
fn requests_are_told_apart_and_what_follows_stays() {
    let mut buf = ssl_request();
    buf.unsplit(packet(80_877_104, b"its body is passed over"));
    buf.unsplit(packet(0x0003_0000, b"user\0app\0\0"));
    buf.put_slice(b"rest");
    assert!(matches!(parse(&mut buf), Ok(Some(Packet::SslRequest))));
    assert!(matches!(parse(&mut buf), Ok(Some(Packet::GssEncRequest))));
    assert!(matches!(parse(&mut buf), Ok(Some(Packet::Startup(_)))));
    assert_eq!(&buf[..], b"rest");
}

#[test]
fn last_of_several_parameters_counts() {
    let message = startup(b"user\0a\0database\0one\0user\0b\0database\0two\0\0");
    assert_eq!(message.user(), b"b");
    assert_eq!(message.database(), Some(&b"two"[..]));
    assert_eq!(message.protocol(), 0x0003_0000);
}

#[test]
fn empty_database_is_none() {
    assert_eq!(startup(b"user\0a\0database\0\0\0").database(), None);
    assert_eq!(startup(b"user\0a\0\0").database(), None);
}

#[test]
fn physical_replication_is_asked_for_by_any_true_word() {
    let replicates =
        |word: &str| startup(format!("user\0a\0replication\0{word}\0\0").as_bytes()).replicates_cluster();
    for word in ["true", "t", "TRUE", "yes", "y", "on", "1"] {
        assert!(replicates(word), "{word}");
    }
    for word in ["database", "false", "off", "o", "0", "", "truely"] {
        assert!(!replicates(word), "{word}");
    }
    assert!(!startup(b"user\0a\0database\0replication\0\0").replicates_cluster());
}

#[test]
fn greased_minor_version_is_kept() {
    let Ok(Some(Packet::Startup(message))) = parse(&mut packet(0x0003_270f, b"user\0a\0\0")) else {
        panic!("refused");
    };
    assert_eq!(message.protocol(), 0x0003_270f);
    assert_eq!(&message.for_upstream("u", b"d", None).unwrap()[4..8], [0, 3, 0x27, 0x0f]);
}

#[test]
fn refusals_are_those_of_postgresql() {
    assert_eq!(error(packet(0x0002_0000, &[0; 288])), Error::UnknownProtocol { major: 2, minor: 0 });
    assert_eq!(error(packet(0x0004_0001, b"")), Error::UnknownProtocol { major: 4, minor: 1 });
    assert_eq!(error(packet(80_877_105, b"")), Error::UnknownProtocol { major: 1234, minor: 5681 });
    assert_eq!(error(packet(0x0003_0000, b"")), Error::Malformed);
    assert_eq!(error(packet(0x0003_0000, b"user\0a\0")), Error::Malformed);
    assert_eq!(error(packet(0x0003_0000, b"user\0a\0\0x")), Error::Malformed);
    assert_eq!(error(packet(0x0003_0000, b"user\0a\0database\0")), Error::Malformed);
    assert_eq!(error(packet(0x0003_0000, b"\0")), Error::MissingUser);
    assert_eq!(error(packet(0x0003_0000, b"user\0\0\0")), Error::MissingUser);
    assert_eq!(error(BytesMut::from(&b"\x16"[..])), Error::DirectTls);
    assert_eq!(error(BytesMut::from(&b"\0\0\0\x07"[..])), Error::TooShort { length: 7 });
    assert_eq!(error(BytesMut::from(&b"\0\0\0\0"[..])), Error::TooShort { length: 0 });
    assert_eq!(error(BytesMut::from(&b"GET "[..])), Error::TooLong { length: 0x4745_5420 });
}

#[test]
fn length_bound_is_that_of_postgresql() {
    let fits = [&b"user\0"[..], &vec![b'a'; MAX_STARTUP - 4 - 7], b"\0\0"].concat();
    assert_eq!(startup(&fits).user().len(), MAX_STARTUP - 11);
    let long = [&b"user\0"[..], &vec![b'a'; MAX_STARTUP - 4 - 6], b"\0\0"].concat();
    assert!(matches!(error(packet(0x0003_0000, &long)), Error::TooLong { length: 10_005 }));
}

#[test]
fn cancel_keys_have_4_to_256_bytes() {
    for (length, legal) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
        let body = [&7_i32.to_be_bytes()[..], &vec![9; length]].concat();
        let parsed = parse(&mut packet(80_877_102, &body));
        assert_eq!(matches!(parsed, Ok(Some(Packet::Cancel(_)))), legal, "{length}");
        if !legal {
            assert_eq!(parsed.unwrap_err(), Error::CancelKey { length: 4 + length });
        }
    }
    assert_eq!(CancelRequest::from_backend_key_data(b"\0\0"), None);
}

#[test]
fn debug_shows_no_key_and_no_value() {
    let request = CancelRequest { process_id: 7, key: CancelKey::new(b"AAAAAAAA").unwrap() };
    assert_eq!(format!("{request:?}"), "CancelRequest { process_id: 7, key: CancelKey([redacted]) }");
    let message = startup(b"user\0hunter2\0options\0-c x.secret=hunter2\0\0");
    assert_eq!(
        format!("{message:?}"),
        r#"StartupMessage { protocol: 3.0, parameters: ["user", "options"] }"#
    );
}

#[test]
fn upstream_gets_every_parameter_in_order_with_user_and_database_replaced() {
    let message = startup(b"user\0app\0x\0\xff\xfe\0database\0db\0_pq_.y\x001\0x\0again\0\0");
    let expected = packet(0x0003_0000, b"user\0v-1\0x\0\xff\xfe\0database\0real\0_pq_.y\x001\0x\0again\0\0");
    assert_eq!(message.for_upstream("v-1", b"real", None).unwrap(), expected);
}

#[test]
fn upstream_gets_a_database_even_if_the_client_named_none() {
    let message = startup(b"user\0app\0\0");
    let expected = packet(0x0003_0000, b"database\0app\0user\0v-1\0\0");
    assert_eq!(message.for_upstream("v-1", b"app", None).unwrap(), expected);
    let own = StartupMessage::new(0).with(b"application_name", b"leasehold");
    let expected = packet(0x0003_0000, b"user\0v-1\0database\0d\0application_name\0leasehold\0\0");
    assert_eq!(own.for_upstream("v-1", b"d", None).unwrap(), expected);
}

#[test]
fn role_is_appended_to_the_clients_options() {
    let upstream = |options: &[u8], role| {
        let rest = [&b"user\0a\0options\0"[..], options, b"\0\0"].concat();
        let packet = startup(&rest).for_upstream("u", b"d", Some(role)).unwrap();
        match parse(&mut packet.clone()) {
            Ok(Some(Packet::Startup(message))) => {
                String::from_utf8(message.parameter(b"options").unwrap().to_vec()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(upstream(b"-c geqo=off", "owner"), "-c geqo=off -c role=owner");
    assert_eq!(upstream(b"", "owner"), "-c role=owner");
    assert_eq!(upstream(b"-c a=b\\", "owner"), "-c a=b -c role=owner");
    assert_eq!(upstream(b"-c a=b\\\\", "owner"), "-c a=b\\\\ -c role=owner");
    assert_eq!(upstream(b"-c a=b", "my own\\er"), "-c a=b -c role=my\\ own\\\\er");
    let added = startup(b"user\0a\0\0").for_upstream("u", b"d", Some("owner")).unwrap();
    assert_eq!(added, packet(0x0003_0000, b"database\0d\0options\0-c role=owner\0user\0u\0\0"));
}

#[test]
fn a_tag_is_appended_where_the_client_has_left_room_and_cuts_nothing() {
    let tagged = |rest: &[u8]| {
        let message = startup(&[b"user\0a\0", rest, b"\0"].concat()).tagged("tag");
        message.parameter(b"application_name").map(|name| String::from_utf8_lossy(name).into_owned())
    };
    let named = |name: &str| tagged(format!("application_name\0{name}\0").as_bytes());
    assert_eq!(named("web").as_deref(), Some("web tag"));
    assert_eq!(named("").as_deref(), Some("tag"));
    assert_eq!(tagged(b"").as_deref(), Some("tag"));
    let most = "x".repeat(59);
    assert_eq!(named(&most), Some(format!("{most} tag")), "63 bytes");
    let long = "x".repeat(60);
    assert_eq!(named(&long), Some(long.clone()));
    // The server makes four characters of each of its bytes.
    let umlauts = "ü".repeat(7);
    assert_eq!(named(&umlauts), Some(format!("{umlauts} tag")), "60 of the server's characters");
    let more = "ü".repeat(8);
    assert_eq!(named(&more), Some(more.clone()));
    // The server takes names of parameters without regard to case.
    let written = startup(b"user\0a\0Application_Name\0batch\0\0").tagged("tag");
    assert_eq!(written.parameter(b"Application_Name"), Some(&b"batch tag"[..]));
    assert_eq!(written.parameter(b"application_name"), None);
    // The last one counts.
    let twice = startup(b"user\0a\0application_name\0one\0application_name\0two\0\0").tagged("tag");
    let sent = twice.for_upstream("u", b"d", None).unwrap();
    let expected = b"database\0d\0user\0u\0application_name\0one\0application_name\0two tag\0\0";
    assert_eq!(sent, packet(0x0003_0000, expected));
}

#[test]
fn a_name_that_the_server_goes_by_or_that_stands_in_options_is_not_tagged() {
    for rest in [
        &b"user\0a\0replication\0true\0application_name\0standby1\0\0"[..],
        b"user\0a\0replication\0database\0\0",
        b"user\0a\0options\0-c Application_Name=batch\0\0",
        b"user\0a\0options\0--application-name=batch\0\0",
    ] {
        let message = startup(rest);
        assert_eq!(message.tagged("tag"), message);
    }
}

#[test]
fn packet_that_postgresql_would_refuse_is_not_made() {
    let rest = [&b"user\0a\0x\0"[..], &vec![b'y'; 9_900], b"\0\0"].concat();
    let message = startup(&rest);
    assert!(message.for_upstream("u", b"d", None).is_ok());
    assert_eq!(message.for_upstream("u", &[b'd'; 100], None), Err(Error::RewrittenTooLong));
    assert_eq!(message.for_upstream("u\0", b"d", None), Err(Error::Nul));
    assert_eq!(message.for_upstream("u", b"d", Some("r\0")), Err(Error::Nul));
}

#[test]
fn client_sees_fixed_text_where_it_can_read_it() {
    let sqlstate = |error: Error| error.fatal().map(|fatal| fatal.sqlstate);
    let protocol = |code| error(packet(code, b""));
    assert_eq!(sqlstate(protocol(0x0002_0000)), Some(SqlState::FeatureNotSupported));
    assert_eq!(protocol(80_877_103 + 2).fatal().unwrap().message, {
        "unsupported frontend protocol 1234.5681: server supports 3.0 to 3.2"
    });
    assert!(!protocol(0x0002_0000).knows_protocol_3() && protocol(0x0004_0000).knows_protocol_3());
    assert_eq!(sqlstate(Error::Malformed), Some(SqlState::ProtocolViolation));
    assert_eq!(sqlstate(Error::MissingUser), Some(SqlState::InvalidAuthorizationSpecification));
    assert_eq!(sqlstate(Error::DirectTls), None);
    assert_eq!(sqlstate(Error::CancelKey { length: 5 }), None);
}

fn strings() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = prop_oneof![
        Just(b"user".to_vec()),
        Just(b"database".to_vec()),
        Just(b"options".to_vec()),
        vec(1..=255_u8, 1..12),
    ];
    vec((name, vec(1..=255_u8, 0..20)), 0..12)
}

proptest! {
    #[test]
    fn every_parameter_goes_round(pairs in strings(), minor in any::<u16>()) {
        let mut message = StartupMessage::new(minor);
        for (name, value) in &pairs {
            message = message.with(name, value);
        }
        let mut packet = message.for_upstream("u", b"d", None).unwrap();
        let Ok(Some(Packet::Startup(parsed))) = parse(&mut packet) else { panic!("refused") };
        prop_assert!(packet.is_empty());
        prop_assert_eq!(parsed.user(), b"u");
        prop_assert_eq!(parsed.database(), Some(&b"d"[..]));
        for (name, _) in &pairs {
            if name != b"user" && name != b"database" {
                prop_assert_eq!(parsed.parameter(name), message.parameter(name));
            }
        }
        prop_assert_eq!(&parsed.for_upstream("u", b"d", None), &message.for_upstream("u", b"d", None));
    }

    #[test]
    fn cancel_request_goes_round(process_id in any::<i32>(), key in vec(any::<u8>(), 4..=256)) {
        let request = CancelRequest { process_id, key: CancelKey::new(&key).unwrap() };
        let Ok(Some(Packet::Cancel(parsed))) = parse(&mut request.encode()) else { panic!("refused") };
        prop_assert_eq!(&parsed, &request);
        let handed = request.backend_key_data();
        prop_assert_eq!(handed[0], b'K');
        prop_assert_eq!(handed.len(), 1 + usize::try_from(u32::from_be_bytes(*handed[1..].first_chunk().unwrap())).unwrap());
        prop_assert_eq!(CancelRequest::from_backend_key_data(&handed[5..]), Some(request));
    }

    #[test]
    fn every_truncation_needs_more_and_takes_nothing(pairs in strings(), cut in any::<prop::sample::Index>()) {
        let mut message = StartupMessage::new(0).with(b"user", b"u");
        for (name, value) in &pairs {
            message = message.with(name, value);
        }
        let packet = message.for_upstream("u", b"d", None).unwrap();
        let at = cut.index(packet.len());
        let mut buf = BytesMut::from(&packet[..at]);
        prop_assert!(matches!(parse(&mut buf), Ok(None)));
        prop_assert_eq!(buf.len(), at);
    }

    #[test]
    fn no_input_panics(length in prop::option::of(0..80_u8), code in prop_oneof![
        Just(0x0003_0000_u32), Just(80_877_102), Just(80_877_103), any::<u32>(),
    ], rest in vec(prop_oneof![Just(0_u8), any::<u8>()], 0..80)) {
        let mut buf = packet(code, &rest);
        if let Some(length) = length {
            buf[3] = length;
        }
        let before = buf.len();
        if matches!(parse(&mut buf), Ok(None)) {
            prop_assert_eq!(buf.len(), before);
        }
        let _ = parse(&mut BytesMut::from(&rest[..]));
        let _ = CancelRequest::from_backend_key_data(&rest);
    }
}
