//! Somebody in front of Vault, a broken load balancer or worse, who spoils replies: what a real Vault cannot be made to send.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What becomes of the reply to a request. Vault has done what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Nothing.
    Not,
    /// The connection is closed without a reply.
    Lost,
    /// The connection is closed after two thirds of the body.
    Cut,
    /// The field at this path, such as `data.password`, is left out.
    Without(&'static str),
    /// This stands in place of the field at this path.
    Field(&'static str, &'static str),
    /// So many opened and closed brackets stand in place of the field at this path.
    Nested(&'static str, usize),
    /// This is the whole body.
    Body(&'static str),
    /// The head comes byte by byte, and does not come to its end.
    HeadDrips,
    /// A head without an end.
    HeadIsEndless,
    /// Two thirds of the body come at once, and the rest byte by byte.
    BodyDrips,
    /// This stands in place of each `lease_duration` and `ttl`.
    Duration(&'static str),
    /// A field more, of two mebibytes.
    TooLarge,
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
    /// The replies to requests with this in their first lines.
    spoil: Mutex<(&'static str, Spoil)>,
    asked: Mutex<Vec<Instant>>,
    tokens: Mutex<Vec<String>>,
}

impl Balancer {
    /// Forwards to `target` (`host:port`), and spoils the replies to creds requests.
    pub(crate) async fn before(target: &str, spoil: Spoil) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = format!("http://{}", listener.local_addr().unwrap());
        let target = target.to_owned();
        let shared = Arc::new(Shared {
            target,
            spoil: Mutex::new((CREDS, spoil)),
            asked: Mutex::default(),
            tokens: Mutex::default(),
        });
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
        self.shared.spoil.lock().unwrap().1 = spoil;
    }

    /// Spoils the replies to the requests that have this in their first lines, such as `/login`, and no others.
    pub(crate) fn spoil(&self, requests: &'static str, spoil: Spoil) {
        *self.shared.spoil.lock().unwrap() = (requests, spoil);
    }

    /// The tokens that logins were given, as Vault said it.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.shared.tokens.lock().unwrap().clone()
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
    if line.contains(CREDS) {
        shared.asked.lock().unwrap().push(Instant::now());
    }
    let text = String::from_utf8(reply).unwrap();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if line.contains(LOGIN) {
        let reply: Value = serde_json::from_str(body).unwrap();
        shared.tokens.lock().unwrap().extend(reply["auth"]["client_token"].as_str().map(str::to_owned));
    }
    let (requests, spoil) = *shared.spoil.lock().unwrap();
    if spoil == Spoil::Not || !line.contains(requests) {
        client.write_all(text.as_bytes()).await.ok()?;
        return client.shutdown().await.ok();
    }
    send_spoilt(&mut client, &text, body, spoil).await?;
    client.shutdown().await.ok()
}

/// In the path of each login.
const LOGIN: &str = "/login";

/// In the path of each creds request.
const CREDS: &str = "/creds/";

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

/// `whole`: Vault's reply with this body. `None` once the client has gone.
async fn send_spoilt(client: &mut TcpStream, whole: &str, body: &str, spoil: Spoil) -> Option<()> {
    match spoil {
        Spoil::HeadDrips => {
            client.write_all(b"HTTP/1.1 200 Word\r\n").await.ok()?;
            drip(client, "x-more: 1\r\n".repeat(1_000).as_bytes()).await
        }
        Spoil::HeadIsEndless => {
            client.write_all(b"HTTP/1.1 200 Word\r\n").await.ok()?;
            loop {
                client.write_all(b"x-more: 1\r\n").await.ok()?;
            }
        }
        Spoil::BodyDrips => {
            let (first, rest) = body.split_at(body.len() * 2 / 3);
            // Longer than anybody waits.
            let rest = format!("{}{rest}", " ".repeat(1_000));
            let length = first.len() + rest.len();
            let head = format!("HTTP/1.1 200 Word\r\ncontent-length: {length}\r\n\r\n{first}");
            client.write_all(head.as_bytes()).await.ok()?;
            drip(client, rest.as_bytes()).await
        }
        _ => client.write_all(&spoilt(whole, body, spoil)).await.ok(),
    }
}

async fn drip(client: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    for byte in bytes {
        client.write_all(&[*byte]).await.ok()?;
        tokio::time::sleep(DRIP).await;
    }
    Some(())
}

/// From one byte to the next.
const DRIP: Duration = Duration::from_millis(100);

/// `whole`: Vault's reply with this body.
fn spoilt(whole: &str, body: &str, spoil: Spoil) -> Vec<u8> {
    let http = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} Word\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let with = |field: &str| {
        let (open, _) = body.trim_end().rsplit_once('}').unwrap();
        http(200, &format!("{open},\"more\":{field}}}"))
    };
    let spoilt = match spoil {
        Spoil::Not => whole.to_owned(),
        Spoil::Lost => String::new(),
        Spoil::Cut => {
            let whole = http(200, body);
            whole[..whole.len() - body.len() / 3].to_owned()
        }
        Spoil::Without(field) => {
            let mut json: Value = serde_json::from_str(body).unwrap();
            let (inside, name) = field.rsplit_once('.').unwrap_or(("", field));
            let pointer = if inside.is_empty() { String::new() } else { format!("/{inside}") };
            json.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(name).unwrap();
            http(200, &json.to_string())
        }
        Spoil::Field(field, text) => http(200, &with_field(body, field, text)),
        Spoil::Nested(field, depth) => {
            http(200, &with_field(body, field, &format!("{}{}", "[".repeat(depth), "]".repeat(depth))))
        }
        Spoil::Body(body) => http(200, body),
        Spoil::HeadDrips | Spoil::HeadIsEndless | Spoil::BodyDrips => unreachable!("they come bit by bit"),
        Spoil::Duration(written) => http(200, &with_duration(body, written)),
        Spoil::TooLarge => with(&format!("\"{}\"", "x".repeat(2 << 20))),
        Spoil::TimeoutWithBody => http(504, body),
        Spoil::TimeoutWithPage => http(504, "<html>504 Gateway Time-out</html>"),
    };
    spoilt.into_bytes()
}

/// The body with this text in place of the value at this path, `auth.lease_duration` for example.
fn with_field(body: &str, field: &str, text: &str) -> String {
    let mut json: Value = serde_json::from_str(body).unwrap();
    *json.pointer_mut(&format!("/{}", field.replace('.', "/"))).unwrap() = MARK.into();
    json.to_string().replacen(&format!("\"{MARK}\""), text, 1)
}

/// What no reply of Vault's holds.
const MARK: &str = "@here@";

/// The body with this text in place of the number of each duration that is not zero: a lease's, or a token's.
fn with_duration(body: &str, written: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some(at) = ["\"lease_duration\":", "\"ttl\":"]
        .iter()
        .filter_map(|key| rest.find(key).map(|at| at + key.len()))
        .min()
    {
        let (before, after) = rest.split_at(at);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = after.split_at(digits);
        out += before;
        out += if number == "0" { number } else { written };
        rest = after;
    }
    out + rest
}
