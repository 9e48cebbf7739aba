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
    #[cfg(test)]
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

/// A secret of 4 to 256 bytes: 4 under protocol 3.0, 32 from PostgreSQL 18 under 3.2. It is cleared on drop.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CancelKey(Zeroizing<Vec<u8>>);

impl CancelKey {
    /// `None`: the length is not allowed.
    #[must_use]
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        (4..=256).contains(&key.len()).then(|| Self(Zeroizing::new(key.to_vec())))
    }

    /// Exposes the bytes. Call it only where they are sent.
    #[must_use]
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
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
