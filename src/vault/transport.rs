//! HTTP to one of several addresses of Vault, with a bound on everything. Floor 2.
//!
//! It knows bytes and addresses, not what they mean. No proxy is taken from the environment. A redirect is followed
//! once, by us, and only to the same path at another of the configured addresses: the token goes nowhere else.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_LENGTH, DATE, HOST, HeaderValue, LOCATION, RETRY_AFTER};
use secrecy::zeroize::Zeroizing;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::{Config, Error, tls};

/// The addresses of Vault, and a client for each.
pub(super) struct Transport {
    addresses: Vec<Address>,
    /// The address that is asked first: the one that answered last, or the one after it when that failed. So a dead
    /// address does not cost its two seconds on every request.
    first: AtomicUsize,
}

/// An answer, of any status.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// The server's clock, in whole seconds.
    pub(super) date: Option<SystemTime>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// No answer. The text is ours or a socket's.
pub(super) enum NoReply {
    /// Nothing was sent: no address could be connected to.
    NotSent(String),
    /// It was sent, and the answer was lost, too large or broken.
    Lost(String),
    /// Sent elsewhere by a redirect that is not followed.
    Redirected(String),
    /// No answer before the deadline.
    TimedOut,
}

impl Transport {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let mut urls = Vec::new();
        for (place, text) in config.addrs.iter().enumerate() {
            urls.push(parse(place, text)?);
        }
        let in_use = urls.iter().any(|url| url.scheme() == "https");
        let tls = tls::client_config(config, in_use)?;
        let addresses: Result<Vec<_>, _> =
            urls.into_iter().map(|url| Address::new(url, &tls, config.tls_server_name.as_deref())).collect();
        let addresses = addresses?;
        if addresses.is_empty() {
            return Err(Error::NoAddress);
        }
        Ok(Self { addresses, first: AtomicUsize::new(0) })
    }

    /// The address that answered last, as it was configured; before any answer the first.
    pub(super) fn addr(&self) -> String {
        self.addresses.get(self.first()).map_or_else(String::new, |address| origin(&address.url))
    }

    /// A base for building requests; each is sent to the address of its turn.
    pub(super) fn base(&self) -> String {
        self.addr()
    }

    /// Sends it to the first address that can be connected to. Not cancel safe: a reply may be lost.
    pub(super) async fn send(
        &self,
        request: &http::Request<Vec<u8>>,
        deadline: Instant,
    ) -> Result<Reply, NoReply> {
        let first = self.first();
        match timeout_at(deadline, self.try_in_turn(request, first)).await {
            Ok(result) => result,
            Err(_) => {
                self.pass_over(self.first());
                Err(NoReply::TimedOut)
            }
        }
    }

    async fn try_in_turn(&self, request: &http::Request<Vec<u8>>, first: usize) -> Result<Reply, NoReply> {
        let mut unreachable = NoReply::NotSent("no address".to_owned());
        for turn in 0..self.addresses.len() {
            let index = (first + turn) % self.addresses.len();
            let Some(address) = self.addresses.get(index) else {
                break;
            };
            match address.attempt(request).await {
                Ok(Answer::Reply(reply)) => return Ok(self.answered(index, reply)),
                Ok(Answer::Elsewhere(target)) => return self.follow(index, target, request).await,
                Err(NoReply::NotSent(reason)) => {
                    tracing::debug!(vault.addr = %origin(&address.url), error = %reason, "address passed over");
                    self.pass_over(index);
                    unreachable = NoReply::NotSent(reason);
                }
                Err(lost) => {
                    self.pass_over(index);
                    return Err(lost);
                }
            }
        }
        Err(unreachable)
    }

    /// Follows a redirect from the address at `index`, where its target is one of ours.
    async fn follow(
        &self,
        index: usize,
        target: Url,
        request: &http::Request<Vec<u8>>,
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
        match address.attempt(request).await {
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
    fn new(url: Url, tls: &rustls::ClientConfig, server_name: Option<&str>) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")));
        let mut target = url.clone();
        let mut host = None;
        if let Some(name) = server_name.filter(|_| url.scheme() == "https") {
            if !matches!(Host::parse(name), Ok(Host::Domain(_))) || target.set_host(Some(name)).is_err() {
                return Err(Error::ServerName);
            }
            host = HeaderValue::from_str(authority(&url)).ok();
            builder = builder.dns_resolver(Arc::new(Fixed(plain_host(&url))));
        }
        Ok(Self { url, target, host, client: builder.build().map_err(Error::Client)? })
    }

    async fn attempt(&self, request: &http::Request<Vec<u8>>) -> Result<Answer, NoReply> {
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
        return Err(NoReply::Lost(TOO_LARGE.to_owned()));
    }
    let mut body = Zeroizing::new(Vec::with_capacity(announced));
    while let Some(chunk) = response.chunk().await.map_err(no_reply)? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(NoReply::Lost(TOO_LARGE.to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply { status, retry_after, date, body })
}

/// Only the innermost reason is kept: the outer ones repeat it and name the URL.
fn no_reply(error: reqwest::Error) -> NoReply {
    let not_sent = error.is_connect() || error.is_builder();
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = inner.to_string();
        source = inner.source();
    }
    if not_sent {
        NoReply::NotSent(format!("cannot connect: {reason}"))
    } else {
        NoReply::Lost(format!("the connection was lost: {reason}"))
    }
}

/// Leads every name to one host.
struct Fixed(String);

impl Resolve for Fixed {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A base URL. Its text goes into the error only where it cannot hold a password.
fn parse(place: usize, text: &str) -> Result<Url, Error> {
    let refuse = |reason| {
        let addr = if text.contains('@') {
            format!("number {}", place + 1)
        } else {
            text.escape_default().to_string()
        };
        Err(Error::Address { addr, reason })
    };
    let Ok(url) = Url::parse(text.trim()) else {
        return refuse("is not a URL");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return refuse("is neither http:// nor https:// with a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("holds a user or password, which Vault does not take");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return refuse("has a path; only scheme, host and port are supported");
    }
    Ok(url)
}

/// Scheme, host and port, as in `https://vault:8200`.
fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

fn authority(url: &Url) -> &str {
    url.authority().rsplit_once('@').map_or_else(|| url.authority(), |(_, host)| host)
}

/// The host without the brackets of IPv6.
fn plain_host(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Connecting, TLS included. A live address needs milliseconds; the next one is better than waiting.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

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
