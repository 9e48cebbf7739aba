//! The SCRAM keys of one upstream, remembered or derived on a separate thread. Floor 2.
//!
//! The server chooses salt and rounds, and thereby the cost of a login. So the rounds run at a lower priority on a
//! thread of their own, not on one that carries sessions. Each upstream has one derivation at a time, and all logins
//! with the same keys wait for it. All upstreams together have as many as [`Derivations`] allows.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::{AcquireError, Semaphore, oneshot};

use crate::postgres::protocol::auth::scram::{Derivation, Keys, Pair};

/// The limit of concurrent derivations; share one between all upstreams.
#[derive(Clone, Debug)]
pub(crate) struct Derivations(Arc<Semaphore>);

impl Default for Derivations {
    /// One per CPU, but at least four, so that three expensive servers do not keep a fourth waiting.
    fn default() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cpus.max(AT_LEAST))))
    }
}

/// The keys of one upstream.
#[derive(Debug)]
pub(super) struct KeysOfUpstream {
    remembered: Arc<Keys>,
    own: Arc<Semaphore>,
    all: Derivations,
}

impl KeysOfUpstream {
    pub(super) fn new(all: Derivations) -> Self {
        Self { remembered: Arc::default(), own: Arc::new(Semaphore::new(1)), all }
    }

    /// Returns the remembered keys, or derives them. If the future is dropped, a running derivation still ends, and its
    /// keys are remembered.
    pub(super) async fn pair(&self, derivation: Derivation) -> io::Result<Pair> {
        if let Some(pair) = self.remembered.get(&derivation) {
            return Ok(pair);
        }
        let own = Arc::clone(&self.own).acquire_owned().await.map_err(closed)?;
        // Another login may have derived the same keys since.
        if let Some(pair) = self.remembered.get(&derivation) {
            return Ok(pair);
        }
        let of_all = Arc::clone(&self.all.0).acquire_owned().await.map_err(closed)?;
        let (result, done) = oneshot::channel();
        let remembered = Arc::clone(&self.remembered);
        // The thread ends after its rounds, whose number is bounded. The process does not wait for it at exit.
        thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES).spawn(move || {
            // On Linux this affects only the calling thread. Without permission the rounds run at normal priority.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let pair = derivation.run();
            remembered.keep(derivation, pair.clone());
            drop((own, of_all));
            // The login may have been dropped.
            let _ = result.send(pair);
        })?;
        done.await.map_err(io::Error::other)
    }
}

/// Neither semaphore is ever closed.
fn closed(error: AcquireError) -> io::Error {
    io::Error::other(error)
}

const AT_LEAST: usize = 4;
const THREAD_NAME: &str = "scram-keys";
/// The kernel then gives this thread a tenth of a CPU that it shares with a busy session thread.
const NICENESS: i32 = 10;
/// Hashing needs a few kibibytes.
const STACK_BYTES: usize = 256 * 1024;
