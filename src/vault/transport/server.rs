//! One server of Vault, and the HTTP client for it. Floor 2.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_LENGTH, DATE, HOST, HeaderValue, LOCATION, RETRY_AFTER};
use secrecy::zeroize::Zeroizing;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use crate::crypto;
use crate::vault::address::{Address, Fixed};
use crate::vault::bounds::Limit;
use crate::vault::error::Error;
use crate::vault::failure::NO_TLS;

/// An answer with any status.
pub(in crate::vault) struct Reply {
    pub(in crate::vault) status: u16,
    /// The `Retry-After` of Vault (429, 503); at most [`RETRY_AFTER_LIMIT`].
    pub(in crate::vault) retry_after: Option<Duration>,
    /// The server's clock (`Date`), in whole seconds.
    pub(in crate::vault) date: Option<SystemTime>,
    pub(in crate::vault) body: Zeroizing<Vec<u8>>,
}

/// The reason why there is no answer. The text is ours or a socket's.
pub(in crate::vault) enum NoReply {
    /// Nothing was sent: no address accepted a connection.
    NotSent(String),
    /// Nothing was sent: the server's certificate or ours was rejected.
    Untrusted(String),
    /// The request was sent, and the answer was lost, too large or broken. Contains the part of the body that was read.
    Lost(String, Zeroizing<Vec<u8>>),
    /// The answer is a redirect that is not followed.
    Redirected(String),
    /// There was no whole answer before the deadline. Contains the part of the body that was read.
    TimedOut(Zeroizing<Vec<u8>>),
}

/// A server with its own HTTP client. With `tls_server_name` requests go to a URL with that name, and the client's
/// resolver resolves it to the server's address, so that SNI and verification use the name.
pub(super) struct Server {
    pub(super) url: Url,
    /// The URL of the requests.
    target: Url,
    /// The Host header, if `target` is not `url`.
    host: Option<HeaderValue>,
    client: reqwest::Client,
}

pub(super) enum Answer {
    Reply(Reply),
    Elsewhere(Url),
}

impl Server {
    pub(super) fn new(
        address: &Address,
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

    pub(super) async fn attempt(
        &self,
        request: &http::Request<Vec<u8>>,
        limit: &Limit,
    ) -> Result<Answer, NoReply> {
        let until = limit.ends_at();
        let response = timeout_at(until, self.exchange(request)).await;
        let response = response.unwrap_or_else(|_| Err(NoReply::TimedOut(Zeroizing::default())))?;
        if matches!(response.status().as_u16(), 307 | 308)
            && let Some(target) = self.location(&response)
        {
            return Ok(Answer::Elsewhere(target));
        }
        read(response, until).await.map(Answer::Reply)
    }

    /// Sends the request, and waits for the head of the answer.
    async fn exchange(&self, request: &http::Request<Vec<u8>>) -> Result<reqwest::Response, NoReply> {
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
        self.client.execute(outgoing).await.map_err(no_reply)
    }

    fn location(&self, response: &reqwest::Response) -> Option<Url> {
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        self.url.join(location).ok()
    }
}

/// Reads at most [`BODY_LIMIT`] bytes of the body. What was read of a body that is too long, or too slow, is not lost: it may
/// say what has to be given back.
async fn read(mut response: reqwest::Response, until: Instant) -> Result<Reply, NoReply> {
    let status = response.status().as_u16();
    let number = |name| -> Option<usize> { response.headers().get(name)?.to_str().ok()?.trim().parse().ok() };
    let retry_after = number(RETRY_AFTER)
        .filter(|_| matches!(status, 429 | 503))
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_LIMIT));
    let date =
        response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let announced = number(CONTENT_LENGTH).unwrap_or(0);
    let mut body = Zeroizing::new(Vec::with_capacity(announced.min(BODY_LIMIT)));
    loop {
        let Ok(chunk) = timeout_at(until, response.chunk()).await else {
            return Err(NoReply::TimedOut(body));
        };
        match chunk {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY_LIMIT => {
                return Err(NoReply::Lost(TOO_LARGE.to_owned(), body));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) if announced > BODY_LIMIT => return Err(NoReply::Lost(TOO_LARGE.to_owned(), body)),
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

/// Keeps only the innermost cause: the outer errors repeat it and contain the URL.
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
        if crypto::of_rustls(inner).is_some_and(crypto::is_no_tls) {
            reason = NO_TLS.to_owned();
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

/// Whether a certificate was rejected: Vault's by us, or ours by Vault. In TLS 1.3 the latter is reported only by a
/// read.
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

/// The limit for connecting, TLS included. A live server needs milliseconds; trying the next one is better than
/// waiting.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Long enough for the requests of one issuance to share a connection. Short enough that a renewal minutes later does
/// not use a connection that a middlebox has dropped.
const IDLE_FOR: Duration = Duration::from_secs(5);

/// A creds reply has about 1 KiB.
const BODY_LIMIT: usize = 1 << 20;

const TOO_LARGE: &str = "the reply is larger than 1 MiB";

/// After a longer `Retry-After` our own back-off decides.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(30);

/// <https://developer.hashicorp.com/vault/api-docs#authentication>
const TOKEN_HEADER: &str = "x-vault-token";
