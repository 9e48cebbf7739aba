//! A small HTTP client for JSON and text.

use std::path::Path;

use reqwest::{Certificate, Client, Method, redirect::Policy};
use serde_json::Value;

use super::SOON;

pub(crate) struct Http {
    client: Client,
}

/// A status and a body; the body is `Null` where it is not JSON.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Http {
    /// Trusts the CA in this PEM file, and nothing else.
    pub(crate) fn new(ca: Option<&Path>) -> Self {
        let trusted = ca.map(|path| Certificate::from_pem(&std::fs::read(path).unwrap()).unwrap());
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(SOON)
            // A server may close a connection at rest in the moment in which it is used again.
            .pool_max_idle_per_host(0)
            .tls_certs_only(trusted)
            .build()
            .unwrap();
        Self { client }
    }

    /// Sends a request; `Err` is that of the transport.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.client.request(method, url);
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        Self::reply(request).await
    }

    /// A POST whose answer Vault is to wrap in a token of five minutes.
    pub(crate) async fn wrap(&self, url: &str, token: &str, body: &Value) -> Result<Reply, reqwest::Error> {
        let request = self.client.post(url).header("X-Vault-Token", token).header("X-Vault-Wrap-TTL", "5m");
        Self::reply(request.body(body.to_string())).await
    }

    /// A request that may change something at leasehold's admin address.
    pub(crate) async fn command(&self, method: Method, url: &str) -> Result<Reply, reqwest::Error> {
        Self::reply(self.client.request(method, url).header("leasehold-admin", "1")).await
    }

    async fn reply(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
        let reply = request.send().await?;
        let status = reply.status().as_u16();
        let text = reply.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Reply { status, text, json })
    }
}
