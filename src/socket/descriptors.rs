//! The file descriptors of the process: the limit, and the number that clients may use. Floor 2.
//!
//! The renewal of leases needs descriptors at times that cannot be predicted: a connection for a renewal, a file with a
//! secret, a login that proves a credential. So clients never use the last descriptors.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files (`RLIMIT_NOFILE`) to the hard limit.
///
/// # Errors
/// The system refuses.
pub(crate) fn raise_limit() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The present limit of open files. Another process can change it.
#[must_use]
pub(crate) fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The number of descriptors for each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Clients that are served, each with a descriptor for its upstream.
    pub(crate) clients: usize,
    /// Connections of each HTTP server.
    pub(crate) http: usize,
    /// Clients beyond that number: each gets an error, or has its cancel request forwarded.
    pub(crate) turned_away: usize,
}

impl Shares {
    /// The shares of this limit, in a process with so many worker threads and routes.
    #[must_use]
    pub(crate) fn of(limit: usize, threads: usize, routes: usize) -> Self {
        let room = limit.saturating_sub(OWN + OF_THREAD * threads);
        let http = (room / 10).clamp(2, MOST_HTTP);
        let turned_away = (room / 16).clamp(1, MOST_TURNED_AWAY);
        let for_leases = (OF_PROCESS + OF_ROUTE * routes).min(room / 4);
        let others = 2 * http + EACH_CLIENT * turned_away + for_leases;
        Self { clients: room.saturating_sub(others) / EACH_CLIENT, http, turned_away }
    }
}

/// Counts the clients that hold descriptors.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    threads: usize,
    clients: AtomicUsize,
    routes: AtomicUsize,
    warm: AtomicUsize,
}

impl Descriptors {
    /// Counts for a process with so many worker threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, ..Self::default() }
    }

    /// Sets the number of routes, and of warm sessions without a client, for which descriptors are reserved.
    pub(crate) fn keep_for(&self, routes: usize, warm: usize) {
        self.routes.store(routes, Ordering::Relaxed);
        self.warm.store(warm, Ordering::Relaxed);
    }

    /// The shares at this moment.
    #[must_use]
    pub(crate) fn shares(&self) -> Shares {
        let limit = limit().saturating_sub(self.warm.load(Ordering::Relaxed));
        Shares::of(limit, self.threads, self.routes.load(Ordering::Relaxed))
    }

    /// Takes the descriptors of a client and its upstream, if enough are left for the other uses.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>) -> Option<Taken> {
        self.take_of(self.shares().clients)
    }

    fn take_of(self: &Arc<Self>, most: usize) -> Option<Taken> {
        let taken = Taken(Arc::clone(self));
        // `taken` gives them back when it is dropped here.
        (self.clients.fetch_add(1, Ordering::Relaxed) < most).then_some(taken)
    }
}

/// The descriptors of one client, given back on drop.
#[derive(Debug)]
pub(crate) struct Taken(Arc<Descriptors>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The client's socket, and the socket of its upstream or of the cancel request that it sends.
const EACH_CLIENT: usize = 2;
/// Standard streams, the main runtime, signals, listeners, the state file and its lock, two files of `/proc`.
const OWN: usize = 22;
/// The descriptors of a runtime: `epoll`, its `eventfd`, and its end of the signal sockets.
const OF_THREAD: usize = 3;
/// A check of the configuration and its files, and DNS lookups.
const OF_PROCESS: usize = 4;
/// A request for a lease, a login that proves it, and a renewal or revocation at the same time.
const OF_ROUTE: usize = 3;
/// Health probes and metrics scrapers need only a few connections.
const MOST_HTTP: usize = 64;
/// Each of these clients needs only one answer.
const MOST_TURNED_AWAY: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_are_within_the_limit() {
        for limit in [48, 64, 100, 256, 1_024, 4_096, 65_536, 1_048_576] {
            for routes in [1, 2, 10, 100, 1_000] {
                let shares = Shares::of(limit, 2, routes);
                let Shares { clients, http, turned_away } = shares;
                let given = OWN + 2 * OF_THREAD + 2 * http + EACH_CLIENT * (turned_away + clients);
                let for_leases = limit - given;
                assert!(
                    for_leases >= (OF_PROCESS + OF_ROUTE * routes).min(limit / 8),
                    "{limit} {routes} {shares:?}"
                );
                assert!(clients >= limit / 16, "{limit} {routes} {shares:?}");
            }
        }
    }

    #[test]
    fn a_limit_that_leaves_nothing_leaves_no_client_in() {
        for limit in 0..=28 {
            assert_eq!(Shares::of(limit, 2, 1).clients, 0);
        }
    }

    #[test]
    fn what_a_client_had_is_there_again_when_it_has_gone() {
        let descriptors = Arc::new(Descriptors::default());
        let first = descriptors.take_of(1);
        assert!(first.is_some());
        assert!(descriptors.take_of(1).is_none());
        drop(first);
        assert!(descriptors.take_of(1).is_some());
    }
}
