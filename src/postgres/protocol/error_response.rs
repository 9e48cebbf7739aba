//! Builds an ErrorResponse for a client, and reads one from an upstream. Floor 1.
//!
//! Fields are read for decisions and logs only; a client receives an upstream's error as unchanged bytes.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>

use bytes::BytesMut;
use pgwire::messages::response::ErrorResponse;

use super::fatal::Fatal;
use super::written::encoded;

#[cfg(test)]
mod tests;

/// Builds the whole message. It is always `FATAL` and in English, whatever `lc_messages` is: leasehold sends it.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ERRORRESPONSE>
#[must_use]
pub(crate) fn fatal(fatal: &Fatal) -> BytesMut {
    let mut fields = vec![
        (SEVERITY_LOCALIZED, "FATAL".to_owned()),
        (SEVERITY, "FATAL".to_owned()),
        (SQLSTATE, fatal.sqlstate.code().to_owned()),
        // The message may hold client input, in which a NUL would end the field early.
        (MESSAGE, fatal.message.replace('\0', "")),
    ];
    fields.extend(fatal.detail.map(|detail| (DETAIL, detail.to_owned())));
    fields.extend(fatal.hint.map(|hint| (HINT, hint.to_owned())));
    encoded(&ErrorResponse::new(fields))
}

/// Builds the same error for a client of a protocol before 3: text without fields and without a length.
///
/// Source: `send_message_to_frontend`, <https://github.com/postgres/postgres/blob/master/src/backend/utils/error/elog.c>
#[must_use]
pub(crate) fn fatal_before_protocol_3(fatal: &Fatal) -> BytesMut {
    let text = fatal.message.replace('\0', "");
    BytesMut::from(format!("EFATAL:  {text}\n\0").as_bytes())
}

/// The SQLSTATE in the body of an ErrorResponse or NoticeResponse, which may be truncated behind it.
#[must_use]
pub(crate) fn sqlstate(body: &[u8]) -> Option<&[u8]> {
    Fields::new(body).sqlstate()
}

/// The fields in the body of an ErrorResponse or NoticeResponse. The bytes are untrusted; a truncated body gives its
/// complete fields.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Takes the body, after type and length.
    #[must_use]
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// `ERROR`, `FATAL` or `PANIC`, never translated; but servers before 9.6 send only the translated severity.
    #[must_use]
    pub(crate) fn severity(self) -> Option<&'a [u8]> {
        self.field(SEVERITY).or_else(|| self.field(SEVERITY_LOCALIZED))
    }

    /// The five-character SQLSTATE.
    #[must_use]
    pub(crate) fn sqlstate(self) -> Option<&'a [u8]> {
        self.field(SQLSTATE)
    }

    /// The function in PostgreSQL's source that raised the error, such as `InitializeSessionUserId`.
    #[must_use]
    pub(crate) fn routine(self) -> Option<&'a [u8]> {
        self.field(ROUTINE)
    }

    /// The primary message, in the server's language and encoding.
    #[must_use]
    pub(crate) fn message(self) -> Option<&'a [u8]> {
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

const SEVERITY_LOCALIZED: u8 = b'S';
const SEVERITY: u8 = b'V';
const SQLSTATE: u8 = b'C';
const MESSAGE: u8 = b'M';
const DETAIL: u8 = b'D';
const HINT: u8 = b'H';
const ROUTINE: u8 = b'R';
