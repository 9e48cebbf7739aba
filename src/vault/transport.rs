//! HTTP to one of several servers of Vault, with a bound on everything. Floor 2.
//!
//! It knows bytes and addresses, not what they mean. No proxy is taken from the environment. A redirect is followed
//! once, by us, and only to the same path at another of the configured addresses: the token goes nowhere else.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::address::{Address, origin};
use super::bounds::Limit;
use super::pace::{RateLimiter, Turn};
use super::{Config, Error, tls};
use server::{Answer, Server};
pub(super) use server::{NoReply, Reply};

/// The servers of Vault.
pub(super) struct Transport {
    servers: Vec<Server>,
    /// The server that is asked first: the one that answered last, or the one after it when that failed. So a dead
    /// server does not cost its two seconds on every request.
    first: AtomicUsize,
    certificates: Arc<tls::Certificates>,
    rereads: Rereads,
    /// Limits the requests to all of them together.
    pub(super) pace: Arc<RateLimiter>,
}

/// A client certificate that is being read.
pub(super) struct Refreshing(JoinHandle<Result<bool, Error>>);

/// Reads of the certificates because one was not taken.
#[derive(Default)]
struct Rereads {
    /// The latest, where it hangs, and when the one before it was done.
    latest: tokio::sync::Mutex<(Option<Refreshing>, Option<Instant>)>,
    /// How often they have brought something else.
    changes: AtomicUsize,
}

impl Transport {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let in_use = config.addrs.iter().any(Address::is_https);
        let (tls, certificates) = tls::client_config(config, in_use)?;
        // A connection speaks for the certificate that it was made with, so with one of our own none is kept.
        let idle = if certificates.identity.is_some() { 0 } else { usize::MAX };
        let server_name = config.tls_server_name.as_deref();
        let servers: Result<Vec<_>, _> =
            config.addrs.iter().map(|address| Server::new(address, &tls, server_name, idle)).collect();
        Ok(Self {
            servers: servers?,
            first: AtomicUsize::new(0),
            certificates: Arc::new(certificates),
            rereads: Rereads::default(),
            pace: Arc::new(RateLimiter::new()),
        })
    }

    /// Reads the client certificate again, if there is one; where that fails, or takes too long, the earlier one stays. A
    /// read that hangs keeps its thread; it is kept in `under_way`, and no other is begun beside it. Cancel safe.
    pub(super) async fn refresh_identity(&self, under_way: &mut Option<Refreshing>, until: Instant) {
        let Some(identity) = self.certificates.identity.clone() else { return };
        let reading = under_way
            .get_or_insert_with(|| Refreshing(tokio::task::spawn_blocking(move || identity.refresh())));
        let Ok(refreshed) = timeout_at(until, &mut reading.0).await else {
            tracing::warn!("reading the client certificate again takes too long: the earlier one is shown");
            return;
        };
        *under_way = None;
        if let Ok(Err(error)) = refreshed {
            tracing::warn!(%error, "the client certificate cannot be read again: the earlier one is shown");
        }
    }

    /// Asks one server. Where a certificate is not taken, and the files hold others by now, it is asked again with those.
    async fn attempt(
        &self,
        server: &Server,
        request: &http::Request<Vec<u8>>,
        turn: &mut Turn,
        limit: &Limit,
    ) -> Result<Answer, NoReply> {
        let before = self.rereads.changes.load(Ordering::Acquire);
        let answer = match server.attempt(request, limit).await {
            Err(NoReply::Untrusted(_))
                if self.reread(before, limit).await && turn.further(limit).await.is_ok() =>
            {
                server.attempt(request, limit).await
            }
            answer => answer,
        };
        match answer {
            Err(NoReply::Untrusted(reason)) => Err(NoReply::NotSent(reason)),
            answer => answer,
        }
    }

    /// Reads the certificates again, at most once in [`REREAD_EVERY`]. Whether they have changed since `before`.
    async fn reread(&self, before: usize, limit: &Limit) -> bool {
        let has_changed = || self.rereads.changes.load(Ordering::Acquire) != before;
        let Ok(mut latest) = timeout_at(limit.ends_at(), self.rereads.latest.lock()).await else {
            return false;
        };
        let (under_way, read_at) = &mut *latest;
        if has_changed() || read_at.is_some_and(|at| at.elapsed() < REREAD_EVERY) {
            return has_changed();
        }
        let certificates = Arc::clone(&self.certificates);
        let reading = under_way
            .get_or_insert_with(|| Refreshing(tokio::task::spawn_blocking(move || certificates.refresh())));
        let Ok(read) = timeout_at(limit.ends_at(), &mut reading.0).await else {
            tracing::warn!("reading the certificates for Vault again takes too long");
            return false;
        };
        *under_way = None;
        *read_at = Some(Instant::now());
        match read {
            Ok(Ok(true)) => {
                tracing::info!("the certificates for Vault were read again: they have changed");
                self.rereads.changes.fetch_add(1, Ordering::AcqRel);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the certificates for Vault cannot be read again: the earlier ones stay");
            }
            Ok(Ok(false)) | Err(_) => {}
        }
        has_changed()
    }

    /// The address that answered last, as it was configured; before any answer the first.
    pub(super) fn addr(&self) -> String {
        self.servers.get(self.first()).map_or_else(String::new, |server| origin(&server.url))
    }

    /// Whether there is one server only.
    pub(super) fn is_alone(&self) -> bool {
        self.servers.len() == 1
    }

    /// A base for building requests; each is sent to the server whose turn it is.
    pub(super) fn base(&self) -> String {
        self.addr()
    }

    /// Sends it to the first address that can be connected to; its turn has come, and each further address takes one of its
    /// own. A node that certainly did nothing (it was not reached, serves nothing, or sends us where we do not go) is passed
    /// over for the next. Where none does better, the most telling of their answers stands. Not cancel safe: a reply may be
    /// lost.
    pub(super) async fn send(
        &self,
        request: &http::Request<Vec<u8>>,
        turn: &mut Turn,
        limit: &Limit,
    ) -> Result<Reply, NoReply> {
        let first = self.first();
        let mut best = Err(NoReply::NotSent("no address".to_owned()));
        for try_number in 0..self.servers.len() {
            if try_number > 0 && turn.further(limit).await.is_err() {
                break;
            }
            let index = (first + try_number) % self.servers.len();
            let Some(server) = self.servers.get(index) else {
                break;
            };
            let answer = match self.attempt(server, request, turn, limit).await {
                Ok(Answer::Reply(reply)) => Ok(self.answered(index, reply)),
                Ok(Answer::Elsewhere(target)) => self.follow(index, target, request, turn, limit).await,
                Err(no_reply) => Err(no_reply),
            };
            match answer {
                Ok(reply) if serves_nothing(reply.status) => {
                    tracing::debug!(vault.addr = %origin(&server.url), status = reply.status, "address passed over");
                    best = Ok(reply);
                }
                Ok(reply) => return Ok(reply),
                Err(NoReply::NotSent(reason)) => {
                    tracing::debug!(vault.addr = %origin(&server.url), error = %reason, "address passed over");
                    self.pass_over(index);
                    if matches!(best, Err(NoReply::NotSent(_))) {
                        best = Err(NoReply::NotSent(reason));
                    }
                }
                Err(NoReply::Redirected(reason)) => {
                    tracing::debug!(vault.addr = %origin(&server.url), error = %reason, "address passed over");
                    if best.is_err() {
                        best = Err(NoReply::Redirected(reason));
                    }
                }
                Err(lost) => {
                    self.pass_over(index);
                    return Err(lost);
                }
            }
        }
        best
    }

    /// Follows a redirect from the address at `index`, where its target is one of ours.
    async fn follow(
        &self,
        index: usize,
        target: Url,
        request: &http::Request<Vec<u8>>,
        turn: &mut Turn,
        limit: &Limit,
    ) -> Result<Reply, NoReply> {
        let to = origin(&target);
        let same_path = target.path() == request.uri().path() && target.query() == request.uri().query();
        let known = self.servers.iter().position(|server| server.url.origin() == target.origin());
        let refused = |why: &str| {
            self.pass_over(index);
            Err(NoReply::Redirected(format!("redirected to {to}, {why}")))
        };
        let Some((place, server)) = known.and_then(|place| Some((place, self.servers.get(place)?))) else {
            return refused("which is not one of the configured addresses");
        };
        if !same_path {
            return refused("to another path");
        }
        if turn.further(limit).await.is_err() {
            return refused("and no turn came in time");
        }
        match self.attempt(server, request, turn, limit).await {
            Ok(Answer::Reply(reply)) => Ok(self.answered(place, reply)),
            Ok(Answer::Elsewhere(_)) => refused("and from there on again"),
            // The first address answered, by sending us to one that is not there: as good as no answer.
            Err(NoReply::NotSent(_)) => refused("which cannot be connected to"),
            Err(other) => Err(other),
        }
    }

    /// Remembers who answered. One whose own state is in the way (5xx, a standby that will not forward) is not asked
    /// first the next time.
    fn answered(&self, index: usize, reply: Reply) -> Reply {
        self.first.store(index, Ordering::Relaxed);
        if matches!(reply.status, 300..=399 | 472 | 473 | 500..=599) {
            self.pass_over(index);
        }
        reply
    }

    fn pass_over(&self, index: usize) {
        let next = (index + 1) % self.servers.len().max(1);
        self.first.store(next, Ordering::Relaxed);
    }

    fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }
}

/// A secondary or standby that will not forward, a sealed node, one that knows no leader: it has not done what it was
/// asked. Other 5xx may follow a deed.
fn serves_nothing(status: u16) -> bool {
    matches!(status, 472 | 473 | 503)
}

/// How often the certificates are read again while one is not taken.
const REREAD_EVERY: Duration = Duration::from_secs(5);
