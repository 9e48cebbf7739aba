//! HTTP requests to the servers of one Vault, with limits of time and size. Floor 2.
//!
//! It does not know the meaning of requests and answers. Proxy settings of the environment are ignored. It follows one
//! redirect itself, and only to the same path at another configured address, so that the token goes to no other host.

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
    /// The server that is tried first: the server that answered last, or its successor if that failed. So a dead server
    /// does not cost the connect timeout of two seconds on each request.
    first: AtomicUsize,
    certificates: Arc<tls::Certificates>,
    rereads: Rereads,
    /// The rate limiter of the requests to all servers together.
    pub(super) pace: Arc<RateLimiter>,
}

/// A read of the client certificate that is running.
pub(super) struct Refreshing(JoinHandle<Result<bool, Error>>);

/// The rereads of the certificates after one was rejected.
#[derive(Default)]
struct Rereads {
    /// The latest reread, if it hangs, and when the previous one ended.
    latest: tokio::sync::Mutex<(Option<Refreshing>, Option<Instant>)>,
    /// How many rereads have found changed certificates.
    changes: AtomicUsize,
}

impl Transport {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let in_use = config.addrs.iter().any(Address::is_https);
        let (tls, certificates) = tls::client_config(config, in_use)?;
        // A connection keeps the client certificate of its handshake, so with a client certificate no idle connection
        // is kept.
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

    /// Reads the client certificate again, if there is one. If this fails or takes too long, the earlier one stays in
    /// force. A read that hangs keeps its thread; it is stored in `under_way`, and no second read is started. Cancel
    /// safe.
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

    /// Sends the request to one server. If a certificate is rejected and the files have changed, it is sent again with
    /// the new certificates.
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

    /// Reads the certificates again, at most once in [`REREAD_EVERY`]. Returns whether they have changed since
    /// `before`.
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

    /// The address that answered last, as configured; the first address before any answer.
    pub(super) fn addr(&self) -> String {
        self.servers.get(self.first()).map_or_else(String::new, |server| origin(&server.url))
    }

    /// Whether there is only one server.
    pub(super) fn is_alone(&self) -> bool {
        self.servers.len() == 1
    }

    /// A base URL for building requests. Each request is then sent to the present server.
    pub(super) fn base(&self) -> String {
        self.addr()
    }

    /// Sends the request to the first address that accepts a connection. The caller has its turn; each further address
    /// waits for another turn. The next address is tried if a node has certainly done nothing: it was not reached,
    /// serves no requests, or redirects to an unknown address. If no address does better, the most informative of these
    /// answers is returned. Not cancel safe: a reply may be lost.
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

    /// Follows a redirect from the address at `index`, if its target is a configured address.
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
            // The first address answered with a redirect to an unreachable address, which is no answer to the request.
            Err(NoReply::NotSent(_)) => refused("which cannot be connected to"),
            Err(other) => Err(other),
        }
    }

    /// Records which server answered. A server whose state prevents an answer (5xx, a standby that does not forward) is
    /// not tried first the next time.
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

/// Whether the node has certainly not carried out the request: a secondary or standby that does not forward, a sealed
/// node, a node without a leader. Other 5xx may come after it was carried out.
fn serves_nothing(status: u16) -> bool {
    matches!(status, 472 | 473 | 503)
}

/// The least time between two rereads of the certificates while one is rejected.
const REREAD_EVERY: Duration = Duration::from_secs(5);
