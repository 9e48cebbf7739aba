//! The HTTP client that posts spans: reqwest, as for Vault, with its own roots and bounds. Floor 5.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError, ResponseBodyTooLarge};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

use super::Settings;
use super::error::Error;
use crate::crypto;

/// Posts what the exporter makes.
pub(super) struct Client {
    http: reqwest::Client,
    latest: Latest,
}

/// What came of the latest request: the exporter tells neither why the network failed nor what a collector rejected.
#[derive(Clone, Default)]
pub(super) struct Latest(Arc<Mutex<Outcome>>);

/// What came of a request, beyond the status of its answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing that the exporter does not tell.
    #[default]
    Plain,
    /// There was no answer, in these words.
    Failed(String),
    /// The collector has taken the request, and not all of its spans.
    Rejected(Rejection),
}

/// Spans that a collector has got, and does not keep. They must not be sent again.
///
/// Source: <https://opentelemetry.io/docs/specs/otlp/#partial-success-1>
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// How many, as the collector says; at least one.
    pub(super) spans: u64,
    /// Why, in the collector's words.
    pub(super) reason: String,
}

impl Latest {
    /// It, once.
    pub(super) fn take(&self) -> Outcome {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, outcome: Outcome) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

impl Client {
    /// One for these settings, whose files it reads. Blocks.
    pub(super) fn new(settings: &Settings) -> Result<(Self, Latest), Error> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(settings)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .timeout(settings.timeout);
        let latest = Latest::default();
        let http = builder.build().map_err(Error::Http)?;
        Ok((Self { http, latest: latest.clone() }, latest))
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut answer = self.http.execute(request.try_into()?).await?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = std::mem::take(answer.headers_mut());
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(Box::new(ResponseBodyTooLarge::new()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(response.body(body.into())?)
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = request.headers().clone();
        let answer = self.exchange(request).await;
        // Also where there is nothing to tell: an answer has words of its own, which those of an earlier try must not replace.
        self.latest.set(match &answer {
            Ok(answer) => rejection(answer, &sent).map_or(Outcome::Plain, Outcome::Rejected),
            Err(error) => Outcome::Failed(words(error)),
        });
        answer
    }
}

/// Its headers may hold a secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// The innermost cause: the outer errors repeat it, and contain the URL.
fn words(error: &HttpError) -> String {
    if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) {
        return "no answer in time".to_owned();
    }
    let Some(mut source) = error.source() else { return "the request failed".to_owned() };
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

/// What a collector that takes the request says of its spans. An answer that cannot be read says nothing.
fn rejection(answer: &Response<Bytes>, sent: &HeaderMap) -> Option<Rejection> {
    if !answer.status().is_success() {
        return None;
    }
    let said = ExportTraceServiceResponse::decode(answer.body().as_ref()).ok()?.partial_success?;
    let spans = u64::try_from(said.rejected_spans).ok().filter(|spans| *spans > 0)?;
    let reason = without_headers(said.error_message, sent).chars().take(LONGEST_REASON).collect();
    Some(Rejection { spans, reason })
}

/// The collector's words, without what was sent to it in headers: it may be a token.
fn without_headers(text: String, sent: &HeaderMap) -> String {
    let words = sent.values().filter_map(|value| value.to_str().ok()).flat_map(str::split_whitespace);
    words
        .filter(|word| word.len() >= SHORTEST_SECRET)
        .fold(text, |text, word| text.replace(word, "[redacted]"))
}

fn tls(settings: &Settings) -> Result<ClientConfig, Error> {
    let roots = match &settings.certificate {
        // No connection uses TLS; reqwest asks for it all the same.
        _ if settings.endpoint.scheme() != "https" => Some(rustls::RootCertStore::empty()),
        Some(file) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(file.certificates()?);
            Some(roots).filter(|roots| !roots.is_empty())
        }
        None => crypto::system_roots(),
    };
    let builder = ClientConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(roots.ok_or(Error::NoRoots)?);
    let Some((certificate, key)) = &settings.identity else { return Ok(builder.with_no_client_auth()) };
    let certified = crypto::certified_key(certificate, key)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
}

/// A collector says how many spans it has not taken, if anything.
const BODY_LIMIT: usize = 64 << 10;
/// So many characters of its reason.
const LONGEST_REASON: usize = 300;
/// A shorter word of a header is no secret, and may stand in any sentence.
const SHORTEST_SECRET: usize = 8;
