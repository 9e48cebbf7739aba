//! Binds every address before anything is served: what cannot be bound is said of all of them at once. Floor 6.

use std::fmt;
use std::net::SocketAddr;

use crate::admin;
use crate::config::Config;
use crate::error::Chain;
use crate::listener::{self, Listener};
use crate::session::ListenerLimits;
use crate::socket::{Address, Holder};

/// Everything that listens.
pub(super) struct Listeners {
    /// Sockets that share limits, and these.
    pub(super) clients: Vec<(ListenerLimits, Vec<Listener>)>,
    pub(super) http: Option<admin::Server>,
    pub(super) admin: Option<admin::Server>,
}

impl Listeners {
    /// Binds them. Call it within a tokio runtime.
    ///
    /// # Errors
    /// Each address that cannot be bound; those that could are free again.
    pub(super) fn bind(config: &Config) -> Result<Self, Unbound> {
        let mut unbound = Unbound(Vec::new());
        let mut clients = Vec::new();
        for listener in &config.listeners {
            let mut sockets = Vec::new();
            for listen in &listener.addresses {
                match Listener::bind(&listen.address) {
                    Ok(socket) => sockets.push(socket),
                    Err(listener::Error::Bind { source, .. }) if listen.optional && is_absent(&source) => {
                        tracing::debug!(addr = %listen.address, "this machine has no IPv6");
                    }
                    Err(error) => unbound.note(&error, &listen.address, listener.setting()),
                }
            }
            clients.push((listener.limits.unwrap_or_default(), sockets));
        }
        let http = config.http.and_then(|addr| {
            let bound = admin::bind_http(addr);
            bound.map_err(|error| unbound.note(&error, &Address::Tcp(addr), "--http")).ok()
        });
        let admin = config.admin.as_ref().and_then(|addr| {
            let bound = admin::bind_admin(addr);
            bound.map_err(|error| unbound.note(&error, addr, "--admin")).ok()
        });
        if unbound.0.is_empty() { Ok(Self { clients, http, admin }) } else { Err(unbound) }
    }
}

/// The addresses that cannot be bound, each with the reason.
#[derive(Debug)]
pub(crate) struct Unbound(Vec<String>);

impl Unbound {
    fn note(&mut self, error: &(dyn std::error::Error + 'static), address: &Address, flag: &str) {
        let holder = match address {
            Address::Tcp(address) => holder(error, *address),
            Address::Unix(_) => String::new(),
        };
        self.0.push(format!("{}{holder}; {flag} names another address", Chain(error)));
    }
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\nleasehold: "))
    }
}

impl std::error::Error for Unbound {}

/// Who has the address, where that can be seen.
fn holder(error: &(dyn std::error::Error + 'static), address: SocketAddr) -> String {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let in_use = causes.any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
    });
    let holder = if in_use { Holder::of(address) } else { None };
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

/// Whether the machine lacks the address family or the address.
fn is_absent(error: &std::io::Error) -> bool {
    let absent = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| absent.iter().any(|errno| errno.raw_os_error() == code))
}
