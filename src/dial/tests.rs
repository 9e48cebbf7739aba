//! The socket options that the settings lead to.

use socket2::SockRef;
use tokio::net::TcpListener;

use super::*;

/// The options of a socket that was connected with these settings, as the kernel reports them.
async fn made_with(settings: TcpSettings) -> (bool, Duration, Duration, u32, Option<Duration>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let Socket::Tcp(stream) = connect(&address, &settings).await.unwrap() else {
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
    let (on, time, interval, retries, user_timeout) = made_with(TcpSettings::default()).await;
    assert!(on, "keepalives are on by default, as in libpq");
    assert_eq!(user_timeout, None);

    let written = TcpSettings {
        keepalives: true,
        keepalives_idle: Some(seconds(41)),
        keepalives_interval: Some(seconds(7)),
        keepalives_count: Some(3),
        user_timeout: Some(Duration::from_millis(12_345)),
    };
    let user_timeout = Some(Duration::from_millis(12_345));
    assert_eq!(made_with(written.clone()).await, (true, seconds(41), seconds(7), 3, user_timeout));
    // Without keepalives their options have no effect; the user timeout still has.
    let off = TcpSettings { keepalives: false, ..written };
    assert_eq!(made_with(off).await, (false, time, interval, retries, user_timeout));
}
