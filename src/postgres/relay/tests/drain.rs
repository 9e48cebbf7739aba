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
