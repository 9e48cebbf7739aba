//! The StartupMessage. Its parameters stay raw bytes in order, so the upstream sees what the client sent. Floor 1.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Error, LENGTH_FIELD, MAX_STARTUP};

/// A client's request for a session: protocol 3.x and its parameters, with duplicates. Names and values are bytes of an
/// unknown encoding. `options` may hold secrets, so `Debug` shows only names.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE>
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StartupMessage {
    protocol: u32,
    parameters: Vec<(Bytes, Bytes)>,
}

impl StartupMessage {
    /// Creates an empty message of protocol 3.`minor`, for leasehold's own logins.
    #[must_use]
    pub(crate) fn new(minor: u16) -> Self {
        Self { protocol: (3 << 16) | u32::from(minor), parameters: Vec::new() }
    }

    /// Appends a parameter.
    #[must_use]
    pub(crate) fn with(mut self, name: &[u8], value: &[u8]) -> Self {
        self.parameters.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
        self
    }

    /// Parses the packet's body after the protocol version.
    pub(super) fn parse(protocol: u32, body: Bytes) -> Result<Self, Error> {
        let mut parameters = Vec::new();
        let mut rest = body;
        loop {
            let name = cut_string(&mut rest).ok_or(Error::Malformed)?;
            if name.is_empty() {
                break;
            }
            parameters.push((name, cut_string(&mut rest).ok_or(Error::Malformed)?));
        }
        if !rest.is_empty() {
            return Err(Error::Malformed);
        }
        let message = Self { protocol, parameters };
        if message.user().is_empty() { Err(Error::MissingUser) } else { Ok(message) }
    }

    /// The version: 3 in the upper 16 bits, the minor version in the lower.
    #[must_use]
    pub(crate) fn protocol(&self) -> u32 {
        self.protocol
    }

    /// The user name; never empty in a message from a client.
    #[must_use]
    pub(crate) fn user(&self) -> &[u8] {
        self.parameter(b"user").unwrap_or_default()
    }

    /// The database that the client named. `None`: it is missing or empty, and PostgreSQL then uses the user name.
    #[must_use]
    pub(crate) fn database(&self) -> Option<&[u8]> {
        self.parameter(b"database").filter(|name| !name.is_empty())
    }

    /// Whether the client asks for physical replication, of the whole cluster. PostgreSQL then ignores the database
    /// name, and libpq's programs send `replication` as that name.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-replication.html>
    #[must_use]
    pub(crate) fn replicates_cluster(&self) -> bool {
        // PostgreSQL reads any value other than `database` as a boolean, of which an unambiguous prefix is enough.
        let word = self.parameter(b"replication").unwrap_or_default().to_ascii_lowercase();
        let begins = |whole: &[u8], least: usize| word.len() >= least && whole.starts_with(&word);
        begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) || word == b"1"
    }

    /// Whether the client asks for protocol options, whose names begin with `_pq_.`.
    #[must_use]
    pub(crate) fn has_protocol_options(&self) -> bool {
        self.parameters.iter().any(|(name, _)| name.starts_with(b"_pq_."))
    }

    /// The names of those options.
    #[must_use]
    pub(crate) fn protocol_options(&self) -> Vec<String> {
        let names = self.parameters.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        names.filter(|name| name.starts_with("_pq_.")).collect()
    }

    /// The value of the last parameter with this name, which PostgreSQL uses.
    #[must_use]
    pub(crate) fn parameter(&self, name: &[u8]) -> Option<&[u8]> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    /// The same message with `tag` behind its `application_name`, for an upstream. It is the message itself where the client has
    /// left no room: the server cuts the name at 63 bytes, and what the client wrote is whole in any case. Nor is a name
    /// changed that the server goes by (that of a replication connection), or one that stands in `options`.
    ///
    /// `tag`: printable ASCII.
    ///
    /// <https://www.postgresql.org/docs/current/runtime-config-logging.html#GUC-APPLICATION-NAME>
    #[must_use]
    pub(crate) fn tagged(&self, tag: &str) -> Self {
        let mut message = self.clone();
        if self.parameter(b"replication").is_some() {
            return message;
        }
        let last = self.parameters.iter().rposition(|(name, _)| name.eq_ignore_ascii_case(APPLICATION_NAME));
        match last.and_then(|at| message.parameters.get_mut(at)) {
            Some((_, value)) => {
                let separator = if value.is_empty() { "" } else { " " };
                if length_at_server(value) + separator.len() + tag.len() <= MAX_APPLICATION_NAME {
                    *value = [value, separator.as_bytes(), tag.as_bytes()].concat().into();
                }
            }
            None => {
                let options = self.parameter(b"options").unwrap_or_default().to_ascii_lowercase();
                let is_named = options.windows(APPLICATION.len()).any(|word| word == APPLICATION);
                if !is_named && tag.len() <= MAX_APPLICATION_NAME {
                    message = message.with(APPLICATION_NAME, tag.as_bytes());
                }
            }
        }
        message
    }

    /// Encodes the packet for the upstream. Parameters keep their bytes and order, except `user` and `database`, which
    /// are replaced or added, and `options`, which gets ` -c role=…` appended if `set_role` is given.
    ///
    /// `database` is always sent: without it PostgreSQL would use the user name, which is dynamic here.
    ///
    /// # Errors
    ///
    /// [`Error::RewrittenTooLong`] if PostgreSQL would refuse its length, [`Error::Nul`] if a string cannot be sent.
    pub(crate) fn for_upstream(
        &self,
        user: &str,
        database: &[u8],
        set_role: Option<&str>,
    ) -> Result<BytesMut, Error> {
        let role = set_role.map(|role| with_role(self.parameter(b"options").unwrap_or_default(), role));
        let mut replaced = vec![(&b"user"[..], user.as_bytes()), (b"database", database)];
        replaced.extend(role.as_deref().map(|options| (&b"options"[..], options)));

        let mut packet = BytesMut::with_capacity(512);
        packet.put_u32(0);
        packet.put_u32(self.protocol);
        for (name, value) in &replaced {
            if self.parameter(name).is_none() {
                put_parameter(&mut packet, name, value)?;
            }
        }
        for (name, value) in &self.parameters {
            let replacement = replaced.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
            put_parameter(&mut packet, name, replacement.unwrap_or(value))?;
        }
        packet.put_u8(0);

        let length = u32::try_from(packet.len()).map_err(|_| Error::RewrittenTooLong)?;
        if packet.len() > LENGTH_FIELD + MAX_STARTUP {
            return Err(Error::RewrittenTooLong);
        }
        if let Some(field) = packet.first_chunk_mut() {
            *field = length.to_be_bytes();
        }
        Ok(packet)
    }
}

impl fmt::Debug for StartupMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        f.debug_struct("StartupMessage")
            .field("protocol", &format_args!("{}.{}", self.protocol >> 16, self.protocol & 0xffff))
            .field("parameters", &names)
            .finish()
    }
}

/// The server writes each byte that is no printable ASCII as `\\x00`, since version 16.
fn length_at_server(name: &[u8]) -> usize {
    name.iter().map(|byte| if (b' '..=b'~').contains(byte) { 1 } else { 4 }).sum()
}

const APPLICATION_NAME: &[u8] = b"application_name";
/// `options` may have it with a hyphen too.
const APPLICATION: &[u8] = b"application";
/// `NAMEDATALEN` with its NUL byte is 64.
const MAX_APPLICATION_NAME: usize = 63;

fn cut_string(from: &mut Bytes) -> Option<Bytes> {
    let end = from.iter().position(|&byte| byte == 0)?;
    let string = from.split_to(end);
    *from = from.slice(1..);
    Some(string)
}

fn put_parameter(to: &mut BytesMut, name: &[u8], value: &[u8]) -> Result<(), Error> {
    if name.is_empty() || name.contains(&0) || value.contains(&0) {
        return Err(Error::Nul);
    }
    to.put_slice(name);
    to.put_u8(0);
    to.put_slice(value);
    to.put_u8(0);
    Ok(())
}

/// Appends the role to the client's `options`. The server splits the string at white space, and a backslash escapes the
/// next byte. A single backslash at the client's end would escape our text, so it is dropped.
///
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS>
fn with_role(options: &[u8], role: &str) -> Vec<u8> {
    let backslashes = options.iter().rev().take_while(|&&byte| byte == b'\\').count();
    let kept = options.len() - backslashes % 2;
    let mut out: Vec<u8> = options.iter().copied().take(kept).collect();
    if !out.is_empty() {
        out.push(b' ');
    }
    out.extend_from_slice(b"-c role=");
    for byte in role.bytes() {
        if matches!(byte, b' ' | b'\\' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}
