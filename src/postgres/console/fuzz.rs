//! What a client of the console sends. Floor 4.

use bytes::BytesMut;

use super::statement;
use crate::postgres::protocol::frontend::{self, Frontend};

/// The text of statements, and messages.
pub(crate) fn statements(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(statement::statements(&text, "app", "leasehold").len() <= data.len());
    let mut buffer = BytesMut::from(data);
    loop {
        let before = buffer.clone();
        match frontend::parse(&mut buffer) {
            Ok(Some(message)) => {
                assert!(buffer.len() < before.len() && before.ends_with(&buffer));
                if let Frontend::Query(text) | Frontend::Parse { text, .. } = message {
                    let _ = statement::statements(&text, "app", "leasehold");
                }
            }
            Ok(None) => {
                assert_eq!(buffer, before, "nothing is taken of half a message");
                return;
            }
            Err(_) => return,
        }
    }
}
