//! The keys that clients hold, and the sessions that they cancel. Floor 4.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::postgres::protocol::startup::CancelRequest;
use crate::postgres::upstream::CancelTarget;

/// The keys of all sessions.
#[derive(Default)]
pub(super) struct Table(Mutex<HashSet<ByKey>>);

impl Table {
    /// Adds the key that a session's client was given: `other_key`, or else the server's. Dropping the registration removes
    /// it.
    pub(super) fn register(
        self: &Arc<Self>,
        other_key: Option<CancelRequest>,
        target: Arc<CancelTarget>,
    ) -> Registration {
        let entry = match other_key {
            Some(key) => ByKey::Other(Arc::new((key, target))),
            None => ByKey::Server(target),
        };
        // Two servers may create equal keys: the later one stands.
        self.lock().replace(entry.clone());
        Registration { table: Arc::clone(self), entry }
    }

    /// What this key stands for.
    pub(super) fn get(&self, key: &CancelRequest) -> Option<Arc<CancelTarget>> {
        self.lock().get(key).map(|known| Arc::clone(known.target()))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ByKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's key in the table. Dropping it removes the key.
pub(in crate::postgres) struct Registration {
    table: Arc<Table>,
    entry: ByKey,
}

impl Registration {
    /// What the key stands for.
    pub(in crate::postgres) fn target(&self) -> &CancelTarget {
        self.entry.target()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut keys = self.table.lock();
        // Another session may have an equal key.
        if keys.get(self.entry.key()).is_some_and(|known| known.is_same(&self.entry)) {
            keys.remove(self.entry.key());
        }
    }
}

/// An entry of the table, found by the key that the client was given. It is a pointer, as a table has room for twice as many as
/// it holds.
#[derive(Clone)]
enum ByKey {
    /// The client has the server's key.
    Server(Arc<CancelTarget>),
    /// It has another one.
    Other(Arc<(CancelRequest, Arc<CancelTarget>)>),
}

impl ByKey {
    fn key(&self) -> &CancelRequest {
        match self {
            Self::Server(target) => target.request(),
            Self::Other(other) => &other.0,
        }
    }

    fn target(&self) -> &Arc<CancelTarget> {
        match self {
            Self::Server(target) => target,
            Self::Other(other) => &other.1,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Server(one), Self::Server(two)) => Arc::ptr_eq(one, two),
            (Self::Other(one), Self::Other(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl Borrow<CancelRequest> for ByKey {
    fn borrow(&self) -> &CancelRequest {
        self.key()
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByKey {}
