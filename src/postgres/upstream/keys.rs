//! SCRAM's keys for one upstream: remembered, or derived beside the runtime. Floor 2.
//!
//! A server names the salt and the rounds, so what a login costs is the server's to say. Therefore the rounds run on a
//! thread of their own and not on one that carries sessions, at a lower priority; for each upstream one derivation at a
//! time, which every login with the same keys waits for; and for all upstreams together as many as [`Derivations`] has.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::{AcquireError, Semaphore, oneshot};

use crate::postgres::protocol::auth::scram::{Derivation, Keys, Pair};

/// How many derivations may run at once; share one between all upstreams.
#[derive(Clone, Debug)]
pub(crate) struct Derivations(Arc<Semaphore>);

impl Default for Derivations {
    /// As many as there are CPUs; four where there are fewer, so that three servers that ask for much keep no fourth
    /// waiting.
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

    /// What is remembered, or what a derivation gives. Dropped, it leaves one that has begun to end by itself, and its
    /// keys are remembered all the same.
    pub(super) async fn pair(&self, derivation: Derivation) -> io::Result<Pair> {
        if let Some(pair) = self.remembered.get(&derivation) {
            return Ok(pair);
        }
        let own = Arc::clone(&self.own).acquire_owned().await.map_err(closed)?;
        // Another login may have derived the same keys meanwhile.
        if let Some(pair) = self.remembered.get(&derivation) {
            return Ok(pair);
        }
        let of_all = Arc::clone(&self.all.0).acquire_owned().await.map_err(closed)?;
        let (result, done) = oneshot::channel();
        let remembered = Arc::clone(&self.remembered);
        // The thread ends with its rounds, of which there is a most; nothing waits for it at the exit.
        thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES).spawn(move || {
            // On Linux this concerns the calling thread alone. Where it is forbidden the rounds are no less correct.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let pair = derivation.run();
            remembered.keep(derivation, pair.clone());
            drop((own, of_all));
            // The login may have been given up.
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
/// A tenth of the time of a busy CPU, as the kernel shares it between this and a thread that carries sessions.
const NICENESS: i32 = 10;
/// Hashing needs a few kibibytes.
const STACK_BYTES: usize = 256 * 1024;
