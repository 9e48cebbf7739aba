//! Clients that drip, fall silent or come in crowds, on every listener: sessions go on, probes are answered, leases live.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{
    Builder, Leasehold, Raw, SOON, Scene, Spec, bench, eventually, key, packet, same, startup_body, tags,
};

/// Clients that come again and again, each from an address of loopback, until this is dropped.
#[derive(Default)]
struct Crowd {
    clients: JoinSet<()>,
    opened: Arc<AtomicUsize>,
}

impl Crowd {
    /// So many clients more, each of which sends these bytes, one every 100 ms, and then waits for the end.
    fn drip(&mut self, count: usize, from: &'static str, to: &str, bytes: &[u8]) {
        let each = |byte: &u8| vec![*byte];
        self.add(count, from, to, bytes.iter().map(each).collect());
    }

    /// So many clients more, each of which sends these bytes at once, and then waits for the end.
    fn say(&mut self, count: usize, from: &'static str, to: &str, bytes: &[u8]) {
        self.add(count, from, to, vec![bytes.to_vec()]);
    }

    fn add(&mut self, count: usize, from: &'static str, to: &str, pieces: Vec<Vec<u8>>) {
        let to: SocketAddr = to.parse().unwrap();
        for _ in 0..count {
            let (pieces, opened) = (pieces.clone(), Arc::clone(&self.opened));
            self.clients.spawn(async move {
                loop {
                    if let Ok(mut stream) = connect_from(from, to).await {
                        opened.fetch_add(1, Ordering::Relaxed);
                        for piece in &pieces {
                            if stream.write_all(piece).await.is_err() {
                                break;
                            }
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

async fn connect_from(source: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{source}:0").parse().unwrap())?;
    socket.connect(to).await
}

const HEAD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: xxxxxxxxxxxxxxxxxxxxxxxx";

fn hello(user: &str, database: &str) -> Vec<u8> {
    let parameters = [("user", user), ("database", database)];
    let body = startup_body(parameters.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    packet(Raw::PROTOCOL_3_0, &body)
}

/// A CancelRequest with a key that no session has.
fn unknown_cancel() -> Vec<u8> {
    packet(80_877_102, &[0, 0, 0, 7, 1, 2, 3, 4])
}

async fn all_probes_are_answered(leasehold: &Leasehold) {
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(leasehold.http(path).await.status, 200, "{path}");
    }
    assert_eq!(leasehold.status().await["state"], "serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_answered_though_a_crowd_from_its_own_address_came_right_behind_it() {
    let scene = Scene::on(&bench().postgres().await).await;
    for listener in ["http", "admin"] {
        let addr = &scene.leasehold.listening(listener)[0];
        scene.leasehold.suspend();
        let mut probe = TcpStream::connect(addr).await.unwrap();
        probe.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut crowd = Vec::new();
        for _ in 0..100 {
            crowd.push(TcpStream::connect(addr).await.unwrap());
        }
        scene.leasehold.resume();

        let mut reply = String::new();
        let read = tokio::time::timeout(SOON, probe.read_to_string(&mut reply)).await.unwrap();
        assert!(read.is_ok() && reply.starts_with("HTTP/1.1 200 "), "{listener}: {read:?} {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_while_hundreds_of_connections_drip_and_come_again() {
    let scene = Scene::on(&bench().postgres().await).await;
    let mut session = scene.raw().await;
    let mut crowd = Crowd::default();
    for listener in ["http", "admin"] {
        for from in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
            crowd.drip(50, from, &scene.leasehold.listening(listener)[0], HEAD);
        }
    }
    for _ in 0..10 {
        let before = crowd.opened();
        eventually(SOON * 2, async || same(crowd.opened() >= before + 50, true)).await;
        all_probes_are_answered(&scene.leasehold).await;
        assert_eq!(tags(&session.query("SELECT 1").await), "TDCZ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_startup_messages_that_drip_keep_nobody_out() {
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--limits-handshake-timeout", "5s")
    })
    .await;
    let mut session = scene.raw().await;
    let mut crowd = Crowd::default();
    // Each has a hundred bytes and more, which take ten seconds: they do not get to their end in time.
    crowd.drip(
        300,
        "127.0.0.2",
        &scene.leasehold.addr().to_string(),
        &hello("app", &"a-database-whose-name-is-long".repeat(3)),
    );
    let timeouts =
        async || scene.leasehold.metrics().await.get("handshake_failures_total", &[("reason", "timeout")]);
    eventually(SOON * 3, async || {
        all_probes_are_answered(&scene.leasehold).await;
        assert_eq!(tags(&session.query("SELECT 1").await), "TDCZ");
        assert_eq!(tags(&scene.raw().await.query("SELECT 1").await), "TDCZ");
        same(timeouts().await >= 300.0, true)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_cancel_requests_takes_none_from_another_source() {
    let server = bench().postgres().await;
    let scene = Scene::on(&server).await;
    // Another instance, which does not know the session.
    let other = Scene::with(&server, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--cancel-unknown", "forward")
    })
    .await;
    let (mut session, frames) = scene.raw_with(Raw::PROTOCOL_3_0, &[]).await;
    let cancel = key(&frames);
    let mut crowd = Crowd::default();
    crowd.say(50, "127.0.0.9", &other.leasehold.addr().to_string(), &unknown_cancel());
    other.leasehold.until_metric(SOON, "cancel_requests_total", &[("outcome", "limited")], 100.0).await;

    for _ in 0..3 {
        session.send('Q', b"SELECT pg_sleep(600)\0").await;
        scene.wait_state("active", 1).await;
        assert!(Raw::cancel(other.leasehold.addr(), &cancel).await);
        let told = session.until("Z").await;
        assert!(told.iter().any(|frame| frame.tag == 'E' && frame.sqlstate() == "57014"), "{told:?}");
    }
}

/// `FLOOD_SECONDS` is the lease's maximum, 90 if it is not set.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_to_its_end_while_crowds_use_up_the_descriptors() {
    let most: u64 = std::env::var("FLOOD_SECONDS").map_or(90, |seconds| seconds.parse().unwrap());
    let spec = Spec::new("app").ttl("30s", &format!("{most}s"));
    let began = Instant::now();
    let scene = Scene::with(&bench().postgres().await, spec, |builder, db| {
        Builder::upstream(builder, db).limit_files(64)
    })
    .await;
    let leasehold = &scene.leasehold;
    let session = scene.session().await;
    let user = session.user().await;
    let crowd = all_kinds(&scene);

    // The end may come between two queries, or as the answer to one.
    let mut said = None;
    while !session.is_closed() {
        assert!(began.elapsed() < Duration::from_secs(most + 60), "it outlives its lease");
        all_probes_are_answered(leasehold).await;
        match session.query_one("SELECT session_user", &[]).await {
            Ok(row) => assert_eq!(row.get::<_, &str>(0), user),
            Err(error) => said = error.code().map(|code| code.code().to_owned()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let ended = session.ended().await;
    assert_eq!(ended.or(said).as_deref(), Some("57P01"));
    // Its hard close is three seconds before the lease's end, and a drain at most three more.
    assert!(began.elapsed() > Duration::from_secs(most - 10), "{:?}", began.elapsed());
    let metrics = leasehold.metrics().await;
    let renewals = |outcome| metrics.get("renewals_total", &[("outcome", outcome)]);
    assert!(renewals("ok") >= (most / 30) as f64, "{}", renewals("ok"));
    assert_eq!((renewals("failed"), metrics.get("issuances_total", &[("outcome", "failed")])), (0.0, 0.0));
    assert_eq!(metrics.get("login_failures_total", &[("reason", "no_credential")]), 0.0);
    assert!(metrics.get("login_failures_total", &[("reason", "limit")]) > 0.0, "clients were turned away");
    assert!(crowd.opened() > 500, "{} connections", crowd.opened());
    assert!(leasehold.log().messages("cannot accept clients, retrying").is_empty());
    drop(crowd);
    let fresh = eventually(SOON * 2, async || leasehold.try_connect("app", scene.db.name()).await).await;
    assert_ne!(fresh.user().await, user);
    eventually(SOON, async || same(scene.db.roles().await, [fresh.user().await])).await;
}

/// More of every kind than there are descriptors for.
fn all_kinds(scene: &Scene) -> Crowd {
    let (mut crowd, clients) = (Crowd::default(), scene.leasehold.addr().to_string());
    let hello = hello("app", scene.db.name());
    crowd.say(20, "127.0.0.2", &clients, b"");
    crowd.drip(20, "127.0.0.3", &clients, &hello[..hello.len() - 1]);
    crowd.say(20, "127.0.0.4", &clients, &hello);
    crowd.say(20, "127.0.0.5", &clients, &unknown_cancel());
    for listener in ["http", "admin"] {
        // One source: of more than there are places for, the probe may be closed for the next.
        crowd.drip(30, "127.0.0.6", &scene.leasehold.listening(listener)[0], HEAD);
    }
    crowd
}
