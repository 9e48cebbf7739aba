//! A connection that has been read from ahead of its use. Floor 4.

use bytes::BytesMut;

/// A connection, and what has been read from it and not used yet.
pub(crate) struct Buffered<S> {
    pub(crate) stream: S,
    /// It comes before all that `stream` still holds.
    pub(crate) buffer: BytesMut,
}

impl<S> Buffered<S> {
    /// A connection from which nothing has been read.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }
}
