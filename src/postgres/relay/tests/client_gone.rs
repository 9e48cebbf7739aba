//! A client dies. What the server does then is what it would do if the client's socket were its own.

use super::*;

/// Where the server is when the client has gone.
async fn vanished(sent: &[u8]) -> (DuplexStream, JoinHandle<(RelayExit, Closed)>, Arc<Generation>) {
    let Bench { mut client, mut server, session, generation, .. } = Bench::new(1024);
    client.write_all(sent).await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut server).await, sent);
    (server, session, generation)
}

#[tokio::test(start_paused = true)]
async fn a_statement_without_an_answer_is_counted_until_its_server_has_gone() {
    let (mut server, session, generation) = vanished(&begin()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(generation.sessions(), 1);
    // The whole answer: what the server does next is to read the client's end.
    server.write_all(&begun()).await.unwrap();
    yield_now().await;
    assert!(!session.is_finished());
    drop(server);
    assert_eq!(session.await.unwrap(), (RelayExit::UpstreamGone { in_order: true }, Closed::Client));
    assert_eq!((generation.sessions(), generation.may_be_open_upstream()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn the_first_of_an_answer_ends_it() {
    let (mut server, session, generation) = vanished(&begin()).await;
    let wrote = server.write_all(&message(b'D', &[1; 100_000])).await;
    assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::BrokenPipe, "its answer was read to the end");
    assert_eq!(session.await.unwrap(), (RelayExit::ClientGone, Closed::Client));
    // It has no key, so nobody knows when it ends.
    assert_eq!((generation.sessions(), generation.may_be_open_upstream()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_others_ends_them() {
    let (mut server, session, _generation) = vanished(&[begin(), begin()].concat()).await;
    server.write_all(&begun()).await.unwrap();
    assert_eq!(session.await.unwrap(), (RelayExit::ClientGone, Closed::Client));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_did_not_read_is_noticed_without_another_byte() {
    let Bench { mut client, mut server, session, .. } = Bench::new(1024);
    client.write_all(&begin()).await.unwrap();
    // As much as the client's side holds, and a little more: the rest waits in the relay.
    server.write_all(&message(b'D', &[1; 1500])).await.unwrap();
    yield_now().await;
    drop(client);
    assert_eq!(session.await.unwrap(), (RelayExit::ClientGone, Closed::Client));
}

#[tokio::test]
async fn the_statement_is_cancelled_and_the_servers_socket_reset() {
    let OverTcp { client, mut server, listener, generation, session } = OverTcp::begun().await;
    drop(client);
    // Half of an answer: the rest takes long.
    server.write_all(&begun()[..3]).await.unwrap();
    takes_cancel(&listener).await;
    // It had been told that its client sends no more.
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(server.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(generation.sessions(), 1, "the server has had no time to end");
    assert_eq!(session.await.unwrap(), (RelayExit::ClientGone, Closed::Client));
    assert_eq!((generation.sessions(), generation.may_be_open_upstream()), (0, false));
}
