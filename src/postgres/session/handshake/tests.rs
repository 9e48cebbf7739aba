//! The handshake, over a pipe in memory.

use tokio::io::duplex;

use super::*;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn startup(version: u32) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0app\0database\0shop\0\0");
    let mut packet = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

/// A client without TLS that sends each part and takes one byte as the answer to all but the last, and what came of it.
async fn handshake(parts: &[&[u8]]) -> (Result<(Request, BytesMut), Error>, Vec<u8>) {
    match handshake_at(Place::Plain, parts).await {
        (Ok((Wish::Request(request), early)), heard) => (Ok((request, early)), heard),
        (Ok((Wish::Tls(_), _)), _) => panic!("TLS is not offered"),
        (Err(error), heard) => (Err(error), heard),
    }
}

/// With what the client has sent behind its wish.
async fn handshake_at(place: Place, parts: &[&[u8]]) -> (Result<(Wish, BytesMut), Error>, Vec<u8>) {
    let (mut near, far) = duplex(64 * 1024);
    let client = async {
        let mut heard = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            near.write_all(part).await.unwrap();
            if at + 1 < parts.len() {
                heard.push(near.read_u8().await.unwrap());
            }
        }
        near.shutdown().await.unwrap();
        let _ = near.read_to_end(&mut heard).await;
        heard
    };
    let second = Duration::from_secs(1);
    let server = async {
        let answer = Handshake::new(far, place).answer(Instant::now() + second, second).await;
        let (wish, Buffered { mut stream, buffer }) = answer?;
        stream.shutdown().await.unwrap();
        Ok((wish, buffer))
    };
    let (heard, asked) = tokio::join!(client, server);
    (asked, heard)
}

fn contains(heard: &[u8], code: &str) -> bool {
    heard.windows(code.len()).any(|window| window == code.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn encryption_requests_are_declined_in_any_order() {
    let hello = startup(0x0003_0000);
    let orders: [&[&[u8]]; 5] = [
        &[&hello],
        &[&SSL_REQUEST, &hello],
        &[&GSS_REQUEST, &hello],
        &[&GSS_REQUEST, &SSL_REQUEST, &hello],
        &[&SSL_REQUEST, &GSS_REQUEST, &hello],
    ];
    for parts in orders {
        let (asked, heard) = handshake(parts).await;
        let Ok((Request::Session(startup), early)) = asked else {
            panic!("{:?}", asked.err());
        };
        assert_eq!(startup.user(), b"app");
        assert!(early.is_empty());
        assert_eq!(heard, vec![b'N'; parts.len() - 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_request_of_a_kind_is_an_unknown_protocol() {
    let (asked, heard) = handshake(&[&SSL_REQUEST, &SSL_REQUEST]).await;
    assert!(matches!(asked, Err(Error::AskedTwice(Encryption::Tls))));
    assert!(contains(&heard, "0A000"));
    assert!(contains(&heard, "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2"));
}

#[tokio::test(start_paused = true)]
async fn bytes_ahead_of_the_answer_are_a_violation() {
    let mut stuffed = SSL_REQUEST.to_vec();
    stuffed.extend_from_slice(&startup(0x0003_0000));
    let (asked, heard) = handshake(&[&stuffed]).await;
    assert!(matches!(asked, Err(Error::AheadOfAnswer(Encryption::Tls))));
    assert!(heard.starts_with(b"NE"), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn direct_tls_is_closed_without_an_answer() {
    let (asked, heard) = handshake(&[&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]]).await;
    assert!(matches!(asked, Err(Error::Malformed(startup::Error::DirectTls))));
    assert!(heard.is_empty());
}

#[tokio::test(start_paused = true)]
async fn protocol_2_is_not_supported() {
    let (asked, heard) = handshake(&[&startup(0x0002_0000)]).await;
    assert_eq!(asked.err().map(|error| error.word()), Some("unsupported_protocol"));
    assert_eq!(heard, b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0");
}

#[tokio::test(start_paused = true)]
async fn a_packet_of_an_impossible_length_is_closed_without_an_answer() {
    let rubbish: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0x27, 0x15, 0, 3, 0, 0], b"X\0\0\0\x04", &[0, 0, 0, 7, 1, 2, 3]];
    for packet in rubbish {
        let (asked, heard) = handshake(&[packet]).await;
        assert_eq!(asked.err().map(|error| error.word()), Some("malformed"));
        assert!(heard.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up() {
    let (_near, far) = duplex(64);
    let second = Duration::from_secs(1);
    let asked = Handshake::new(far, Place::Plain).answer(Instant::now() + second, second).await;
    assert!(matches!(asked, Err(Error::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_the_startup_message_are_kept() {
    let mut packet = startup(0x0003_0002);
    packet.extend_from_slice(b"Q\0\0\0\x0dselect 1\0");
    let (asked, _) = handshake(&[&packet]).await;
    let Ok((Request::Session(_), early)) = asked else {
        panic!("{:?}", asked.err());
    };
    assert_eq!(early.as_ref(), b"Q\0\0\0\x0dselect 1\0");
}

/// A client that waits, and its own end.
async fn waiting() -> (Buffered<Client>, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (Buffered::new(Client::Tcp(far)), near)
}

#[tokio::test]
async fn a_waiting_client_that_hangs_up_is_noticed() {
    let (mut waiting, near) = waiting().await;
    drop(near);
    gone(&mut waiting).await;
}

#[tokio::test]
async fn a_waiting_client_that_sent_much_and_is_reset_is_noticed() {
    for sent in [MAX_EARLY_BYTES, 3 * MAX_EARLY_BYTES] {
        let (mut waiting, mut near) = waiting().await;
        near.write_all(&vec![b'x'; sent]).await.unwrap();
        {
            let mut hung_up = std::pin::pin!(gone(&mut waiting));
            assert!(timeout(Duration::from_millis(50), hung_up.as_mut()).await.is_err());
            socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
            drop(near);
            hung_up.await;
        }
        assert!(waiting.buffer.len() >= MAX_EARLY_BYTES);
    }
}

#[tokio::test]
async fn a_waiting_client_on_a_unix_socket_that_sent_much_and_died_is_noticed() {
    let (far, mut near) = tokio::net::UnixStream::pair().unwrap();
    let mut waiting = Buffered::new(Client::Unix(far));
    near.write_all(&[b'x'; 2 * MAX_EARLY_BYTES]).await.unwrap();
    drop(near);
    gone(&mut waiting).await;
}

#[tokio::test]
async fn a_waiting_client_that_has_nothing_more_to_say_is_waited_for() {
    let (mut waiting, mut near) = waiting().await;
    near.write_all(b"Q\0\0\0\x0dselect 1\0").await.unwrap();
    near.shutdown().await.unwrap();
    assert!(timeout(Duration::from_millis(600), gone(&mut waiting)).await.is_err());
    assert_eq!(waiting.buffer.as_ref(), b"Q\0\0\0\x0dselect 1\0");
}

#[tokio::test(start_paused = true)]
async fn where_tls_is_offered_a_request_is_granted_with_what_came_behind_it() {
    let hello = [0x16, 3, 1];
    for before in [&[][..], &GSS_REQUEST] {
        let stuffed = [&SSL_REQUEST[..], &hello].concat();
        let parts: Vec<&[u8]> = [before, &stuffed].into_iter().filter(|part| !part.is_empty()).collect();
        let (answer, heard) = handshake_at(Place::TlsOffered, &parts).await;
        let Ok((Wish::Tls(place), early)) = answer else { panic!("no TLS") };
        assert_eq!((place, &early[..]), (Place::RequestedTls, &hello[..]));
        assert_eq!(heard.last(), Some(&b'S'));
    }
}

#[tokio::test(start_paused = true)]
async fn direct_tls_may_come_first_and_never_later() {
    let hello = [0x16, 3, 1];
    let (answer, heard) = handshake_at(Place::TlsOffered, &[&hello]).await;
    assert!(matches!(answer, Ok((Wish::Tls(Place::DirectTls), _))));
    assert!(heard.is_empty());
    let (answer, _) = handshake_at(Place::TlsOffered, &[&GSS_REQUEST, &hello]).await;
    assert_eq!(answer.err().map(|error| error.word()), Some("direct_tls"));
    let (answer, _) = handshake_at(Place::DirectTls, &[&hello]).await;
    assert_eq!(answer.err().map(|error| error.word()), Some("direct_tls"));
}

#[tokio::test(start_paused = true)]
async fn within_tls_a_request_is_declined_or_too_late() {
    let (answer, heard) = handshake_at(Place::DirectTls, &[&SSL_REQUEST, &startup(0x0003_0000)]).await;
    assert!(matches!(answer, Ok((Wish::Request(Request::Session(_)), _))));
    assert_eq!(heard, b"N");
    for request in [&SSL_REQUEST, &GSS_REQUEST] {
        let (answer, heard) = handshake_at(Place::RequestedTls, &[request]).await;
        assert_eq!(answer.err().map(|error| error.word()), Some("asked_twice"));
        assert!(contains(&heard, "unsupported frontend protocol 1234.56"));
    }
}
