//! Finds where the messages of one direction begin and end. Floor 1.
//!
//! The relay forwards chunks as they come; the scanner only reads them. It allocates nothing, and copies only a header
//! that is split across two chunks. [`super::phase`] interprets the messages.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

/// One message, as far as it has been received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// The message type.
    pub(crate) tag: u8,
    /// The length of the whole body in bytes.
    pub(crate) length: u32,
    /// The part of the body in the current chunk. For ReadyForQuery it is never empty, unless `length` is 0.
    pub(crate) body: &'a [u8],
}

/// Scans one direction of a session, from the first message after the startup.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    state: State,
}

impl Scanner {
    /// Scans the next bytes of the stream. Calls `on_frame` once for each message, as soon as its header is complete;
    /// for ReadyForQuery as soon as its status byte has come too.
    ///
    /// # Errors
    ///
    /// [`Error`]: the stream cannot be followed, so the connection must be closed. Earlier messages were reported, and
    /// [`Self::at_boundary`] says whether the whole message with the error is in this chunk, from [`Error::offset`] on.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut on_frame: impl FnMut(Frame<'_>)) -> Result<(), Error> {
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = match self.state {
                State::Header { bytes, filled } => match fill(bytes, filled, rest) {
                    Ok((header, after)) => self
                        .enter(header, after, &mut on_frame)
                        .map_err(|error| Error { offset: chunk.len() - rest.len(), ..error })?,
                    Err(partial) => {
                        self.state = partial;
                        return Ok(());
                    }
                },
                State::Held { tag, length } => self.report(tag, length, rest, &mut on_frame),
                State::Body { left } => self.pass(left, rest),
                State::Lost => return Ok(()),
            };
        }
        Ok(())
    }

    /// Stops scanning. All later bytes are ignored, and [`Self::at_boundary`] stays false.
    pub(crate) fn give_up(&mut self) {
        self.state = State::Lost;
    }

    /// Whether [`Self::give_up`] was called.
    #[must_use]
    pub(crate) fn has_given_up(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Whether the bytes so far end with a complete message.
    #[must_use]
    pub(crate) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Header { filled: 0, .. })
    }

    /// How many of the chunk's bytes belong to the current message; 0 at a boundary. Consumes nothing: feed exactly
    /// those bytes, and ask [`Self::at_boundary`] whether the message is complete.
    #[must_use]
    pub(crate) fn to_boundary(&self, chunk: &[u8]) -> usize {
        match self.state {
            State::Header { filled: 0, .. } => 0,
            State::Header { bytes, filled } => match fill(bytes, filled, chunk) {
                // An invalid length ends the message with its header; `feed` then returns the error.
                Ok((header, after)) => {
                    let body = body_length(header).map_or(0, |length| front(after, length).len());
                    chunk.len() - after.len() + body
                }
                Err(_) => chunk.len(),
            },
            State::Held { length: left, .. } | State::Body { left } => front(chunk, left).len(),
            State::Lost => chunk.len(),
        }
    }

    fn enter<'a>(
        &mut self,
        header: [u8; HEADER],
        after: &'a [u8],
        on_frame: &mut impl FnMut(Frame<'_>),
    ) -> Result<&'a [u8], Error> {
        let [tag, ..] = header;
        let length = body_length(header)?;
        if tag == READY_FOR_QUERY && after.is_empty() && length > 0 {
            self.state = State::Held { tag, length };
            return Ok(after);
        }
        Ok(self.report(tag, length, after, on_frame))
    }

    fn report<'a>(
        &mut self,
        tag: u8,
        length: u32,
        rest: &'a [u8],
        on_frame: &mut impl FnMut(Frame<'_>),
    ) -> &'a [u8] {
        on_frame(Frame { tag, length, body: front(rest, length) });
        self.pass(length, rest)
    }

    fn pass<'a>(&mut self, left: u32, rest: &'a [u8]) -> &'a [u8] {
        let here = front(rest, left).len();
        // `here` is at most `left`, so it fits.
        let left = left - u32::try_from(here).unwrap_or(left);
        self.state = if left == 0 { State::default() } else { State::Body { left } };
        rest.get(here..).unwrap_or_default()
    }
}

/// A length that no PostgreSQL message can have. Who is to blame depends on the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of type {tag:#04x} claims a length of {length} bytes")]
pub(crate) struct Error {
    /// The message type.
    pub(crate) tag: u8,
    /// The received length field, which should count itself.
    pub(crate) length: u32,
    /// How many of the chunk's bytes belong to earlier messages.
    pub(crate) offset: usize,
}

/// ```text
///              header whole                   body passed
///   Header ─────────────────────────▶ Body ────────────────▶ Header
///      │  ReadyForQuery, and the        ▲
///      │  chunk ends with its header    │ first byte
///      └─────────────────────▶ Held ────┘
/// ```
///
/// `Header` with `filled: 0` is the boundary between two messages. [`Scanner::give_up`] leads from any state to `Lost`.
#[derive(Clone, Copy, Debug)]
enum State {
    /// `filled` bytes of the next header have come.
    Header { bytes: [u8; HEADER], filled: u8 },
    /// The header has come but is not yet reported, because the first byte of the body is needed.
    Held { tag: u8, length: u32 },
    /// `left` bytes of the body are still to come; at least 1.
    Body { left: u32 },
    /// Scanning has stopped.
    Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER], filled: 0 }
    }
}

/// Returns the complete header and the bytes after it, or the state with a partial header.
fn fill(bytes: [u8; HEADER], filled: u8, chunk: &[u8]) -> Result<([u8; HEADER], &[u8]), State> {
    if filled == 0
        && let Some((header, after)) = chunk.split_first_chunk()
    {
        return Ok((*header, after));
    }
    let mut header = bytes;
    let mut rest = chunk;
    for (now_filled, slot) in (filled..).zip(header.iter_mut().skip(usize::from(filled))) {
        let Some((byte, after)) = rest.split_first() else {
            return Err(State::Header { bytes: header, filled: now_filled });
        };
        *slot = *byte;
        rest = after;
    }
    Ok((header, rest))
}

fn body_length([tag, length @ ..]: [u8; HEADER]) -> Result<u32, Error> {
    let length = u32::from_be_bytes(length);
    match length.checked_sub(LENGTH_FIELD) {
        Some(body) if length <= MAX_LENGTH => Ok(body),
        _ => Err(Error { tag, length, offset: 0 }),
    }
}

fn front(bytes: &[u8], most: u32) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    bytes.get(..most).unwrap_or(bytes)
}

/// A type byte and a length that counts itself.
const HEADER: usize = 5;
const LENGTH_FIELD: u32 = 4;
/// The length field is a signed int32.
const MAX_LENGTH: u32 = i32::MAX.unsigned_abs();
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY>
const READY_FOR_QUERY: u8 = b'Z';
