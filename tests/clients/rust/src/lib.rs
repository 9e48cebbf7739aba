//! What the clients in Rust share, as `../python/common.py` for those in Python.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

pub const WHO: &str = "SELECT current_user::text, current_database()::text";
pub const TABLE: &str = "DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)";
pub const SLEEP: &str = "SELECT pg_advisory_xact_lock(7), pg_sleep(30)";
pub const SLEEPERS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
pub const WRONG: [&str; 3] = ["INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT"];
/// What the step `types` sends, beside true, the greatest i64, 1.5 and a null.
pub const NUMERIC: &str = "12345.6789";
pub const TEXT: &str = "naïve ☃";
pub const BYTES: &[u8] = &[0, 255];
pub const ARRAY: [i32; 3] = [1, 2, 3];
pub const UUID: Uuid = Uuid::from_u128(0x01234567_89ab_cdef_0123_456789abcdef);
/// The server's text of it; the numeric goes as text, as types for it are in crates of their own.
pub const LINE: &str = "concat_ws('|', $1::bool, $2::int8, ($3::text)::numeric, $4::float8, $5::text, $6::bytea, $7::date, \
     $8::timestamptz, $9::uuid, $10::jsonb, $11::int4[], coalesce($12::text, ''))";
pub const WORKERS: u32 = 8;
const PAUSE: u32 = 20; // milliseconds, a tenth of the longest

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

pub fn url() -> String {
    variable("CLIENT_URL")
}

/// libpq's keywords.
pub fn keywords() -> String {
    let [host, port, user, database] =
        ["HOST", "PORT", "USER", "DATABASE"].map(|word| variable(&format!("CLIENT_{word}")));
    let password = variable("CLIENT_PASSWORD");
    let password = if password.is_empty() { password } else { format!(" password={password}") };
    format!("host={host} port={port} user={user} dbname={database}{password}")
}

pub fn date() -> NaiveDate {
    NaiveDate::from_ymd_opt(2024, 2, 29).expect("a day")
}

pub fn instant() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_709_210_096_789).expect("a time")
}

pub fn tree() -> Value {
    json!({"a": [1, null]})
}

/// Bytes.
pub fn large() -> Vec<u8> {
    let megabytes: usize = variable("LARGE_MB").parse().expect("LARGE_MB");
    (0..megabytes << 20).map(|at| (at % 251) as u8).collect()
}

pub fn recommended() -> Option<Duration> {
    let lifetime = variable("POOL_LIFETIME").parse().unwrap_or(900.0);
    (variable("POOL_SETTINGS") == "recommended").then(|| Duration::from_secs_f64(lifetime))
}

pub fn tell<E: Display>(step: &str, result: Result<Value, E>) {
    match result {
        Ok(result) => println!("{}", json!({"step": step, "result": result})),
        Err(error) => {
            eprintln!("{step}: {error}");
            println!("{}", json!({"step": step, "failed": error.to_string()}));
        }
    }
}

/// What an app sees of its pool.
#[derive(Default)]
pub struct Seen {
    stop: AtomicBool,
    counts: Mutex<(u64, BTreeMap<String, u64>)>,
}

impl Seen {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn note(&self, outcome: Result<(), String>) {
        let mut counts = self.counts.lock().expect("no worker panics");
        match outcome {
            Ok(()) => counts.0 += 1,
            Err(error) => *counts.1.entry(error).or_default() += 1,
        }
    }

    /// Returns when the standard input has ended.
    pub fn wait(&self) {
        println!("working");
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn tell(&self) {
        let counts = self.counts.lock().expect("no worker panics");
        println!("{}", json!({"worked": counts.0, "errors": counts.1}));
    }
}

pub fn pause(number: u32, step: u32) -> Duration {
    Duration::from_millis(u64::from(PAUSE * ((number * 7 + step * 3) % 10)))
}
