//! Random conversations, each held with a PostgreSQL directly and through leasehold: every byte that comes back is the same,
//! and so is what the database holds afterwards. What may differ is listed at [`answer::Parts::alike`].
//!
//! `make test` holds some thousands. `SEED` and `CONVERSATIONS` say which and how many; one that differs is made shorter
//! as long as it differs, and written to a file, for `corpus/`, whose conversations are held each time. `CORPUS` names
//! another directory of them.

mod answer;
mod coverage;
mod generate;
mod play;
mod script;
mod statements;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use answer::{Answer, difference};
use coverage::Coverage;
use play::{Place, play};
use script::{Script, Step};

use crate::harness::{Raw, Scene, Server, Session, Spec, bench};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_18_answers_the_same_through_leasehold() {
    hold("18").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_postgres_answers_the_same_through_leasehold() {
    hold("system").await;
}

/// Holds the conversations of the corpus, and then random ones.
async fn hold(version: &str) {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    // The same each time: other seeds find faults of servers too (PostgreSQL 15.18 dies of some of 11861448997007198172).
    let seed = number("SEED", 9);
    let conversations = number("CONVERSATIONS", CONVERSATIONS);
    eprintln!("differential: PostgreSQL {version}, SEED={seed} CONVERSATIONS={conversations}");
    let began = Instant::now();
    // No password is asked for: that leaves more time for what comes behind it.
    let options = json!({"version": version, "hba": ["host all all 127.0.0.1/32 trust"]});
    let server = bench().own_postgres(options).await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| builder.upstream(db).trusted()).await;
    prepare(&scene).await;
    let has_gss = offers_gss(&server).await;

    let next = Arc::new(AtomicU64::new(0));
    let corpus = Arc::new(corpus());
    let differ = Arc::new(Mutex::new(Vec::new()));
    let lanes = (0..LANES).map(|lane| {
        let there = (server.clone(), scene.leasehold.addr(), format!("{}_{lane}", scene.db.name()));
        let (next, corpus, differ) = (Arc::clone(&next), Arc::clone(&corpus), Arc::clone(&differ));
        let lane = move || async move {
            let lane = Lane::new(there).await;
            let mut coverage = Coverage::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let mut script = match corpus.get(usize::try_from(number).unwrap()) {
                    Some(script) => script.clone(),
                    None if number < conversations => generate::script(seed, number),
                    None => return coverage,
                };
                if has_gss {
                    script.start.asks.retain(|ask| ask != 'G');
                }
                match lane.compare(&script).await {
                    Ok(answer) => coverage.note(&script, &answer),
                    Err(how) => {
                        differ.lock().unwrap().push(format!("conversation {number} of {seed}: {how}"))
                    }
                }
                if differ.lock().unwrap().len() >= ENOUGH {
                    return coverage;
                }
            }
        };
        // A thread for each: none waits for what another compares.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::spawn_blocking(move || runtime.block_on(lane()))
    });
    let mut coverage = Coverage::new(has_gss);
    for lane in lanes.collect::<Vec<_>>() {
        coverage.add(lane.await.unwrap());
    }
    eprintln!("differential: {:.0} s\n{coverage}", began.elapsed().as_secs_f64());
    let differ = differ.lock().unwrap().join("\n");
    assert!(differ.is_empty(), "{differ}");
    scene.wait_sessions(0).await;
    if conversations >= CONVERSATIONS {
        assert!(coverage.types() >= 95, "missing: {:?}", coverage.missing_types());
        assert!(coverage.missing_transitions().is_empty(), "missing: {:?}", coverage.missing_transitions());
    }
}

/// A server that was built with GSSAPI offers its encryption, which leasehold never does.
async fn offers_gss(server: &Server) -> bool {
    let mut raw = Raw::connect(server.addr().parse().unwrap()).await;
    raw.packet(80_877_104, &[]).await;
    raw.byte().await == Some(b'G')
}

/// A role that is what an app had before leasehold, and for each lane a database with a table.
async fn prepare(scene: &Scene) {
    let owner = scene.db.owner();
    let admin = &scene.db.admin;
    admin.batch_execute(&format!("CREATE ROLE {DIRECT} LOGIN NOINHERIT IN ROLE {owner}")).await.unwrap();
    admin.batch_execute(&format!("ALTER ROLE {DIRECT} SET role = '{owner}'")).await.unwrap();
    for lane in 0..LANES {
        let database = format!("{}_{lane}", scene.db.name());
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let table = format!(
            "CREATE TABLE things (n int UNIQUE DEFERRABLE INITIALLY DEFERRED, t text);
             ALTER TABLE things OWNER TO {owner}; GRANT ALL ON SCHEMA public TO {owner}"
        );
        scene.db.server.superuser(&database).await.batch_execute(&table).await.unwrap();
    }
}

/// One conversation at a time, in a database of its own.
struct Lane {
    direct: SocketAddr,
    through: SocketAddr,
    database: String,
    beside: Session,
}

impl Lane {
    async fn new((server, through, database): (Server, SocketAddr, String)) -> Self {
        let direct = server.addr().parse().unwrap();
        Self { direct, through, beside: server.superuser(&database).await, database }
    }

    /// The answer, or how the two differ and the shortest conversation that was found to show it.
    async fn compare(&self, script: &Script) -> Result<Answer, String> {
        let (answer, differs) = self.hold_both(script).await;
        let Some(mut differs) = differs else { return Ok(answer) };
        eprintln!("{differs}\n{script}being made shorter ...");
        let mut shortest = script.clone();
        let until = Instant::now() + SHORTEN_FOR;
        while Instant::now() < until
            && let Some((shorter, still)) = self.shorten(&shortest).await
        {
            (shortest, differs) = (shorter, still);
        }
        let path = std::env::temp_dir().join(format!("differential-{}.txt", self.database));
        std::fs::write(&path, shortest.to_string()).unwrap();
        Err(format!("{differs}\n{shortest}written to {}", path.display()))
    }

    /// One part less, if it then still differs.
    async fn shorten(&self, script: &Script) -> Option<(Script, String)> {
        for shorter in shorter(script) {
            if let (_, Some(differs)) = self.hold_both(&shorter).await {
                return Some((shorter, differs));
            }
        }
        None
    }

    async fn hold_both(&self, script: &Script) -> (Answer, Option<String>) {
        let both = self.hold_each(script);
        match tokio::time::timeout(TOGETHER_WITHIN, both).await {
            Ok(held) => held,
            Err(_) => (Answer::default(), Some(format!("it hangs for {TOGETHER_WITHIN:?}"))),
        }
    }

    async fn hold_each(&self, script: &Script) -> (Answer, Option<String>) {
        let Self { direct, through, database, beside } = self;
        let place = Place { addr: *direct, user: DIRECT, database, beside };
        let directly = play(script, &place, None).await;
        let place = Place { addr: *through, user: "app", database, beside };
        let through = play(script, &place, Some(&directly.waits)).await;
        let differs = match script.end {
            // What it had heard by then depends on the time.
            script::End::Reset => None,
            _ => difference(script.start.asks.len(), &directly, &through),
        };
        (directly, differs)
    }
}

/// Scripts with one part less.
fn shorter(script: &Script) -> Vec<Script> {
    let mut all = Vec::new();
    for at in 0..script.steps.len() {
        let mut less = script.clone();
        less.steps.remove(at);
        all.push(less);
        let Step::Send(send) = &script.steps[at] else { continue };
        if send.messages.len() > 1 {
            for message in 0..send.messages.len() {
                let mut less = script.clone();
                if let Step::Send(send) = &mut less.steps[at] {
                    send.messages.remove(message);
                }
                all.push(less);
            }
        }
        if send.pieces > 0 {
            let mut less = script.clone();
            if let Step::Send(send) = &mut less.steps[at] {
                send.pieces = 0;
            }
            all.push(less);
        }
    }
    for at in 0..script.start.parameters.len() {
        let mut less = script.clone();
        less.start.parameters.remove(at);
        all.push(less);
    }
    if !script.start.asks.is_empty() {
        let mut less = script.clone();
        less.start.asks.clear();
        all.push(less);
    }
    all
}

/// The conversations that once differed, or that reach what random ones reach seldom.
fn corpus() -> Vec<Script> {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/differential/corpus");
    let directory = std::env::var("CORPUS").unwrap_or_else(|_| ours.to_owned());
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap().parse();
    files
        .iter()
        .map(|path| read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect()
}

/// Of a role as an app has it without leasehold; the word stands nowhere else.
const DIRECT: &str = "role_of_an_app";
const CONVERSATIONS: u64 = 1_000;
const LANES: usize = 8;
/// Conversations that differ are gathered up to so many.
const ENOUGH: usize = 4;
/// More than all waits of a conversation come to on a busy machine.
const TOGETHER_WITHIN: Duration = Duration::from_secs(60);
const SHORTEN_FOR: Duration = Duration::from_secs(60);
