//! Rotation after rotation under clients of all kinds: nobody notices more than was promised.
//!
//! `make test` runs it for a minute; `make soak` for `SOAK_SECONDS`, ten minutes where nothing is said.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::harness::{Backends, Leasehold, SOON, Spec, broken_routes, eventually, same};
use crate::load::{Book, Kind, Ledger, Shared, Tally, Watch, Worker};

#[tokio::test(flavor = "multi_thread")]
async fn dozens_of_rotations_break_nothing_that_was_promised() {
    // A lease of 12 s is renewed while it has sessions, up to 20 s; its own token ends a few seconds later.
    let token = json!({"token_ttl": "26s", "token_max_ttl": "26s"});
    let spec = Spec::new("app")
        .ttl("12s", "20s")
        .token(token)
        .policy(Spec::MAY_REVOKE)
        .policy(broken_routes::POLICY);
    let backends = Backends::new(spec).await;
    Ledger::create(&backends.db, CLIENTS).await;
    // Beside it two routes that never get a credential, which is to cost the good one nothing.
    let defaults = format!("rotate_after = '2s'\nprobe_database = '{}'\n", backends.db.name());
    let file = broken_routes::beside(&backends.setup, backends.db.server.addr(), &defaults);
    let started = backends.with_file(&file).flag("--log-level", "info").start().await;
    started.wait_ready_route("app").await;
    let leasehold = Arc::new(started);
    let db = Arc::new(backends.db);

    let (tally, watch) = (Arc::new(Tally::default()), Arc::new(Watch::default()));
    let (stop, stop_looking) = (CancellationToken::new(), CancellationToken::new());
    let shared =
        Shared::new(leasehold.config("app", db.name()), Arc::clone(&tally), Arc::clone(&watch), stop.clone());
    let looking = tokio::spawn(Arc::clone(&watch).run(
        Arc::clone(&db),
        Arc::clone(&leasehold),
        Arc::clone(&tally),
        stop_looking.clone(),
    ));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let kind = Kind::TURN[client as usize % Kind::TURN.len()];
            Worker::start(client, kind, Arc::clone(&shared))
        })
        .collect();

    until_enough(&leasehold, &tally).await;
    stop.cancel();
    let mut books = Vec::new();
    for worker in workers {
        books.push(worker.await.unwrap());
    }
    drop(shared);
    stop_looking.cancel();
    looking.await.unwrap();

    let metrics = leasehold.metrics().await;
    let closed = |cause: &str| metrics.get("sessions_closed_total", &[("cause", cause)]);
    let lines = Ledger::agrees(&db, &books).await;
    figures(&leasehold, &tally, &watch, &books, lines).await;
    assert_eq!(tally.faults(), Vec::<String>::new());
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    broken_routes::were_refused(&metrics);
    for cause in ["upstream", "revoked", "shutdown", "error"] {
        assert_eq!(closed(cause), 0.0, "{cause}");
    }
    let bare = tally.bare();
    assert!(bare.len() as f64 <= closed("lease_end_cut"), "ended without a word: {bare:#?}");
    assert!(closed("drain") > 0.0 && tally.notifications() > 0 && watch.figures().closes > 0);

    let mut leasehold = Arc::into_inner(leasehold).expect("nobody else has it");
    assert_eq!(leasehold.stop().await.code(), Some(0));
    eventually(SOON * 2, async || same(db.roles().await.len(), 0)).await;
}

/// Until there were rotations and sessions enough, and the time is over.
async fn until_enough(leasehold: &Leasehold, tally: &Tally) {
    let seconds = std::env::var("SOAK_SECONDS").map_or(0, |text| text.parse().expect("seconds"));
    let span = Duration::from_secs(seconds);
    let began = Instant::now();
    eventually(span + Duration::from_secs(240), async || {
        if !tally.faults().is_empty() {
            // What is wrong already does not get better; the end says what it is.
            return Ok(());
        }
        let rotations = leasehold.metrics().await.get("rotations_total", &[]);
        let seen = (rotations, tally.sessions(), began.elapsed());
        if rotations >= 30.0 && tally.sessions() >= 2000 && began.elapsed() >= span {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
}

async fn figures(leasehold: &Leasehold, tally: &Tally, watch: &Watch, books: &[Book], lines: u64) {
    let metrics = leasehold.metrics().await;
    let closed = |cause: &str| metrics.get("sessions_closed_total", &[("cause", cause)]) as u64;
    let (mut acknowledged, mut not_run, mut unknown) = (0, 0, 0);
    for book in books {
        acknowledged += book.acknowledged;
        not_run += book.doubts().0;
        unknown += book.doubts().1;
    }
    let seen = watch.figures();
    let latest = seen
        .latest_close
        .map_or_else(|| "-".to_owned(), |left| format!("{:.1} s before it", left.as_secs_f64()));
    let mut table = vec![
        ("rotations", (metrics.get("rotations_total", &[]) as u64).to_string()),
        ("sessions", tally.sessions().to_string()),
        ("failed logins", (metrics.get("login_failures_total", &[]) as u64).to_string()),
        ("acknowledged writes", acknowledged.to_string()),
        ("writes known not to have run", not_run.to_string()),
        ("writes of which nothing is known", unknown.to_string()),
        ("lines in the ledger", lines.to_string()),
        ("notifications", tally.notifications().to_string()),
        ("longest transaction committed", format!("{:.1} s", tally.longest().as_secs_f64())),
        ("latest close before a lease's end", latest),
        ("closes compared with /status", seen.closes.to_string()),
        ("most generations, most roles", format!("{}, {}", seen.most_generations, seen.most_roles)),
        ("looks", seen.looks.to_string()),
        ("ended without a word", tally.bare().len().to_string()),
    ];
    for cause in ["client", "drain", "lease_end", "lease_end_cut"] {
        table.push((cause, closed(cause).to_string()));
    }
    for (name, value) in table {
        eprintln!("soak: {name:<36} {value}");
    }
    for (message, count) in tally.told() {
        eprintln!("soak: {count:>5} read: {message}");
    }
}

const CLIENTS: i32 = 64;
