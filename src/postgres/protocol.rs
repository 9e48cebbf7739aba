//! The protocol itself, pure: bytes in, facts out. Floor 1.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol.html>

pub(crate) mod auth;
pub(crate) mod backend;
pub(crate) mod error_response;
pub(crate) mod fatal;
pub(crate) mod frame;
pub(crate) mod frontend;
pub(crate) mod phase;
pub(crate) mod plain;
pub(crate) mod startup;
pub(crate) mod written;
