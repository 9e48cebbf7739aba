//! The settings outside of Vault and routes. Floor 6.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread;

use super::error::Error;
use super::sources::{Found, Sources, or_default};
use super::values::DEFAULT_PORT;
use super::{Limits, Listen, keys};
use crate::files::FileSetting;
use crate::postgres::cancel::Unknown;
use crate::postgres::protocol::startup::ALPN;
use crate::socket::{Address, Network};
use crate::{acceptor, log, session, shutdown};

pub(super) fn listen(sources: &Sources<'_>) -> Result<Vec<Listen>, Error> {
    let public = sources.get_or(&keys::LISTEN_PUBLIC, false)?;
    let Some(Found { value: listen, origin }) = sources.find(&keys::LISTEN)? else {
        return Ok(both_loopbacks());
    };
    if listen.is_empty() {
        return Err(Error::invalid(origin, "at least one address is needed"));
    }
    if let Some(open) = listen.iter().find(|listen| !listen.address.is_local()) {
        let open_to = |remedy: &str| {
            let open = &open.address;
            format!("{open} is open beyond this machine, and whoever reaches it needs no password; {remedy}")
        };
        if !public {
            let reason = open_to("--listen-public allows it");
            return Err(Error::invalid(origin, reason));
        }
        let is_guarded = [keys::TLS_CLIENT_CA_FILE.setting, keys::ALLOW_ADDRESSES.setting];
        if is_guarded.iter().all(|setting| sources.place(setting).is_none()) {
            let remedy =
                "say from whom: --tls-client-ca-file asks for certificates, --allow-addresses lists networks";
            return Err(Error::invalid(origin, open_to(remedy)));
        }
    }
    for (at, one) in listen.iter().enumerate() {
        let fixed = !matches!(one.address, Address::Tcp(addr) if addr.port() == 0);
        if fixed && listen.iter().skip(at + 1).any(|other| other.address == one.address) {
            return Err(Error::invalid(origin, format!("{} is there twice", one.address)));
        }
    }
    Ok(listen)
}

/// Whether clients can connect over a Unix socket.
pub(super) fn listens_on_unix(sources: &Sources<'_>) -> Result<bool, Error> {
    let listen = sources.get_or(&keys::LISTEN, Vec::new())?;
    Ok(listen.iter().any(|listen| matches!(listen.address, Address::Unix(_))))
}

/// The second one only where there is IPv6.
fn both_loopbacks() -> Vec<Listen> {
    let at = |ip: std::net::IpAddr, optional| Listen {
        address: Address::Tcp((ip, DEFAULT_PORT).into()),
        optional,
    };
    vec![at(Ipv4Addr::LOCALHOST.into(), false), at(Ipv6Addr::LOCALHOST.into(), true)]
}

/// `None`: clients may connect from everywhere.
pub(super) fn allow_addresses(sources: &Sources<'_>) -> Result<Option<Vec<Network>>, Error> {
    Ok(sources.find(&keys::ALLOW_ADDRESSES)?.map(|found| found.value))
}

pub(super) fn http(sources: &Sources<'_>) -> Result<Option<SocketAddr>, Error> {
    Ok(sources.get(&keys::HTTP)?.at())
}

pub(super) fn admin(sources: &Sources<'_>) -> Result<Option<Address>, Error> {
    Ok(sources.get(&keys::ADMIN)?.at())
}

pub(super) fn threads(sources: &Sources<'_>) -> Result<NonZeroUsize, Error> {
    // The quota of the cgroup and the affinity of the process are looked at.
    let cpus = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    sources.get_or(&keys::THREADS, cpus)
}

pub(super) fn log(sources: &Sources<'_>) -> Result<log::Options, Error> {
    Ok(log::Options {
        level: sources.get(&keys::LOG_LEVEL)?,
        format: sources.find(&keys::LOG_FORMAT)?.map(|found| found.value),
        colours: sources.env.wants_colours(),
    })
}

pub(super) fn sigterm(sources: &Sources<'_>) -> Result<shutdown::Delays, Error> {
    let min = or_default(sources.find(&keys::MIN_SIGTERM_DELAY)?, &keys::MIN_SIGTERM_DELAY)?;
    // With the 5 s for giving leases back its default fits into Kubernetes' 30 s.
    let max = sources.get(&keys::MAX_SIGTERM_DELAY)?;
    if min.value > max {
        return Err(Error::invalid(
            min.origin,
            "is longer than max_sigterm_delay, and both count from SIGTERM",
        ));
    }
    Ok(shutdown::Delays { min: min.value, max })
}

pub(super) fn state_file(sources: &Sources<'_>) -> Result<Option<FileSetting>, Error> {
    Ok(sources.find(&keys::STATE_FILE)?.map(Found::into_file))
}

pub(super) fn audit_file(sources: &Sources<'_>) -> Result<Option<FileSetting>, Error> {
    Ok(sources.find(&keys::AUDIT_FILE)?.map(Found::into_file))
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
    Ok(Limits {
        sessions: session::Limits {
            handshake_timeout: sources.get(&keys::HANDSHAKE_TIMEOUT)?,
            login_wait: sources.get(&keys::LOGIN_WAIT)?,
            send_timeout: sources.get(&keys::SEND_TIMEOUT)?,
            max_sessions: sources.get(&keys::ALL_SESSIONS)?,
            max_handshakes: sources.get(&keys::MAX_HANDSHAKES)?,
            logins_per_second: sources.get(&keys::ALL_LOGINS)?,
        },
        connect_timeout: sources.get(&keys::CONNECT_TIMEOUT)?,
        replica_grace: sources.find(&keys::REPLICA_GRACE)?.map(|found| found.value),
        issue_burst: sources.get(&keys::ISSUE_BURST)?,
        issue_interval: sources.get(&keys::ISSUE_INTERVAL)?,
    })
}

pub(super) fn cancel_unknown(sources: &Sources<'_>, public: bool) -> Result<Unknown, Error> {
    // A public listener is the sign of several replicas behind one address, where a cancel may reach the wrong one.
    sources.get_or(&keys::CANCEL_UNKNOWN, if public { Unknown::Forward } else { Unknown::Off })
}
