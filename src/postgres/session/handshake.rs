//! A client before its StartupMessage is whole: nothing else may be read from it. Floor 4.
//!
//! ```text
//!   accepted ──SSLRequest, GSSENCRequest: each at most once, answered 'N'──┐
//!      │  ▲────────────────────────────────────────────────────────────────┘
//!      ├─ StartupMessage ─▶ Asked::Session
//!      ├─ CancelRequest ──▶ Asked::Cancel
//!      └─ anything else, too late, too long, ahead of an answer ─▶ Refused
//! ```
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::Client;
use crate::error::{ClientFacing, SqlState};
use crate::postgres::protocol::error_response;
use crate::postgres::protocol::startup::{self, CancelRequest, Packet, StartupMessage};
use crate::postgres::relay::close_client;

/// A client that has not said yet what it wants. Not a stream: its bytes are handed over only with [`Asked`].
pub(super) struct Handshake<S> {
    stream: S,
    buffer: BytesMut,
    asked_for_tls: bool,
    asked_for_gss: bool,
}

/// What a client wants.
pub(super) enum Asked<S> {
    /// A session.
    Session { client: Waiting<S>, startup: StartupMessage },
    /// To stop what another session runs.
    Cancel { client: S, request: CancelRequest },
}

/// A client that waits to be let in.
pub(super) struct Waiting<S> {
    pub(super) stream: S,
    /// What it has sent since its StartupMessage.
    pub(super) early: BytesMut,
}

/// Why a client did not get as far as a StartupMessage.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the client did not send its startup message in time")]
    TimedOut,
    #[error("the client hung up before its startup message")]
    HungUp,
    #[error("the client's socket failed")]
    Io(#[source] io::Error),
    #[error("the client sent bytes ahead of the answer to its encryption request")]
    AheadOfAnswer,
    #[error("the client asked for encryption twice")]
    AskedTwice,
    #[error("the client's first packet is malformed")]
    Malformed(#[source] startup::Error),
}

impl Error {
    /// The word in `leasehold_handshake_failures_total`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::HungUp => "hangup",
            Self::Io(_) => "io",
            Self::AheadOfAnswer => "ahead_of_answer",
            Self::AskedTwice => "asked_twice",
            Self::Malformed(startup::Error::DirectTls) => "direct_tls",
            Self::Malformed(startup::Error::Protocol2 | startup::Error::UnknownProtocol { .. }) => {
                "unsupported_protocol"
            }
            Self::Malformed(_) => "malformed",
        }
    }

    /// What the client is told, where it would understand.
    fn client_facing(&self) -> Option<ClientFacing> {
        let message = match self {
            Self::TimedOut | Self::HungUp | Self::Io(_) => return None,
            Self::AheadOfAnswer => "received data ahead of the answer to an encryption request",
            Self::AskedTwice => "received a second encryption request of the same kind",
            Self::Malformed(error) => return error.client_facing(),
        };
        Some(ClientFacing {
            sqlstate: SqlState::ProtocolViolation,
            message: Cow::Borrowed(message),
            detail: None,
            hint: None,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Handshake<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new(), asked_for_tls: false, asked_for_gss: false }
    }

    /// Reads until the client has said what it wants, at most for `handshake_within`. A client that cannot be served
    /// is told so, at most for `send_within`, and closed.
    pub(super) async fn answer(
        mut self,
        handshake_within: Duration,
        send_within: Duration,
    ) -> Result<Asked<S>, Error> {
        let asked = timeout(handshake_within, self.read_packet()).await.unwrap_or(Err(Error::TimedOut));
        match asked {
            Ok(Packet::Startup(startup)) => {
                Ok(Asked::Session { client: Waiting { stream: self.stream, early: self.buffer }, startup })
            }
            Ok(Packet::Cancel(request)) => Ok(Asked::Cancel { client: self.stream, request }),
            // Both are answered within `read_packet`.
            Ok(Packet::SslRequest | Packet::GssEncRequest) => Err(Error::AskedTwice),
            Err(error) => {
                if let Some(facing) = error.client_facing() {
                    close_client(&mut self.stream, &error_response::fatal(&facing), send_within).await;
                }
                Err(error)
            }
        }
    }

    /// Not cancel safe: what was read stays in a buffer that nobody else may look at.
    async fn read_packet(&mut self) -> Result<Packet, Error> {
        loop {
            let packet = startup::parse(&mut self.buffer).map_err(Error::Malformed)?;
            let asked_before = match packet {
                Some(Packet::SslRequest) => std::mem::replace(&mut self.asked_for_tls, true),
                Some(Packet::GssEncRequest) => std::mem::replace(&mut self.asked_for_gss, true),
                Some(packet) => return Ok(packet),
                None => {
                    self.read_more().await?;
                    continue;
                }
            };
            if asked_before {
                return Err(Error::AskedTwice);
            }
            if !self.buffer.is_empty() {
                return Err(Error::AheadOfAnswer);
            }
            self.stream.write_all(b"N").await.map_err(Error::Io)?;
            self.stream.flush().await.map_err(Error::Io)?;
        }
    }

    async fn read_more(&mut self) -> Result<(), Error> {
        let room = MAX_PACKET_BYTES.saturating_sub(self.buffer.len());
        let mut limited = (&mut self.stream).take(room as u64);
        self.buffer.reserve(room.min(READ_BYTES));
        match limited.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Error::HungUp),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Io(error)),
        }
    }
}

impl Waiting<Client> {
    /// Ends when the client hangs up. What it sends meanwhile is kept, up to a bound: a client may send its first
    /// statements right behind its StartupMessage, and may then have nothing more to say. From there on, since nothing is
    /// read any more, only a socket that has failed or is closed in both directions is noticed.
    pub(super) async fn gone(&mut self) {
        while self.early.len() < MAX_EARLY_BYTES {
            self.early.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.early).await {
                Ok(0) if self.early.is_empty() => return,
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        while !self.stream.is_closed().await {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The longest packet, its length field included.
const MAX_PACKET_BYTES: usize = startup::MAX_STARTUP + 4;
/// Of what a client sends before it is let in; the rest waits in its socket.
const MAX_EARLY_BYTES: usize = 8 * 1024;
/// How often a client that is not read from is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Nearly every StartupMessage fits.
const READ_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

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

    /// A client that sends each part and takes one byte as the answer to all but the last, and what came of it.
    async fn handshake(parts: &[&[u8]]) -> (Result<Asked<DuplexStream>, Error>, Vec<u8>) {
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
            match Handshake::new(far).answer(second, second).await {
                Ok(Asked::Session { mut client, startup }) => {
                    client.stream.shutdown().await.unwrap();
                    Ok(Asked::Session { client, startup })
                }
                Ok(Asked::Cancel { mut client, request }) => {
                    client.shutdown().await.unwrap();
                    Ok(Asked::Cancel { client, request })
                }
                Err(error) => Err(error),
            }
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
            let Ok(Asked::Session { client, startup }) = asked else {
                panic!("{:?}", asked.err());
            };
            assert_eq!(startup.user(), b"app");
            assert!(client.early.is_empty());
            assert_eq!(heard, vec![b'N'; parts.len() - 1]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_request_of_a_kind_is_a_violation() {
        let (asked, heard) = handshake(&[&SSL_REQUEST, &SSL_REQUEST]).await;
        assert!(matches!(asked, Err(Error::AskedTwice)));
        assert!(contains(&heard, "08P01"));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_ahead_of_the_answer_are_a_violation() {
        let mut stuffed = SSL_REQUEST.to_vec();
        stuffed.extend_from_slice(&startup(0x0003_0000));
        let (asked, heard) = handshake(&[&stuffed]).await;
        assert!(matches!(asked, Err(Error::AheadOfAnswer)));
        assert_eq!(heard.first(), Some(&b'E'));
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
        assert!(contains(&heard, "0A000"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_packet_of_an_impossible_length_is_closed_without_an_answer() {
        let rubbish: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &[0, 0, 0x27, 0x15, 0, 3, 0, 0],
            b"X\0\0\0\x04",
            &[0, 0, 0, 7, 1, 2, 3],
        ];
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
        let asked = Handshake::new(far).answer(second, second).await;
        assert!(matches!(asked, Err(Error::TimedOut)));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_behind_the_startup_message_are_kept() {
        let mut packet = startup(0x0003_0002);
        packet.extend_from_slice(b"Q\0\0\0\x0dselect 1\0");
        let (asked, _) = handshake(&[&packet]).await;
        let Ok(Asked::Session { client, .. }) = asked else {
            panic!("{:?}", asked.err());
        };
        assert_eq!(client.early.as_ref(), b"Q\0\0\0\x0dselect 1\0");
    }

    /// A client that waits, and its own end.
    async fn waiting() -> (Waiting<Client>, tokio::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (Waiting { stream: Client::Tcp(far), early: BytesMut::new() }, near)
    }

    #[tokio::test]
    async fn a_waiting_client_that_hangs_up_is_noticed() {
        let (mut waiting, near) = waiting().await;
        drop(near);
        waiting.gone().await;
    }

    #[tokio::test]
    async fn a_waiting_client_that_sent_much_and_is_reset_is_noticed() {
        for sent in [MAX_EARLY_BYTES, 3 * MAX_EARLY_BYTES] {
            let (mut waiting, mut near) = waiting().await;
            near.write_all(&vec![b'x'; sent]).await.unwrap();
            {
                let mut gone = std::pin::pin!(waiting.gone());
                assert!(timeout(Duration::from_millis(50), gone.as_mut()).await.is_err());
                socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
                drop(near);
                gone.await;
            }
            assert!(waiting.early.len() >= MAX_EARLY_BYTES);
        }
    }

    #[tokio::test]
    async fn a_waiting_client_on_a_unix_socket_that_sent_much_and_died_is_noticed() {
        let (far, mut near) = tokio::net::UnixStream::pair().unwrap();
        let mut waiting = Waiting { stream: Client::Unix(far), early: BytesMut::new() };
        near.write_all(&[b'x'; 2 * MAX_EARLY_BYTES]).await.unwrap();
        drop(near);
        waiting.gone().await;
    }

    #[tokio::test]
    async fn a_waiting_client_that_has_nothing_more_to_say_is_waited_for() {
        let (mut waiting, mut near) = waiting().await;
        near.write_all(b"Q\0\0\0\x0dselect 1\0").await.unwrap();
        near.shutdown().await.unwrap();
        assert!(timeout(Duration::from_millis(600), waiting.gone()).await.is_err());
        assert_eq!(waiting.early.as_ref(), b"Q\0\0\0\x0dselect 1\0");
    }
}
