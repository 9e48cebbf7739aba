//! Sockets that are listened on, whoever listens: their files, the connections that they take, the descriptors behind
//! both; and the connection itself, on either side. Nothing here knows what is said on a connection. Floor 2.

mod address;
mod bound;
mod client;
mod connections;
pub(crate) mod descriptors;
mod stream;
mod unix;

use std::io;

pub(crate) use address::Address;
pub(crate) use bound::Bound;
pub(crate) use client::Client;
pub(crate) use connections::{Connections, Peer, Progress};
pub(crate) use stream::{Stream, Tls};
pub(crate) use unix::{Error, UnixSocket};

/// A client that gave up while it waited to be accepted, or whose socket has already failed.
#[must_use]
pub(crate) fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Interrupted
    )
}
