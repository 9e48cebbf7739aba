//! A session is ended whatever it does.

use super::*;
use crate::dial::Stream;

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
            let now = clock::now();
            let (cut_at, gone_by) = (now + Duration::from_secs(1), now + Duration::from_secs(3));
            generation.set_ending(closing(Cause::LeaseEnd, cut_at, gone_by));
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
        assert!(!generation.may_be_open_upstream(), "seed {seed}");
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
    let now = clock::now();
    let (cut_at, gone_by) = (now + Duration::from_secs(1), now + Duration::from_secs(3));
    generation.set_ending(closing(Cause::LeaseEnd, cut_at, gone_by));
    assert_eq!(read_all(&mut client).await, b"");
    assert!(clock::now() >= cut_at && clock::now() < gone_by);
    // The server pays no heed.
    assert_eq!(session.await.unwrap().1, Closed::LeaseEndCut);
    assert!(clock::now() >= gone_by);
    assert!(generation.may_be_open_upstream());
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn half_a_message_of_the_client_is_not_followed_by_terminate() {
    let mut bench = Bench::new(1024);
    bench.client.write_all(&begin()[..7]).await.unwrap();
    let mut read = vec![0; 7];
    bench.server.read_exact(&mut read).await.unwrap();
    bench.hard_close(Duration::from_secs(1), Duration::from_secs(3));
    assert_eq!(read_all(&mut bench.server).await, b"");
    drop(bench.server);
    assert!(is_57p01(&frames(&read_all(&mut bench.client).await)[0]));
    drop(bench.client);
    assert_eq!(bench.session.await.unwrap().1, Closed::LeaseEnd);
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_looked_at_before_the_client_is_read() {
    let Bench { mut client, server, generation, session, .. } = Bench::new(1024);
    yield_now().await;
    // Nobody says so; a suspend may have swallowed the timers.
    generation.set_ending(ends(clock::now()));
    client.write_all(&begin()).await.unwrap();
    let server = tokio::spawn(serve(server));
    assert!(is_57p01(&frames(&read_all(&mut client).await)[0]));
    assert_eq!(server.await.unwrap(), message(b'X', b""));
    assert_eq!(session.await.unwrap().1, Closed::LeaseEnd);
}

/// A client of which each read takes until the lease is over: the process is suspended within it.
struct Suspended(DuplexStream, Arc<Generation>);

impl AsyncRead for Suspended {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buffer);
        if read.is_ready() {
            self.1.set_ending(ends(clock::now()));
        }
        read
    }
}

impl AsyncWrite for Suspended {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_suspend_is_not_forwarded_after_it() {
    let Bench { mut client, server, generation, session, .. } =
        Bench::of(1024, b"", |client, generation| Buffered::new(Suspended(client, Arc::clone(generation))));
    client.write_all(&begin()).await.unwrap();
    let server = tokio::spawn(serve(server));
    assert!(is_57p01(&frames(&read_all(&mut client).await)[0]));
    assert_eq!(server.await.unwrap(), message(b'X', b""));
    assert_eq!(session.await.unwrap().1, Closed::LeaseEnd);
    drop(generation);
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

/// The lease has ended, and the network to the server only then begins to carry again.
#[tokio::test]
async fn what_the_server_has_not_taken_by_the_end_never_reaches_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    // The server takes what its kernel has room for; the rest waits in ours.
    let mut written = 0;
    upstream.writable().await.unwrap();
    while let Ok(count) = upstream.try_write(&begin().repeat(10_000)) {
        written += count;
    }
    let (generation, guard) = entered();

    let gone_by = clock::now() + Duration::from_millis(100);
    terminate_upstream(Stream::Tcp(upstream), guard, true, gone_by).await;

    assert!(generation.may_be_open_upstream());
    let mut taken = 0;
    let mut chunk = vec![0; 64 * 1024];
    let end = loop {
        match server.read(&mut chunk).await {
            Ok(0) => break None,
            Ok(count) => taken += count,
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(io::ErrorKind::ConnectionReset));
    assert!(taken < written, "all {written} bytes arrived");
}

#[tokio::test]
async fn a_hard_close_cancels_the_statement_that_runs() {
    let OverTcp { mut client, mut server, listener, generation, session } = OverTcp::begun().await;
    let now = clock::now();
    let (cut_at, gone_by) = (now + Duration::from_secs(1), now + Duration::from_secs(5));
    generation.set_ending(closing(Cause::Lost, cut_at, gone_by));
    takes_cancel(&listener).await;
    // Only now does the server come round to reading, and to closing.
    let mut last = Vec::new();
    server.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, message(b'X', b""));
    assert_eq!(generation.sessions(), 1);
    drop(server);
    assert!(is_57p01(&frames(&read_all(&mut client).await)[0]));
    drop(client);
    assert_eq!(session.await.unwrap().1, Closed::Revoked);
    assert!(!generation.may_be_open_upstream());
}
