//! Recognizes answers that are not PostgreSQL messages: the plain text of a server that cannot start a process, and
//! other protocols at the same port. Floor 1.
//!
//! Source: `report_fork_failure_to_client`, <https://github.com/postgres/postgres/blob/master/src/backend/postmaster/postmaster.c>;
//! how libpq reads it: `PQconnectPoll`, <https://github.com/postgres/postgres/blob/master/src/interfaces/libpq/fe-connect.c>

use std::fmt;

use super::error_response::Fields;

/// Another protocol, recognized by the first bytes of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherProtocol {
    Http,
    Ssh,
    /// TLS from the first byte, as with HTTPS.
    Tls,
}

impl OtherProtocol {
    /// Recognizes a protocol by the first bytes of an answer.
    #[must_use]
    pub(crate) fn of(answer: &[u8]) -> Option<Self> {
        match answer {
            [b'H', b'T', b'T', b'P', b'/', ..] => Some(Self::Http),
            [b'S', b'S', b'H', b'-', ..] => Some(Self::Ssh),
            [TLS_ALERT, TLS_MAJOR_VERSION, ..] => Some(Self::Tls),
            _ => None,
        }
    }
}

impl fmt::Display for OtherProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "an HTTP server",
            Self::Ssh => "an SSH server",
            Self::Tls => "a server that takes TLS from the first byte, such as an HTTPS server,",
        })
    }
}

/// Whether the answer is an `E` with plain text instead of a length; `None`: more bytes are needed. libpq has the same
/// rule: no text begins with bytes that form such a length.
#[must_use]
pub(crate) fn is_text(answer: &[u8]) -> Option<bool> {
    let (tag, rest) = answer.split_first()?;
    let length = u32::from_be_bytes(*rest.first_chunk()?);
    Some(*tag == b'E' && !(SHORTEST_ERROR..=LONGEST_ERROR).contains(&length))
}

/// The text of an `E` of either form, as far as it has come: one line, without control characters, truncated.
#[must_use]
pub(crate) fn words(answer: &[u8]) -> String {
    let text = match is_text(answer) {
        Some(false) => Fields::new(answer.get(5..).unwrap_or_default()).message().unwrap_or_default(),
        Some(true) | None => {
            answer.get(1..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default()
        }
    };
    let text = String::from_utf8_lossy(text);
    let text = text.trim_start_matches("FATAL:");
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(LONGEST_WORDS).collect()
}

const SHORTEST_ERROR: u32 = 8;
const LONGEST_ERROR: u32 = 30_000;
/// The maximum in characters; PostgreSQL's own texts have less than a hundred.
const LONGEST_WORDS: usize = 500;
/// <https://www.rfc-editor.org/rfc/rfc8446#section-5.1>
const TLS_ALERT: u8 = 0x15;
const TLS_MAJOR_VERSION: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_a_message_by_what_would_be_its_length() {
        assert_eq!(is_text(b"Ecoul"), Some(true));
        assert_eq!(is_text(b"E\0\0\0\x07"), Some(true));
        assert_eq!(is_text(b"E\0\0\0\x08"), Some(false));
        assert_eq!(is_text(b"E\0\0\x75\x30"), Some(false));
        assert_eq!(is_text(b"E\0\0\x75\x31"), Some(true));
        assert_eq!(is_text(b"Eabc"), None);
        assert_eq!(is_text(b"R\0\0\0\x04"), Some(false));
    }

    #[test]
    fn words_are_one_clean_line() {
        assert_eq!(
            words(b"Ecould not fork\x1b[2J:\r\n no\xff room\n\0junk"),
            "could not fork [2J: no\u{fffd} room"
        );
        assert_eq!(words(b"EFATAL:  unsupported frontend protocol\n"), "unsupported frontend protocol");
        assert_eq!(words(b"E\0\0\0\x20SFATAL\0C57P03\0Mstarting\0\0"), "starting");
        assert_eq!(words(&[b"E".as_slice(), &[b'x'; 9_000]].concat()).len(), LONGEST_WORDS);
        assert_eq!(words(b"E"), "");
    }

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        assert_eq!(OtherProtocol::of(b"HTTP/1.1 400 Bad Request"), Some(OtherProtocol::Http));
        assert_eq!(OtherProtocol::of(b"SSH-2.0-OpenSSH_9.2p1"), Some(OtherProtocol::Ssh));
        assert_eq!(OtherProtocol::of(b"\x15\x03\x01\0\x02\x02\x46"), Some(OtherProtocol::Tls));
        assert_eq!(OtherProtocol::of(b"R\0\0\0\x08"), None);
    }
}
