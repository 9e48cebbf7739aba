//! ErrorResponse: made for a client, and read from an upstream. Floor 1.
//!
//! Reading is for decisions and logs only; an upstream's error reaches the client as the bytes it came in.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>

use bytes::{BufMut as _, BytesMut};

use crate::error::ClientFacing;

#[cfg(test)]
mod tests;

/// The whole message, always `FATAL`, in English whatever `lc_messages` is: it is leasehold that speaks.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ERRORRESPONSE>
#[must_use]
pub fn fatal(facing: &ClientFacing) -> BytesMut {
    let mut body = BytesMut::with_capacity(256);
    put_field(&mut body, SEVERITY_LOCALIZED, "FATAL");
    put_field(&mut body, SEVERITY, "FATAL");
    put_field(&mut body, SQLSTATE, facing.sqlstate.code());
    put_field(&mut body, MESSAGE, &facing.message);
    if let Some(detail) = facing.detail {
        put_field(&mut body, DETAIL, detail);
    }
    if let Some(hint) = facing.hint {
        put_field(&mut body, HINT, hint);
    }
    body.put_u8(0);

    let mut message = BytesMut::with_capacity(5 + body.len());
    message.put_u8(b'E');
    // Text of leasehold's own, far below 4 GiB.
    message.put_u32(u32::try_from(4 + body.len()).unwrap_or(u32::MAX));
    message.unsplit(body);
    message
}

/// The SQLSTATE of an ErrorResponse or NoticeResponse; also of the front of one, if it reaches that far.
#[must_use]
pub fn sqlstate(body: &[u8]) -> Option<&[u8]> {
    Fields::new(body).sqlstate()
}

/// The fields of an ErrorResponse's or NoticeResponse's body, whatever its bytes are: they come from outside. Of a
/// truncated body, the fields that are whole.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Looks at the body, behind type and length.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// `ERROR`, `FATAL`, `PANIC`; never translated. Servers before 9.6 send only the translated one.
    #[must_use]
    pub fn severity(self) -> Option<&'a [u8]> {
        self.field(SEVERITY).or_else(|| self.field(SEVERITY_LOCALIZED))
    }

    /// The five characters.
    #[must_use]
    pub fn sqlstate(self) -> Option<&'a [u8]> {
        self.field(SQLSTATE)
    }

    /// The function in PostgreSQL's source that raised it, such as `InitializeSessionUserId`.
    #[must_use]
    pub fn routine(self) -> Option<&'a [u8]> {
        self.field(ROUTINE)
    }

    /// The primary message, in the server's language and encoding.
    #[must_use]
    pub fn message(self) -> Option<&'a [u8]> {
        self.field(MESSAGE)
    }

    fn field(mut self, wanted: u8) -> Option<&'a [u8]> {
        self.find(|(code, _)| *code == wanted).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&code, after) = self.rest.split_first().filter(|(code, _)| **code != 0)?;
        let end = after.iter().position(|&byte| byte == 0)?;
        let (value, terminated) = after.split_at_checked(end)?;
        self.rest = terminated.get(1..)?;
        Some((code, value))
    }
}

fn put_field(to: &mut BytesMut, code: u8, value: &str) {
    to.put_u8(code);
    // A NUL would end the value early and make fields of what follows.
    to.extend(value.bytes().filter(|byte| *byte != 0));
    to.put_u8(0);
}

const SEVERITY_LOCALIZED: u8 = b'S';
const SEVERITY: u8 = b'V';
const SQLSTATE: u8 = b'C';
const MESSAGE: u8 = b'M';
const DETAIL: u8 = b'D';
const HINT: u8 = b'H';
const ROUTINE: u8 = b'R';
