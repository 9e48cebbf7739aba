//! The protocol itself, pure: bytes in, facts out. Floor 1.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol.html>

pub mod auth;
pub mod error_response;
pub mod frame;
pub mod phase;
pub mod plain;
pub mod startup;
