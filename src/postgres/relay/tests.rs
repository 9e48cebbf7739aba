//! The relay between two in-memory sockets, with a scripted server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::credentials::{Drain, Ending, Generation};
use crate::lease::Time;
use crate::postgres::protocol::frame::Scanner;
use crate::secret::Secret;

/// A session of which a test holds both ends.
struct Bench {
    client: DuplexStream,
    server: DuplexStream,
    generation: Arc<Generation>,
    stop: watch::Sender<Stop>,
    denials: Arc<AtomicU64>,
    session: JoinHandle<(Done, Closed)>,
}

impl Bench {
    fn new(capacity: usize) -> Self {
        Self::with_early(capacity, Early::default())
    }

    fn with_early(capacity: usize, early: Early) -> Self {
        let (client, of_client) = duplex(capacity);
        let (server, of_server) = duplex(capacity);
        let left = Arc::new(Notify::new());
        let secret = Secret::new("secret".to_owned());
        let generation =
            Generation::new(3, "v-app".to_owned(), secret, "lease".to_owned(), Time::NEVER, left);
        let mut guard = generation.enter().unwrap();
        guard.upstream_opened();
        let stop = watch::Sender::new(Stop::Running);
        let denials = Arc::new(AtomicU64::new(0));
        let denied = Arc::clone(&denials);
        let session = Session {
            guard,
            metrics: RouteMetrics::new("app"),
            denied: Arc::new(move |number| {
                denied.fetch_add(number, Ordering::Relaxed);
            }),
            cancel: None,
            stop: stop.subscribe(),
        };
        let mut relay = Relay::new(of_client, of_server, early, session);
        let session = tokio::spawn(async move {
            let done = (&mut *relay).await;
            (done, relay.close(done, Duration::from_secs(30)).await)
        });
        Self { client, server, generation, stop, denials, session }
    }

    fn drain(&self, from: Time, until: Time) {
        self.generation.set_ending(Ending { drain: Some(Drain { from, until }), hard_close: None });
    }

    fn hard_close(&self, cut_in: Duration, gone_in: Duration) {
        let now = timer::now();
        let close = HardClose { cause: Closed::LeaseEnd, cut_at: now + cut_in, gone_by: now + gone_in };
        self.generation.set_ending(Ending { drain: None, hard_close: Some(close) });
    }
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

async fn write_in_chunks(stream: &mut (impl AsyncWrite + Unpin), all: &[u8], mut random: StdRng) {
    let mut rest = all;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(random.random_range(1..=rest.len().min(40_000)));
        stream.write_all(chunk).await.unwrap();
        rest = after;
        if random.random() {
            yield_now().await;
        }
    }
    stream.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_unchanged_both_ways_however_they_are_cut() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let Bench { client, server, session, .. } = Bench::new(random.random_range(1..70_000));
        let (up, down) = (traffic(&mut random, b'd'), traffic(&mut random, b'D'));
        let (mut client_reads, mut client_writes) = tokio::io::split(client);
        let (mut server_reads, mut server_writes) = tokio::io::split(server);
        let (mut heard_by_server, mut heard_by_client) = (Vec::new(), Vec::new());
        let (one, two) = (StdRng::seed_from_u64(seed + 1000), StdRng::seed_from_u64(seed + 2000));
        let (_, heard, (), _) = tokio::join!(
            write_in_chunks(&mut client_writes, &up, one),
            async {
                // A server closes once its client has: so nothing of either direction is cut short.
                server_reads.read_to_end(&mut heard_by_server).await.unwrap();
                heard_by_server
            },
            async {
                let (first, last) = down.split_at(down.len() / 2);
                server_writes.write_all(first).await.unwrap();
                write_in_chunks(&mut server_writes, last, two).await;
            },
            client_reads.read_to_end(&mut heard_by_client),
        );
        assert!(heard_by_client == down, "seed {seed}: towards the client");
        // Once the server has closed, nobody reads what the client still sends.
        assert!(up.starts_with(&heard), "seed {seed}: towards the server");
        session.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_a_client_sends_arrives_before_its_half_close() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let Bench { mut client, mut server, session, .. } = Bench::new(random.random_range(1..70_000));
        let up = traffic(&mut random, b'd');
        let one = StdRng::seed_from_u64(seed + 1000);
        let (_, heard) = tokio::join!(write_in_chunks(&mut client, &up, one), read_all(&mut server));
        assert!(heard == up, "seed {seed}");
        server.write_all(&begun()).await.unwrap();
        drop(server);
        assert_eq!(read_all(&mut client).await, begun());
        assert_eq!(session.await.unwrap(), (Done::UpstreamGone { in_order: true }, Closed::Client));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_up_its_server_alone() {
    const CAPACITY: usize = 4096;
    let Bench { mut client, mut server, session, .. } = Bench::new(CAPACITY);
    let rows = message(b'D', &[7; 1_000_000]);
    let took = tokio::time::timeout(Duration::from_secs(1), server.write_all(&rows)).await;
    assert!(took.is_err(), "a million bytes were taken from the server");
    client.write_all(&begin()).await.unwrap();
    let mut heard = vec![0; begin().len()];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, begin());
    drop(server);
    let relayed = read_all(&mut client).await.len();
    assert!(relayed <= 2 * CAPACITY + buffer::READ_BYTES, "{relayed} bytes were buffered");
    assert_eq!(session.await.unwrap().1, Closed::Upstream);
}

#[tokio::test(start_paused = true)]
async fn early_bytes_come_first() {
    let early =
        Early { of_client: begin().into_boxed_slice(), of_upstream: message(b'N', b"\0").into_boxed_slice() };
    let Bench { mut client, mut server, session, .. } = Bench::with_early(1024, early);
    client.write_all(&message(b'X', b"")).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, [begin(), message(b'X', b"")].concat());
    server.write_all(&begun()).await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, [message(b'N', b"\0"), begun()].concat());
    assert_eq!(session.await.unwrap().1, Closed::Client);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_is_counted_until_its_server_has_gone() {
    let Bench { mut client, mut server, session, generation, .. } = Bench::new(1024);
    client.write_all(&begin()).await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut server).await, begin());
    server.write_all(&message(b'D', &[1; 100_000])).await.unwrap();
    assert_eq!(generation.sessions(), 1);
    drop(server);
    assert_eq!(session.await.unwrap().1, Closed::Client);
    assert_eq!((generation.sessions(), generation.has_stray()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn the_servers_last_word_reaches_the_client() {
    let Bench { mut client, mut server, session, .. } = Bench::new(1024);
    let last = message(b'E', b"SFATAL\0C57P05\0Mterminating\0\0");
    server.write_all(&last).await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, last);
    assert_eq!(session.await.unwrap().1, Closed::Upstream);
}

#[tokio::test(start_paused = true)]
async fn a_denial_that_passes_is_told_with_its_generation() {
    let Bench { mut client, mut server, denials, .. } = Bench::new(1024);
    let denial = message(b'E', b"SERROR\0VERROR\0C42501\0Mpermission denied\0\0");
    server.write_all(&denial).await.unwrap();
    let mut heard = vec![0; denial.len()];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, denial);
    assert_eq!(denials.load(Ordering::Relaxed), 3);
}

/// A server that answers each BEGIN, and closes at Terminate or its client's end. Gives all it has read.
async fn serve(mut server: DuplexStream) -> Vec<u8> {
    let (mut read, mut answered) = (Vec::new(), 0);
    loop {
        let mut chunk = [0; 64];
        let n = server.read(&mut chunk).await.unwrap();
        read.extend_from_slice(&chunk[..n]);
        let begins = read.windows(begin().len()).filter(|window| *window == begin()).count();
        while answered < begins {
            answered += 1;
            let _ = server.write_all(&begun()).await;
        }
        if n == 0 || read.ends_with(&message(b'X', b"")) {
            return read;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_begin_races_the_drain_and_either_runs_or_is_refused() {
    let (mut ran, mut refused) = (0, 0);
    for seed in 0..10_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let bench = Bench::new(1024);
        let Bench { mut client, server, generation, session, stop, .. } = bench;
        let server = tokio::spawn(serve(server));
        let (before_drain, before_begin) = (random.random_range(0..6), random.random_range(0..6));
        let by_stop: bool = random.random();
        let draining = tokio::spawn(async move {
            for _ in 0..before_drain {
                yield_now().await;
            }
            let now = timer::now();
            let drain = Drain { from: now, until: now };
            if by_stop {
                stop.send_replace(Stop::Closing);
            } else {
                generation.set_ending(Ending { drain: Some(drain), hard_close: None });
            }
            (generation, stop)
        });
        let query = begin();
        let cut = random.random_range(0..=query.len());
        for _ in 0..before_begin {
            yield_now().await;
        }
        let _ = client.write_all(&query[..cut]).await;
        for _ in 0..random.random_range(0..4) {
            yield_now().await;
        }
        let _ = client.write_all(&query[cut..]).await;
        let (generation, stop) = draining.await.unwrap();

        let mut first = [0; 1];
        client.read_exact(&mut first).await.unwrap();
        if first == *b"C" {
            ran += 1;
            let mut rest = vec![0; begun().len() - 1];
            client.read_exact(&mut rest).await.unwrap();
            assert_eq!(rest, begun()[1..], "seed {seed}");
            client.write_all(&message(b'X', b"")).await.unwrap();
            assert_eq!(read_all(&mut client).await, b"", "seed {seed}");
            assert_eq!(server.await.unwrap(), [begin(), message(b'X', b"")].concat(), "seed {seed}");
        } else {
            refused += 1;
            let heard = frames(&[&first[..], &read_all(&mut client).await].concat());
            assert!(heard.len() == 1 && is_57p01(&heard[0]), "seed {seed}: {heard:?}");
            assert_eq!(server.await.unwrap(), message(b'X', b""), "seed {seed}");
        }
        drop(client);
        session.await.unwrap();
        assert!(!generation.has_stray(), "seed {seed}");
        drop(stop);
    }
    assert!(ran > 1000 && refused > 1000, "one-sided race: {ran} ran, {refused} were refused");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_drain_ends_nobody() {
    let bench = Bench::new(1024);
    let now = timer::now();
    bench.drain(now + Duration::from_secs(100), now + Duration::from_secs(200));
    tokio::time::sleep(Duration::from_secs(50)).await;
    bench.generation.set_ending(Ending { drain: None, hard_close: None });
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let Bench { mut client, server, .. } = bench;
    let server = tokio::spawn(serve(server));
    client.write_all(&begin()).await.unwrap();
    let mut heard = vec![0; begun().len()];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, begun());
    client.write_all(&message(b'X', b"")).await.unwrap();
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_within_the_window() {
    for _ in 0..50 {
        let bench = Bench::new(1024);
        let (from, until) =
            (timer::now() + Duration::from_secs(100), timer::now() + Duration::from_secs(200));
        bench.drain(from, until);
        let Bench { mut client, server, session, .. } = bench;
        let server = tokio::spawn(serve(server));
        let heard = read_all(&mut client).await;
        assert!(is_57p01(&frames(&heard)[0]));
        assert!(timer::now() >= from && timer::now() < until);
        drop(client);
        assert_eq!(session.await.unwrap(), (Done::Idle(Closed::Drain), Closed::Drain));
        server.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_in_a_transaction_is_drained_once_it_is_over() {
    let bench = Bench::new(1024);
    let Bench { mut client, mut server, .. } = bench;
    client.write_all(&begin()).await.unwrap();
    let mut read = vec![0; begin().len()];
    server.read_exact(&mut read).await.unwrap();
    server.write_all(&begun()).await.unwrap();
    let mut heard = vec![0; begun().len()];
    client.read_exact(&mut heard).await.unwrap();
    let now = timer::now();
    let drain = Drain { from: now, until: now };
    bench.generation.set_ending(Ending { drain: Some(drain), hard_close: None });
    let quiet = tokio::time::timeout(Duration::from_secs(60), client.read_u8()).await;
    assert!(quiet.is_err(), "it was ended within its transaction");
    let commit = message(b'Q', b"COMMIT\0");
    client.write_all(&commit).await.unwrap();
    let mut read = vec![0; commit.len()];
    server.read_exact(&mut read).await.unwrap();
    server.write_all(&[message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat()).await.unwrap();
    let server = tokio::spawn(serve(server));
    let heard = frames(&read_all(&mut client).await);
    assert_eq!(heard.iter().map(|frame| frame.0).collect::<Vec<_>>(), b"CZE");
    assert!(is_57p01(&heard[2]));
    assert_eq!(server.await.unwrap(), message(b'X', b""));
}

#[tokio::test(start_paused = true)]
async fn a_hard_close_never_speaks_within_a_message() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let bench = Bench::new(random.random_range(1..5_000));
        let mut sent = traffic(&mut random, b'D');
        sent.truncate(60_000);
        let rest = message(b'D', &[9; 10_000]);
        let cut = random.random_range(0..=rest.len());
        let whole = {
            let mut scanner = Scanner::default();
            scanner.feed(&sent, |_| {}).unwrap();
            scanner.at_boundary()
        };
        if whole {
            sent.extend_from_slice(&rest[..cut]);
        }
        let Bench { mut client, server, generation, session, .. } = bench;
        let (mut reads, mut writes) = tokio::io::split(server);
        let before = random.random_range(0..200);
        let closing = async {
            for _ in 0..before {
                yield_now().await;
            }
            let now = timer::now();
            let close = HardClose {
                cause: Closed::LeaseEnd,
                cut_at: now + Duration::from_secs(1),
                gone_by: now + Duration::from_secs(3),
            };
            generation.set_ending(Ending { drain: None, hard_close: Some(close) });
        };
        let serving = async {
            let _ = writes.write_all(&sent).await;
            if whole {
                yield_now().await;
                let _ = writes.write_all(&rest[cut..]).await;
            }
            let mut read = Vec::new();
            reads.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, message(b'X', b""));
            let _ = writes.shutdown().await;
        };
        let ((), (), heard) = tokio::join!(closing, serving, read_all(&mut client));
        drop(client);
        let (_, cause) = session.await.unwrap();
        if cause == Closed::LeaseEnd {
            let heard = frames(&heard);
            assert!(is_57p01(heard.last().unwrap()), "seed {seed}");
            assert!(heard.iter().rev().skip(1).all(|frame| frame.0 == b'D'), "seed {seed}");
        } else {
            assert_eq!(cause, Closed::LeaseEndCut, "seed {seed}");
            assert!(!whole, "seed {seed}: a message that came whole was cut");
            assert!(sent.starts_with(&heard), "seed {seed}: something was said within a message");
        }
        assert!(!generation.has_stray(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_message_that_never_ends_is_cut() {
    let bench = Bench::new(64 * 1024);
    let Bench { mut client, mut server, generation, session, .. } = bench;
    let half = message(b'D', &[9; 10_000])[..5_000].to_vec();
    server.write_all(&half).await.unwrap();
    let mut heard = vec![0; half.len()];
    client.read_exact(&mut heard).await.unwrap();
    let now = timer::now();
    let close = HardClose {
        cause: Closed::LeaseEnd,
        cut_at: now + Duration::from_secs(1),
        gone_by: now + Duration::from_secs(3),
    };
    generation.set_ending(Ending { drain: None, hard_close: Some(close) });
    assert_eq!(read_all(&mut client).await, b"");
    assert!(timer::now() >= close.cut_at && timer::now() < close.gone_by);
    // The server pays no heed.
    assert_eq!(session.await.unwrap().1, Closed::LeaseEndCut);
    assert!(timer::now() >= close.gone_by);
    assert!(generation.has_stray());
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn half_a_message_of_the_client_is_not_followed_by_terminate() {
    let bench = Bench::new(1024);
    bench.hard_close_after_half_a_query().await;
}

impl Bench {
    async fn hard_close_after_half_a_query(mut self) {
        self.client.write_all(&begin()[..7]).await.unwrap();
        let mut read = vec![0; 7];
        self.server.read_exact(&mut read).await.unwrap();
        self.hard_close(Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!(read_all(&mut self.server).await, b"");
        drop(self.server);
        assert!(is_57p01(&frames(&read_all(&mut self.client).await)[0]));
        drop(self.client);
        assert_eq!(self.session.await.unwrap().1, Closed::LeaseEnd);
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_looked_at_before_the_client_is_read() {
    let Bench { mut client, server, generation, session, .. } = Bench::new(1024);
    yield_now().await;
    // Nobody says so; a suspend may have swallowed the timers.
    generation.set_hard_close_at(timer::now());
    client.write_all(&begin()).await.unwrap();
    let server = tokio::spawn(serve(server));
    assert!(is_57p01(&frames(&read_all(&mut client).await)[0]));
    assert_eq!(server.await.unwrap(), message(b'X', b""));
    assert_eq!(session.await.unwrap().1, Closed::LeaseEnd);
}

#[tokio::test(start_paused = true)]
async fn a_forced_stop_ends_a_transaction() {
    let Bench { mut client, server, session, stop, .. } = Bench::new(1024);
    let server = tokio::spawn(serve(server));
    client.write_all(&begin()).await.unwrap();
    let mut heard = vec![0; begun().len()];
    client.read_exact(&mut heard).await.unwrap();
    stop.send_replace(Stop::Forced);
    assert!(is_57p01(&frames(&read_all(&mut client).await)[0]));
    drop(client);
    assert_eq!(session.await.unwrap().1, Closed::Shutdown);
    assert_eq!(server.await.unwrap(), [begin(), message(b'X', b"")].concat());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_ends_the_session_and_goes_nowhere() {
    let Bench { mut client, server, session, .. } = Bench::new(1024);
    let server = tokio::spawn(serve(server));
    client.write_all(b"Q\0\0\0\0rubbish").await.unwrap();
    let heard = frames(&read_all(&mut client).await);
    assert_eq!(error_response::sqlstate(&heard[0].1), Some(&b"08P01"[..]));
    drop(client);
    assert_eq!(session.await.unwrap().1, Closed::Error);
    assert_eq!(server.await.unwrap(), b"");
}

#[tokio::test]
async fn a_hard_close_cancels_the_statement_that_runs() {
    let (listener, leg, mut server) = crate::postgres::cancel::tests::leg().await;
    let (mut client, of_client) = duplex(1024);
    let left = Arc::new(Notify::new());
    let secret = Secret::new("secret".to_owned());
    let generation = Generation::new(3, "v".to_owned(), secret, "lease".to_owned(), Time::NEVER, left);
    let mut guard = generation.enter().unwrap();
    guard.upstream_opened();
    let stop = watch::Sender::new(Stop::Running);
    let session = Session {
        guard,
        metrics: RouteMetrics::new("app"),
        denied: Arc::new(|_| {}),
        cancel: leg.cancel.map(Arc::new),
        stop: stop.subscribe(),
    };
    let mut relay = Relay::new(of_client, leg.stream, Early::default(), session);
    let session = tokio::spawn(async move {
        let done = (&mut *relay).await;
        relay.close(done, Duration::from_secs(5)).await
    });
    client.write_all(&begin()).await.unwrap();
    let mut read = vec![0; begin().len()];
    server.read_exact(&mut read).await.unwrap();
    let now = timer::now();
    let close = HardClose {
        cause: Closed::Revoked,
        cut_at: now + Duration::from_secs(1),
        gone_by: now + Duration::from_secs(5),
    };
    generation.set_ending(Ending { drain: None, hard_close: Some(close) });
    let (mut cancel, _) = listener.accept().await.unwrap();
    let mut packet = [0; 16];
    cancel.read_exact(&mut packet).await.unwrap();
    assert_eq!(packet, crate::postgres::cancel::tests::CANCEL);
    drop(cancel);
    // Only now does the server come round to reading, and to closing.
    let mut last = Vec::new();
    server.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, message(b'X', b""));
    assert_eq!(generation.sessions(), 1);
    drop(server);
    assert!(is_57p01(&frames(&read_all(&mut client).await)[0]));
    drop(client);
    assert_eq!(session.await.unwrap(), Closed::Revoked);
    assert!(!generation.has_stray());
}

#[test]
fn an_idle_session_is_small() {
    use crate::postgres::session::Client;
    use crate::postgres::upstream::dial::Stream;
    let bytes = size_of::<Relay<Client, Stream>>();
    assert!(bytes <= 768, "{bytes} bytes");
}
