//! Sockets that listen: their addresses and files, the connections that they accept, the file descriptors that both
//! need; and the connection itself, on either side. It does not know the protocol on a connection. Floor 2.

mod address;
mod bound;
mod client;
mod connections;
pub(crate) mod descriptors;
mod holder;
mod networks;
mod stream;
mod unix;

use std::io;

use crate::error::Limited;

pub(crate) use address::Address;
pub(crate) use bound::Bound;
pub(crate) use client::{Client, ClientAddress, User};
pub(crate) use connections::{Connections, Peer, Progress};
pub(crate) use holder::Holder;
pub(crate) use networks::{AllowedNetworks, Network, NetworkError};
pub(crate) use stream::{Stream, Tls};
pub(crate) use unix::{Error, UnixSocket};

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The file descriptors that are left are kept for leases.
    NoDescriptors,
    /// Too many others are on their way to say what they want.
    Handshakes(Limited),
    /// It may not connect from its address.
    Address,
}

/// Whether the client caused the error: it gave up before it was accepted, or its socket has failed.
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
