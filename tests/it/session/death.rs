//! What a client's death does to what it had asked for: the same as without leasehold.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::harness::{Raw, SOON, Scene, Spec, bench, eventually, same, startup_body};

/// How a client goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Its socket is reset.
    Reset,
    /// Its socket is closed in order, and fully.
    Closed,
    /// Its process is killed.
    Killed,
}

/// When it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// While the server waits for a lock and has said nothing.
    Waiting,
    /// While the server waits for the client to read.
    Answering,
    /// While the server waits for the client to write.
    Sending,
}

/// What it has asked for. The rows that it writes have the number that it is given.
struct Case {
    name: &'static str,
    when: When,
    asks: fn(u32) -> Vec<u8>,
}

/// 300 MB. The kernel's buffers on the way hold up to 72 MiB.
fn big(case: u32, gate: &str) -> String {
    format!(
        "INSERT INTO deaths SELECT {case} FROM {gate} generate_series(1, 30000) RETURNING repeat('x', 10000)"
    )
}

fn query(sql: &str) -> Vec<u8> {
    Raw::message('Q', format!("{sql}\0").as_bytes())
}

fn extended(sql: &str) -> Vec<u8> {
    let parse = Raw::message('P', format!("\0{sql}\0\0\0").as_bytes());
    [parse, Raw::message('B', &[0; 8]), Raw::message('E', &[0; 5]), Raw::message('S', &[])].concat()
}

fn copy_in(case: u32) -> Vec<u8> {
    let rows = format!("{case}\n").repeat(1000);
    [query("COPY deaths FROM STDIN"), Raw::message('d', rows.as_bytes())].concat()
}

fn insert(case: u32, gate: &str) -> String {
    format!("INSERT INTO deaths SELECT {case} FROM {gate} generate_series(1, 1)")
}

const GATE: &str = "pg_advisory_xact_lock_shared(9),";

const CASES: [Case; 11] = [
    Case { name: "simple", when: When::Waiting, asks: |n| query(&big(n, GATE)) },
    Case { name: "simple, answering", when: When::Answering, asks: |n| query(&big(n, "")) },
    Case { name: "extended", when: When::Waiting, asks: |n| extended(&big(n, GATE)) },
    Case { name: "extended, answering", when: When::Answering, asks: |n| extended(&big(n, "")) },
    Case {
        name: "COPY out",
        when: When::Waiting,
        asks: |n| query(&format!("COPY ({}) TO STDOUT", big(n, GATE))),
    },
    Case {
        name: "COPY out, answering",
        when: When::Answering,
        asks: |n| query(&format!("COPY ({}) TO STDOUT", big(n, ""))),
    },
    Case { name: "COPY in", when: When::Sending, asks: copy_in },
    // What is behind the statement that cannot be answered does not run either.
    Case {
        name: "a pipeline",
        when: When::Answering,
        asks: |n| [query(&big(n, "")), query(&insert(n, ""))].concat(),
    },
    Case {
        name: "an extended pipeline",
        when: When::Answering,
        asks: |n| [extended(&big(n, "")), extended(&insert(n, ""))].concat(),
    },
    // A server that waits for a lock does not look at its client, and that it cannot answer comes too late.
    Case { name: "a silent statement", when: When::Waiting, asks: |n| query(&insert(n, GATE)) },
    Case { name: "a silent statement, extended", when: When::Waiting, asks: |n| extended(&insert(n, GATE)) },
];

/// A client that is not read: of this process, or of another one.
enum Client {
    Ours(Raw),
    Its(Child),
}

impl Client {
    /// Logs in and sends these bytes.
    async fn start(way: Way, addr: SocketAddr, user: &str, database: &str, bytes: &[u8]) -> Self {
        if matches!(way, Way::Reset | Way::Closed) {
            let (mut raw, frames) = Raw::login(addr, user, database).await;
            assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "{frames:?}");
            raw.write(bytes).await;
            return Self::Ours(raw);
        }
        let body = startup_body(
            [("user", user), ("database", database)].map(|(n, v)| (n.as_bytes(), v.as_bytes())).into_iter(),
        );
        let mut startup = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
        startup.extend(Raw::PROTOCOL_3_0.to_be_bytes());
        startup.extend(body);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let arguments = [addr.ip().to_string(), addr.port().to_string(), hex(&startup), hex(bytes)];
        let mut command = Command::new("python3");
        command.args(["-c", PROCESS]).args(arguments).stdout(Stdio::piped());
        let child = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "sent\n");
            child
        });
        Self::Its(child.await.unwrap())
    }

    fn die(self, way: Way) {
        match self {
            Self::Ours(raw) if matches!(way, Way::Reset) => raw.reset(),
            Self::Ours(raw) => drop(raw),
            Self::Its(mut child) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }
}

const PROCESS: &str = r"
import socket, sys, time
host, port, startup, asks = sys.argv[1:]
server = socket.create_connection((host, int(port)))
server.sendall(bytes.fromhex(startup))
heard = b''
while not heard.endswith(b'Z\0\0\0\x05I'):
    heard += server.recv(65536)
server.sendall(bytes.fromhex(asks))
print('sent', flush=True)
time.sleep(600)
";

/// A database in which anybody may log in without a password.
async fn scene() -> (Scene, String) {
    let server = bench().own_postgres(serde_json::json!({"hba": ["host all all all trust"]})).await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| builder.upstream(db).trusted()).await;
    let (owner, direct) = (scene.db.owner(), format!("{}_direct", scene.db.name()));
    let setup = format!(
        "CREATE TABLE deaths (n int); ALTER TABLE deaths OWNER TO {owner}; CREATE ROLE {direct} LOGIN IN ROLE {owner}"
    );
    scene.db.admin.batch_execute(&setup).await.unwrap();
    (scene, direct)
}

/// How many rows the case leaves behind once its client is dead and its backend has gone.
async fn rows(scene: &Scene, case: &Case, number: u32, way: Way, addr: SocketAddr, user: &str) -> String {
    let admin = &scene.db.admin;
    admin.batch_execute("SELECT pg_advisory_lock(9)").await.unwrap();
    let client = Client::start(way, addr, user, scene.db.name(), &(case.asks)(number)).await;
    let event = match case.when {
        When::Waiting => "advisory",
        When::Answering => "ClientWrite",
        When::Sending => "ClientRead' AND state = 'active",
    };
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event = '{event}'",
        scene.db.name()
    );
    eventually(SOON, async || same(admin.value(&waits).await, "1")).await;
    client.die(way);
    admin.batch_execute("SELECT pg_advisory_unlock(9)").await.unwrap();
    eventually(SOON, async || same(scene.db.backends().await, Vec::<Option<String>>::new())).await;
    admin.value(&format!("SELECT count(*) FROM deaths WHERE n = {number}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_clients_statement_ends_as_it_does_without_leasehold() {
    let (scene, direct) = scene().await;
    let server = format!("{}:{}", scene.db.server.host, scene.db.server.port).parse().unwrap();
    let mut number = 0;
    for case in &CASES {
        for way in [Way::Reset, Way::Closed, Way::Killed] {
            let mut seen = Vec::new();
            for (addr, user) in [(server, &*direct), (scene.leasehold.addr(), "app")] {
                number += 1;
                seen.push(rows(&scene, case, number, way, addr, user).await);
            }
            let (direct, through) = (&seen[0], &seen[1]);
            eprintln!("{}, {way:?}: {direct} rows, {through} through leasehold", case.name);
            // PostgreSQL may commit a statement whose answer it cannot write; the cancel may come before that.
            let stopped = !case.name.starts_with("a silent") && through == "0";
            assert!(through == direct || stopped, "{}, {way:?}: {seen:?}", case.name);
        }
    }
    scene.wait_sessions(0).await;
    let ends = f64::from(u32::try_from(CASES.len() * 3).unwrap());
    eventually(SOON, async || same(scene.closed("client").await, ends)).await;
}

/// A client that has gone takes up no place, and its server is not read to the end.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_die_in_mid_result_keep_nobody_out() {
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--max-sessions", "4")
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut raw = scene.raw().await;
        raw.send('Q', b"SELECT repeat('x', 1000), generate_series(1, 100000000)\0").await;
        raw.until("D").await;
        clients.push(raw);
    }
    let (_, frames) = Raw::login(scene.leasehold.addr(), "app", scene.db.name()).await;
    assert_eq!(frames[0].sqlstate(), "53300");
    clients.into_iter().for_each(Raw::reset);
    let raw = eventually(SOON, async || {
        let (raw, frames) = Raw::login(scene.leasehold.addr(), "app", scene.db.name()).await;
        if frames[0].tag == 'R' { Ok(raw) } else { Err(frames) }
    })
    .await;
    scene.wait_sessions(1).await;
    drop(raw);
    // The lease is given back as though each had said goodbye.
    let role = scene.db.roles().await.remove(0);
    scene.rotate(&[]).await;
    eventually(SOON, async || same(scene.db.roles().await.contains(&role), false)).await;
}
