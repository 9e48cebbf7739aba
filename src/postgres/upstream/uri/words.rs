//! The query parameters of a URI, except `host` and `port`. Floor 2.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>

use std::time::Duration;

use super::{ChannelBinding, Error, RootCert, SslMode, SslNegotiation, TargetSessionAttrs, TlsWords, Uri};
use crate::dial::{Host, Order, TcpSettings};
use crate::files::FileSetting;
use crate::tls::ClientFiles;

/// The parameters read so far. A later value replaces an earlier one.
#[derive(Default)]
pub(super) struct Words {
    pub(super) database: Option<String>,
    tls: TlsWords,
    cert: Option<FileSetting>,
    key: Option<FileSetting>,
    tcp: TcpSettings,
    connect_timeout: Option<Duration>,
    channel_binding: ChannelBinding,
    load_balance_hosts: Order,
    target_session_attrs: TargetSessionAttrs,
}

impl Words {
    /// Takes one parameter and its value, both decoded. An empty path, number or `dbname` counts as absent.
    pub(super) fn take(&mut self, word: &str, value: String) -> Result<(), Error> {
        match word {
            "user" | "password" | "passfile" => return Err(Error::Credentials),
            "dbname" => self.database = Some(value).filter(|name| !name.is_empty()),
            "sslmode" => self.tls.mode = ssl_mode(&value)?,
            "sslnegotiation" => {
                self.tls.negotiation = choose(
                    "sslnegotiation",
                    "postgres or direct",
                    &value,
                    &[("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)],
                )?;
            }
            "sslrootcert" => {
                self.tls.root_cert = match value.as_str() {
                    "system" => Some(RootCert::System),
                    _ => file("sslrootcert", value).map(RootCert::File),
                };
            }
            "sslcrl" => self.tls.crl = file("sslcrl", value),
            "sslcert" => self.cert = file("sslcert", value),
            "sslkey" => self.key = file("sslkey", value),
            "connect_timeout" => self.connect_timeout = seconds("connect_timeout", &value)?,
            "keepalives" => self.tcp.keepalives = integer("keepalives", &value)?.unwrap_or(1) != 0,
            "keepalives_idle" => self.tcp.keepalives_idle = seconds("keepalives_idle", &value)?,
            "keepalives_interval" => self.tcp.keepalives_interval = seconds("keepalives_interval", &value)?,
            "keepalives_count" => self.tcp.keepalives_count = positive("keepalives_count", &value)?,
            "tcp_user_timeout" => {
                let milliseconds = positive("tcp_user_timeout", &value)?;
                self.tcp.user_timeout = milliseconds.map(|ms| Duration::from_millis(ms.into()));
            }
            "channel_binding" => {
                let words = [
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ];
                let takes = "disable, prefer or require";
                self.channel_binding = choose("channel_binding", takes, &value, &words)?;
            }
            "load_balance_hosts" => {
                let words = [("disable", Order::AsWritten), ("random", Order::Random)];
                self.load_balance_hosts = choose("load_balance_hosts", "disable or random", &value, &words)?;
            }
            "target_session_attrs" => self.target_session_attrs = target(&value)?,
            _ => return Err(Error::Unknown { word: shown(word) }),
        }
        Ok(())
    }

    /// Checks the parameters against one another.
    pub(super) fn finish(mut self, hosts: Vec<Host>) -> Result<Uri, Error> {
        if self.tls.root_cert == Some(RootCert::System) && self.tls.mode != SslMode::VerifyFull {
            return Err(Error::WeakMode);
        }
        if self.tls.negotiation == SslNegotiation::Direct && self.tls.mode < SslMode::Require {
            return Err(Error::WeakDirect);
        }
        // libpq would ignore it silently.
        let unchecked = (SslMode::Allow..=SslMode::Require).contains(&self.tls.mode);
        if self.tls.crl.is_some() && unchecked && self.tls.root_cert.is_none() {
            return Err(Error::UselessList);
        }
        self.tls.client = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some(ClientFiles { cert, key }),
            (None, None) => None,
            _ => return Err(Error::HalfPair),
        };
        Ok(Uri {
            hosts,
            database: self.database,
            tls: self.tls,
            tcp: self.tcp,
            connect_timeout: self.connect_timeout,
            channel_binding: self.channel_binding,
            load_balance_hosts: self.load_balance_hosts,
            target_session_attrs: self.target_session_attrs,
        })
    }
}

fn ssl_mode(value: &str) -> Result<SslMode, Error> {
    let words = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    choose("sslmode", "disable, allow, prefer, require, verify-ca or verify-full", value, &words)
}

fn target(value: &str) -> Result<TargetSessionAttrs, Error> {
    let words = [
        ("any", TargetSessionAttrs::Any),
        ("read-write", TargetSessionAttrs::ReadWrite),
        ("read-only", TargetSessionAttrs::ReadOnly),
        ("primary", TargetSessionAttrs::Primary),
        ("standby", TargetSessionAttrs::Standby),
        ("prefer-standby", TargetSessionAttrs::PreferStandby),
    ];
    let takes = "any, read-write, read-only, primary, standby or prefer-standby";
    choose("target_session_attrs", takes, value, &words)
}

fn choose<T: Copy>(
    word: &'static str,
    takes: &'static str,
    value: &str,
    words: &[(&str, T)],
) -> Result<T, Error> {
    let found = words.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or(Error::Value { word, takes })
}

fn file(word: &'static str, value: String) -> Option<FileSetting> {
    if value.is_empty() { None } else { Some(FileSetting::new(value, word)) }
}

fn seconds(word: &'static str, value: &str) -> Result<Option<Duration>, Error> {
    Ok(positive(word, value)?.map(|seconds| Duration::from_secs(seconds.into())))
}

/// As in libpq, zero and less mean the default.
fn positive(word: &'static str, value: &str) -> Result<Option<u32>, Error> {
    Ok(integer(word, value)?.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0))
}

/// libpq's integers have 32 bits and may have white space around them.
fn integer(word: &'static str, value: &str) -> Result<Option<i32>, Error> {
    let value = value.trim_ascii();
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| Error::Value { word, takes: "a whole number" })
}

/// A password with a `?` in it could put a part of itself here, so only what looks like a parameter is shown.
fn shown(word: &str) -> String {
    let plain = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if plain && !word.is_empty() && word.len() <= 40 { word.to_owned() } else { "(not a word)".to_owned() }
}
