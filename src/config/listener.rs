//! Where clients connect: `listen`, and each `[[listener]]` with limits of its own. Floor 6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::{Error, Origin};
use super::file::Repeated;
use super::keys;
use super::sources::{Found, Sources, Written};
use super::values::DEFAULT_PORT;
use crate::session::ListenerLimits;
use crate::socket::Address;

/// Addresses for clients, which share their limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Never empty.
    pub(crate) addresses: Vec<Listen>,
    /// `None`: it is that of `listen`, for which the limits of the process alone count.
    pub(crate) limits: Option<ListenerLimits>,
}

impl Listener {
    /// Where its addresses are written.
    #[must_use]
    pub(crate) fn setting(&self) -> &'static str {
        if self.limits.is_none() { "--listen" } else { "[[listener]]" }
    }
}

/// One address for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) address: Address,
    /// It is one of the default list: a machine without its address family is no error.
    pub(crate) optional: bool,
}

/// All addresses of these.
pub(super) fn addresses(listeners: &[Listener]) -> impl Iterator<Item = &Listen> {
    listeners.iter().flat_map(|listener| &listener.addresses)
}

/// That of `listen`, and those of the file. The default of `listen` holds where neither is written.
pub(super) fn merge(sources: &Sources<'_>) -> Result<Vec<Listener>, Error> {
    let listen = sources.find(&keys::LISTEN)?.map(|found| Ok((found, None)));
    let in_file = sources.listeners().iter().map(|table| in_file(sources, table));
    let mut listeners: Vec<Listener> = Vec::new();
    for written in listen.into_iter().chain(in_file) {
        let (Found { value: list, origin }, limits) = written?;
        check(sources, &list, &origin)?;
        let mut taken = Vec::new();
        for one in list {
            let fixed = !matches!(one.address, Address::Tcp(addr) if addr.port() == 0);
            if fixed && addresses(&listeners).chain(&taken).any(|other| other.address == one.address) {
                let twice = "is there twice: it stands once, in listen or in one [[listener]]";
                return Err(Error::invalid(origin, format!("{} {twice}", one.address)));
            }
            taken.push(one);
        }
        listeners.push(Listener { addresses: taken, limits });
    }
    if listeners.is_empty() {
        listeners.push(Listener { addresses: both_loopbacks(), limits: None });
    }
    Ok(listeners)
}

/// Whether clients can connect over a Unix socket.
pub(super) fn listens_on_unix(sources: &Sources<'_>) -> Result<bool, Error> {
    let listeners = merge(sources)?;
    Ok(addresses(&listeners).any(|listen| matches!(listen.address, Address::Unix(_))))
}

/// A `[[listener]]`: its addresses, and its limits.
fn in_file(
    sources: &Sources<'_>,
    table: &Repeated,
) -> Result<(Found<Vec<Listen>>, Option<ListenerLimits>), Error> {
    let written = Written::InFile(table);
    let addresses = sources.find_of(written, &keys::LISTENER_ADDRESS)?.ok_or_else(|| {
        Error::invalid(sources.place_of(table, "address"), "is needed in each [[listener]]")
    })?;
    let timeout = sources.find_of(written, &keys::LISTENER_HANDSHAKE_TIMEOUT)?;
    let limits = ListenerLimits {
        handshake_timeout: timeout.map(|found| found.value),
        max_sessions: sources.get_of(written, &keys::LISTENER_SESSIONS)?,
        max_handshakes: sources.get_of(written, &keys::LISTENER_HANDSHAKES)?,
        logins_per_second: sources.get_of(written, &keys::LISTENER_LOGINS)?,
    };
    Ok((addresses, Some(limits)))
}

/// Whether clients may be let in at all of these.
fn check(sources: &Sources<'_>, list: &[Listen], origin: &Origin) -> Result<(), Error> {
    let refuse = |reason| Err(Error::invalid(origin.clone(), reason));
    let Some(open) = list.iter().find(|listen| !listen.address.is_local()) else { return Ok(()) };
    let open_to = |remedy: &str| {
        let open = &open.address;
        format!("{open} is open beyond this machine, and whoever reaches it needs no password; {remedy}")
    };
    if !sources.get_or(&keys::LISTEN_PUBLIC, false)? {
        return refuse(open_to("--listen-public allows it"));
    }
    let is_guarded = [keys::TLS_CLIENT_CA_FILE.setting, keys::ALLOW_ADDRESSES.setting];
    if is_guarded.iter().all(|setting| sources.place(setting).is_none()) {
        let remedy =
            "say from whom: --tls-client-ca-file asks for certificates, --allow-addresses lists networks";
        return refuse(open_to(remedy));
    }
    Ok(())
}

/// The second one only where there is IPv6.
fn both_loopbacks() -> Vec<Listen> {
    let at = |ip: IpAddr, optional| Listen { address: Address::Tcp((ip, DEFAULT_PORT).into()), optional };
    vec![at(Ipv4Addr::LOCALHOST.into(), false), at(Ipv6Addr::LOCALHOST.into(), true)]
}
