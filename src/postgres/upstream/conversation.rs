//! The conversation from StartupMessage to the first ReadyForQuery, after TLS has been negotiated. Floor 2.
//!
//! Messages are split by their length before their bodies are read, and their bytes are kept unchanged.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

#[cfg(test)]
mod tests;

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::keys::KeysOfUpstream;
use super::refusal::Refusal;
use super::target::ServerState;
use crate::postgres::protocol::auth::{self, Authentication, Step};
use crate::postgres::protocol::plain::{self, OtherProtocol};
use crate::postgres::protocol::startup::CancelRequest;
use crate::postgres::protocol::written::query;

/// A session that is ready for its first query.
pub(super) struct Ready {
    /// What the client must receive, in an order that it accepts.
    pub(super) prologue: BytesMut,
    /// BackendKeyData; `None` if there was none, or if the key's length is not allowed.
    pub(super) key: Option<CancelRequest>,
    /// The bytes after ReadyForQuery.
    pub(super) rest: BytesMut,
    /// What the server reported about itself.
    pub(super) state: ServerState,
}

/// Sends `startup` and continues until ReadyForQuery. Not cancel safe: afterwards the stream can only be closed.
pub(super) async fn converse<S>(
    stream: &mut S,
    startup: &[u8],
    authentication: Authentication<'_>,
    keys: &KeysOfUpstream,
) -> Result<Ready, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire { stream, buffer: BytesMut::with_capacity(CHUNK), received: 0 };
    wire.send(startup).await?;
    let mut prologue = BytesMut::new();
    authenticate(&mut wire, authentication, keys, &mut prologue).await?;
    let mut key = None;
    let mut state = ServerState::default();
    loop {
        let frame = wire.frame().await?;
        if frame.first() == Some(&b'E') {
            return Err(Failure::Refused(Refusal::read(prologue.freeze(), frame.freeze(), true)));
        }
        prologue.extend_from_slice(&frame);
        match frame.first() {
            Some(b'S') => state.note(body(&frame)),
            Some(b'N' | b'A') => {}
            Some(b'K') if key.is_none() => key = CancelRequest::from_backend_key_data(body(&frame)),
            Some(b'Z') => return Ok(Ready { prologue, key, rest: wire.buffer, state }),
            _ => return Err(Failure::Protocol(Fault::Unexpected)),
        }
    }
}

/// Sends leasehold's own query after the first ReadyForQuery. Returns the first column of the first row, empty if there
/// is no row. The client sees none of it; unrelated messages stay in `rest`, for the client. Not cancel safe.
pub(super) async fn ask<S>(stream: &mut S, sql: &str, rest: &mut BytesMut) -> Result<BytesMut, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire { stream, buffer: std::mem::take(rest), received: 0 };
    wire.send(&query(sql)).await?;
    let mut value = None;
    loop {
        let frame = wire.frame().await?;
        match frame.first() {
            Some(b'S' | b'N' | b'A') => rest.extend_from_slice(&frame),
            Some(b'D') if value.is_none() => value = Some(first_column(body(&frame))),
            // These are RowDescription and CommandComplete, or an error, after which there is no row.
            Some(b'T' | b'D' | b'C' | b'E') => {}
            Some(b'Z') => {
                rest.unsplit(wire.buffer);
                return Ok(value.unwrap_or_default());
            }
            _ => return Err(Failure::Protocol(Fault::Unexpected)),
        }
    }
}

/// What a command of leasehold's own was answered.
pub(super) struct Answer {
    /// The first column of the first row.
    pub(super) value: Option<BytesMut>,
    /// The server has reported another value of a parameter.
    pub(super) reported: bool,
}

/// Sends leasehold's own command, which must succeed with this command tag, and leave the session between transactions.
/// The client sees none of the answer. Not cancel safe.
pub(super) async fn command<S>(stream: &mut S, sql: &str, tag: &[u8]) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire { stream, buffer: BytesMut::new(), received: 0 };
    wire.send(&query(sql)).await?;
    let mut answer = Answer { value: None, reported: false };
    let mut done = false;
    loop {
        let frame = wire.frame().await?;
        match (frame.first(), body(&frame)) {
            (Some(b'S'), _) => answer.reported = true,
            (Some(b'N' | b'A' | b'T'), _) => {}
            (Some(b'D'), row) if !done && answer.value.is_none() => answer.value = Some(first_column(row)),
            (Some(b'C'), said) if !done && said.strip_suffix(&[0]) == Some(tag) => done = true,
            (Some(b'Z'), b"I") if done && wire.buffer.is_empty() => return Ok(answer),
            _ => return Err(Failure::Protocol(Fault::Unexpected)),
        }
    }
}

/// Reads the body of a DataRow: a count of columns, then each column with its length.
fn first_column(row: &[u8]) -> BytesMut {
    let length = row.get(2..6).and_then(|length| length.try_into().ok()).map_or(-1, i32::from_be_bytes);
    let end = usize::try_from(length).map_or(6, |length| length.saturating_add(6));
    row.get(6..end).unwrap_or_default().into()
}

/// Continues until AuthenticationOk, which ends `prologue`. An earlier notice is moved behind it, since libpq accepts
/// none before.
async fn authenticate<S>(
    wire: &mut Wire<'_, S>,
    mut authentication: Authentication<'_>,
    keys: &KeysOfUpstream,
    prologue: &mut BytesMut,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut notices = BytesMut::new();
    wire.first_answer().await?;
    loop {
        let frame = wire.frame().await?;
        match frame.first() {
            Some(b'R') => {
                let mut step = authentication.handle(body(&frame))?;
                if let Step::Derive { derivation, next } = step {
                    step = next.derived(keys.pair(derivation).await.map_err(Failure::NoKeys)?)?;
                }
                match step {
                    Step::Send { message, next } => {
                        wire.send(&message).await?;
                        authentication = next;
                    }
                    Step::Wait(next) | Step::Derive { next, .. } => authentication = next,
                    Step::Done => {
                        prologue.extend_from_slice(&frame);
                        prologue.extend_from_slice(&notices);
                        return Ok(());
                    }
                }
            }
            // NegotiateProtocolVersion
            Some(b'v') if prologue.is_empty() => prologue.extend_from_slice(&frame),
            Some(b'N') => notices.extend_from_slice(&frame),
            Some(b'E') => {
                // A client accepts no notice before AuthenticationOk.
                let before = std::mem::take(prologue).freeze();
                return Err(Failure::Refused(Refusal::read(before, frame.freeze(), false)));
            }
            _ => return Err(Failure::Protocol(Fault::Unexpected)),
        }
    }
}

/// Splits a stream into messages. It is no `AsyncRead`, so split and raw bytes cannot be mixed.
struct Wire<'a, S> {
    stream: &'a mut S,
    buffer: BytesMut,
    received: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<'_, S> {
    async fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(message).await.map_err(Failure::Lost)?;
        self.stream.flush().await.map_err(Failure::Lost)
    }

    /// Waits until the server's first answer is known to be a message, and consumes none of it. Plain text and other
    /// protocols are recognized only here: later, a password may have been sent, and the answer could repeat it.
    async fn first_answer(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(other) = OtherProtocol::of(&self.buffer) {
                return Err(Failure::Protocol(Fault::Other(other)));
            }
            match plain::is_text(&self.buffer) {
                Some(false) if matches!(self.buffer.first(), Some(b'R' | b'v' | b'N' | b'E')) => {
                    return Ok(());
                }
                Some(false) => return Err(Failure::Protocol(Fault::Unexpected)),
                Some(true) if self.buffer.contains(&0) || self.buffer.len() >= CHUNK => {
                    return Err(Failure::Said(plain::words(&self.buffer)));
                }
                Some(true) | None => {}
            }
            match self.more().await {
                Err(Failure::Closed) if self.buffer.first() == Some(&b'E') => {
                    return Err(Failure::Said(plain::words(&self.buffer)));
                }
                more => more?,
            }
        }
    }

    /// Reads one whole message. Memory grows with the received bytes, not with the claimed length.
    async fn frame(&mut self) -> Result<BytesMut, Failure> {
        loop {
            if let Some(len) = frame_len(&self.buffer).map_err(Failure::Protocol)?
                && self.buffer.len() >= len
            {
                return Ok(self.buffer.split_to(len));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Failure> {
        self.buffer.reserve(CHUNK);
        match self.stream.read_buf(&mut self.buffer).await.map_err(Failure::Lost)? {
            0 => return Err(Failure::Closed),
            read => self.received += read,
        }
        if self.received > MAX_RECEIVED {
            return Err(Failure::Protocol(Fault::TooLong));
        }
        Ok(())
    }
}

/// The length of the first message, with its type byte. `Ok(None)`: more bytes are needed.
fn frame_len(buffer: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[_, a, b, c, d]) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    match usize::try_from(u32::from_be_bytes([a, b, c, d])) {
        Ok(len) if len < 4 => Err(Fault::TooShort),
        Ok(len) if len < MAX_RECEIVED => Ok(Some(len + 1)),
        _ => Err(Fault::TooLong),
    }
}

pub(super) fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEADER..).unwrap_or_default()
}

/// Why the login failed.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    Auth(auth::Error),
    /// No thread could be started to derive keys.
    NoKeys(io::Error),
    /// The server sent plain text instead of a message.
    Said(String),
    Protocol(Fault),
    Closed,
    Lost(io::Error),
}

impl From<auth::Error> for Failure {
    fn from(error: auth::Error) -> Self {
        Self::Auth(error)
    }
}

/// How a server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A message is not valid in a login, or came twice.
    #[error("unexpected message")]
    Unexpected,
    /// A length is less than its own field.
    #[error("message with an impossible length")]
    TooShort,
    /// The server sent, or claims to send, more than a login can need.
    #[error("more than a mebibyte before the first ReadyForQuery")]
    TooLong,
    /// The server speaks another protocol.
    #[error("{0} answers at this address, and no PostgreSQL server")]
    Other(OtherProtocol),
}

/// The type byte and the length.
pub(super) const HEADER: usize = 5;

/// The bytes to read at once; the answer to a login fits.
const CHUNK: usize = 2048;

/// The maximum of bytes before ReadyForQuery: PostgreSQL sends less than 1 KiB, but notices may come too.
const MAX_RECEIVED: usize = 1 << 20;
