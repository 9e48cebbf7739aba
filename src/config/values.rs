//! Parsers of the text of one value. Pure. Floor 6.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::postgres::protocol::auth::method::{RequireAuth, RequireAuthError};

use super::Listen;
use crate::hardening::Hardening;
use crate::postgres::cancel::Unknown;
use crate::postgres::console::Access;
use crate::postgres::upstream::uri::Uri;
use crate::session::Match;
use crate::socket::{Address, Network, NetworkError};
use crate::vault::{self, VaultPath};

/// Why a value is wrong: one line, which does not repeat the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Bad(pub String);

impl From<&str> for Bad {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

/// An address, or the word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrOff<T> {
    /// Not served.
    Off,
    /// Served there.
    At(T),
}

impl<T> OrOff<T> {
    pub(super) fn at(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

/// `scram-sha-256,md5` or `!password`.
pub(super) fn require_auth(text: &str) -> Result<RequireAuth, Bad> {
    text.trim().parse().map_err(|error: RequireAuthError| Bad(error.to_string()))
}

/// `2m`, `500ms`, `1h30m`.
///
/// # Errors
/// If it is anything else, such as a bare number.
pub(crate) fn duration(text: &str) -> Result<Duration, Bad> {
    let span = humantime::parse_duration(text.trim())
        .map_err(|_| Bad::from("not a duration such as 500ms, 2m or 1h30m"))?;
    if span > LONGEST {
        return Err("a duration of more than ten years".into());
    }
    Ok(span)
}

/// A [`duration`] that is not zero.
pub(super) fn span(text: &str) -> Result<Duration, Bad> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero".into()),
        span => Ok(span),
    }
}

/// A duration as Vault's Go client reads `VAULT_CLIENT_TIMEOUT`: plain seconds, or Go's durations (`1m30s`, `1.5h`).
///
/// Source: <https://pkg.go.dev/time#ParseDuration>
pub(super) fn go_duration(text: &str) -> Result<Duration, Bad> {
    let bad = || Bad::from("neither a number of seconds nor a duration such as 90s or 1m30s");
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return positive(f64::from(seconds), bad);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return Err(bad()),
        };
        seconds += number.parse::<f64>().map_err(|_| bad())? * scale;
        rest = tail;
    }
    positive(seconds, bad)
}

fn positive(seconds: f64, bad: impl Fn() -> Bad) -> Result<Duration, Bad> {
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
    match span {
        Duration::ZERO => Err("must be longer than zero".into()),
        span if span > LONGEST => Err("a duration of more than ten years".into()),
        span => Ok(span),
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
///
/// Source: <https://pkg.go.dev/strconv#ParseBool>
pub(super) fn boolean(text: &str) -> Result<bool, Bad> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".into()),
    }
}

pub(super) fn count(text: &str) -> Result<usize, Bad> {
    text.trim()
        .parse::<u32>()
        .ok()
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| "not a whole number from 0 up".into())
}

/// A number in a second; 0 is no limit.
pub(super) fn rate(text: &str) -> Result<u32, Bad> {
    match text.trim().parse() {
        Ok(count) if count <= MOST_A_SECOND => Ok(count),
        _ => Err(Bad(format!("not a whole number from 0 to {MOST_A_SECOND}"))),
    }
}

pub(super) fn threads(text: &str) -> Result<NonZeroUsize, Bad> {
    match text.trim().parse() {
        Ok(count) if count <= MOST_THREADS => Ok(count),
        _ => Err(Bad(format!("not a whole number from 1 to {MOST_THREADS}"))),
    }
}

pub(super) fn burst(text: &str) -> Result<u32, Bad> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("not a whole number from 1 up".into()),
        Ok(count) => Ok(count),
    }
}

/// Text that may not be empty, and holds no control character.
pub(super) fn text(text: &str) -> Result<String, Bad> {
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character".into());
    }
    Ok(text.to_owned())
}

/// Statements: text of any number of lines.
pub(super) fn sql(text: &str) -> Result<String, Bad> {
    if text.trim().is_empty() {
        return Err("must not be empty".into());
    }
    if text.contains('\0') {
        return Err("holds a zero byte".into());
    }
    Ok(text.to_owned())
}

pub(super) fn path(text: &str) -> Result<PathBuf, Bad> {
    self::text(text).map(PathBuf::from)
}

/// Text that can stand in an HTTP header: trimmed, visible ASCII.
pub(super) fn header_safe(text: &str) -> Result<String, Bad> {
    let text = text.trim();
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds a character that cannot stand in an HTTP header".into());
    }
    Ok(text.to_owned())
}

/// An address, or `/dir[:port]`.
pub(super) fn listen(text: &str) -> Result<Listen, Bad> {
    let text = text.trim();
    let address = if text.starts_with('/') {
        let (dir, port) = match text.rsplit_once(':') {
            Some((dir, port)) => (
                dir,
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| Bad::from("what follows the colon is not a port"))?,
            ),
            None => (text, DEFAULT_PORT),
        };
        Address::Unix(socket_path(&format!("{}/.s.PGSQL.{port}", dir.trim_end_matches('/')))?)
    } else {
        Address::Tcp(socket_addr(text).map_err(|_| {
            Bad::from("neither an IP address with a port (127.0.0.1:6432, [::1]:6432) nor a directory (/dir, /dir:port)")
        })?)
    };
    Ok(Listen { address, optional: false })
}

pub(super) fn listens(text: &str) -> Result<Vec<Listen>, Bad> {
    list(text).map(listen).collect()
}

/// `10.0.0.0/8,192.0.2.7`
pub(super) fn networks(text: &str) -> Result<Vec<Network>, Bad> {
    list(text).map(|text| text.parse().map_err(|error: NetworkError| Bad(error.to_string()))).collect()
}

pub(super) fn http(text: &str) -> Result<OrOff<SocketAddr>, Bad> {
    match text.trim() {
        "off" => Ok(OrOff::Off),
        text => socket_addr(text).map(OrOff::At),
    }
}

pub(super) fn admin(text: &str) -> Result<OrOff<Address>, Bad> {
    match text.trim() {
        "off" => Ok(OrOff::Off),
        text if text.starts_with('/') => {
            if text.ends_with('/') {
                return Err("a directory: the path of the socket itself is wanted".into());
            }
            socket_path(text).map(|path| OrOff::At(Address::Unix(path)))
        }
        text => {
            let addr = socket_addr(text)
                .map_err(|_| Bad::from("neither an IP address with a port, nor /path.sock, nor off"))?;
            if !addr.ip().to_canonical().is_loopback() {
                return Err(
                    "the admin address must be loopback or /path.sock: it commands this leasehold".into()
                );
            }
            Ok(OrOff::At(Address::Tcp(addr)))
        }
    }
}

pub(super) fn level(text: &str) -> Result<crate::log::Level, Bad> {
    crate::log::Level::from_word(text).ok_or_else(|| "none of error, warn, info, debug, trace".into())
}

pub(super) fn format(text: &str) -> Result<crate::log::Format, Bad> {
    crate::log::Format::from_word(text).ok_or_else(|| "neither text nor json".into())
}

pub(super) fn hardening(text: &str) -> Result<Hardening, Bad> {
    Hardening::from_word(text).ok_or_else(|| "none of off, auto, require".into())
}

pub(super) fn console(text: &str) -> Result<Access, Bad> {
    match text {
        "off" => Ok(Access::Off),
        "socket" => Ok(Access::Socket),
        "all" => Ok(Access::All),
        _ => Err("none of off, socket, all".into()),
    }
}

pub(super) fn unknown_cancel(text: &str) -> Result<Unknown, Bad> {
    match text {
        "off" => Ok(Unknown::Off),
        "forward" => Ok(Unknown::Forward),
        _ => Err("neither off nor forward".into()),
    }
}

/// A base URL of Vault.
pub(super) fn vault_addr(text: &str) -> Result<vault::Address, Bad> {
    vault::Address::parse(text).map_err(|error| Bad(error.to_string()))
}

pub(super) fn vault_addrs(text: &str) -> Result<Vec<vault::Address>, Bad> {
    list(text).map(vault_addr).collect()
}

/// The URI of PostgreSQL. The reason never repeats it: it may hold a password that does not belong there.
pub(super) fn upstream(text: &str) -> Result<Uri, Bad> {
    Uri::parse(&self::text(text)?).map_err(|error| Bad(error.to_string()))
}

/// A name that a client sends, or `*` for any.
pub(super) fn pattern(text: &str) -> Result<Match, Bad> {
    match text {
        "*" => Ok(Match::Any),
        name => self::text(name).map(|name| Match::Only(name.into_bytes())),
    }
}

/// A setting of a later version, which this one refuses by name.
pub(super) fn later(_text: &str) -> Result<(), Bad> {
    Ok(())
}

/// The mount of an auth method.
pub(super) fn mount(text: &str) -> Result<String, Bad> {
    let text = url_path(text)?;
    if text.starts_with("auth/") {
        return Err("is written without auth/ in front".into());
    }
    Ok(text)
}

/// One segment of a path.
pub(super) fn segment(text: &str) -> Result<String, Bad> {
    let text = url_path(text)?;
    if text.contains('/') {
        return Err("holds a slash".into());
    }
    Ok(text)
}

/// `<mount>/creds/<role>` or `<mount>/static-creds/<role>`; mounts may nest.
pub(super) fn vault_path(text: &str) -> Result<VaultPath, Bad> {
    VaultPath::parse(text).map_err(|error| Bad(error.to_string()))
}

/// A name that can stand in a metric, a log and a URL as it is.
pub(super) fn route_name(text: &str) -> Result<String, Bad> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fine) {
        return Err("not a name of 1 to 64 letters, digits, '-', '_' and '.'".into());
    }
    Ok(text.to_owned())
}

/// Path segments of a URL that need no escaping, without slashes around.
fn url_path(text: &str) -> Result<String, Bad> {
    vault::segments(text).map(str::to_owned).map_err(|error| Bad(error.to_string()))
}

pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

fn socket_addr(text: &str) -> Result<SocketAddr, Bad> {
    text.parse().map_err(|_| "not an IP address with a port, such as 127.0.0.1:9090 or [::1]:9090".into())
}

fn socket_path(text: &str) -> Result<PathBuf, Bad> {
    if text.len() > SUN_PATH {
        return Err(Bad(format!("the socket's path is longer than {SUN_PATH} bytes")));
    }
    path(text)
}

/// `sun_path` holds 108 bytes with the terminator.
const SUN_PATH: usize = 107;

/// More than any machine has CPUs. Each thread takes memory and descriptors.
const MOST_THREADS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// More than any machine can begin.
const MOST_A_SECOND: u32 = 100_000;

/// The longest span. A longer one is a mistake, and sums with this one stay far from overflow.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// PostgreSQL's 5432 moved up by a thousand, as poolers do, so that both fit on one host.
pub(super) const DEFAULT_PORT: u16 = 6432;
