//! HTTP to one of several addresses of Vault, with a bound on everything. Floor 2.
//!
//! It knows bytes and addresses, not what they mean. No proxy is taken from the environment. A redirect is followed
//! once, by us, and only to the same path at another of the configured addresses: the token goes nowhere else.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_LENGTH, DATE, HOST, HeaderValue, LOCATION, RETRY_AFTER};
use secrecy::zeroize::Zeroizing;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::address::{self, Fixed, origin};
use super::bounds::Limit;
use super::pace::{RateLimiter, Turn};
use super::{Config, Error, tls};
use crate::crypto;

/// The addresses of Vault, and a client for each.
pub(super) struct Transport {
    addresses: Vec<Address>,
    /// The address that is asked first: the one that answered last, or the one after it when that failed. So a dead
    /// address does not cost its two seconds on every request.
    first: AtomicUsize,
    certificates: Arc<tls::Certificates>,
    rereads: Rereads,
    /// How often they are asked, all together.
    pub(super) pace: Arc<RateLimiter>,
}

/// An answer, of any status.
pub(super) struct Reply {
    pub(super) status: u16,
    /// How long Vault (429, 503) asks to be left alone; at most [`RETRY_AFTER_LIMIT`].
    pub(super) retry_after: Option<Duration>,
    /// The server's clock, in whole seconds.
    pub(super) date: Option<SystemTime>,
    pub(super) body: Zeroizing<Vec<u8>>,
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

/// No answer. The text is ours or a socket's.
pub(super) enum NoReply {
    /// Nothing was sent: no address could be connected to.
    NotSent(String),
    /// Nothing was sent: a certificate was not taken, the server's or ours.
    Untrusted(String),
    /// It was sent, and the answer was lost, too large or broken. With what was read of its body.
    Lost(String, Zeroizing<Vec<u8>>),
    /// Sent elsewhere by a redirect that is not followed.
    Redirected(String),
    /// No answer before the deadline.
    TimedOut,
}

impl Transport {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let in_use = config.addrs.iter().any(address::Address::is_https);
        let (tls, certificates) = tls::client_config(config, in_use)?;
        // A connection speaks for the certificate that it was made with, so with one of our own none is kept.
        let idle = if certificates.identity.is_some() { 0 } else { usize::MAX };
        let server_name = config.tls_server_name.as_deref();
        let addresses: Result<Vec<_>, _> =
            config.addrs.iter().map(|address| Address::new(address, &tls, server_name, idle)).collect();
        Ok(Self {
            addresses: addresses?,
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

    /// One address. Where a certificate is not taken, and others are in the files by now, it is tried with those.
    async fn attempt(
        &self,
        address: &Address,
        request: &http::Request<Vec<u8>>,
        turn: &mut Turn,
        limit: &Limit,
    ) -> Result<Answer, NoReply> {
        let before = self.rereads.changes.load(Ordering::Acquire);
        let answer = match address.attempt(request, limit).await {
            Err(NoReply::Untrusted(_))
                if self.reread(before, limit).await && turn.further(limit).await.is_ok() =>
            {
                address.attempt(request, limit).await
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
        self.addresses.get(self.first()).map_or_else(String::new, |address| origin(&address.url))
    }

    /// Whether there is one address only.
    pub(super) fn is_alone(&self) -> bool {
        self.addresses.len() == 1
    }

    /// A base for building requests; each is sent to the address of its turn.
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
        for try_number in 0..self.addresses.len() {
            if try_number > 0 && turn.further(limit).await.is_err() {
                break;
            }
            let index = (first + try_number) % self.addresses.len();
            let Some(address) = self.addresses.get(index) else {
                break;
            };
            let answer = match self.attempt(address, request, turn, limit).await {
                Ok(Answer::Reply(reply)) => Ok(self.answered(index, reply)),
                Ok(Answer::Elsewhere(target)) => self.follow(index, target, request, turn, limit).await,
                Err(no_reply) => Err(no_reply),
            };
            match answer {
                Ok(reply) if serves_nothing(reply.status) => {
                    tracing::debug!(vault.addr = %origin(&address.url), status = reply.status, "address passed over");
                    best = Ok(reply);
                }
                Ok(reply) => return Ok(reply),
                Err(NoReply::NotSent(reason)) => {
                    tracing::debug!(vault.addr = %origin(&address.url), error = %reason, "address passed over");
                    self.pass_over(index);
                    if matches!(best, Err(NoReply::NotSent(_))) {
                        best = Err(NoReply::NotSent(reason));
                    }
                }
                Err(NoReply::Redirected(reason)) => {
                    tracing::debug!(vault.addr = %origin(&address.url), error = %reason, "address passed over");
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
        let known = self.addresses.iter().position(|address| address.url.origin() == target.origin());
        let refused = |why: &str| {
            self.pass_over(index);
            Err(NoReply::Redirected(format!("redirected to {to}, {why}")))
        };
        let Some((place, address)) = known.and_then(|place| Some((place, self.addresses.get(place)?))) else {
            return refused("which is not one of the configured addresses");
        };
        if !same_path {
            return refused("to another path");
        }
        if turn.further(limit).await.is_err() {
            return refused("and no turn came in time");
        }
        match self.attempt(address, request, turn, limit).await {
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
        let next = (index + 1) % self.addresses.len().max(1);
        self.first.store(next, Ordering::Relaxed);
    }

    fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }
}

/// One address, with a client of its own: where `tls_server_name` is set the client is asked for that name, and its
/// resolver leads it to the address, so that both SNI and verification use the name.
struct Address {
    url: Url,
    /// What the client is asked for.
    target: Url,
    /// Sent as Host where `target` is not `url`.
    host: Option<HeaderValue>,
    client: reqwest::Client,
}

enum Answer {
    Reply(Reply),
    Elsewhere(Url),
}

impl Address {
    fn new(
        address: &address::Address,
        tls: &rustls::ClientConfig,
        server_name: Option<&str>,
        idle: usize,
    ) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(idle)
            .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")));
        let url = address.url().clone();
        let mut target = url.clone();
        let mut host = None;
        if let Some(name) = server_name.filter(|_| address.is_https()) {
            if !matches!(Host::parse(name), Ok(Host::Domain(_))) || target.set_host(Some(name)).is_err() {
                return Err(Error::ServerName);
            }
            host = HeaderValue::from_str(address.authority()).ok();
            builder = builder.dns_resolver(Arc::new(Fixed(address.plain_host())));
        }
        Ok(Self { url, target, host, client: builder.build().map_err(Error::Client)? })
    }

    async fn attempt(&self, request: &http::Request<Vec<u8>>, limit: &Limit) -> Result<Answer, NoReply> {
        timeout_at(limit.ends_at(), self.exchange(request)).await.unwrap_or(Err(NoReply::TimedOut))
    }

    async fn exchange(&self, request: &http::Request<Vec<u8>>) -> Result<Answer, NoReply> {
        let mut url = self.target.clone();
        url.set_path(request.uri().path());
        url.set_query(request.uri().query());
        let mut outgoing = reqwest::Request::new(request.method().clone(), url);
        for (name, value) in request.headers() {
            let mut value = value.clone();
            value.set_sensitive(name == TOKEN_HEADER);
            outgoing.headers_mut().append(name.clone(), value);
        }
        if let Some(host) = &self.host {
            outgoing.headers_mut().insert(HOST, host.clone());
        }
        if !request.body().is_empty() {
            *outgoing.body_mut() = Some(request.body().clone().into());
        }
        let response = self.client.execute(outgoing).await.map_err(no_reply)?;
        if matches!(response.status().as_u16(), 307 | 308)
            && let Some(target) = self.location(&response)
        {
            return Ok(Answer::Elsewhere(target));
        }
        read(response).await.map(Answer::Reply)
    }

    fn location(&self, response: &reqwest::Response) -> Option<Url> {
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        self.url.join(location).ok()
    }
}

/// A secondary or standby that will not forward, a sealed node, one that knows no leader: it has not done what it was
/// asked. Other 5xx may follow a deed.
fn serves_nothing(status: u16) -> bool {
    matches!(status, 472 | 473 | 503)
}

/// Reads at most [`BODY_LIMIT`] bytes of the body.
async fn read(mut response: reqwest::Response) -> Result<Reply, NoReply> {
    let status = response.status().as_u16();
    let number = |name| -> Option<usize> { response.headers().get(name)?.to_str().ok()?.trim().parse().ok() };
    let retry_after = number(RETRY_AFTER)
        .filter(|_| matches!(status, 429 | 503))
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_LIMIT));
    let date =
        response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let announced = number(CONTENT_LENGTH).unwrap_or(0);
    if announced > BODY_LIMIT {
        return Err(NoReply::Lost(TOO_LARGE.to_owned(), Zeroizing::default()));
    }
    let mut body = Zeroizing::new(Vec::with_capacity(announced));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY_LIMIT => {
                return Err(NoReply::Lost(TOO_LARGE.to_owned(), body));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                return Err(match no_reply(error) {
                    NoReply::Lost(why, _) => NoReply::Lost(why, body),
                    other => other,
                });
            }
        }
    }
    Ok(Reply { status, retry_after, date, body })
}

/// Only the innermost reason is kept: the outer ones repeat it and name the URL.
fn no_reply(error: reqwest::Error) -> NoReply {
    let not_sent = error.is_connect() || error.is_builder();
    let untrusted = is_about_certificates(&error);
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = inner.to_string();
        if crypto::of_rustls(inner).is_some_and(crypto::is_nothing_in_common) {
            reason = format!("no algorithm or version of TLS in common with leasehold: {reason}");
            break;
        }
        source = inner.source();
    }
    if untrusted {
        NoReply::Untrusted(format!("cannot connect: {reason}"))
    } else if not_sent {
        NoReply::NotSent(format!("cannot connect: {reason}"))
    } else {
        NoReply::Lost(format!("the connection was lost: {reason}"), Zeroizing::default())
    }
}

/// Whether a certificate was not taken: Vault's by us, or ours by Vault, which TLS 1.3 tells only when we read.
fn is_about_certificates(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(inner) = source {
        if crypto::of_rustls(inner).is_some_and(crypto::is_about_certificates) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// Connecting, TLS included. A live address needs milliseconds; the next one is better than waiting.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// How often the certificates are read again while one is not taken.
const REREAD_EVERY: Duration = Duration::from_secs(5);

/// Long enough for the requests of one issuance to share a connection, short enough that a renewal minutes later
/// does not try one that something in between has forgotten.
const IDLE_FOR: Duration = Duration::from_secs(5);

/// A creds reply has about 1 KiB.
const BODY_LIMIT: usize = 1 << 20;

const TOO_LARGE: &str = "the reply is larger than 1 MiB";

/// Beyond it our own back-off decides.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(30);

/// <https://developer.hashicorp.com/vault/api-docs#authentication>
const TOKEN_HEADER: &str = "x-vault-token";
