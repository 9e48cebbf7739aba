//! A session is ended between transactions, and only there.

use super::*;

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
            if by_stop {
                stop.send_replace(Stop::Closing);
            } else {
                generation.set_ending(drained(clock::now()));
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
        assert!(!generation.may_be_open_upstream(), "seed {seed}");
        drop(stop);
    }
    assert!(ran > 1000 && refused > 1000, "one-sided race: {ran} ran, {refused} were refused");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_drain_ends_nobody() {
    let bench = Bench::new(1024);
    let now = clock::now();
    bench.drain(now + Duration::from_secs(100), now + Duration::from_secs(200));
    tokio::time::sleep(Duration::from_secs(50)).await;
    bench.generation.set_ending(ends(now + Duration::from_secs(20_000)));
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
            (clock::now() + Duration::from_secs(100), clock::now() + Duration::from_secs(200));
        bench.drain(from, until);
        let Bench { mut client, server, session, .. } = bench;
        let server = tokio::spawn(serve(server));
        let heard = read_all(&mut client).await;
        assert!(is_57p01(&frames(&heard)[0]));
        assert!(clock::now() >= from && clock::now() < until);
        drop(client);
        assert_eq!(session.await.unwrap(), (RelayExit::Idle(Closed::Drain), Closed::Drain));
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
    bench.generation.set_ending(drained(clock::now()));
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

/// A session that has just had the answer to a query, and its server.
async fn just_answered(bench: Bench) -> (DuplexStream, JoinHandle<Vec<u8>>, JoinHandle<(RelayExit, Closed)>) {
    let Bench { mut client, mut server, session, .. } = bench;
    client.write_all(&message(b'Q', b"SELECT\0")).await.unwrap();
    server.read_exact(&mut [0; 12]).await.unwrap();
    server.write_all(&message(b'Z', b"I")).await.unwrap();
    client.read_exact(&mut [0; 6]).await.unwrap();
    (client, tokio::spawn(serve(server)), session)
}

#[derive(Clone, Copy, Debug)]
enum By {
    Drain,
    Stop,
    HardClose,
}

/// How a session can be told to end, and what that counts as.
const WAYS: [(By, Closed); 3] =
    [(By::Drain, Closed::Drain), (By::Stop, Closed::Shutdown), (By::HardClose, Closed::LeaseEnd)];

/// The session has to end from now on.
fn end(by: By, generation: &Generation, stop: &Published<Stop>) {
    let now = clock::now();
    let second = Duration::from_secs(1);
    match by {
        By::Drain => generation.set_ending(drained(now)),
        By::Stop => stop.send_replace(Stop::Closing),
        By::HardClose => {
            generation.set_ending(closing(Cause::LeaseEnd, now + second, now + 3 * second));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_just_been_answered_hears_of_its_end_as_the_answer_to_its_next_request() {
    for (by, closed) in WAYS {
        let bench = Bench::new(1024);
        let (generation, stop) = (Arc::clone(&bench.generation), bench.stop.clone());
        let (mut client, server, session) = just_answered(bench).await;
        let answered = clock::now();
        end(by, &generation, &stop);
        // The server goes at once, and the client is not told yet.
        assert_eq!(server.await.unwrap(), message(b'X', b""), "{by:?}");
        let early = tokio::time::timeout(Duration::from_millis(240), client.read_u8()).await;
        assert!(early.is_err(), "{by:?}: told {early:?} though it had not asked");
        client.write_all(&begin()).await.unwrap();
        let heard = frames(&read_all(&mut client).await);
        assert!(heard.len() == 1 && is_57p01(&heard[0]), "{by:?}: {heard:?}");
        assert!(clock::now() < answered + Duration::from_millis(250), "{by:?}");
        drop(client);
        assert_eq!(session.await.unwrap().1, closed, "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_next_request_it_hears_within_a_moment() {
    for (by, closed) in WAYS {
        let bench = Bench::new(1024);
        let (generation, stop) = (Arc::clone(&bench.generation), bench.stop.clone());
        let (mut client, _server, session) = just_answered(bench).await;
        let answered = clock::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
        end(by, &generation, &stop);
        assert!(is_57p01(&frames(&read_all(&mut client).await)[0]), "{by:?}");
        let took = clock::now().since(answered);
        assert!(took >= Duration::from_millis(250) && took < Duration::from_millis(260), "{by:?}: {took:?}");
        drop(client);
        assert_eq!(session.await.unwrap().1, closed, "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_long_been_idle_hears_at_once() {
    for (by, closed) in WAYS {
        let bench = Bench::new(1024);
        let (generation, stop) = (Arc::clone(&bench.generation), bench.stop.clone());
        let (mut client, _server, session) = just_answered(bench).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = clock::now();
        end(by, &generation, &stop);
        assert!(is_57p01(&frames(&read_all(&mut client).await)[0]), "{by:?}");
        assert_eq!(clock::now(), now, "{by:?}");
        drop(client);
        assert_eq!(session.await.unwrap().1, closed, "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_it_is_told_has_left_by_itself() {
    for goodbye in [message(b'X', b""), Vec::new()] {
        let bench = Bench::new(1024);
        let (generation, stop) = (Arc::clone(&bench.generation), bench.stop.clone());
        let (mut client, server, session) = just_answered(bench).await;
        end(By::Drain, &generation, &stop);
        assert_eq!(server.await.unwrap(), message(b'X', b""));
        client.write_all(&goodbye).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"");
        assert_eq!(session.await.unwrap().1, Closed::Client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_a_session_while_it_rests() {
    let mut met = 0;
    for _ in 0..40 {
        let bench = Bench::new(1024);
        let from = clock::now() + Duration::from_secs(10);
        bench.drain(from, from + Duration::from_secs(40));
        let Bench { mut client, server, session, generation: _generation, stop: _stop, .. } = bench;
        let server = tokio::spawn(serve(server));
        // As a pool's connection: now in use, now at rest for a third of a second.
        let first = loop {
            let told = tokio::time::timeout(Duration::from_millis(333), client.read_u8()).await;
            if let Ok(first) = told {
                break first.unwrap();
            }
            client.write_all(&message(b'Q', b"SELECT\0")).await.unwrap();
            let answer = client.read_u8().await.unwrap();
            if answer != b'Z' {
                met += 1;
                break answer;
            }
            client.read_exact(&mut [0; 5]).await.unwrap();
        };
        assert!(is_57p01(&frames(&[vec![first], read_all(&mut client).await].concat())[0]));
        assert!(clock::now() > from && clock::now() < from + Duration::from_secs(36));
        drop(client);
        assert_eq!(session.await.unwrap(), (RelayExit::Idle(Closed::Drain), Closed::Drain));
        server.await.unwrap();
    }
    // A request may be made in the very millisecond.
    assert!(met < 10, "{met} requests of 40 met the close");
}
