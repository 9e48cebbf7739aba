//! Clients of all kinds, and the book that is kept of what they wrote.

mod clients;
mod ledger;
mod pool;
mod session;
mod watch;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use clients::{Kind, Shared, Worker};
pub(crate) use ledger::{Book, Ledger};
pub(crate) use session::{End, Session};
pub(crate) use watch::Watch;

/// What all clients together have seen.
#[derive(Default)]
pub(crate) struct Tally {
    sessions: AtomicU64,
    bare: Mutex<Vec<String>>,
    longest_millis: AtomicU64,
    notifications: AtomicU64,
    told: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn opened(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// What must never be.
    pub(crate) fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    /// An explicit transaction that stayed open for so long, and was committed.
    pub(crate) fn survived(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap();
        self.longest_millis.fetch_max(millis, Ordering::Relaxed);
    }

    pub(crate) fn notified(&self, count: usize) {
        self.notifications.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A session that this side did not end. Only 57P01 is planned; whether a bare end is one is counted at the end.
    pub(crate) fn ended(&self, end: &End, doing: &str) {
        match &end.word {
            Some(word) if word.code == "57P01" => {
                *self.told.lock().unwrap().entry(word.message.clone()).or_default() += 1;
            }
            Some(word) => self.fault(format!("{doing}, as {}: {} {}", end.role, word.code, word.message)),
            None => self.bare.lock().unwrap().push(format!("{doing}: {}", end.error)),
        }
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Sessions that ended without a word.
    pub(crate) fn bare(&self) -> Vec<String> {
        self.bare.lock().unwrap().clone()
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_millis.load(Ordering::Relaxed))
    }

    pub(crate) fn notifications(&self) -> u64 {
        self.notifications.load(Ordering::Relaxed)
    }

    /// How often each message of 57P01 was read.
    pub(crate) fn told(&self) -> BTreeMap<String, u64> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }
}
