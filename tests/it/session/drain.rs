//! "Between transactions", on the real server: whatever a session did or does, a drain ends it there and only there.

use std::time::Duration;

use crate::harness::{Raw, SOON, Scene, bench, eventually, same};

/// What a client does. `does` is sent, and `hears` are the tags of all that comes of it. The second pair, where there
/// is one, is for when the drain has begun: so the first left it in the middle of something.
struct Case {
    name: &'static str,
    does: Vec<u8>,
    hears: &'static str,
    then: Option<(Vec<u8>, &'static str)>,
}

fn query(sql: &str) -> Vec<u8> {
    Raw::message('Q', format!("{sql}\0").as_bytes())
}

/// Parse, Bind and Execute of the unnamed statement.
fn extended(sql: &str) -> Vec<u8> {
    [
        Raw::message('P', format!("\0{sql}\0\0\0").as_bytes()),
        Raw::message('B', &[0; 8]),
        Raw::message('E', &[0; 5]),
    ]
    .concat()
}

fn sync() -> Vec<u8> {
    Raw::message('S', &[])
}

fn flush() -> Vec<u8> {
    Raw::message('H', &[])
}

fn data(row: &str) -> Vec<u8> {
    Raw::message('d', row.as_bytes())
}

fn copy_done() -> Vec<u8> {
    Raw::message('c', &[])
}

fn copy_fail() -> Vec<u8> {
    Raw::message('f', b"no more\0")
}

/// A FunctionCall of two int4 in binary: 177 is `int4pl`, 154 `int4div`.
fn function_call(oid: u8, left: u8, right: u8) -> Vec<u8> {
    let body = [0, 0, 0, oid, 0, 1, 0, 1, 0, 2, 0, 0, 0, 4, 0, 0, 0, left, 0, 0, 0, 4, 0, 0, 0, right, 0, 1];
    Raw::message('F', &body)
}

/// Something is over when the drain comes.
fn over(name: &'static str, does: &[Vec<u8>], hears: &'static str) -> Case {
    Case { name, does: does.concat(), hears, then: None }
}

/// Something is under way when the drain comes.
fn under_way(
    name: &'static str,
    does: &[Vec<u8>],
    hears: &'static str,
    then: &[Vec<u8>],
    then_hears: &'static str,
) -> Case {
    Case { name, does: does.concat(), hears, then: Some((then.concat(), then_hears)) }
}

const COPY_IN: &str = "COPY numbers FROM STDIN";
/// 100 MB. The two connections' kernel buffers hold up to 72 MiB where `tcp_rmem` allows 32 MiB (Linux 6.16).
const FIRST_AND_MORE: &str = "COPY (SELECT repeat('x', 100000) FROM generate_series(1, 1000)) TO STDOUT";

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let (one, bad) = ("SELECT 1", "SELECT nonsense");
    let execute_one_row = Raw::message('E', &[0, 0, 0, 0, 1]);
    vec![
        over("nothing", &[], ""),
        over("a simple query", &[query(one)], "TDCZ"),
        over("a query that fails", &[query(bad)], "EZ"),
        over("two statements in a query", &[query("SELECT 1; SELECT 2")], "TDCTDCZ"),
        over("an empty query", &[query("")], "IZ"),
        over("a transaction", &[query("BEGIN"), query("INSERT INTO numbers VALUES (1)"), query("COMMIT")], "CZCZCZ"),
        over("a transaction rolled back", &[query("BEGIN"), query(bad), query("ROLLBACK")], "CZEZCZ"),
        over("an extended query", &[extended(one), sync()], "12DCZ"),
        over("a described statement", &[Raw::message('P', b"s\0SELECT $1::int\0\0\0"), Raw::message('D', b"Ss\0"), Raw::message('C', b"Ss\0"), sync()], "1tT3Z"),
        over("a pipeline", &[extended(one), sync(), extended(bad), sync(), extended(one), sync()], "12DCZEZ12DCZ"),
        over("an error in a pipeline", &[extended(one), extended(bad), extended(one), sync()], "12DCEZ"),
        over("a query that an error swallowed", &[extended(bad), flush(), query(one), sync()], "EZ"),
        over("a transaction begun by Flush", &[extended("BEGIN"), flush(), extended("COMMIT"), sync()], "12C12CZ"),
        over("a portal suspended", &[Raw::message('P', b"\0SELECT generate_series(1, 3)\0\0\0"), Raw::message('B', &[0; 8]), execute_one_row, sync()], "12DsZ"),
        over("COPY in", &[query(COPY_IN), data("1\n"), data("2\n"), copy_done()], "GCZ"),
        over("COPY in with stray Syncs", &[query(COPY_IN), data("1\n"), sync(), flush(), copy_done(), query(one)], "GCZTDCZ"),
        over("COPY in given up", &[query(COPY_IN), data("1\n"), copy_fail()], "GEZ"),
        over("COPY in of rubbish", &[query(COPY_IN), data("x\n"), copy_done()], "GEZ"),
        over("COPY in as libpq sends it", &[extended(COPY_IN), sync(), data("1\n"), copy_done(), sync()], "12GCZ"),
        // Whether the COPY had read the first Sync when it failed only the next reply tells; until then it counts as busy.
        over("COPY in by libpq given up", &[extended(COPY_IN), sync(), data("1\n"), copy_fail(), sync(), query(one)], "12GEZTDCZ"),
        over("COPY in by libpq of rubbish", &[extended(COPY_IN), sync(), data("x\n"), copy_done(), sync(), query(one)], "12GEZTDCZ"),
        over("COPY out", &[query("COPY (SELECT generate_series(1, 9)) TO STDOUT")], "HdcCZ"),
        over("COPY out, extended", &[extended("COPY (SELECT generate_series(1, 9)) TO STDOUT"), sync()], "12HdcCZ"),
        over("a cursor", &[query("BEGIN"), query("DECLARE c CURSOR FOR SELECT 1"), query("FETCH c"), query("COMMIT")], "CZCZTDCZCZ"),
        over("a function call", &[function_call(177, 40, 2)], "VZ"),
        over("a function call that fails", &[function_call(154, 1, 0)], "EZ"),
        over("a LISTEN", &[query("LISTEN something")], "CZ"),
        under_way("a transaction", &[query("BEGIN")], "CZ", &[query("COMMIT")], "CZ"),
        under_way("a failed transaction", &[query("BEGIN"), query(bad)], "CZEZ", &[query("ROLLBACK")], "CZ"),
        under_way("a transaction begun by Flush", &[extended("BEGIN"), flush()], "12C", &[extended("COMMIT"), sync()], "12CZ"),
        under_way("a statement without its Sync", &[extended(one), flush()], "12DC", &[sync()], "Z"),
        under_way("an error without its Sync", &[extended(bad), flush()], "E", &[query(one), sync()], "Z"),
        under_way("a cursor", &[query("BEGIN"), query("DECLARE c CURSOR FOR SELECT 1")], "CZCZ", &[query("FETCH c"), query("COMMIT")], "TDCZCZ"),
        under_way("COPY in", &[query(COPY_IN), data("1\n")], "G", &[data("2\n"), copy_done()], "CZ"),
        under_way("COPY in as libpq sends it", &[extended(COPY_IN), sync(), data("1\n")], "12G", &[copy_done(), sync()], "CZ"),
        under_way("COPY out", &[query(FIRST_AND_MORE)], "H", &[], "dcCZ"),
        under_way("a function call in a transaction", &[query("BEGIN"), function_call(177, 1, 2)], "CZVZ", &[query("COMMIT")], "CZ"),
        under_way("a transaction with more in it", &[query("BEGIN")], "CZ", &[query(one), query("SELECT nonsense"), query("ROLLBACK")], "TDCZEZCZ"),
        under_way("a statement that runs", &[query("SELECT pg_advisory_xact_lock_shared(7)")], "", &[], "TDCZ"),
    ]
}

/// Hears exactly these messages; repeated CopyData and DataRow count once.
async fn hear(raw: &mut Raw, name: &str, wanted: &str) {
    let mut heard = String::new();
    while heard != wanted {
        let Some(frame) = raw.recv().await else { panic!("{name}: ended after {heard:?} of {wanted:?}") };
        if !(frame.tag == 'd' && heard.ends_with('d')) {
            heard.push(frame.tag);
        }
        assert!(wanted.starts_with(&heard), "{name}: {heard:?}, not {wanted:?}: {frame:?}");
    }
}

/// The busy sessions go on in its second half, for a while at least.
const WINDOW: Duration = Duration::from_secs(32);

/// Ended by the drain, and told that nothing was lost.
async fn drained(raw: &mut Raw, name: &str) {
    let last = raw.recv_within(WINDOW).await.unwrap_or_else(|| panic!("{name}: ended without a word"));
    let fields = last.fields();
    assert_eq!((&*fields[&'S'], &*fields[&'C']), ("FATAL", "57P01"), "{name}: {fields:?}");
    assert!(fields[&'D'].starts_with("The session was between transactions"), "{name}: {fields:?}");
    assert_eq!(raw.recv().await, None, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_a_session_between_transactions_and_only_there() {
    let scene = Scene::on(&bench().postgres().await).await;
    let admin = &scene.db.admin;
    let table = format!("CREATE TABLE numbers (n int); ALTER TABLE numbers OWNER TO {}", scene.db.owner());
    admin.batch_execute(&table).await.unwrap();
    admin.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut sessions = Vec::new();
    // Each three times: its moment within the window is random.
    for _ in 0..3 {
        for case in cases() {
            let mut raw = scene.raw().await;
            raw.write(&case.does).await;
            hear(&mut raw, case.name, case.hears).await;
            sessions.push((case, raw));
        }
    }
    // Those that run wait for their lock, and those that are not read for their client.
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event IN ('advisory', 'ClientWrite')",
        scene.db.name()
    );
    eventually(SOON, async || same(admin.value(&waiting).await, "6")).await;
    let total = sessions.len();
    let (mut idle, mut busy): (Vec<_>, Vec<_>) =
        sessions.into_iter().partition(|(case, _)| case.then.is_none());

    // The idle ones have their moment in the first half of it.
    scene.rotate(&[&format!("--drain={}s", WINDOW.as_secs())]).await;
    for (case, raw) in &mut idle {
        drained(raw, case.name).await;
    }

    for (case, raw) in &mut busy {
        if case.name != "COPY out" {
            assert!(raw.stays_quiet(), "{}: ended in the middle of it", case.name);
        }
    }
    admin.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    for (case, raw) in &mut busy {
        let (then, hears) = case.then.as_ref().unwrap();
        raw.write(then).await;
        hear(raw, case.name, hears).await;
    }
    for (case, raw) in &mut busy {
        drained(raw, case.name).await;
    }
    eventually(SOON, async || same(scene.closed("drain").await, f64::from(u32::try_from(total).unwrap())))
        .await;
    assert_eq!(scene.sessions().await, 0.0);
}

/// What a session does has no part in how long it may: only the drain of its own generation counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_current_generation_is_never_drained() {
    let scene = Scene::on(&bench().postgres().await).await;
    let mut old = scene.raw().await;
    scene.rotate(&[]).await;
    let mut new = scene.raw().await;
    scene.rotate(&["--drain=8s"]).await;
    let mut newest = scene.raw().await;

    drained(&mut old, "old").await;
    drained(&mut new, "new").await;
    drop((old, new));
    eventually(SOON, async || same(scene.sessions().await, 1.0)).await;
    assert!(newest.is_quiet().await);
    eventually(SOON, async || same(scene.db.roles().await.len(), 1)).await;
    newest.write(&query("SELECT 1")).await;
    hear(&mut newest, "newest", "TDCZ").await;
}
