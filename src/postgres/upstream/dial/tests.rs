//! What the TCP words make of a socket.

use tokio::net::TcpListener;

use super::*;

/// What the kernel says of a socket that was made with these words.
async fn made_with(words: TcpWords) -> (bool, Duration, Duration, u32, Option<Duration>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let (Socket::Tcp(stream), _) = connect(&address, &words).await.unwrap() else {
        panic!("a TCP address gives a TCP socket");
    };
    assert!(stream.nodelay().unwrap());
    let socket = SockRef::from(&stream);
    (
        socket.keepalive().unwrap(),
        socket.tcp_keepalive_time().unwrap(),
        socket.tcp_keepalive_interval().unwrap(),
        socket.tcp_keepalive_retries().unwrap(),
        socket.tcp_user_timeout().unwrap(),
    )
}

#[tokio::test]
async fn keepalives_and_user_timeout_are_set_as_written_and_else_are_the_systems() {
    let seconds = Duration::from_secs;
    let (on, time, interval, retries, user_timeout) = made_with(TcpWords::default()).await;
    assert!(on, "keepalives are on by default, as in libpq");
    assert_eq!(user_timeout, None);

    let written = TcpWords {
        keepalives: true,
        keepalives_idle: Some(seconds(41)),
        keepalives_interval: Some(seconds(7)),
        keepalives_count: Some(3),
        user_timeout: Some(Duration::from_millis(12_345)),
    };
    let user_timeout = Some(Duration::from_millis(12_345));
    assert_eq!(made_with(written.clone()).await, (true, seconds(41), seconds(7), 3, user_timeout));
    // Without keepalives their words have no effect; the user timeout is another matter.
    let off = TcpWords { keepalives: false, ..written };
    assert_eq!(made_with(off).await, (false, time, interval, retries, user_timeout));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_does_not_end_holds_up_only_those_of_the_same_name() {
    let (tell, stuck) = watch::channel(None);
    let lookup = Lookup { answer: stuck, seen: Vec::new() };
    LOOKUPS.lock().unwrap().insert("stuck.invalid".to_owned(), lookup);
    let waited = timeout(Duration::from_secs(10), resolve("stuck.invalid", 5432)).await;
    assert!(waited.is_err(), "it waits for its turn, within the caller's bound");
    assert!(!resolve("localhost", 5432).await.unwrap().is_empty());
    // Who waits for it gets its answer, and one that has been answered is asked anew.
    let (found, _) = tokio::join!(resolve("stuck.invalid", 5432), async {
        tokio::task::yield_now().await;
        tell.send_replace(Some(Ok(vec!["127.0.0.9".parse().unwrap()])));
    });
    assert_eq!(found.unwrap(), ["127.0.0.9:5432".parse().unwrap()]);
    assert!(under_way("stuck.invalid").borrow().is_none());
    assert_eq!(resolve("::1", 5432).await.unwrap(), ["[::1]:5432".parse().unwrap()]);
}

#[test]
fn a_name_that_resolves_to_one_address_after_the_other_has_several() {
    let [first, second] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse::<IpAddr>().unwrap());
    let (_, answer) = watch::channel(None);
    LOOKUPS.lock().unwrap().insert("rotating.invalid".to_owned(), Lookup { answer, seen: Vec::new() });
    assert!(!has_several_addresses("rotating.invalid"));
    note("rotating.invalid", &[first, first]);
    note("rotating.invalid", &[first]);
    assert!(!has_several_addresses("rotating.invalid"));
    note("rotating.invalid", &[second]);
    assert!(has_several_addresses("rotating.invalid"));
    assert!(!has_several_addresses("never-asked.invalid"));
}
