//! The settings outside of Vault and routes. Floor 6.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::error::Error;
use super::sources::{Found, Sources};
use super::values::{DEFAULT_PORT, OrOff};
use super::{Limits, Listen, keys};
use crate::files::FileSetting;
use crate::postgres::cancel::Unknown;
use crate::postgres::protocol::startup::ALPN;
use crate::socket::Address;
use crate::{acceptor, log, session, shutdown};

pub(super) fn listen(sources: &Sources<'_>) -> Result<Vec<Listen>, Error> {
    let public = sources.get_or(&keys::LISTEN_PUBLIC, false)?;
    let Some(Found { value: listen, origin }) = sources.find(&keys::LISTEN)? else {
        return Ok(both_loopbacks());
    };
    if listen.is_empty() {
        return Err(Error::invalid(origin, "at least one address is needed"));
    }
    if let Some(open) = listen.iter().find(|listen| !public && !listen.address.is_local()) {
        return Err(Error::invalid(
            origin,
            format!(
                "{} is open beyond this machine, and whoever reaches it needs no password; --listen-public allows it",
                open.address
            ),
        ));
    }
    for (at, one) in listen.iter().enumerate() {
        let fixed = !matches!(one.address, Address::Tcp(addr) if addr.port() == 0);
        if fixed && listen.iter().skip(at + 1).any(|other| other.address == one.address) {
            return Err(Error::invalid(origin, format!("{} is there twice", one.address)));
        }
    }
    Ok(listen)
}

/// The second one only where there is IPv6.
fn both_loopbacks() -> Vec<Listen> {
    let at = |ip: std::net::IpAddr, optional| Listen {
        address: Address::Tcp((ip, DEFAULT_PORT).into()),
        optional,
    };
    vec![at(Ipv4Addr::LOCALHOST.into(), false), at(Ipv6Addr::LOCALHOST.into(), true)]
}

pub(super) fn http(sources: &Sources<'_>) -> Result<Option<SocketAddr>, Error> {
    let default = OrOff::At((Ipv4Addr::LOCALHOST, 9090).into());
    Ok(sources.get_or(&keys::HTTP, default)?.at())
}

pub(super) fn admin(sources: &Sources<'_>) -> Result<Option<Address>, Error> {
    let default = OrOff::At(Address::Tcp((Ipv4Addr::LOCALHOST, 9091).into()));
    Ok(sources.get_or(&keys::ADMIN, default)?.at())
}

pub(super) fn log(sources: &Sources<'_>) -> Result<log::Options, Error> {
    Ok(log::Options {
        level: sources.get_or(&keys::LOG_LEVEL, log::Level::Info)?,
        format: sources.find(&keys::LOG_FORMAT)?.map(|found| found.value),
    })
}

pub(super) fn sigterm(sources: &Sources<'_>) -> Result<shutdown::Delays, Error> {
    let min = sources.find(&keys::MIN_SIGTERM_DELAY)?;
    // With the 5 s for giving leases back it fits into Kubernetes' 30 s.
    let max = sources.get_or(&keys::MAX_SIGTERM_DELAY, Duration::from_secs(20))?;
    match min {
        Some(min) if min.value > max => {
            Err(Error::invalid(min.origin, "is longer than max_sigterm_delay, and both count from SIGTERM"))
        }
        min => Ok(shutdown::Delays { min: min.map_or(Duration::ZERO, |min| min.value), max }),
    }
}

pub(super) fn state_file(sources: &Sources<'_>) -> Result<Option<FileSetting>, Error> {
    Ok(sources.find(&keys::STATE_FILE)?.map(Found::into_file))
}

/// What TLS towards clients is done with. `None`: it is not offered.
pub(super) fn tls(sources: &Sources<'_>) -> Result<Option<acceptor::Settings>, Error> {
    let cert = sources.find(&keys::TLS_CERT_FILE)?;
    let key = sources.find(&keys::TLS_KEY_FILE)?;
    let client_ca = sources.find(&keys::TLS_CLIENT_CA_FILE)?;
    match (cert, key, client_ca) {
        (Some(cert), Some(key), client_ca) => Ok(Some(acceptor::Settings {
            cert: cert.into_file(),
            key: key.into_file(),
            client_ca: client_ca.map(Found::into_file),
            alpn: ALPN,
        })),
        (Some(Found { origin, .. }), None, _) => Err(Error::invalid(origin, "needs tls.key_file beside it")),
        (None, Some(Found { origin, .. }), _) | (None, None, Some(Found { origin, .. })) => {
            Err(Error::invalid(origin, "needs tls.cert_file beside it"))
        }
        (None, None, None) => Ok(None),
    }
}

pub(super) fn limits(sources: &Sources<'_>) -> Result<Limits, Error> {
    let span = |key, seconds| sources.get_or(key, Duration::from_secs(seconds));
    Ok(Limits {
        sessions: session::Limits {
            handshake_timeout: span(&keys::HANDSHAKE_TIMEOUT, 15)?,
            login_wait: span(&keys::LOGIN_WAIT, 10)?,
            send_timeout: span(&keys::SEND_TIMEOUT, 30)?,
            max_sessions: sources.get_or(&keys::ALL_SESSIONS, 0)?,
        },
        connect_timeout: span(&keys::CONNECT_TIMEOUT, 10)?,
        replica_grace: sources.find(&keys::REPLICA_GRACE)?.map(|found| found.value),
        issue_burst: sources.get_or(&keys::ISSUE_BURST, 3)?,
        issue_interval: span(&keys::ISSUE_INTERVAL, 60)?,
    })
}

pub(super) fn cancel_unknown(sources: &Sources<'_>, public: bool) -> Result<Unknown, Error> {
    // A public listener is the sign of several replicas behind one address, where a cancel may reach the wrong one.
    sources.get_or(&keys::CANCEL_UNKNOWN, if public { Unknown::Forward } else { Unknown::Off })
}
