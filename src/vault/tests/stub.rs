//! A server that sends scripted replies, one for each request, and records the requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

pub(super) struct Stub {
    pub(super) addr: String,
    seen: Arc<Mutex<String>>,
    connections: Arc<AtomicUsize>,
}

impl Stub {
    /// Sends the replies in order, then hangs. An empty reply closes the connection.
    pub(super) async fn replying(replies: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(String::new()));
        let log = Arc::clone(&seen);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut replies: Vec<String> = replies.into_iter().collect();
        replies.reverse();
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let Some(reply) = replies.pop() else {
                    open.push(socket);
                    continue;
                };
                let mut request = vec![0; 16 * 1024];
                let length = socket.read(&mut request).await.unwrap();
                log.lock().unwrap().push_str(&String::from_utf8_lossy(&request[..length]));
                let reply = reply.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                let _ = socket.write_all(reply.as_bytes()).await;
                let _ = socket.shutdown().await;
            }
        });
        Self { addr, seen, connections }
    }

    /// Sends this on the first connection, and then a blank every 50 ms; 204 on each further one. Returns its address, and
    /// all that clients send.
    pub(super) async fn dripping(first: String) -> (String, Arc<Mutex<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(String::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut first = Some(first);
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 16 * 1024];
                let length = socket.read(&mut request).await.unwrap();
                log.lock().unwrap().push_str(&String::from_utf8_lossy(&request[..length]));
                let Some(first) = first.take() else {
                    let _ = socket.write_all(status(204, "").as_bytes()).await;
                    continue;
                };
                let mut next = first.into_bytes();
                tokio::spawn(async move {
                    while socket.write_all(&next).await.is_ok() {
                        next = b" ".to_vec();
                        tokio::time::sleep(DRIP).await;
                    }
                });
            }
        });
        (addr, seen)
    }

    /// Accepts connections, and never answers.
    pub(super) async fn hanging() -> Self {
        Self::replying([]).await
    }

    /// An address on which no server listens.
    pub(super) async fn gone() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// The number of connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// All that clients have sent.
    pub(super) fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}

const DRIP: Duration = Duration::from_millis(50);

pub(super) fn ok(body: &str) -> String {
    status(200, body)
}

pub(super) fn status(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Word\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn redirect(location: &str) -> String {
    format!("HTTP/1.1 307 Word\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}
