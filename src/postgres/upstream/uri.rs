//! The upstream URI: a URI of libpq without user and password. Floor 2.
//!
//! Every `@` must be written as `%40`, so that a password is detected wherever it stands. No error repeats what it
//! could not parse, since that may be part of a password.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>

mod hosts;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use crate::dial::{Host, Order, TcpSettings};
use crate::files::FileSetting;
use crate::postgres::protocol::auth::method::ChannelBinding;
use crate::tls::ClientFiles;

/// Where the upstream is and how to connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uri {
    /// At least one host. All belong to one cluster.
    pub(crate) hosts: Vec<Host>,
    /// The database, if the URI names one.
    pub(crate) database: Option<String>,
    /// The TLS parameters.
    pub(crate) tls: TlsWords,
    /// `keepalives`, `keepalives_*` and `tcp_user_timeout`.
    pub(crate) tcp: TcpSettings,
    /// `connect_timeout`; `None` if absent or not positive. Then the configured limit applies: every wait has a bound.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) channel_binding: ChannelBinding,
    /// `load_balance_hosts`: `disable` or `random`.
    pub(crate) load_balance_hosts: Order,
    pub(crate) target_session_attrs: TargetSessionAttrs,
}

impl Uri {
    /// Parses a URI.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let rest = ["postgresql://", "postgres://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or(Error::Scheme)?;
        if rest.contains('@') {
            return Err(Error::Credentials);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));

        let mut list = hosts::HostList::parse(authority)?;
        let mut words = words::Words::default();
        words.database = Some(decode(database)?).filter(|name| !name.is_empty());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (word, value) = pair.split_once('=').ok_or(Error::Pair)?;
            let (word, value) = (decode(word)?, decode(value)?);
            match word.as_str() {
                "host" => list.replace_hosts(&value),
                "port" => list.replace_ports(&value),
                _ => words.take(&word, value)?,
            }
        }
        words.finish(list.hosts()?)
    }
}

/// The TLS parameters. They have no effect over a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsWords {
    /// `sslmode`.
    pub(crate) mode: SslMode,
    /// `sslnegotiation`.
    pub(crate) negotiation: SslNegotiation,
    /// `sslrootcert`; `None`: the system's roots.
    pub(crate) root_cert: Option<RootCert>,
    /// `sslcrl`: a PEM file of revocation lists.
    pub(crate) crl: Option<FileSetting>,
    /// `sslcert` and `sslkey`.
    pub(crate) client: Option<ClientFiles>,
}

/// `sslmode`.
///
/// Source: <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    /// TLS is never used.
    Disable,
    /// TLS is used only if the server refuses without.
    Allow,
    /// TLS is used if the server supports it.
    Prefer,
    /// TLS is required. The certificate is checked only against an `sslrootcert`.
    Require,
    /// TLS is required, with a certificate of a known root.
    VerifyCa,
    /// The certificate must also match the host name. This is leasehold's default; libpq's is `prefer`.
    #[default]
    VerifyFull,
}

impl SslMode {
    /// The word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslNegotiation {
    /// An SSLRequest comes first.
    #[default]
    Postgres,
    /// TLS starts with the first byte, with ALPN. It needs PostgreSQL 17 or later.
    Direct,
}

/// `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootCert {
    /// The system's roots, which require `verify-full`.
    System,
    /// A PEM file.
    File(FileSetting),
}

/// `target_session_attrs`: which servers are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetSessionAttrs {
    /// Every server.
    #[default]
    Any,
    /// A server where transactions may write by default.
    ReadWrite,
    /// A server where transactions may not write by default.
    ReadOnly,
    /// A server that is not a hot standby.
    Primary,
    /// A hot standby.
    Standby,
    /// A hot standby, or any server if there is none.
    PreferStandby,
}

/// Why a URI is invalid. No text repeats a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The scheme is neither `postgresql` nor `postgres`.
    #[error("upstream must begin with postgresql:// or postgres://")]
    Scheme,
    /// The URI holds a user, a password, or a bare `@`.
    #[error("upstream must hold no user and no password, leasehold brings both; a literal @ is written %40")]
    Credentials,
    /// The URI names no host.
    #[error("upstream names no host")]
    NoHost,
    /// A host is malformed.
    #[error("host {position} of upstream is malformed")]
    Host {
        /// Counted from 1.
        position: usize,
    },
    /// A port is malformed.
    #[error("port {position} of upstream is not a number from 1 to 65535")]
    Port {
        /// Counted from 1.
        position: usize,
    },
    /// The number of ports is neither one nor the number of hosts.
    #[error("upstream has {ports} ports for {hosts} hosts")]
    PortCount {
        /// The number of ports.
        ports: usize,
        /// The number of hosts.
        hosts: usize,
    },
    /// A percent sign lacks two hexadecimal digits, or the result has a zero byte or is not UTF-8.
    #[error("upstream has a malformed percent-encoding")]
    Percent,
    /// A query parameter has no `=`.
    #[error("upstream has a query word without a value")]
    Pair,
    /// Leasehold does not know the parameter.
    #[error("upstream has the unknown word {word}")]
    Unknown {
        /// Its name, if it looks like a parameter's.
        word: String,
    },
    /// The parameter does not take this value.
    #[error("{word} in upstream takes {takes}")]
    Value {
        word: &'static str,
        /// The values that the parameter takes.
        takes: &'static str,
    },
    /// `sslrootcert=system` is set with a mode that would not check the name.
    #[error("sslrootcert=system takes sslmode=verify-full only")]
    WeakMode,
    /// `sslnegotiation=direct` is set with a mode that may connect without TLS.
    #[error("sslnegotiation=direct takes sslmode=require or stronger")]
    WeakDirect,
    /// `sslcrl` is set, but no certificate is checked.
    #[error("sslcrl has no effect: name an sslrootcert too, or take sslmode=verify-ca or verify-full")]
    UselessList,
    /// `sslcert` is set without `sslkey`, or the reverse.
    #[error("sslcert and sslkey go together")]
    HalfPair,
}

/// Decodes percent-encoding; `+` stays.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Error::Percent);
        };
        decoded.push(u8::try_from(high * 16 + low).map_err(|_| Error::Percent)?);
    }
    if decoded.contains(&0) {
        return Err(Error::Percent);
    }
    String::from_utf8(decoded).map_err(|_| Error::Percent)
}
