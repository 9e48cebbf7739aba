//! The key that cancels a session's statement, and the CancelRequest that carries it. Floor 1.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::{BufMut as _, BytesMut};
use secrecy::zeroize::Zeroizing;

use super::CANCEL_REQUEST;

/// A process id and its key, which form the body of both BackendKeyData and CancelRequest.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CANCELREQUEST>
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CancelRequest {
    /// The server's process id, or its substitute in a key that a proxy made.
    pub(crate) process_id: i32,
    /// The secret that proves that the request comes from the session's client.
    pub(crate) key: CancelKey,
}

impl CancelRequest {
    /// Parses the body of BackendKeyData. `None`: there is no process id, or the key's length is not allowed.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BACKENDKEYDATA>
    #[must_use]
    pub(crate) fn from_backend_key_data(body: &[u8]) -> Option<Self> {
        let (process_id, key) = body.split_first_chunk()?;
        Some(Self { process_id: i32::from_be_bytes(*process_id), key: CancelKey::new(key)? })
    }

    /// The same process id with another key of the same length, which `fill` writes.
    #[must_use]
    pub(crate) fn with_other_key(&self, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut other = self.clone();
        fill(match &mut other.key.0 {
            Bytes::Four(key) => &mut key[..],
            Bytes::More(key) => key,
        });
        other
    }

    /// Encodes the CancelRequest, which is sent over a connection of its own.
    #[must_use]
    pub(crate) fn encode(&self) -> BytesMut {
        let mut packet = BytesMut::with_capacity(12 + self.key.expose().len());
        put_length(&mut packet, 12 + self.key.expose().len());
        packet.put_u32(CANCEL_REQUEST);
        self.put_body(packet)
    }

    /// Encodes BackendKeyData for a client. A client of protocol 3.0 must only get a key of 4 bytes.
    #[must_use]
    pub(crate) fn backend_key_data(&self) -> BytesMut {
        let mut message = BytesMut::with_capacity(9 + self.key.expose().len());
        message.put_u8(b'K');
        put_length(&mut message, 8 + self.key.expose().len());
        self.put_body(message)
    }

    fn put_body(&self, mut to: BytesMut) -> BytesMut {
        to.put_i32(self.process_id);
        to.put_slice(self.key.expose());
        to
    }
}

/// A secret of 4 to 256 bytes: 4 under protocol 3.0, 32 from PostgreSQL 18 under 3.2. It is cleared on
/// drop; one of four bytes leaves copies where it was moved from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CancelKey(Bytes);

/// A key of protocol 3.0 needs no memory of its own: there is one for each session.
#[derive(Clone, PartialEq, Eq)]
enum Bytes {
    Four(Zeroizing<[u8; 4]>),
    More(Zeroizing<Box<[u8]>>),
}

impl CancelKey {
    /// `None`: the length is not allowed.
    #[must_use]
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let bytes = || match key.try_into() {
            Ok(key) => Bytes::Four(Zeroizing::new(key)),
            Err(_) => Bytes::More(Zeroizing::new(key.into())),
        };
        (4..=256).contains(&key.len()).then(|| Self(bytes()))
    }

    /// Exposes the bytes. Call it only where they are sent.
    #[must_use]
    pub(crate) fn expose(&self) -> &[u8] {
        match &self.0 {
            Bytes::Four(key) => &key[..],
            Bytes::More(key) => key,
        }
    }
}

impl Hash for CancelKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelKey([redacted])")
    }
}

fn put_length(to: &mut BytesMut, length: usize) {
    // A key has at most 256 bytes, so the length always fits.
    to.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}
