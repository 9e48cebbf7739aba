//! The handshake with a client, up to its StartupMessage: nothing else may be read from it before. Floor 4.
//!
//! ```text
//!   accepted ──SSLRequest, GSSENCRequest: each at most once, answered 'N'──┐
//!      │  ▲────────────────────────────────────────────────────────────────┘
//!      ├─ StartupMessage ────────────────────────────▶ Request::Session
//!      ├─ CancelRequest ─────────────────────────────▶ Request::Cancel
//!      ├─ SSLRequest, answered 'S'; or a ClientHello ▶ Wish::Tls, and all of this once more within it
//!      └─ anything else, too late, too long, ahead of an answer ─▶ refused
//! ```
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>; where the manual is silent,
//! `ProcessStartupPacket`, <https://github.com/postgres/postgres/blob/master/src/backend/tcop/backend_startup.c>

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::postgres::protocol::error_response;
use crate::postgres::protocol::fatal::{Fatal, SqlState};
use crate::postgres::protocol::startup::{self, CancelRequest, Packet, StartupMessage};
use crate::postgres::relay::close_client;
use crate::session::Buffered;
use crate::socket::Client;

/// A client that has not said yet what it wants. Not a stream: its bytes are handed over only with its [`Wish`].
pub(super) struct Handshake<S> {
    client: Buffered<S>,
    place: Place,
    declined: Declined,
}

/// What may be asked for on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// No TLS: there is no certificate, or the connection is a Unix socket.
    Plain,
    /// TLS is offered.
    TlsOffered,
    /// Within TLS that began with the first byte: requests are declined as ever.
    DirectTls,
    /// Within TLS that was requested: no other request may follow.
    RequestedTls,
}

impl Place {
    fn is_within_tls(self) -> bool {
        matches!(self, Self::DirectTls | Self::RequestedTls)
    }
}

/// The requests for encryption that were declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declined {
    None,
    Tls,
    Gss,
    Both,
}

impl Declined {
    /// The requests declined with this one added; `None` if it was declined before.
    fn and(self, encryption: Encryption) -> Option<Self> {
        match (self, encryption) {
            (Self::None, Encryption::Tls) => Some(Self::Tls),
            (Self::None, Encryption::Gss) => Some(Self::Gss),
            (Self::Tls, Encryption::Gss) | (Self::Gss, Encryption::Tls) => Some(Self::Both),
            (Self::Tls, Encryption::Tls) | (Self::Gss, Encryption::Gss) | (Self::Both, _) => None,
        }
    }
}

/// What a handshake ends with.
pub(super) enum Wish {
    Request(Request),
    /// The client begins TLS, and the answer that it may is sent: the bytes that follow are its side of TLS. Holds the
    /// place within TLS.
    Tls(Place),
}

/// What a client wants.
pub(super) enum Request {
    /// A session.
    Session(StartupMessage),
    /// A cancel of what another session runs.
    Cancel(CancelRequest),
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
    #[error("the client sent bytes ahead of the answer to its request for {0}")]
    AheadOfAnswer(Encryption),
    #[error("the client asked for {0} where it may not any more")]
    AskedTwice(Encryption),
    #[error("the client's first packet is malformed")]
    Malformed(#[source] startup::Error),
    #[error("the TLS handshake with the client failed")]
    Tls(#[source] io::Error),
    #[error("the client began with TLS without offering the protocol by ALPN")]
    NoAlpn,
    #[error("the client shows no certificate")]
    NoCertificate,
}

/// The encryption that a client requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Tls,
    Gss,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS",
            Self::Gss => "GSSAPI encryption",
        })
    }
}

impl Error {
    /// The word in `leasehold_handshake_failures_total`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::HungUp => "hangup",
            Self::Io(_) => "io",
            Self::AheadOfAnswer(_) => "ahead_of_answer",
            Self::AskedTwice(_) => "asked_twice",
            Self::Malformed(startup::Error::DirectTls) => "direct_tls",
            Self::Malformed(startup::Error::UnknownProtocol { .. }) => "unsupported_protocol",
            Self::Malformed(_) => "malformed",
            Self::Tls(_) => "tls",
            Self::NoAlpn => "no_alpn",
            Self::NoCertificate => "no_certificate",
        }
    }

    /// The error that the client gets, where it would understand one; in PostgreSQL's own words where it has any.
    pub(super) fn message(&self) -> Option<BytesMut> {
        let (sqlstate, message, detail, hint) = match self {
            Self::TimedOut | Self::HungUp | Self::Io(_) | Self::Tls(_) | Self::NoAlpn => return None,
            Self::AheadOfAnswer(encryption) => {
                let message = match encryption {
                    Encryption::Tls => "received unencrypted data after SSL request",
                    Encryption::Gss => "received unencrypted data after GSSAPI encryption request",
                };
                (SqlState::ProtocolViolation, message, Some(STUFFED), None)
            }
            Self::NoCertificate => (
                SqlState::InvalidAuthorizationSpecification,
                "connection requires a valid client certificate",
                None,
                Some("Connect with TLS, and show a certificate: sslcert and sslkey in libpq's words."),
            ),
            Self::AskedTwice(Encryption::Tls) => return startup_message(&startup::Error::late_ssl_request()),
            Self::AskedTwice(Encryption::Gss) => {
                return startup_message(&startup::Error::late_gss_enc_request());
            }
            Self::Malformed(error) => return startup_message(error),
        };
        let message = Cow::Borrowed(message);
        Some(error_response::fatal(&Fatal { sqlstate, message, detail, hint }))
    }
}

fn startup_message(error: &startup::Error) -> Option<BytesMut> {
    let fatal = error.fatal()?;
    Some(if error.knows_protocol_3() {
        error_response::fatal(&fatal)
    } else {
        error_response::fatal_before_protocol_3(&fatal)
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Handshake<S> {
    pub(super) fn new(stream: S, place: Place) -> Self {
        Self { client: Buffered::new(stream), place, declined: Declined::None }
    }

    /// Reads until the client has sent its request, or begins TLS, at the latest `until` then. A client that cannot be
    /// served gets an error, at most for `send_within`, and is closed.
    pub(super) async fn answer(
        mut self,
        until: Instant,
        send_within: Duration,
    ) -> Result<(Wish, Buffered<S>), Error> {
        let wish = timeout_at(until, self.read_wish()).await.unwrap_or(Err(Error::TimedOut));
        let Self { mut client, place, .. } = self;
        match wish {
            Ok(wish) => Ok((wish, client)),
            Err(error) => {
                match error.message() {
                    Some(message) => close_client(&mut client.stream, &message, send_within).await,
                    None if place.is_within_tls() => end_tls(&mut client.stream, send_within).await,
                    None => {}
                }
                Err(error)
            }
        }
    }

    /// Not cancel safe: what was read stays in the buffer.
    async fn read_wish(&mut self) -> Result<Wish, Error> {
        loop {
            let encryption = match startup::parse(&mut self.client.buffer) {
                Ok(Some(Packet::Startup(startup))) => return Ok(Wish::Request(Request::Session(startup))),
                Ok(Some(Packet::Cancel(cancel))) => return Ok(Wish::Request(Request::Cancel(cancel))),
                Ok(Some(Packet::SslRequest)) => Encryption::Tls,
                Ok(Some(Packet::GssEncRequest)) => Encryption::Gss,
                Ok(None) => {
                    self.read_more().await?;
                    continue;
                }
                Err(startup::Error::DirectTls) if self.may_begin_with_tls() => {
                    return Ok(Wish::Tls(Place::DirectTls));
                }
                Err(error) => return Err(Error::Malformed(error)),
            };
            let declined = self.declined.and(encryption).filter(|_| self.place != Place::RequestedTls);
            let declined = declined.ok_or(Error::AskedTwice(encryption))?;
            if encryption == Encryption::Tls && self.place == Place::TlsOffered {
                // What has come behind the request is the client's side of the handshake, or spoils it.
                self.reply(b"S").await?;
                return Ok(Wish::Tls(Place::RequestedTls));
            }
            self.reply(b"N").await?;
            if !self.client.buffer.is_empty() {
                return Err(Error::AheadOfAnswer(encryption));
            }
            self.declined = declined;
        }
    }

    /// PostgreSQL looks for a ClientHello in place of the first packet alone.
    fn may_begin_with_tls(&self) -> bool {
        self.place == Place::TlsOffered && self.declined == Declined::None
    }

    async fn reply(&mut self, answer: &[u8; 1]) -> Result<(), Error> {
        self.client.stream.write_all(answer).await.map_err(Error::Io)?;
        self.client.stream.flush().await.map_err(Error::Io)
    }

    async fn read_more(&mut self) -> Result<(), Error> {
        let Buffered { stream, buffer } = &mut self.client;
        let room = MAX_PACKET_BYTES.saturating_sub(buffer.len());
        let mut limited = stream.take(room as u64);
        buffer.reserve(room.min(READ_BYTES));
        match limited.read_buf(buffer).await {
            Ok(0) => Err(Error::HungUp),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Io(error)),
        }
    }
}

/// Closes without a message, and with a close_notify, so that TLS is at its end in order.
pub(super) async fn end_tls<S: AsyncWrite + Unpin>(stream: &mut S, send_within: Duration) {
    // A client that does not take it is closed without.
    let _ = timeout(send_within, stream.shutdown()).await;
}

/// Ends when a client that waits for its session hangs up. What it sends meanwhile is kept, up to a bound: a client may
/// send its first statements right behind its StartupMessage, and may then have nothing more to say. From there on, since
/// nothing is read any more, only a socket that has failed or is closed in both directions is noticed.
pub(super) async fn gone(client: &mut Buffered<Client>) {
    let Buffered { stream, buffer } = client;
    while buffer.len() < MAX_EARLY_BYTES {
        buffer.reserve(READ_BYTES);
        match stream.read_buf(buffer).await {
            Ok(0) if buffer.is_empty() => return,
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    while !stream.is_closed().await {
        sleep(LOOK_EVERY).await;
    }
}

const STUFFED: &str =
    "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.";
/// The longest packet, its length field included.
const MAX_PACKET_BYTES: usize = startup::MAX_STARTUP + 4;
/// How much of what a client sends during its login is read; the rest waits in its socket.
const MAX_EARLY_BYTES: usize = 8 * 1024;
/// How often the socket of a client that is not read from is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How much is read at once; nearly every StartupMessage fits.
const READ_BYTES: usize = 512;

#[cfg(test)]
mod tests;
