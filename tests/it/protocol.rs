//! The start of a session, as clients of all kinds go about it.

mod ahead;
mod handshake;
mod parameters;
mod tls;
mod version;
