//! A load balancer in front of Vault that spoils the replies to creds requests: what a real Vault cannot be made to send.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What becomes of the reply to a creds request. Vault has done what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Nothing.
    Not,
    /// The connection is closed without a reply.
    Lost,
    /// The connection is closed after two thirds of the body.
    Cut,
    /// The password is left out.
    WithoutPassword,
    /// `lease_duration` is no whole number.
    FloatDuration,
    /// Status 504 with Vault's body.
    TimeoutWithBody,
    /// Status 504 with a page of HTML.
    TimeoutWithPage,
}

/// Forwards to Vault until dropped, one request a connection.
pub(crate) struct Balancer {
    pub(crate) addr: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: String,
    spoil: Mutex<Spoil>,
    asked: Mutex<Vec<Instant>>,
}

impl Balancer {
    /// Forwards to `target` (`host:port`).
    pub(crate) async fn before(target: &str, spoil: Spoil) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = format!("http://{}", listener.local_addr().unwrap());
        let shared =
            Arc::new(Shared { target: target.to_owned(), spoil: Mutex::new(spoil), asked: Mutex::default() });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move { forward(client, &shared).await });
                }
            }
        });
        Self { addr, shared, accepting }
    }

    pub(crate) fn set(&self, spoil: Spoil) {
        *self.shared.spoil.lock().unwrap() = spoil;
    }

    /// When credentials have been asked for.
    pub(crate) fn asked(&self) -> Vec<Instant> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// `None` where one side is gone before its time.
async fn forward(mut client: TcpStream, shared: &Shared) -> Option<()> {
    let request = read_request(&mut client).await?;
    let mut server = TcpStream::connect(&shared.target).await.ok()?;
    let head_end = request.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(&request[..head_end]).into_owned();
    server.write_all(&request[..head_end]).await.ok()?;
    server.write_all(b"\r\nConnection: close").await.ok()?;
    server.write_all(&request[head_end..]).await.ok()?;
    let mut reply = Vec::new();
    server.read_to_end(&mut reply).await.ok()?;
    if line.contains("/creds/") {
        shared.asked.lock().unwrap().push(Instant::now());
        reply = spoil(reply, *shared.spoil.lock().unwrap());
    }
    client.write_all(&reply).await.ok()?;
    client.shutdown().await.ok()
}

async fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let read = client.read_buf(&mut request).await.ok()?;
        if let Some(head_end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..head_end]).to_lowercase();
            let length =
                head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if request.len() >= head_end + 4 + length.unwrap_or(0) {
                return Some(request);
            }
        }
        if read == 0 {
            return None;
        }
    }
}

fn spoil(reply: Vec<u8>, spoil: Spoil) -> Vec<u8> {
    let text = String::from_utf8(reply).unwrap();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let http = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} Word\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let json = || serde_json::from_str::<serde_json::Value>(body).unwrap();
    let spoilt = match spoil {
        Spoil::Not => text,
        Spoil::Lost => String::new(),
        Spoil::Cut => {
            let whole = http(200, body);
            whole[..whole.len() - body.len() / 3].to_owned()
        }
        Spoil::WithoutPassword => {
            let mut json = json();
            json["data"].as_object_mut().unwrap().remove("password");
            http(200, &json.to_string())
        }
        Spoil::FloatDuration => {
            let mut json = json();
            json["lease_duration"] = json["lease_duration"].as_f64().unwrap().into();
            http(200, &json.to_string())
        }
        Spoil::TimeoutWithBody => http(504, body),
        Spoil::TimeoutWithPage => http(504, "<html>504 Gateway Time-out</html>"),
    };
    spoilt.into_bytes()
}
