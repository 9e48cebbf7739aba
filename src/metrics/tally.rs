//! What is counted of a route's sessions, to be read again: a recorder only takes counts in. Floor 0.

use std::sync::atomic::{AtomicU64, Ordering};

use super::labels::Closed;

/// How many causes there are for the end of a session.
pub(crate) const CAUSES: usize = Closed::ALL.len();

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) login_failures: u64,
    /// In the order of [`Closed::ALL`].
    pub(crate) closed: [u64; CAUSES],
}

/// The counts.
#[derive(Default)]
pub(super) struct Tallies {
    opened: AtomicU64,
    login_failures: AtomicU64,
    closed: [AtomicU64; CAUSES],
}

impl Tallies {
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn login_failed(&self) {
        self.login_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, cause: Closed) {
        let counts = Closed::ALL.iter().zip(&self.closed);
        for (_, count) in counts.filter(|(known, _)| **known == cause) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn now(&self) -> Tally {
        Tally {
            opened: self.opened.load(Ordering::Relaxed),
            login_failures: self.login_failures.load(Ordering::Relaxed),
            closed: std::array::from_fn(|at| {
                self.closed.get(at).map_or(0, |count| count.load(Ordering::Relaxed))
            }),
        }
    }
}
