//! Tests logins against a scripted server, over an in-memory stream.

use tokio::io::DuplexStream;

use super::super::Derivations;
use super::*;
use crate::postgres::protocol::auth::method::{ChannelBinding, RequireAuth};
use crate::postgres::protocol::auth::{Terms, Transport};
use crate::secret::Secret;

const STARTUP: &[u8] = b"\0\0\0\x08\0\x03\0\0";
const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
const NEGOTIATE: &[u8] = b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0";
const NOTICE: &[u8] = b"N\0\0\0\x05\0";
const STATUS: &[u8] = b"S\0\0\0\x08a\0b\0";
const KEY: &[u8] = b"K\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04";
const READY: &[u8] = b"Z\0\0\0\x05I";

fn error(sqlstate: &str, routine: &str) -> Vec<u8> {
    let routine = if routine.is_empty() { String::new() } else { format!("R{routine}\0") };
    let body = format!("SFATAL\0C{sqlstate}\0Mno\0{routine}\0");
    let len = u32::try_from(body.len() + 4).unwrap();
    [b"E".as_slice(), &len.to_be_bytes(), body.as_bytes()].concat()
}

/// Plays `messages` after the StartupMessage, `step` bytes at a time, and then closes.
async fn login(messages: &[&[u8]], step: usize) -> Result<Ready, Failure> {
    let (mut ours, mut theirs) = tokio::io::duplex(64);
    let script = messages.concat();
    let play = async move {
        let mut startup = [0; STARTUP.len()];
        theirs.read_exact(&mut startup).await.unwrap();
        assert_eq!(startup, STARTUP);
        for chunk in script.chunks(step) {
            if theirs.write_all(chunk).await.is_err() {
                break;
            }
        }
        drain(&mut theirs).await;
    };
    let talk = async move {
        let password = Secret::new("pencil".to_owned());
        let keys = KeysOfUpstream::new(Derivations::default());
        let terms = Terms {
            transport: Transport::Local,
            channel_binding: ChannelBinding::Prefer,
            require_auth: RequireAuth::default(),
        };
        converse(&mut ours, STARTUP, Authentication::new("alice", &password, [1; 18], terms), &keys).await
    };
    tokio::join!(play, talk).1
}

/// Shuts down our direction, then reads the rest, so that the other side sees the end and not a broken pipe.
async fn drain(theirs: &mut DuplexStream) {
    theirs.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = theirs.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn prologue_is_what_the_server_sent_however_it_comes_in() {
    let after = [STATUS, b"A"].concat();
    for step in [1, 3, 1000] {
        let ready = login(&[NEGOTIATE, MD5, OK, STATUS, NOTICE, KEY, READY, &after], step).await.unwrap();
        assert_eq!(ready.prologue, [NEGOTIATE, OK, STATUS, NOTICE, KEY, READY].concat());
        assert_eq!(ready.key.unwrap().backend_key_data(), KEY);
        assert!(after.starts_with(&ready.rest));
    }
}

#[tokio::test]
async fn bytes_behind_ready_for_query_are_kept() {
    let ready = login(&[OK, READY, STATUS], 1000).await.unwrap();
    assert_eq!(ready.rest, STATUS);
    assert!(ready.key.is_none());
}

#[tokio::test]
async fn notice_before_authentication_moves_behind_it() {
    let ready = login(&[NOTICE, NEGOTIATE, OK, READY], 1000).await.unwrap();
    assert_eq!(ready.prologue, [NEGOTIATE, OK, NOTICE, READY].concat());
}

#[tokio::test]
async fn refusals_are_kept_whole_and_judged() {
    for (ok, sqlstate, routine, suspect, proves) in [
        (false, "28P01", "auth_failed", true, false),
        (false, "28000", "ClientAuthentication", false, false),
        (true, "28000", "InitializeSessionUserId", true, false),
        (true, "53300", "InitializeSessionUserId", false, true),
        (true, "3D000", "InitPostgres", false, true),
        (false, "57P03", "ProcessStartupPacket", false, false),
        // A pooler sends no routine.
        (false, "08P01", "", true, false),
        (false, "28000", "", true, false),
        (false, "28P01", "", true, false),
        (false, "08P01", "ProcessStartupPacket", false, false),
        (false, "08006", "", false, false),
        (false, "3D000", "", false, false),
        (false, "53300", "", false, false),
        (false, "57P03", "", false, false),
        (false, "42704", "", false, false),
        (false, "XX000", "", false, false),
        (true, "08P01", "", false, true),
    ] {
        let sent = error(sqlstate, routine);
        let before = if ok { [NEGOTIATE, OK, NOTICE, STATUS].concat() } else { NEGOTIATE.to_vec() };
        let messages: &[&[u8]] =
            if ok { &[NOTICE, NEGOTIATE, OK, STATUS, &sent] } else { &[NEGOTIATE, NOTICE, &sent] };
        match login(messages, 1000).await {
            Err(Failure::Refused(refusal)) => {
                assert_eq!(refusal.error, sent);
                assert_eq!(refusal.for_client(), [before, sent].concat(), "{sqlstate} {routine}");
                assert_eq!(refusal.sqlstate(), sqlstate);
                assert_eq!(refusal.is_suspect(), suspect, "{sqlstate} {routine}");
                assert_eq!(refusal.proves_credential(), proves, "{sqlstate} {routine}");
            }
            other => panic!("{sqlstate}: {:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn malformed_refusal_is_still_one() {
    for messages in [[b"".as_slice(), b"E\0\0\0\x0aCabc\0\0"], [OK, b"E\0\0\0\x04"], [OK, b"E\0\0\0\x06C2"]] {
        match login(&messages, 1000).await {
            Err(Failure::Refused(refusal)) => assert_eq!(refusal.sqlstate(), "XX000"),
            other => panic!("{:?}", other.err()),
        }
    }
}

const NO_FORK: &str = "could not fork new process for connection: Resource temporarily unavailable";

#[tokio::test]
async fn words_in_plain_text_are_heard_however_they_come_in() {
    for end in ["\n\0", "\0", "\n", ""] {
        for step in [1, 7, 1000] {
            match login(&[b"E", NO_FORK.as_bytes(), end.as_bytes()], step).await {
                Err(Failure::Said(words)) => assert_eq!(words, NO_FORK),
                other => panic!("{end:?} {step}: {:?}", other.err()),
            }
        }
    }
    match login(&[b"E", &[b'x'; 3 * CHUNK]], 1000).await {
        Err(Failure::Said(words)) => assert!(words.len() < CHUNK),
        other => panic!("{:?}", other.err()),
    }
}

/// The text may be the password.
#[tokio::test]
async fn words_behind_a_password_are_not_repeated() {
    let echo = [b"E".as_slice(), b"pencil pencil", b"\0"].concat();
    assert!(matches!(login(&[MD5, &echo], 1000).await, Err(Failure::Protocol(Fault::TooLong))));
}

#[tokio::test]
async fn servers_of_other_protocols_are_named() {
    for (answer, other) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), OtherProtocol::Http),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", OtherProtocol::Ssh),
        (b"\x15\x03\x03\0\x02\x02\x46", OtherProtocol::Tls),
    ] {
        match login(&[answer], 1).await {
            Err(Failure::Protocol(fault)) => assert_eq!(fault, Fault::Other(other)),
            failed => panic!("{:?}", failed.err()),
        }
    }
    assert!(matches!(login(&[b"220 mail ESMTP\r\n"], 5).await, Err(Failure::Protocol(Fault::Unexpected))));
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_left() {
    let long = [b"N".as_slice(), &0x7fff_ffff_u32.to_be_bytes()].concat();
    for (message, fault) in [
        (b"T\0\0\0\x06\0\0".as_slice(), Fault::Unexpected),
        (b"R\0\0\0\x03", Fault::TooShort),
        (&long, Fault::TooLong),
        (READY, Fault::Unexpected),
        (&[NEGOTIATE, NEGOTIATE].concat(), Fault::Unexpected),
        (&[OK, KEY, KEY].concat(), Fault::Unexpected),
        (&[OK, OK].concat(), Fault::Unexpected),
    ] {
        match login(&[message], 1000).await {
            Err(Failure::Protocol(seen)) => assert_eq!(seen, fault, "{message:?}"),
            other => panic!("{message:?}: {:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn endless_notices_are_cut_off() {
    let notices = NOTICE.repeat(MAX_RECEIVED / NOTICE.len() + 1);
    assert!(matches!(login(&[OK, &notices], 60_000).await, Err(Failure::Protocol(Fault::TooLong))));
}

#[tokio::test]
async fn a_close_is_told_from_a_refusal() {
    for messages in [[].as_slice(), &[&OK[..4]], &[OK, STATUS]] {
        assert!(matches!(login(messages, 1000).await, Err(Failure::Closed)));
    }
}

/// Returns what `ask` reads from a server that answers with `messages`, and what remains for the client.
async fn asked(rest: &[u8], messages: &[&[u8]]) -> Result<(BytesMut, BytesMut), Failure> {
    let (mut ours, mut theirs) = tokio::io::duplex(4096);
    theirs.write_all(&messages.concat()).await.unwrap();
    let mut rest = BytesMut::from(rest);
    let value = ask(&mut ours, "SHOW x", &mut rest).await?;
    let mut query = [0; 12];
    theirs.read_exact(&mut query).await.unwrap();
    assert_eq!(&query, b"Q\0\0\0\x0bSHOW x\0");
    Ok((value, rest))
}

const ROW: &[u8] = b"D\0\0\0\x0c\0\x01\0\0\0\x02on";

#[tokio::test]
async fn an_answer_is_kept_from_the_client_and_all_else_is_not() {
    let described = b"T\0\0\0\x06\0\0".as_slice();
    let complete = b"C\0\0\0\x09SHOW\0".as_slice();
    let half = &NOTICE[..2];
    let (value, rest) =
        asked(STATUS, &[NOTICE, described, ROW, complete, STATUS, READY, half]).await.unwrap();
    assert_eq!(value, "on");
    assert_eq!(rest, [STATUS, NOTICE, STATUS, half].concat());
    // Half a message may have come with the last message of the login.
    let (value, rest) = asked(&NOTICE[..2], &[&NOTICE[2..], READY]).await.unwrap();
    assert_eq!((value.as_ref(), rest.as_ref()), (b"".as_slice(), NOTICE));
}

/// Whether `command` takes this for the answer to DISCARD ALL.
async fn discarded(messages: &[&[u8]]) -> bool {
    let (mut ours, mut theirs) = tokio::io::duplex(4096);
    theirs.write_all(&messages.concat()).await.unwrap();
    theirs.shutdown().await.unwrap();
    command(&mut ours, "DISCARD ALL", b"DISCARD ALL").await.is_ok_and(|answer| {
        assert_eq!(answer.reported, messages.contains(&STATUS));
        answer.value.is_none()
    })
}

#[tokio::test]
async fn a_command_has_succeeded_only_if_the_server_says_so_and_is_idle() {
    let complete = b"C\0\0\0\x10DISCARD ALL\0".as_slice();
    let refused = error("25001", "x");
    assert!(discarded(&[NOTICE, complete, STATUS, READY]).await);
    for otherwise in [
        &[READY][..],
        &[complete],
        &[&refused, READY],
        &[complete, &refused, READY],
        &[complete, complete, READY],
        &[complete, b"Z\0\0\0\x05T"],
        &[complete, READY, NOTICE],
        &[b"C\0\0\0\x0cDISCARD\0", READY],
        &[ROW, complete, READY],
    ] {
        assert!(!discarded(otherwise).await, "{otherwise:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_empty_and_a_broken_one_ends_it() {
    let refused = error("42704", "x");
    for messages in [[refused.as_slice(), READY], [b"D\0\0\0\x06\0\0", READY], [b"D\0\0\0\x04", READY]] {
        assert_eq!(asked(b"", &messages).await.unwrap().0, "");
    }
    assert!(matches!(asked(b"", &[b"G\0\0\0\x04"]).await, Err(Failure::Protocol(Fault::Unexpected))));
}
