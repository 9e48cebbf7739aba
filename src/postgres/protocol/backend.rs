//! Messages of a server, which leasehold itself sends in its console; pgwire encodes them. Floor 1.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::time::{Duration, UNIX_EPOCH};

use bytes::{BufMut as _, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use super::written::encoded;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Int4,
    Int8,
    Float8,
    Bool,
    Timestamptz,
}

/// A value of a row. It has the type of its column, or is null.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Text(String),
    Int4(i32),
    Int8(i64),
    Float8(f64),
    Bool(bool),
    /// Since 1970-01-01 in UTC.
    Timestamptz(Duration),
}

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Binary,
}

impl Format {
    /// The format by its code.
    #[must_use]
    pub(crate) fn of(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Text),
            1 => Some(Self::Binary),
            _ => None,
        }
    }

    fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }
}

/// A column: its name and its type.
pub(crate) type Column = (&'static str, Type);

/// Whether a transaction is open, as ReadyForQuery says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Transaction {
    #[default]
    Idle,
    Open,
    Failed,
}

impl Type {
    /// The OID and the length, `-1` where it varies.
    ///
    /// Source: <https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat>
    fn oid_and_length(self) -> (u32, i16) {
        match self {
            Self::Bool => (16, 1),
            Self::Int8 => (20, 8),
            Self::Int4 => (23, 4),
            Self::Text => (25, -1),
            Self::Float8 => (701, 8),
            Self::Timestamptz => (1184, 8),
        }
    }
}

/// What follows a StartupMessage that is taken without a password: AuthenticationOk, these parameters, a key of which no
/// session knows, ReadyForQuery.
#[must_use]
pub(crate) fn welcome(parameters: &[(&str, &str)], pid: i32, key: i32) -> BytesMut {
    let mut out = encoded(&Authentication::Ok);
    for (name, value) in parameters {
        put(&mut out, &ParameterStatus::new((*name).to_owned(), (*value).to_owned()));
    }
    put(&mut out, &BackendKeyData::new(pid, SecretKey::I32(key)));
    ready_for_query(&mut out, Transaction::Idle);
    out
}

/// Tells a client that asks for more than protocol 3.2, or for options, what it gets.
#[must_use]
pub(crate) fn negotiate(protocol: u32, options: Vec<String>) -> BytesMut {
    let newest = i32::try_from(protocol.min(PROTOCOL_3_2)).unwrap_or(0);
    encoded(&NegotiateProtocolVersion::new(newest, options))
}

/// 3.2.
pub(crate) const PROTOCOL_3_2: u32 = (3 << 16) | 2;

pub(crate) fn ready_for_query(out: &mut BytesMut, transaction: Transaction) {
    let status = match transaction {
        Transaction::Idle => TransactionStatus::Idle,
        Transaction::Open => TransactionStatus::Transaction,
        Transaction::Failed => TransactionStatus::Error,
    };
    put(out, &ReadyForQuery::new(status));
}

pub(crate) fn row_description(out: &mut BytesMut, columns: &[Column], formats: &[Format]) {
    let field = |(at, (name, of)): (usize, &Column)| {
        let (oid, length) = of.oid_and_length();
        let format = format_of(formats, at).code();
        FieldDescription::new((*name).to_owned(), 0, 0, oid, length, -1, format)
    };
    put(out, &RowDescription::new(columns.iter().enumerate().map(field).collect()));
}

pub(crate) fn data_row(out: &mut BytesMut, row: &[Value], formats: &[Format]) {
    let mut data = BytesMut::new();
    for (at, value) in row.iter().enumerate() {
        match format_of(formats, at) {
            Format::Text => put_text(&mut data, value),
            Format::Binary => put_binary(&mut data, value),
        }
    }
    // No view has as many columns.
    put(out, &DataRow::new(data, i16::try_from(row.len()).unwrap_or(i16::MAX)));
}

pub(crate) fn command_complete(out: &mut BytesMut, tag: &str) {
    put(out, &CommandComplete::new(tag.to_owned()));
}

pub(crate) fn empty_query(out: &mut BytesMut) {
    put(out, &EmptyQueryResponse::new());
}

pub(crate) fn parse_complete(out: &mut BytesMut) {
    put(out, &ParseComplete::new());
}

pub(crate) fn bind_complete(out: &mut BytesMut) {
    put(out, &BindComplete::new());
}

pub(crate) fn close_complete(out: &mut BytesMut) {
    put(out, &CloseComplete::new());
}

pub(crate) fn portal_suspended(out: &mut BytesMut) {
    put(out, &PortalSuspended::new());
}

pub(crate) fn no_data(out: &mut BytesMut) {
    put(out, &NoData::new());
}

/// Of a statement without parameters.
pub(crate) fn no_parameters(out: &mut BytesMut) {
    put(out, &ParameterDescription::new(Vec::new()));
}

/// An ERROR, after which the session goes on.
pub(crate) fn error(out: &mut BytesMut, sqlstate: &str, message: &str, hint: Option<&str>) {
    let field = |code, text: &str| (code, text.replace('\0', ""));
    let mut fields =
        vec![field(b'S', "ERROR"), field(b'V', "ERROR"), field(b'C', sqlstate), field(b'M', message)];
    fields.extend(hint.map(|hint| field(b'H', hint)));
    put(out, &ErrorResponse::new(fields));
}

fn put(out: &mut BytesMut, message: &impl Message) {
    out.extend_from_slice(&encoded(message));
}

/// The format of a column: one for all, or one for each; text where none is asked for.
fn format_of(formats: &[Format], column: usize) -> Format {
    match formats {
        [one] => *one,
        each => each.get(column).copied().unwrap_or_default(),
    }
}

fn put_text(out: &mut BytesMut, value: &Value) {
    let text = match value {
        Value::Null => return out.put_i32(NULL),
        Value::Text(text) => text.replace('\0', ""),
        Value::Int4(number) => number.to_string(),
        Value::Int8(number) => number.to_string(),
        Value::Float8(number) => number.to_string(),
        Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        Value::Timestamptz(at) => {
            // `2026-01-01T00:00:00.000000Z` as DateStyle ISO and TimeZone UTC have it.
            humantime::format_rfc3339_micros(UNIX_EPOCH + *at)
                .to_string()
                .replace('T', " ")
                .replace('Z', "+00")
        }
    };
    put_value(out, text.as_bytes());
}

fn put_binary(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Null => out.put_i32(NULL),
        Value::Text(text) => put_value(out, text.replace('\0', "").as_bytes()),
        Value::Int4(number) => put_value(out, &number.to_be_bytes()),
        Value::Int8(number) => put_value(out, &number.to_be_bytes()),
        Value::Float8(number) => put_value(out, &number.to_be_bytes()),
        Value::Bool(value) => put_value(out, &[u8::from(*value)]),
        Value::Timestamptz(at) => put_value(out, &micros(*at).to_be_bytes()),
    }
}

fn put_value(out: &mut BytesMut, bytes: &[u8]) {
    // A longer one does not fit into a message, and no view has any.
    let length = i32::try_from(bytes.len()).unwrap_or(0);
    out.put_i32(length);
    out.extend_from_slice(bytes.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default());
}

/// Microseconds since 2000-01-01 in UTC.
fn micros(at: Duration) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX).saturating_sub(EPOCH)
}

/// The length of a null.
const NULL: i32 = -1;
/// 2000-01-01 in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_welcome_ends_with_ready_for_query() {
        let out = welcome(&[("a", "b")], 7, 9);
        assert!(out.starts_with(b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0K\0\0\0\x0c\0\0\0\x07\0\0\0\x09"));
        assert!(out.ends_with(b"Z\0\0\0\x05I"));
    }

    #[test]
    fn values_have_both_formats() {
        let at = Duration::from_secs(946_684_801);
        let row = [
            Value::Text("a\0b".to_owned()),
            Value::Int8(-2),
            Value::Float8(1.5),
            Value::Bool(true),
            Value::Timestamptz(at),
            Value::Null,
        ];
        let mut text = BytesMut::new();
        data_row(&mut text, &row, &[]);
        assert_eq!(
            &text[7..],
            b"\0\0\0\x02ab\0\0\0\x02-2\0\0\0\x031.5\0\0\0\x01t\0\0\0\x1d2000-01-01 00:00:01.000000+00\xff\xff\xff\xff"
        );
        let mut binary = BytesMut::new();
        data_row(&mut binary, &row, &[Format::Binary]);
        let mut expected = b"\0\0\0\x02ab\0\0\0\x08".to_vec();
        expected.extend((-2_i64).to_be_bytes());
        expected.extend(b"\0\0\0\x08");
        expected.extend(1.5_f64.to_be_bytes());
        expected.extend(b"\0\0\0\x01\x01\0\0\0\x08");
        expected.extend(1_000_000_i64.to_be_bytes());
        expected.extend(b"\xff\xff\xff\xff");
        assert_eq!(&binary[7..], expected);
    }

    #[test]
    fn a_column_has_its_own_format_or_that_of_all() {
        let mut out = BytesMut::new();
        row_description(&mut out, &[("a", Type::Int8), ("b", Type::Text)], &[Format::Text, Format::Binary]);
        assert_eq!(out[5..7], [0, 2]);
        assert_eq!(out[9..27], [0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 8, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        assert_eq!(out[out.len() - 2..], [0, 1]);
    }

    #[test]
    fn times_before_2000_are_negative() {
        assert_eq!(micros(Duration::ZERO), -946_684_800_000_000);
    }
}
