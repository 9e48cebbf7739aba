//! Messages of a client, as far as leasehold's console reads them. Floor 1.
//!
//! pgwire's own decoders read beyond a message that is malformed, or panic; these have its body alone.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use bytes::{Buf as _, Bytes, BytesMut};

use super::backend::Format;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    /// Text of one or more statements.
    Query(String),
    Parse {
        statement: Bytes,
        text: String,
    },
    Bind {
        portal: Bytes,
        statement: Bytes,
        parameters: usize,
        /// None, one for all columns, or one for each.
        formats: Vec<Format>,
    },
    Describe(Target),
    Execute {
        portal: Bytes,
        /// 0: all.
        most: usize,
    },
    Close(Target),
    Flush,
    Sync,
    Terminate,
    /// A piece of a COPY, which PostgreSQL ignores where there is none.
    Copy,
    /// A call of a function by its OID.
    FunctionCall,
}

/// What Describe and Close name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement(Bytes),
    Portal(Bytes),
}

/// Why a message cannot be read. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a message of type {0:#04x} is malformed")]
    Malformed(u8),
    #[error("a message of type {0:#04x} is longer than {MAX_BODY} bytes")]
    TooLong(u8),
    #[error("a message has the unknown type {0:#04x}")]
    Unknown(u8),
}

/// Takes one message from the front of `buffer`, and leaves the bytes behind it.
///
/// `Ok(None)`: more bytes are needed, and nothing was taken.
///
/// # Errors
///
/// [`Error`] lists them.
pub(crate) fn parse(buffer: &mut BytesMut) -> Result<Option<Frontend>, Error> {
    let Some((&tag, rest)) = buffer.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let body = match length.checked_sub(LENGTH_FIELD) {
        Some(body) if body > MAX_BODY => return Err(Error::TooLong(tag)),
        Some(body) => body,
        None => return Err(Error::Malformed(tag)),
    };
    if buffer.len() < 1 + length {
        return Ok(None);
    }
    buffer.advance(1 + LENGTH_FIELD);
    let body = buffer.split_to(body).freeze();
    if !KNOWN.contains(&tag) {
        return Err(Error::Unknown(tag));
    }
    message(tag, body).map(Some).ok_or(Error::Malformed(tag))
}

fn message(tag: u8, mut body: Bytes) -> Option<Frontend> {
    let message = match tag {
        b'Q' => Frontend::Query(text(&mut body)?),
        b'P' => {
            let (statement, text) = (string(&mut body)?, text(&mut body)?);
            let types = count(&mut body)?;
            skip(&mut body, types.checked_mul(4)?)?;
            Frontend::Parse { statement, text }
        }
        b'B' => bind(&mut body)?,
        b'D' => Frontend::Describe(target(&mut body)?),
        b'E' => {
            let (portal, most) = (string(&mut body)?, body.try_get_i32().ok()?);
            Frontend::Execute { portal, most: usize::try_from(most).unwrap_or(0) }
        }
        b'C' => Frontend::Close(target(&mut body)?),
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'F' => return Some(Frontend::FunctionCall),
        _ => return Some(Frontend::Copy),
    };
    body.is_empty().then_some(message)
}

fn bind(body: &mut Bytes) -> Option<Frontend> {
    let (portal, statement) = (string(body)?, string(body)?);
    let codes = count(body)?;
    skip(body, codes.checked_mul(2)?)?;
    let parameters = count(body)?;
    for _ in 0..parameters {
        // A null has the length -1, and no bytes.
        let length = body.try_get_i32().ok()?;
        skip(body, usize::try_from(length).unwrap_or(0))?;
    }
    let formats = count(body)?;
    let formats = (0..formats).map(|_| Format::of(body.try_get_i16().ok()?)).collect::<Option<_>>()?;
    Some(Frontend::Bind { portal, statement, parameters, formats })
}

fn target(body: &mut Bytes) -> Option<Target> {
    match body.try_get_u8().ok()? {
        b'S' => Some(Target::Statement(string(body)?)),
        b'P' => Some(Target::Portal(string(body)?)),
        _ => None,
    }
}

/// Up to the NUL, which is taken too.
fn string(body: &mut Bytes) -> Option<Bytes> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let string = body.split_to(end);
    body.advance(1);
    Some(string)
}

/// Bytes that are no UTF-8 are in no statement that the console knows.
fn text(body: &mut Bytes) -> Option<String> {
    Some(String::from_utf8_lossy(&string(body)?).into_owned())
}

fn count(body: &mut Bytes) -> Option<usize> {
    usize::try_from(body.try_get_i16().ok()?).ok()
}

fn skip(body: &mut Bytes, bytes: usize) -> Option<()> {
    (body.len() >= bytes).then(|| body.advance(bytes))
}

/// Bytes of the length field, which counts itself.
const LENGTH_FIELD: usize = 4;
/// No statement of the console is nearly as long.
const MAX_BODY: usize = 64 * 1024;
const KNOWN: &[u8] = b"QPBDECHSXFdcf";

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::*;

    fn framed(tag: u8, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u8(tag);
        out.put_u32(u32::try_from(body.len() + 4).unwrap());
        out.extend_from_slice(body);
        out
    }

    fn one(tag: u8, body: &[u8]) -> Result<Option<Frontend>, Error> {
        parse(&mut framed(tag, body))
    }

    const BIND: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";

    #[test]
    fn messages_are_as_the_manual_has_them() {
        assert_eq!(one(b'Q', b"SHOW x\0"), Ok(Some(Frontend::Query("SHOW x".to_owned()))));
        let parsed = Frontend::Parse { statement: "s".into(), text: "SHOW".to_owned() };
        assert_eq!(one(b'P', b"s\0SHOW\0\0\x01\0\0\0\x19"), Ok(Some(parsed)));
        let bound = Frontend::Bind {
            portal: "p".into(),
            statement: "s".into(),
            parameters: 2,
            formats: vec![Format::Binary],
        };
        assert_eq!(one(b'B', BIND), Ok(Some(bound)));
        assert_eq!(one(b'D', b"Pp\0"), Ok(Some(Frontend::Describe(Target::Portal("p".into())))));
        assert_eq!(one(b'E', b"\0\0\0\0\x05"), Ok(Some(Frontend::Execute { portal: Bytes::new(), most: 5 })));
        assert_eq!(one(b'S', b""), Ok(Some(Frontend::Sync)));
    }

    #[test]
    fn every_truncation_needs_more_bytes_and_takes_none() {
        let whole = framed(b'B', BIND);
        for end in 0..whole.len() {
            let mut cut = BytesMut::from(&whole[..end]);
            assert_eq!(parse(&mut cut), Ok(None));
            assert_eq!(cut.len(), end);
        }
    }

    #[test]
    fn what_is_behind_a_message_stays() {
        let mut two = framed(b'S', b"");
        two.extend_from_slice(&framed(b'X', b""));
        assert_eq!(parse(&mut two), Ok(Some(Frontend::Sync)));
        assert_eq!(parse(&mut two), Ok(Some(Frontend::Terminate)));
    }

    #[test]
    fn malformed_messages_are_errors() {
        for (tag, body) in [
            (b'Q', &b"SHOW"[..]),
            (b'Q', b"a\0b"),
            (b'D', b"Zx\0"),
            (b'B', b"p\0s\0\0\0\0\0\0\x01\0\x02"),
            (b'B', b"p\0s\0\0\0\0\x01\0\0\0\x09x"),
            (b'E', b"p\0"),
            (b'S', b"x"),
        ] {
            assert_eq!(one(tag, body), Err(Error::Malformed(tag)), "{body:?}");
        }
        assert_eq!(one(b'?', b""), Err(Error::Unknown(b'?')));
        assert_eq!(parse(&mut BytesMut::from(&b"Q\0\0\0\x03"[..])), Err(Error::Malformed(b'Q')));
        assert_eq!(parse(&mut BytesMut::from(&b"Q\x7f\0\0\0"[..])), Err(Error::TooLong(b'Q')));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = parse(&mut buffer) {}
        }

        #[test]
        fn no_body_makes_it_panic(tag in proptest::sample::select(KNOWN), body: Vec<u8>) {
            let _ = one(tag, &body);
        }
    }
}
