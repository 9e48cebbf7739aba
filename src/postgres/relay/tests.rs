//! The relay between two in-memory sockets, with a scripted server.

mod client_gone;
mod drain;
mod hard_close;
mod passing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::credentials::Generation;
use crate::dial::Discard;
use crate::lease::{Cause, Closing};
use crate::postgres::protocol::frame::Scanner;
use crate::postgres::upstream::CancelTarget;
use crate::secret::Secret;
use crate::time::Time;

impl Discard for DuplexStream {
    /// It has no kernel.
    fn discard_unsent(&self) {}
}

/// A session of which a test holds both ends.
struct Bench {
    client: DuplexStream,
    server: DuplexStream,
    generation: Arc<Generation>,
    stop: Arc<Published<Stop>>,
    denials: Arc<AtomicU64>,
    listed: Arc<Listed>,
    session: JoinHandle<(RelayExit, Closed)>,
}

impl Bench {
    fn new(capacity: usize) -> Self {
        Self::with_early(capacity, b"", b"")
    }

    /// What was read ahead of the client, and of the server.
    fn with_early(capacity: usize, of_client: &[u8], of_server: &[u8]) -> Self {
        Self::of(capacity, of_server, |client, _| Buffered { stream: client, buffer: of_client.into() })
    }

    /// `client` makes what the relay reads from of the client's socket.
    fn of<C>(
        capacity: usize,
        early: &[u8],
        of_client: impl FnOnce(DuplexStream, &Arc<Generation>) -> Buffered<C>,
    ) -> Self
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, socket) = duplex(capacity);
        let (server, of_server) = duplex(capacity);
        let (generation, guard) = entered();
        let of_client = of_client(socket, &generation);
        let stop = Published::new(Stop::Running);
        let denials = Arc::new(AtomicU64::new(0));
        let denied = Arc::clone(&denials);
        let listed = Listed::unlisted(&generation);
        let session = Session {
            guard,
            listed: Arc::clone(&listed),
            metrics: RouteMetrics::new("app"),
            denied: Arc::new(Box::new(move |number| {
                denied.fetch_add(number.get(), Ordering::Relaxed);
            })),
            stop: Arc::clone(&stop),
            reuse: false,
            send_within: Duration::from_secs(30),
        };
        let of_server = Buffered { stream: of_server, buffer: early.into() };
        let relay = Relay::new(of_client, of_server, session);
        let session = run(relay, None);
        Self { client, server, generation, stop, denials, listed, session }
    }

    fn drain(&self, from: Time, until: Time) {
        self.generation.set_ending(Ending { drain_from: Some(from), ..ends(until) });
    }

    fn hard_close(&self, cut_in: Duration, gone_in: Duration) {
        let now = clock::now();
        self.generation.set_ending(closing(Cause::LeaseEnd, now + cut_in, now + gone_in));
    }
}

/// A session with a server across a network, in a transaction.
struct OverTcp {
    client: DuplexStream,
    server: TcpStream,
    /// The server's, for cancel requests.
    listener: TcpListener,
    generation: Arc<Generation>,
    session: JoinHandle<(RelayExit, Closed)>,
}

impl OverTcp {
    async fn begun() -> Self {
        let (listener, upstream, mut server) = crate::postgres::cancel::tests::session().await;
        let (mut client, of_client) = duplex(1024);
        let (generation, guard) = entered();
        let session = Session {
            guard,
            listed: Listed::unlisted(&generation),
            metrics: RouteMetrics::new("app"),
            denied: Arc::new(Box::new(|_| {})),
            stop: Published::new(Stop::Running),
            reuse: false,
            send_within: Duration::from_secs(5),
        };
        let relay = Relay::new(Buffered::new(of_client), Buffered::new(upstream.stream), session);
        let session = run(relay, upstream.cancel);
        client.write_all(&begin()).await.unwrap();
        let mut read = vec![0; begin().len()];
        server.read_exact(&mut read).await.unwrap();
        Self { client, server, listener, generation, session }
    }
}

/// The server hears of the session's cancel request.
async fn takes_cancel(listener: &TcpListener) {
    let (mut cancel, _) = listener.accept().await.unwrap();
    let mut packet = [0; 16];
    cancel.read_exact(&mut packet).await.unwrap();
    assert_eq!(packet, crate::postgres::cancel::tests::CANCEL);
}

/// A generation, and the place in it of a session that its server holds. The clock is tokio's from now on.
fn entered() -> (Arc<Generation>, Guard) {
    clock::simulated::follow_tokio();
    let secret = Secret::new("secret".to_owned());
    let lease = crate::credentials::Lease::none();
    let left = Arc::new(Notify::new());
    let number = GenerationId::new(3);
    let generation = Generation::new(number, "v-app".to_owned(), secret, lease, Time::NEVER, left);
    let mut guard = generation.enter().unwrap();
    guard.upstream_opened();
    (generation, guard)
}

fn run<C, U>(mut relay: Relay<C, U>, cancel: Option<Arc<CancelTarget>>) -> JoinHandle<(RelayExit, Closed)>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    U: AsyncRead + AsyncWrite + Unpin + Discard + Send + 'static,
{
    tokio::spawn(async move {
        let done = (&mut relay).await;
        (done, Box::new(relay).close(done, cancel.as_deref()).await)
    })
}

/// The hard close begins at this time, and nothing before.
fn ends(hard_close_at: Time) -> Ending {
    Ending { hard_close_at, drain_from: None, closing: None }
}

/// A drain that is nearly over: a session ends as soon as it is between transactions, for an hour.
fn drained(now: Time) -> Ending {
    let hour = Duration::from_secs(3600);
    Ending { drain_from: Some(now - 24 * hour), ..ends(now + hour) }
}

/// The hard close has begun.
fn closing(cause: Cause, cut_at: Time, gone_by: Time) -> Ending {
    Ending { closing: Some(Closing { cause, cut_at, gone_by }), ..ends(clock::now()) }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    message
}

fn begin() -> Vec<u8> {
    message(b'Q', b"BEGIN\0")
}

fn begun() -> Vec<u8> {
    [message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat()
}

/// The messages of a stream, which must end with a whole one.
fn frames(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut scanner = Scanner::default();
    let mut frames = Vec::new();
    scanner.feed(stream, |frame| frames.push((frame.tag, frame.body.to_vec()))).unwrap();
    assert!(scanner.at_boundary(), "the stream ends within a message");
    frames
}

fn is_57p01(frame: &(u8, Vec<u8>)) -> bool {
    frame.0 == b'E' && error_response::sqlstate(&frame.1) == Some(b"57P01")
}

async fn read_all(stream: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

/// Some megabytes of messages of all sizes.
fn traffic(random: &mut StdRng, tag: u8) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..random.random_range(1..60) {
        let limit = *[1, 16, 4_000, 100_000].get(random.random_range(0..4)).unwrap();
        let mut body = vec![0; random.random_range(0..limit)];
        random.fill_bytes(&mut body);
        all.extend_from_slice(&message(tag, &body));
    }
    all
}

/// A server that answers each BEGIN and each empty SELECT, and closes at Terminate or its client's end. Gives all it has read.
async fn serve(mut server: DuplexStream) -> Vec<u8> {
    let (mut read, mut answered, mut selected) = (Vec::new(), 0, 0);
    let select = message(b'Q', b"SELECT\0");
    loop {
        let mut chunk = [0; 64];
        let n = server.read(&mut chunk).await.unwrap();
        read.extend_from_slice(&chunk[..n]);
        let begins = read.windows(begin().len()).filter(|window| *window == begin()).count();
        while answered < begins {
            answered += 1;
            let _ = server.write_all(&begun()).await;
        }
        let selects = read.windows(select.len()).filter(|window| *window == select).count();
        while selected < selects {
            selected += 1;
            let _ = server.write_all(&message(b'Z', b"I")).await;
        }
        if n == 0 || read.ends_with(&message(b'X', b"")) {
            return read;
        }
    }
}
