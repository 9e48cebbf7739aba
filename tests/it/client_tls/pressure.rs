//! Clients without TLS beside those with it, and TLS clients for which there are no descriptors, or which do not read.

use rustix::process::Resource;
use tokio::net::TcpStream;

use super::{Bed, Secured};
use crate::harness::{SOON, eventually, field, same, tags};

/// `[tls]` offers TLS, and only `client_ca_file` insists on it (`identity::without_a_certificate_nobody_gets_in_over_tcp`).
#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_is_served_and_drained_beside_those_with_it() {
    let bed = Bed::new().await;
    let mut plain = bed.scene.raw().await;
    let (mut secured, _) = bed.session(&bed.tls()).await;
    assert_eq!(tags(&plain.query("SELECT 1").await), "TDCZ");
    assert_eq!(tags(&secured.query("SELECT 1").await), "TDCZ");
    let opened = bed.scene.leasehold.log().messages("session opened");
    let versions: Vec<_> = opened.iter().map(|line| field(line, "client.tls")).collect();
    assert_eq!(versions, ["off", "TLSv1.3"]);

    bed.scene.rotate(&["--drain=0s"]).await;

    assert_eq!(plain.recv().await.unwrap().sqlstate(), "57P01");
    assert_eq!(plain.recv().await, None);
    assert_eq!(secured.recv().await.unwrap().sqlstate(), "57P01");
    let (said, error) = secured.rest().await;
    assert!(said.is_empty() && error.is_none(), "{said:?} {error:?}");
    eventually(SOON, async || same(bed.scene.closed("revoked").await, 2.0)).await;
}

/// TLS costs descriptors of nobody: the answer that there are none comes within TLS, and TLS ends in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_tls_client_is_told_that_no_descriptors_are_left() {
    let bed = Bed::with(|builder, _| builder.limit_files(64)).await;
    let addr = bed.scene.leasehold.addr();
    let mut sessions = Vec::new();
    let (mut refused, frames) = loop {
        let (raw, frames) = bed.login(addr, &bed.tls()).await;
        if !tags(&frames).ends_with('Z') {
            break (raw, frames);
        }
        sessions.push(raw);
        assert!(sessions.len() < 60, "the limit has no effect");
    };
    assert!(sessions.len() > 5, "{} got in", sessions.len());
    let told = frames.last().unwrap();
    assert_eq!(told.sqlstate(), "53300");
    assert_eq!(told.fields()[&'M'], "the proxy has no file descriptors left");
    let (said, error) = refused.rest().await;
    assert!(said.is_empty() && error.is_none(), "{said:?} {error:?}");
    for session in &mut sessions {
        assert_eq!(tags(&session.query("SELECT 1").await), "TDCZ");
    }
    sessions.pop();
    eventually(SOON, async || same(gets_in(&bed).await, true)).await;
}

async fn gets_in(bed: &Bed) -> bool {
    tags(&bed.login(bed.scene.leasehold.addr(), &bed.tls()).await.1).ends_with('Z')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_client_that_cannot_be_accepted_waits_for_a_descriptor() {
    let bed = Bed::new().await;
    let leasehold = &bed.scene.leasehold;
    let (mut session, _) = bed.session(&bed.tls()).await;
    // What is free by then is taken by the first of these.
    let mut taken = Vec::new();
    eventually(SOON, async || {
        leasehold.leave_files(0);
        taken.push(TcpStream::connect(leasehold.addr()).await.unwrap());
        same(leasehold.log().messages("cannot accept clients, retrying").is_empty(), false)
    })
    .await;
    assert_eq!(tags(&session.query("SELECT 1").await), "TDCZ", "who is in goes on");
    let room = async {
        // By then its SSLRequest is in the queue of the listener.
        assert_eq!(tags(&session.query("SELECT pg_sleep(0.2)").await), "TDCZ");
        leasehold.limit(Resource::Nofile, None);
    };
    let (served, ()) = tokio::join!(gets_in(&bed), room);
    assert!(served);
}

const STUCK: u32 = 12;
/// 200 MB. The kernel's buffers on the way hold up to 72 MiB.
const LARGE: &[u8] = b"SELECT repeat('x', 1000000) FROM generate_series(1, 200)\0";

async fn stuck(bed: &Bed) -> Vec<Secured> {
    let mut all = Vec::new();
    for _ in 0..STUCK {
        let (mut raw, _) = bed.session(&bed.tls()).await;
        raw.send('Q', LARGE).await;
        all.push(raw);
    }
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'ClientWrite'",
        bed.scene.db.name()
    );
    eventually(SOON * 2, async || same(bed.scene.db.admin.value(&blocked).await, STUCK.to_string())).await;
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_cost_little_memory_and_nobody_else() {
    let bed = Bed::new().await;
    let (mut other, _) = bed.session(&bed.tls()).await;
    let before = bed.scene.leasehold.resident();

    let clients = stuck(&bed).await;

    let each = (bed.scene.leasehold.resident() - before) / u64::from(STUCK);
    eprintln!("a client that does not read: {each} KiB");
    assert!(each < 512, "{each} KiB each, of 60 MB that wait for each");
    for _ in 0..20 {
        assert_eq!(tags(&other.query("SELECT 1").await), "TDCZ");
    }
    assert!(gets_in(&bed).await);
    drop(clients);
}

/// Who reads in time has all of its answer, and then the reason, in order; who does not is cut, within its answer.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_are_cut_at_the_end_of_a_drain_and_not_before() {
    let bed = Bed::new().await;
    let mut clients = stuck(&bed).await;
    let mut reads = clients.pop().unwrap();

    bed.scene.rotate(&["--drain=20s"]).await;

    assert_eq!(tags(&reads.until("Z").await), format!("T{}CZ", "D".repeat(200)));
    // Its moment is anywhere in the first nine tenths of the window.
    assert_eq!(reads.recv_within(SOON * 3).await.unwrap().sqlstate(), "57P01");
    let (said, error) = reads.rest().await;
    assert!(said.is_empty() && error.is_none(), "{said:?} {error:?}");
    eventually(SOON * 3, async || same(bed.scene.sessions().await, 0.0)).await;
    // The role of the drained sessions goes.
    eventually(SOON, async || same(bed.scene.db.roles().await.len(), 1)).await;
    for mut client in clients {
        let said = tags(&client.until("E").await);
        assert!(said.len() < 60 && said.chars().all(|tag| "TD".contains(tag)), "{said}");
    }
}
