//! A small HTTP client for the admin address. Floor 6.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Error, table};
use crate::admin::COMMAND_HEADER;
use crate::socket::Address;

/// Sends requests to the admin address, each over a connection of its own.
pub(super) struct Client {
    addr: Address,
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) code: StatusCode,
    body: Bytes,
}

impl Client {
    pub(super) fn new(addr: Address) -> Self {
        Self { addr }
    }

    pub(super) async fn ask(&self, method: &Method, path: &str, within: Duration) -> Result<Answer, Error> {
        match timeout(within, self.exchange(method, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable("no answer in time")),
        }
    }

    /// Whether a process still listens there. Where the backlog is full, so that nothing is known within `within`, one does.
    pub(super) async fn is_there(&self, within: Duration) -> bool {
        let connected = async {
            match &self.addr {
                Address::Tcp(addr) => TcpStream::connect(addr).await.map(drop),
                Address::Unix(path) => UnixStream::connect(path).await.map(drop),
            }
        };
        match timeout(within, connected).await {
            Ok(Err(error)) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(Ok(())) | Err(_) => true,
        }
    }

    /// The JSON document of an answer.
    pub(super) fn document<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Error> {
        if !matches!(answer.code, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
            return Err(
                self.unreachable(format!("something else answers there, with status {}", answer.code))
            );
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| self.unreachable("something else answers there, or another version"))
    }

    pub(super) fn unreachable(&self, reason: impl ToString) -> Error {
        Error::Unreachable { addr: self.addr.clone(), reason: reason.to_string() }
    }

    async fn exchange(&self, method: &Method, path: &str) -> Result<Answer, Error> {
        let refused = |error: io::Error| self.unreachable(error);
        match &self.addr {
            Address::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await.map_err(refused)?;
                self.over(stream, &addr.to_string(), method, path).await
            }
            Address::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(refused)?;
                self.over(stream, "localhost", method, path).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &str,
        method: &Method,
        path: &str,
    ) -> Result<Answer, Error> {
        let no_http = |_: hyper::Error| self.unreachable("the connection broke, or it does not speak HTTP");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(COMMAND_HEADER, "1")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(no_http)?;
        let exchange = async {
            let reply = sender.send_request(request).await.map_err(no_http)?;
            let code = reply.status();
            let body = Limited::new(reply.into_body(), LONGEST)
                .collect()
                .await
                .map_err(|_| self.unreachable("its answer broke off, or is too long"))?
                .to_bytes();
            Ok(Answer { code, body })
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The answer may be there in full when the connection closes.
            _ = connection => exchange.await,
        }
    }
}

impl Answer {
    /// The body as it came, with a line end.
    pub(super) fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.body).into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// The body in one line, for an error.
    pub(super) fn line(&self) -> String {
        let lines: Vec<_> = self.text().lines().map(table::clean).collect();
        lines.join("; ")
    }
}

/// A thousand routes fit.
const LONGEST: usize = 16 << 20;
