//! One CancelRequest at a time for each key: a client that floods its own session costs the server one connection. Floor 4.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::postgres::protocol::startup::CancelRequest;

/// The keys for which requests are under way.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<CancelRequest, Arc<Semaphore>>>);

impl Turns {
    /// Waits until no other request with this key is under way; `None`: it takes too long. The turn ends when it is dropped.
    pub(super) async fn next(&self, key: &CancelRequest, within: Duration) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Each turn and each who waits for one holds the semaphore.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        timeout(within, turn.acquire_owned()).await.ok()?.ok()
    }
}
