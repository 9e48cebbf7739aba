//! The packets that open a connection: no tag byte, a length, a code. Floor 1.
//!
//! Not here: the typed messages that follow ([`super::frame`]) and the password exchange ([`super::auth`]).

use std::borrow::Cow;

use bytes::{Buf as _, BytesMut};

use super::fatal::{Fatal, SqlState};
use crate::error::Blame;

mod cancel;
mod message;
#[cfg(test)]
mod tests;

pub(crate) use cancel::CancelRequest;
pub(crate) use message::StartupMessage;

/// The most bytes that may follow the length field of a startup packet; PostgreSQL's own bound.
///
/// Source: `MAX_STARTUP_PACKET_LENGTH`,
/// <https://github.com/postgres/postgres/blob/master/src/include/libpq/pqcomm.h>
pub(crate) const MAX_STARTUP: usize = 10_000;

/// What the protocol is called where TLS asks for its name.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
pub(crate) const ALPN: &[u8] = b"postgresql";

/// What a client can open a connection with.
#[derive(Debug)]
pub(crate) enum Packet {
    /// The client asks for TLS; the answer is one byte, `S` or `N`. After `S` no byte may be left in the buffer:
    /// what came before the handshake is from an unknown sender (CVE-2021-23214).
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST>
    SslRequest,
    /// The client asks for GSSAPI encryption; the answer is one byte, `G` or `N`.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-GSSENCREQUEST>
    GssEncRequest,
    /// The client asks to cancel what another connection runs; nothing is answered.
    Cancel(CancelRequest),
    /// The client wants a session.
    Startup(StartupMessage),
}

/// Takes one packet from the front of `buf` and leaves what follows it.
///
/// `Ok(None)`: more bytes are needed, nothing was taken. `Err`: the connection is dead.
///
/// # Errors
///
/// Whatever PostgreSQL would refuse too, and what [`Error`] lists.
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
        // What follows the code is passed over, as by PostgreSQL (`ProcessStartupPacket`).
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
    /// Longer than [`MAX_STARTUP`] allows; also what any other protocol's text looks like.
    #[error("a startup packet of {length} bytes is too long")]
    TooLong {
        /// As the packet claims.
        length: u32,
    },
    /// Too short to hold a code.
    #[error("a startup packet of {length} bytes is too short")]
    TooShort {
        /// As the packet claims.
        length: u32,
    },
    /// A TLS ClientHello with no SSLRequest before it (`sslnegotiation=direct`).
    #[error("the client began with a TLS handshake")]
    DirectTls,
    /// Neither a request code nor a version that is known, or a request where none may be any more.
    #[error("unknown protocol {major}.{minor}")]
    UnknownProtocol {
        /// The upper half of the code.
        major: u32,
        /// The lower half of the code.
        minor: u32,
    },
    /// Names and values do not end where the packet ends, or a request has a body.
    #[error("malformed startup packet")]
    Malformed,
    /// No user name, or an empty one.
    #[error("no user name in the startup packet")]
    MissingUser,
    /// A CancelRequest whose key is not 4 to 256 bytes long.
    #[error("a cancel request with {length} bytes of process id and key")]
    CancelKey {
        /// Bytes after the code.
        length: usize,
    },
    /// What leasehold puts into the packet for the upstream made it longer than [`MAX_STARTUP`] allows.
    #[error("the startup packet for the upstream is too long")]
    RewrittenTooLong,
    /// A name or value for the upstream holds a NUL byte.
    #[error("a NUL byte in a startup parameter for the upstream")]
    Nul,
}

impl Error {
    /// That TLS is asked for where that may not be any more: PostgreSQL takes the code for a version then.
    #[must_use]
    pub(crate) fn late_ssl_request() -> Self {
        Self::unknown_protocol(SSL_REQUEST)
    }

    /// The same of GSSAPI encryption.
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

    /// What the client sees, in PostgreSQL's own words where PostgreSQL has any (`ProcessStartupPacket`); `None`: it could
    /// not read it, or does not wait for an answer.
    #[must_use]
    pub(crate) fn fatal(&self) -> Option<Fatal> {
        let (sqlstate, message, hint) = match self {
            Self::DirectTls | Self::CancelKey { .. } => return None,
            // PostgreSQL says it in its log alone. A driver that closes before it has opened sends a Terminate here, and
            // takes an answer to that for a broken connection.
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

    /// Whether the client knows the messages of protocol 3; the others are told in the way of those before. Version 0.0
    /// is none at all.
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
/// of a length it would mean a third of a gibibyte.
const TLS_HANDSHAKE: u8 = 0x16;
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CANCELREQUEST>
const CANCEL_REQUEST: u32 = 80_877_102;
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST>
const SSL_REQUEST: u32 = 80_877_103;
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-GSSENCREQUEST>
const GSS_ENC_REQUEST: u32 = 80_877_104;
