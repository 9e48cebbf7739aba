//! The HTTP client that posts spans: reqwest, as for Vault, with its own roots and bounds. Floor 5.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError, ResponseBodyTooLarge};
use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

use super::Settings;
use super::error::Error;
use crate::crypto;

/// Posts what the exporter makes.
pub(super) struct Client {
    http: reqwest::Client,
    cause: Cause,
}

/// What the network said last: the exporter's own error does not repeat it.
#[derive(Clone, Default)]
pub(super) struct Cause(Arc<Mutex<Option<String>>>);

impl Cause {
    /// It, once.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, cause: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }
}

impl Client {
    /// One for these settings, whose files it reads. Blocks.
    pub(super) fn new(settings: &Settings) -> Result<(Self, Cause), Error> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(settings)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .timeout(settings.timeout);
        let cause = Cause::default();
        let http = builder.build().map_err(Error::Http)?;
        Ok((Self { http, cause: cause.clone() }, cause))
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
        let answer = self.exchange(request).await;
        // An answer has words of its own, which those of an earlier try must not replace.
        self.cause.set(answer.as_ref().err().map(words));
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
