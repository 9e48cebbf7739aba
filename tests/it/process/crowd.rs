//! Many clients at once: a thousand sessions, and a storm with nothing to let it in.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Backends, Frame, Leasehold, Mode, Raw, SOON, Spec, bench, eventually, leasehold, same};

/// Open files of a process.
fn files(leasehold: &Leasehold) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", leasehold.pid())).unwrap().count()
}

/// Resident memory of a process, in KiB.
fn resident(leasehold: &Leasehold) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", leasehold.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// All up to the next ReadyForQuery or error. A thousand processes are forked and ended: each client is patient, and all of
/// them have a bound.
async fn patiently(raw: &mut Raw) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !frames.last().is_some_and(|last: &Frame| "ZE".contains(last.tag)) {
        frames.push(raw.recv_within(Duration::from_secs(100)).await.expect("an answer"));
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_come_at_once_go_and_stay_and_all_are_drained() {
    let conf = serde_json::json!({"max_connections": "1100", "shared_buffers": "32MB"});
    let server = bench().own_postgres(serde_json::json!({"version": "system", "conf": conf})).await;
    let backends = Backends::on(&server, Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let mut leasehold = backends
        .leasehold()
        .flag("--log-level", "info")
        .flag("--limits-connect-timeout", "60s")
        .start()
        .await;
    leasehold.wait_ready().await;
    let addr = leasehold.addr();
    let crowd = || {
        let mut logins = JoinSet::new();
        for at in 0..1_000 {
            let name = db.name().to_owned();
            logins.spawn(async move {
                let mut raw = Raw::connect(addr).await;
                raw.startup(Raw::PROTOCOL_3_0, &[("user", "app"), ("database", &name)]).await;
                assert_eq!(patiently(&mut raw).await.pop().unwrap().tag, 'Z');
                raw.send('Q', format!("SELECT {at}\0").as_bytes()).await;
                let reply = patiently(&mut raw).await;
                assert!(reply[1].body.ends_with(at.to_string().as_bytes()), "each gets its own answer");
                raw
            });
        }
        logins.join_all()
    };

    let come_and_go = crowd().await;
    let with_them = files(&leasehold);
    assert!(with_them > 2_000, "{with_them}");
    drop(come_and_go);
    let sessions = async || leasehold.metrics().await.get("sessions", &[("route", "app")]);
    eventually(SOON * 3, async || same(sessions().await, 0.0)).await;
    eventually(SOON, async || same(files(&leasehold) < 60, true)).await;

    let stay = crowd().await;
    assert_eq!(sessions().await, 1_000.0);
    assert_eq!(leasehold.status().await["routes"][0]["sessions"], 1_000);
    leasehold.sigterm();
    let mut ends = JoinSet::new();
    for mut raw in stay {
        ends.spawn(async move { patiently(&mut raw).await.pop().unwrap().sqlstate() });
    }
    assert!(ends.join_all().await.iter().all(|code| code == "57P01"));
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    assert!(vault.leases(&setup.path).await.is_empty());
    assert!(db.backends().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_without_a_credential_is_told_57p03_in_time_and_leaves_nothing_behind() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app")).await;
    let away = vault.forwarder().await;
    away.set(Mode::Refuse).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault_addr(&format!("http://{}", away.addr()))
        .login(&setup)
        .flag("--limits-login-wait", "1s")
        .start()
        .await;
    let before = (files(&leasehold), resident(&leasehold));
    let addr = leasehold.addr();
    for _ in 0..3 {
        let mut storm = JoinSet::new();
        for _ in 0..700 {
            storm.spawn(async move {
                let begun = Instant::now();
                let (mut raw, mut frames) = Raw::login(addr, "app", "shop").await;
                assert!(begun.elapsed() >= Duration::from_secs(1), "it waits for a credential");
                let told = frames.pop().unwrap().fields();
                assert_eq!((told[&'S'].as_str(), told[&'C'].as_str()), ("FATAL", "57P03"));
                assert_eq!(told[&'M'], "no database credential is available yet");
                assert!(told.contains_key(&'D') && told.contains_key(&'H'), "{told:?}");
                assert_eq!(raw.recv().await, None);
            });
        }
        storm.join_all().await;
    }
    eventually(SOON, async || same(files(&leasehold) <= before.0 + 20, true)).await;
    let after = resident(&leasehold);
    assert!(after < before.1 + 64 * 1024, "{} KiB before, {after} KiB after", before.1);
    let failures = leasehold.metrics().await.get("login_failures_total", &[("reason", "no_credential")]);
    assert_eq!(failures, 2_100.0);
    assert!(leasehold.log().messages("login failed").len() < 60, "no storm in the log");
    away.set(Mode::Pass).await;
    leasehold.wait_ready().await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 1").await, "1");
}
