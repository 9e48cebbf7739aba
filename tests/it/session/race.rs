//! P10: a client that is closed between transactions knows that what it sent after its last ReadyForQuery did not run.
//!
//! It was seen to find a planted bug: with requests under way left out of "between transactions", it names the keys
//! that ran though their clients were told that nothing had.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Raw, SOON, Scene, Spec, bench, eventually, same};

/// What one client has learned, by the keys that it wrote.
#[derive(Default)]
struct Learned {
    ran: Vec<u64>,
    did_not_run: Vec<u64>,
    /// Closed at the end of the window whatever it did: nothing is promised of the last one.
    unknown: Vec<u64>,
}

/// What came of one transaction.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Ran,
    Closed,
    Cut,
}

fn query(sql: &str) -> Vec<u8> {
    Raw::message('Q', format!("{sql}\0").as_bytes())
}

/// The writes of one transaction with this key, each to be answered by a ReadyForQuery before the next: alone, in three
/// steps, in one pipeline, extended.
fn writes(key: u64) -> Vec<(Vec<u8>, usize)> {
    let insert = format!("INSERT INTO written VALUES ({key})");
    let statement = query(&insert);
    match key % 4 {
        0 => vec![(statement, 1)],
        1 => vec![(query("BEGIN"), 1), (statement, 1), (query("COMMIT"), 1)],
        2 => vec![([query("BEGIN"), statement, query("COMMIT")].concat(), 3)],
        _ => {
            let parse = Raw::message('P', format!("\0{insert}\0\0\0").as_bytes());
            let rest =
                [Raw::message('B', &[0; 8]), Raw::message('E', &[0; 5]), Raw::message('S', &[])].concat();
            vec![([parse, rest].concat(), 1)]
        }
    }
}

/// Writes one key. Anything but success, or a close before the first answer, is a fault.
async fn write_one(raw: &mut Raw, key: u64) -> Outcome {
    for (step, (bytes, readies)) in writes(key).into_iter().enumerate() {
        // A server that has closed may refuse the bytes; what it said is still to be read.
        let _ = raw.try_write(&bytes).await;
        for ready in 0..readies {
            let frames = raw.until("ZE").await;
            let last = frames.last().unwrap_or_else(|| panic!("{key}: ended without a word"));
            if last.tag == 'Z' {
                continue;
            }
            let fields = last.fields();
            assert_eq!(fields[&'C'], "57P01", "{key}: {fields:?}");
            if !fields[&'D'].starts_with("The session was between transactions") {
                return Outcome::Cut;
            }
            assert_eq!((step, ready, frames.len()), (0, 0, 1), "{key}: closed within a transaction");
            return Outcome::Closed;
        }
    }
    Outcome::Ran
}

/// Connects and writes until told to stop; connects again whenever it is closed.
async fn client(scene: Arc<Scene>, keys: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Learned {
    let mut learned = Learned::default();
    while !stop.load(Ordering::Relaxed) {
        let mut raw = scene.raw().await;
        while !stop.load(Ordering::Relaxed) {
            let key = keys.fetch_add(1, Ordering::Relaxed);
            match write_one(&mut raw, key).await {
                Outcome::Ran => learned.ran.push(key),
                Outcome::Closed => {
                    learned.did_not_run.push(key);
                    break;
                }
                Outcome::Cut => {
                    learned.unknown.push(key);
                    break;
                }
            }
        }
    }
    learned
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_to_a_session_closed_between_transactions_did_not_run() {
    let server = bench().own_postgres(serde_json::json!({"hba": ["host all all all trust"]})).await;
    let scene = Arc::new(
        Scene::with(&server, Spec::new("app"), |builder, db| {
            builder.upstream(db).trusted().flag("--log-level", "info")
        })
        .await,
    );
    let table =
        format!("CREATE TABLE written (key bigint); ALTER TABLE written OWNER TO {}", scene.db.owner());
    scene.db.admin.batch_execute(&table).await.unwrap();
    let (keys, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&scene), Arc::clone(&keys), Arc::clone(&stop)));
    }

    let until = Instant::now() + AT_MOST;
    let mut rotations = 0;
    while scene.closed("drain").await < RACES && Instant::now() < until {
        // All of them are at work with one credential, so that each close is a race.
        eventually(SOON * 6, async || {
            same((scene.leasehold.generations().await.len(), scene.sessions().await), (1, CLIENTS as f64))
        })
        .await;
        let rotated = scene.leasehold.admin(Method::POST, "/rotate?drain=1s").await;
        assert_eq!(rotated.status, 200, "{}", rotated.text);
        rotations += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let learned = clients.join_all().await;

    let all = |of: fn(&Learned) -> &Vec<u64>| learned.iter().flat_map(of).copied().collect::<Vec<_>>();
    let (ran, did_not_run) = (all(|one| &one.ran), all(|one| &one.did_not_run));
    let unknown: BTreeSet<_> = all(|one| &one.unknown).into_iter().collect();
    let rows = scene.db.admin.query("SELECT key FROM written", &[]).await.unwrap();
    let written: BTreeSet<u64> = rows.iter().map(|row| row.get::<_, i64>(0).unsigned_abs()).collect();
    assert_eq!(written.len(), rows.len(), "nothing ran twice");
    let missing: Vec<_> = ran.iter().filter(|key| !written.contains(key)).collect();
    assert!(missing.is_empty(), "reported as done, but not there: {missing:?}");
    let stray: Vec<_> = did_not_run.iter().filter(|key| written.contains(key)).collect();
    assert!(stray.is_empty(), "closed, but they ran: {stray:?}");
    // A close of a session that had just connected races with nothing.
    let closed = scene.closed("drain").await;
    assert!(did_not_run.len() as f64 > closed * 0.9, "{} of {closed} were races", did_not_run.len());
    assert!(closed > RACES / 10.0, "{closed} were too few");
    assert_eq!(written.difference(&unknown).count(), ran.len());
    eprintln!(
        "{} closed, {} ran, {} cut, {rotations} rotations",
        did_not_run.len(),
        ran.len(),
        unknown.len()
    );
    eventually(SOON, async || same(scene.sessions().await, 0.0)).await;
}

const CLIENTS: usize = 128;
const RACES: f64 = 10_000.0;
/// The usual is a minute.
const AT_MOST: Duration = Duration::from_secs(480);
