//! The upstream URI: libpq's, without user and password. Floor 2.
//!
//! Every `@` must be written `%40`, so that a password is found out wherever it stands; and no error repeats what it
//! could not read, since that may be a piece of one.
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

/// Where the upstream is and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uri {
    /// At least one; all of one cluster.
    pub(crate) hosts: Vec<Host>,
    /// The database, where the URI names one.
    pub(crate) database: Option<String>,
    /// The TLS words.
    pub(crate) tls: TlsWords,
    /// `keepalives`, its kin, and `tcp_user_timeout`.
    pub(crate) tcp: TcpSettings,
    /// `connect_timeout`; `None` where absent or not positive: the configured one holds, since every wait has a bound.
    pub(crate) connect_timeout: Option<Duration>,
    /// `channel_binding`.
    pub(crate) channel_binding: ChannelBinding,
    /// `load_balance_hosts`: `disable` or `random`.
    pub(crate) load_balance_hosts: Order,
    /// `target_session_attrs`.
    pub(crate) target_session_attrs: TargetSessionAttrs,
}

impl Uri {
    /// Reads a URI.
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

/// The words about TLS. Over a Unix socket they have no effect.
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
    /// Never TLS.
    Disable,
    /// TLS only where the server refuses without.
    Allow,
    /// TLS where the server can.
    Prefer,
    /// TLS; the certificate is checked only against an `sslrootcert`.
    Require,
    /// TLS with a certificate of a known root.
    VerifyCa,
    /// And for this very host name. Leasehold's default; libpq's is `prefer`.
    #[default]
    VerifyFull,
}

/// `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslNegotiation {
    /// SSLRequest first.
    #[default]
    Postgres,
    /// TLS from the first byte, with ALPN; PostgreSQL 17 and later.
    Direct,
}

/// `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootCert {
    /// The system's roots, and nothing weaker than `verify-full`.
    System,
    /// A PEM file.
    File(FileSetting),
}

/// `target_session_attrs`: which servers may serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetSessionAttrs {
    /// Every one.
    #[default]
    Any,
    /// One where transactions may write by default.
    ReadWrite,
    /// One where they may not.
    ReadOnly,
    /// One that is no hot standby.
    Primary,
    /// A hot standby.
    Standby,
    /// A hot standby, or where there is none whichever there is.
    PreferStandby,
}

/// Why a URI cannot be read. No text repeats a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Another scheme.
    #[error("upstream must begin with postgresql:// or postgres://")]
    Scheme,
    /// A user, a password, or a bare `@`.
    #[error("upstream must hold no user and no password, leasehold brings both; a literal @ is written %40")]
    Credentials,
    /// No host.
    #[error("upstream names no host")]
    NoHost,
    /// A host that cannot be one.
    #[error("host {position} of upstream is malformed")]
    Host {
        /// Counted from 1.
        position: usize,
    },
    /// A port that is none.
    #[error("port {position} of upstream is not a number from 1 to 65535")]
    Port {
        /// Counted from 1.
        position: usize,
    },
    /// Neither one port nor one for each host.
    #[error("upstream has {ports} ports for {hosts} hosts")]
    PortCount {
        /// How many ports.
        ports: usize,
        /// How many hosts.
        hosts: usize,
    },
    /// A percent sign without two hexadecimal digits, a zero byte, or bytes that are not UTF-8.
    #[error("upstream has a malformed percent-encoding")]
    Percent,
    /// A query word without `=`.
    #[error("upstream has a query word without a value")]
    Pair,
    /// A word that libpq or leasehold does not know.
    #[error("upstream has the unknown word {word}")]
    Unknown {
        /// The word, where it looks like one.
        word: String,
    },
    /// A value that the word does not take.
    #[error("{word} in upstream takes {takes}")]
    Value {
        /// The word.
        word: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// `sslrootcert=system` with a mode that would not check the name.
    #[error("sslrootcert=system takes sslmode=verify-full only")]
    WeakMode,
    /// `sslnegotiation=direct` with a mode that may do without TLS.
    #[error("sslnegotiation=direct takes sslmode=require or stronger")]
    WeakDirect,
    /// `sslcrl` where no certificate is checked.
    #[error("sslcrl has no effect: name an sslrootcert too, or take sslmode=verify-ca or verify-full")]
    UselessList,
    /// `sslcert` without `sslkey` or the reverse.
    #[error("sslcert and sslkey go together")]
    HalfPair,
}

/// Percent-decoding; `+` stays.
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
