//! The packets that open a connection. They have a length and a code, but no type byte. Floor 1.
//!
//! [`super::frame`] has the typed messages that follow, and [`super::auth`] the authentication.

use std::borrow::Cow;

use bytes::{Buf as _, BytesMut};

use super::fatal::{Fatal, SqlState};
use crate::error::Blame;

mod cancel;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod message;
#[cfg(test)]
mod tests;

pub(crate) use cancel::CancelRequest;
pub(crate) use message::StartupMessage;

/// The maximum number of bytes after the length field of a startup packet, as in PostgreSQL.
///
/// Source: `MAX_STARTUP_PACKET_LENGTH`,
/// <https://github.com/postgres/postgres/blob/master/src/include/libpq/pqcomm.h>
pub(crate) const MAX_STARTUP: usize = 10_000;

/// The name of the protocol in TLS's ALPN.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
pub(crate) const ALPN: &[u8] = b"postgresql";

/// A packet with which a client can open a connection.
#[derive(Debug)]
pub(crate) enum Packet {
    /// The client requests TLS. The answer is one byte, `S` or `N`. After `S` the buffer must be empty: bytes from
    /// before the handshake have an unknown sender (CVE-2021-23214).
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST>
    SslRequest,
    /// The client requests GSSAPI encryption. The answer is one byte, `G` or `N`.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-GSSENCREQUEST>
    GssEncRequest,
    /// The client asks to cancel the statement of another connection. There is no reply.
    Cancel(CancelRequest),
    /// The client requests a session.
    Startup(StartupMessage),
}

/// Takes one packet from the front of `buf` and leaves the bytes after it.
///
/// `Ok(None)`: more bytes are needed, and nothing was taken. `Err`: the connection must be closed.
///
/// # Errors
///
/// [`Error`] lists them; PostgreSQL refuses most of these packets too.
pub(crate) fn parse(buf: &mut BytesMut) -> Result<Option<Packet>, Error> {
    if buf.first() == Some(&TLS_HANDSHAKE) {
        return Err(Error::DirectTls);
    }
    let Some(length) = buf.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else {
        return Ok(None);
    };
    let body_length = match usize::try_from(length).unwrap_or(usize::MAX).checked_sub(LENGTH_FIELD) {
        Some(n) if n > MAX_STARTUP => return Err(Error::TooLong { length }),
        Some(n) if n >= CODE_FIELD => n,
        _ => return Err(Error::TooShort { length }),
    };
    if buf.len() < LENGTH_FIELD + body_length {
        return Ok(None);
    }
    buf.advance(LENGTH_FIELD);
    let mut body = buf.split_to(body_length);
    match body.get_u32() {
        // The bytes after the code are ignored, as in PostgreSQL (`ProcessStartupPacket`).
        SSL_REQUEST => Ok(Some(Packet::SslRequest)),
        GSS_ENC_REQUEST => Ok(Some(Packet::GssEncRequest)),
        CANCEL_REQUEST => match CancelRequest::from_backend_key_data(&body) {
            Some(request) => Ok(Some(Packet::Cancel(request))),
            None => Err(Error::CancelKey { length: body.len() }),
        },
        protocol if protocol >> 16 == 3 => {
            StartupMessage::parse(protocol, body.freeze()).map(Packet::Startup).map(Some)
        }
        protocol => Err(Error::unknown_protocol(protocol)),
    }
}

/// Why a startup packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The packet is longer than [`MAX_STARTUP`] allows. Text of another protocol looks like this too.
    #[error("a startup packet of {length} bytes is too long")]
    TooLong {
        /// The length that the packet claims.
        length: u32,
    },
    /// The packet is too short to hold a code.
    #[error("a startup packet of {length} bytes is too short")]
    TooShort {
        /// The length that the packet claims.
        length: u32,
    },
    /// The client sent a TLS ClientHello without an SSLRequest (`sslnegotiation=direct`).
    #[error("the client began with a TLS handshake")]
    DirectTls,
    /// The code is neither a known request nor a known version, or the request is no longer allowed.
    #[error("unknown protocol {major}.{minor}")]
    UnknownProtocol {
        /// The upper half of the code.
        major: u32,
        /// The lower half of the code.
        minor: u32,
    },
    /// Names and values do not end where the packet ends.
    #[error("malformed startup packet")]
    Malformed,
    /// The user name is missing or empty.
    #[error("no user name in the startup packet")]
    MissingUser,
    /// The key of a CancelRequest is not 4 to 256 bytes long.
    #[error("a cancel request with {length} bytes of process id and key")]
    CancelKey {
        /// The number of bytes after the code.
        length: usize,
    },
    /// With what leasehold adds, the packet for the upstream is longer than [`MAX_STARTUP`] allows.
    #[error("the startup packet for the upstream is too long")]
    RewrittenTooLong,
    /// A name or value for the upstream holds a NUL byte.
    #[error("a NUL byte in a startup parameter for the upstream")]
    Nul,
}

impl Error {
    /// The error for an SSLRequest that is no longer allowed: PostgreSQL then takes its code for a version.
    #[must_use]
    pub(crate) fn late_ssl_request() -> Self {
        Self::unknown_protocol(SSL_REQUEST)
    }

    /// The same for a GSSENCRequest.
    #[must_use]
    pub(crate) fn late_gss_enc_request() -> Self {
        Self::unknown_protocol(GSS_ENC_REQUEST)
    }

    fn unknown_protocol(code: u32) -> Self {
        Self::UnknownProtocol { major: code >> 16, minor: code & 0xffff }
    }

    /// Who has to act.
    #[must_use]
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::TooLong { .. }
            | Self::TooShort { .. }
            | Self::DirectTls
            | Self::UnknownProtocol { .. }
            | Self::Malformed
            | Self::MissingUser
            | Self::CancelKey { .. }
            | Self::RewrittenTooLong => Blame::Client,
            Self::Nul => Blame::Config,
        }
    }

    /// The error for the client, in PostgreSQL's words if it has any (`ProcessStartupPacket`). `None`: the client could
    /// not read an error, or does not wait for an answer.
    #[must_use]
    pub(crate) fn fatal(&self) -> Option<Fatal> {
        let (sqlstate, message, hint) = match self {
            Self::DirectTls | Self::CancelKey { .. } => return None,
            // PostgreSQL only logs this. A driver that closes before the startup sends a Terminate here, and takes an
            // answer to that for a broken connection.
            Self::TooLong { .. } | Self::TooShort { .. } => return None,
            Self::Malformed => (
                SqlState::ProtocolViolation,
                "invalid startup packet layout: expected terminator as last byte".into(),
                None,
            ),
            Self::UnknownProtocol { major, minor } => (
                SqlState::FeatureNotSupported,
                format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2").into(),
                None,
            ),
            Self::MissingUser => (
                SqlState::InvalidAuthorizationSpecification,
                Cow::Borrowed("no PostgreSQL user name specified in startup packet"),
                None,
            ),
            Self::RewrittenTooLong => (
                SqlState::ProtocolViolation,
                "startup packet too long".into(),
                Some("Shorten the startup parameters."),
            ),
            Self::Nul => {
                (SqlState::ConnectionFailure, "the startup packet cannot be sent upstream".into(), None)
            }
        };
        Some(Fatal { sqlstate, message, detail: None, hint })
    }

    /// Whether the client knows the messages of protocol 3. Others get the error in the older format. Version 0.0
    /// counts as protocol 3.
    #[must_use]
    pub(crate) fn knows_protocol_3(&self) -> bool {
        match self {
            Self::UnknownProtocol { major, minor } => *major >= 3 || (*major, *minor) == (0, 0),
            _ => true,
        }
    }
}

/// Bytes of the length field, which counts itself.
const LENGTH_FIELD: usize = 4;
/// Bytes of the code or protocol version that follows.
const CODE_FIELD: usize = 4;
/// The content type of a TLS handshake record: <https://www.rfc-editor.org/rfc/rfc8446#section-5.1>. As the first byte
/// of a length it would mean at least 352 MiB.
const TLS_HANDSHAKE: u8 = 0x16;
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CANCELREQUEST>
const CANCEL_REQUEST: u32 = 80_877_102;
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST>
const SSL_REQUEST: u32 = 80_877_103;
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-GSSENCREQUEST>
const GSS_ENC_REQUEST: u32 = 80_877_104;
