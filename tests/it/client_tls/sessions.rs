//! Sessions over TLS: what they do, how they are cancelled, and how they end.

use crate::harness::{Raw, SOON, eventually, same, tags};

use super::Bed;

#[tokio::test(flavor = "multi_thread")]
async fn much_data_passes_both_ways() {
    let bed = Bed::new().await;
    let (mut raw, _) = bed.session(&bed.tls()).await;
    let frames = raw.query("SELECT repeat('x', 1000000) FROM generate_series(1, 20)").await;
    assert_eq!(tags(&frames), format!("T{}CZ", "D".repeat(20)));
    assert!(frames[1..21].iter().all(|frame| frame.body.len() == 1_000_006));

    assert_eq!(tags(&raw.query("CREATE TEMP TABLE t (x text)").await), "CZ");
    raw.send('Q', b"COPY t FROM STDIN\0").await;
    assert_eq!(raw.recv().await.unwrap().tag, 'G');
    let line = [&vec![b'y'; 1_000_000][..], b"\n"].concat();
    for _ in 0..20 {
        raw.send('d', &line).await;
    }
    raw.send('c', &[]).await;
    assert_eq!(tags(&raw.until("Z").await), "CZ");
    let sum = raw.query("SELECT sum(length(x)) FROM t").await;
    assert!(sum[1].body.ends_with(b"20000000"), "{sum:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_comes_over_tls_or_without() {
    let bed = Bed::new().await;
    let (mut raw, key) = bed.session(&bed.tls()).await;
    let addr = bed.scene.leasehold.addr();
    for over_tls in [true, false] {
        raw.send('Q', b"SELECT pg_sleep(60)\0").await;
        bed.scene.wait_state("active", 1).await;
        if over_tls {
            let mut cancel = Raw::secured(addr, &bed.tls()).await.unwrap();
            cancel.packet(80_877_102, &key).await;
            let (said, error) = cancel.rest().await;
            assert!(said.is_empty() && error.is_none(), "{said:?} {error:?}");
        } else {
            assert!(Raw::cancel(addr, &key).await);
        }
        let frames = raw.until("Z").await;
        assert_eq!(frames[1].sqlstate(), "57014", "{frames:?}");
    }
    // As tokio-postgres does it, which waits for nothing.
    raw.send('Q', b"SELECT pg_sleep(60)\0").await;
    bed.scene.wait_state("active", 1).await;
    let mut cancel = Raw::secured(addr, &bed.tls()).await.unwrap();
    cancel.packet(80_877_102, &key).await;
    cancel.half_close().await;
    drop(cancel);
    assert_eq!(raw.until("Z").await[1].sqlstate(), "57014");
}

/// By whomever a session is ended, TLS ends in order: with a close_notify, behind all that was said.
#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_in_order() {
    let bed = Bed::new().await;
    let ends = async |mut raw: super::Secured, sqlstate: Option<&str>, what: &str| {
        if let Some(sqlstate) = sqlstate {
            assert_eq!(raw.recv().await.expect(what).sqlstate(), sqlstate, "{what}");
        }
        let (said, error) = raw.rest().await;
        assert!(said.is_empty() && error.is_none(), "{what}: {said:?} {error:?}");
    };
    let (mut leaving, _) = bed.session(&bed.tls()).await;
    leaving.send('X', &[]).await;
    ends(leaving, None, "Terminate").await;
    let (mut unreadable, _) = bed.session(&bed.tls()).await;
    unreadable.write(b"Q\0\0\0\x01").await;
    // PostgreSQL closes without a message.
    ends(unreadable, None, "no message").await;
    let (mut terminated, _) = bed.session(&bed.tls()).await;
    let pid = terminated.query("SELECT pg_backend_pid()").await[1].body.slice(6..);
    let terminate = format!("SELECT pg_terminate_backend({})", String::from_utf8_lossy(&pid));
    bed.scene.db.admin.batch_execute(&terminate).await.unwrap();
    ends(terminated, Some("57P01"), "ended by the server").await;
    let (nobody, frames) = {
        let mut raw = Raw::secured(bed.scene.leasehold.addr(), &bed.tls()).await.unwrap();
        raw.startup(Raw::PROTOCOL_3_0, &[("user", "app"), ("database", "no_such")]).await;
        let frames = raw.until("E").await;
        (raw, frames)
    };
    assert_eq!(frames.last().unwrap().sqlstate(), "3D000");
    ends(nobody, None, "a login that fails").await;

    let (idle, _) = bed.session(&bed.tls()).await;
    let (mut asks, _) = bed.session(&bed.tls()).await;
    let (mut leaves, _) = bed.session(&bed.tls()).await;
    bed.scene.rotate(&["--drain=0s"]).await;
    asks.send('Q', b"SELECT 1\0").await;
    leaves.send('X', &[]).await;
    ends(idle, Some("57P01"), "drained at rest").await;
    ends(asks, Some("57P01"), "drained as it asks").await;
    // It may have been told before its Terminate was read.
    let (said, error) = leaves.rest().await;
    assert!(error.is_none(), "drained as it leaves: {said:?} {error:?}");
}

/// What a client sent before it closed its side is answered, by the server itself and through leasehold.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_notify_is_an_end_like_that_of_tcp() {
    let bed = Bed::new().await;
    for beneath in [false, true] {
        for addr in bed.both() {
            let (mut raw, frames) = bed.login(addr, &bed.tls()).await;
            assert!(tags(&frames).ends_with('Z'), "{frames:?}");
            raw.send('Q', b"SELECT 1\0").await;
            if beneath {
                raw.half_close_beneath_tls().await;
            } else {
                raw.half_close().await;
            }
            assert_eq!(tags(&raw.until("Z").await), "TDCZ", "{addr}");
            let (said, error) = raw.rest().await;
            assert!(said.is_empty() && error.is_none(), "{addr}: {said:?} {error:?}");
        }
        eventually(SOON, async || same(bed.scene.sessions().await, 0.0)).await;
    }
    assert_eq!(bed.scene.closed("client").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_leaves_nothing_behind() {
    let bed = Bed::new().await;
    let (mut busy, _) = bed.session(&bed.tls()).await;
    let (idle, _) = bed.session(&bed.tls()).await;
    busy.send('Q', b"SELECT generate_series(1, 100000000)\0").await;
    assert_eq!(busy.recv().await.unwrap().tag, 'T');
    drop((busy, idle));
    bed.scene.wait_sessions(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_is_closed_in_time() {
    let bed = Bed::with(|builder, _| builder.flag("--limits-handshake-timeout", "5s")).await;
    let mut silent = bed.scene.leasehold.connect_raw().await;
    silent.packet(80_877_103, &[]).await;
    assert_eq!(silent.byte().await, Some(b'S'));
    let mut slow = bed.scene.leasehold.connect_raw().await;
    // A ClientHello of 512 bytes, of which there is the beginning.
    slow.write(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await;
    let mut wordless = Raw::secured(bed.scene.leasehold.addr(), &bed.tls()).await.unwrap();
    assert!(silent.rest().await.0.is_empty());
    assert!(slow.rest().await.0.is_empty());
    assert!(wordless.rest().await.0.is_empty());
    bed.wait_failures("timeout", 3.0).await;
}

/// What a session owns while it is idle: over TLS the state of two ciphers, and rustls' buffer for the next record.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_over_tls_owns_a_few_kilobytes() {
    let plain = idle_cost(async |bed| bed.scene.raw().await).await;
    let secured = idle_cost(async |bed| bed.session(&bed.tls()).await).await;
    eprintln!("an idle session: {plain:.1} KiB without TLS, {secured:.1} KiB with");
    assert!(plain < 8.0, "{plain} KiB");
    assert!(secured < 24.0, "{secured} KiB");
}

/// KiB for each of these sessions, beyond those that a process keeps from its first on.
async fn idle_cost<S>(session: impl AsyncFn(&Bed) -> S) -> f64 {
    let bed = Bed::new().await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", bed.scene.leasehold.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    let mut sessions = Vec::new();
    for _ in 0..FIRST {
        sessions.push(session(&bed).await);
    }
    let before = resident();
    for _ in 0..MORE {
        sessions.push(session(&bed).await);
    }
    (resident() - before) / f64::from(MORE)
}

const FIRST: u32 = 40;
const MORE: u32 = 240;
