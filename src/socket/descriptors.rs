//! The process' file descriptors: how many there may be, and how many of them clients may take. Floor 2.
//!
//! What keeps leases alive needs descriptors at times that cannot be foreseen: a connection for a renewal, a file with a
//! secret, a login that proves a credential. So clients never get the last ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to the highest that the system grants this process without privileges.
///
/// # Errors
/// If the system refuses.
pub(crate) fn raise_limit() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The limit of open files, as it is now: it can be changed from outside.
#[must_use]
pub(crate) fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Who may have how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Clients, with a descriptor for their upstream each.
    pub(crate) clients: usize,
    /// Connections of each HTTP server.
    pub(crate) http: usize,
    /// Clients for which there are none: each gets an error, or has its cancel request sent.
    pub(crate) turned_away: usize,
}

impl Shares {
    /// Of this limit, in a process with so many worker threads and routes.
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

/// Counts the clients that have descriptors.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    threads: usize,
    clients: AtomicUsize,
    routes: AtomicUsize,
    warm: AtomicUsize,
}

impl Descriptors {
    /// Of a process with so many worker threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, ..Self::default() }
    }

    /// Keeps enough for so many routes, and for so many sessions that no client has yet, from now on.
    pub(crate) fn keep_for(&self, routes: usize, warm: usize) {
        self.routes.store(routes, Ordering::Relaxed);
        self.warm.store(warm, Ordering::Relaxed);
    }

    /// The shares of this moment.
    #[must_use]
    pub(crate) fn shares(&self) -> Shares {
        let limit = limit().saturating_sub(self.warm.load(Ordering::Relaxed));
        Shares::of(limit, self.threads, self.routes.load(Ordering::Relaxed))
    }

    /// Takes those of a client and its upstream, if the others keep enough.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>) -> Option<Taken> {
        self.take_of(self.shares().clients)
    }

    fn take_of(self: &Arc<Self>, most: usize) -> Option<Taken> {
        let taken = Taken(Arc::clone(self));
        // It is given back on drop where there is no room for it.
        (self.clients.fetch_add(1, Ordering::Relaxed) < most).then_some(taken)
    }
}

/// The descriptors of one client, counted until dropped.
#[derive(Debug)]
pub(crate) struct Taken(Arc<Descriptors>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's own socket, and that of its upstream or of the cancel request that it sends.
const EACH_CLIENT: usize = 2;
/// Standard streams, the runtime's own, signals, listeners, the state file and its lock.
const OWN: usize = 20;
/// What a runtime waits with: `epoll`, its `eventfd`, and its end of the sockets of signals.
const OF_THREAD: usize = 3;
/// A look at the configuration and its files, lookups of names.
const OF_PROCESS: usize = 4;
/// A request for a lease, a login that proves it, and one that is renewed or given back meanwhile.
const OF_ROUTE: usize = 3;
/// Probes and scrapers need a handful.
const MOST_HTTP: usize = 64;
/// Each of them is a matter of one answer.
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
