//! Messages without secrets that leasehold itself sends to a server; pgwire encodes them. Our own code encodes messages
//! with secrets, because pgwire's types show what they hold. Floor 1.

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::SslRequest;
use pgwire::messages::terminate::{MESSAGE_TYPE_BYTE_TERMINATE, Terminate};

/// The message type of Terminate.
pub(crate) const TERMINATE: u8 = MESSAGE_TYPE_BYTE_TERMINATE;

/// Terminate as it stands on the wire.
pub(crate) const TERMINATE_MESSAGE: [u8; 5] = [TERMINATE, 0, 0, 0, 4];

/// Encodes Terminate, which ends a session.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-TERMINATE>
#[must_use]
pub(crate) fn terminate() -> BytesMut {
    encoded(&Terminate::new())
}

/// Encodes SSLRequest, which asks a server for TLS.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST>
#[must_use]
pub(crate) fn ssl_request() -> BytesMut {
    encoded(&SslRequest::new())
}

/// Encodes a Query. `sql` must have no NUL.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-QUERY>
#[must_use]
pub(crate) fn query(sql: &str) -> BytesMut {
    encoded(&Query::new(sql.to_owned()))
}

pub(super) fn encoded(message: &impl Message) -> BytesMut {
    let mut encoded = BytesMut::with_capacity(64);
    #[expect(clippy::expect_used, reason = "encoding one of these messages has no case that fails")]
    message.encode(&mut encoded).expect("its text fits into a message");
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_manual_has_them() {
        assert_eq!(terminate(), b"X\0\0\0\x04".as_slice());
        assert_eq!(terminate(), TERMINATE_MESSAGE.as_slice());
        assert_eq!(ssl_request(), [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f].as_slice());
        assert_eq!(query("SELECT 1"), b"Q\0\0\0\x0dSELECT 1\0".as_slice());
    }
}
