//! The settings outside of Vault, listeners and routes. Floor 6.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::thread;

use super::error::Error;
use super::sources::{Found, Sources, or_default};
use super::{Limits, keys};
use crate::files::FileSetting;
use crate::postgres::cancel::Unknown;
use crate::postgres::protocol::startup::ALPN;
use crate::socket::{Address, Network};
use crate::{acceptor, log, session, shutdown};

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
