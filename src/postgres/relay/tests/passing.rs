//! What passes, and that it passes unchanged.

use super::*;
use crate::session::activity::Activity;

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
        assert_eq!(session.await.unwrap(), (RelayExit::UpstreamGone { in_order: true }, Closed::Client));
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
    assert!(relayed <= 2 * CAPACITY + read_buffer::READ_BYTES, "{relayed} bytes were buffered");
    assert_eq!(session.await.unwrap().1, Closed::Upstream);
}

#[tokio::test(start_paused = true)]
async fn early_bytes_come_first() {
    let Bench { mut client, mut server, session, .. } =
        Bench::with_early(1024, &begin(), &message(b'N', b"\0"));
    client.write_all(&message(b'X', b"")).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, [begin(), message(b'X', b"")].concat());
    server.write_all(&begun()).await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, [message(b'N', b"\0"), begun()].concat());
    assert_eq!(session.await.unwrap().1, Closed::Client);
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
async fn a_session_that_the_server_ends_counts_so_though_the_client_hangs_up_first() {
    for (severity, cause) in [("FATAL", Closed::Upstream), ("ERROR", Closed::Client)] {
        let Bench { mut client, mut server, session, .. } = Bench::new(1024);
        let last = message(b'E', format!("STÖDLICH\0V{severity}\0C57P01\0Mterminating\0\0").as_bytes());
        server.write_all(&last).await.unwrap();
        let mut heard = vec![0; last.len()];
        client.read_exact(&mut heard).await.unwrap();
        drop(client);
        assert_eq!(read_all(&mut server).await, b"");
        drop(server);
        assert_eq!(session.await.unwrap().1, cause, "{severity}");
    }
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

#[tokio::test(start_paused = true)]
async fn what_is_no_message_is_the_servers_to_judge() {
    let Bench { mut client, mut server, session, generation, .. } = Bench::new(1024);
    let sent = [&begin()[..], b"Q\0\0\0\0rubbish", &message(b'X', b"")].concat();
    client.write_all(&sent).await.unwrap();
    let mut heard = vec![0; sent.len()];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, sent);
    // It answers what came before. Of the session nobody knows any more when it could be ended early.
    server.write_all(&message(b'Z', b"I")).await.unwrap();
    generation.set_ending(drained(clock::now()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(server);
    assert_eq!(read_all(&mut client).await, message(b'Z', b"I"));
    assert_eq!(session.await.unwrap().1, Closed::Upstream);
}

#[test]
fn an_idle_session_is_small() {
    use crate::dial::Stream;
    use crate::socket::Client;
    let bytes = size_of::<Relay<Client, Stream>>();
    assert!(bytes <= 512, "{bytes} bytes");
}

/// Waits until the session's state is this one, and gives what is then seen.
async fn until_state(activity: &Activity, state: SessionState) -> crate::session::activity::Seen {
    let until = async {
        while activity.seen().state != state {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until).await.unwrap();
    activity.seen()
}

#[tokio::test(start_paused = true)]
async fn what_a_session_does_is_seen_from_outside() {
    let Bench { mut client, mut server, listed, .. } = Bench::new(1024);
    let activity = &listed.activity;
    let opened = activity.seen();
    assert_eq!((opened.state, opened.transaction_since), (SessionState::Idle, None));

    client.write_all(&begin()).await.unwrap();
    let active = until_state(activity, SessionState::Active).await;
    assert_eq!(active.transaction_since, Some(active.since));
    server.write_all(&begun()).await.unwrap();
    let in_one = until_state(activity, SessionState::IdleInTransaction).await;
    assert_eq!(in_one.transaction_since, active.transaction_since);
    client.write_all(&message(b'Q', b"COMMIT\0")).await.unwrap();
    let last = until_state(activity, SessionState::Active).await;
    assert_eq!(last.transaction_since, active.transaction_since);
    server.write_all(&[message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat()).await.unwrap();
    let idle = until_state(activity, SessionState::Idle).await;
    assert!(idle.transaction_since.is_none() && idle.since > opened.since);
    let up = begin().len() + message(b'Q', b"COMMIT\0").len();
    let down = begun().len() + message(b'C', b"COMMIT\0").len() + message(b'Z', b"I").len();
    assert_eq!((idle.to_upstream, idle.to_client), (up as u64, down as u64));
}

#[tokio::test(start_paused = true)]
async fn each_of_the_transactions_that_follow_at_once_has_its_own_time() {
    let Bench { mut client, mut server, listed, .. } = Bench::new(1024);
    let activity = &listed.activity;
    let select = message(b'Q', b"SELECT\0");
    client.write_all(&select.repeat(2)).await.unwrap();
    let first = until_state(activity, SessionState::Active).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.write_all(&message(b'Z', b"I")).await.unwrap();
    let second = async {
        while activity.seen().transaction_since == first.transaction_since {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), second).await.unwrap();
    assert_eq!(activity.seen().state, SessionState::Active);
}

/// The last message is leasehold's own error.
fn is_08p01(frame: Option<&(u8, Vec<u8>)>) -> bool {
    frame.is_some_and(|(tag, body)| *tag == b'E' && error_response::sqlstate(body) == Some(b"08P01"))
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_are_kept_from_the_client_which_hears_why() {
    let row = message(b'D', &[7; 3000]);
    let stream = [&row[..], &row, b"D\0\0\0\x03", &row].concat();
    // A small capacity holds messages back when the bytes are met; a large one lets them come in one chunk.
    for capacity in [64, 1 << 20] {
        let Bench { mut client, mut server, session, .. } = Bench::new(capacity);
        let (_, heard) = tokio::join!(
            async {
                // The relay need not read all of it.
                let _ = server.write_all(&stream).await;
                server.shutdown().await
            },
            async { read_all(&mut client).await }
        );
        drop((client, server));
        let heard = frames(&heard);
        assert_eq!(heard.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), b"DDE", "{capacity}");
        assert!(is_08p01(heard.last()), "{capacity}");
        assert_eq!(session.await.unwrap(), (RelayExit::UpstreamUnreadable, Closed::Error));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_a_part_of_them_is_sent_nothing_more() {
    let Bench { mut client, mut server, session, .. } = Bench::new(1024);
    server.write_all(b"D\0\0").await.unwrap();
    let mut heard = [0; 3];
    client.read_exact(&mut heard).await.unwrap();
    server.write_all(b"\0\x03").await.unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    drop((client, server));
    assert_eq!(session.await.unwrap(), (RelayExit::UpstreamUnreadable, Closed::Error));
}
