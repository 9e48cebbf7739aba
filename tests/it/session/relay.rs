//! What passes through a session is what was sent, in both directions.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use serde_json::json;

use crate::harness::{Backends, Fault, Frame, Raw, SOON, Scene, Spec, bench, eventually, same, tags};

fn query(sql: &str) -> Vec<u8> {
    Raw::message('Q', format!("{sql}\0").as_bytes())
}

fn sha256(parts: impl Iterator<Item = impl AsRef<[u8]>>) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.for_each(|part| context.update(part.as_ref()));
    context.finish()
}

/// Rows of a thousand bytes each.
fn row(number: usize) -> String {
    format!("{number}\t{:x>1$}\n", number.wrapping_mul(2_654_435_761), 1_000 - 2 - number.to_string().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_go_in_and_out_as_they_are() {
    const ROWS: usize = 105_000;
    let scene = Scene::on(&bench().postgres().await).await;
    let mut raw = scene.raw().await;
    raw.query("CREATE TABLE wide (number int, text text)").await;
    let sent = sha256((0..ROWS).map(row));

    raw.send('Q', b"COPY wide FROM STDIN\0").await;
    assert_eq!(raw.recv().await.unwrap().tag, 'G');
    for block in 0..ROWS / 50 {
        let rows: Vec<u8> = (block * 50..(block + 1) * 50)
            .flat_map(|number| Raw::message('d', row(number).as_bytes()))
            .collect();
        raw.write(&rows).await;
    }
    raw.send('c', &[]).await;
    let done = raw.until("Z").await;
    assert_eq!(done[0].body, format!("COPY {ROWS}\0"), "{done:?}");

    raw.send('Q', b"COPY (SELECT * FROM wide ORDER BY number) TO STDOUT\0").await;
    let mut back = Context::new(&SHA256);
    let mut bytes = 0;
    let last = loop {
        let frame = raw.recv().await.unwrap();
        match frame.tag {
            'd' => {
                bytes += frame.body.len();
                back.update(&frame.body);
            }
            'Z' => break frame,
            _ => {}
        }
    };
    assert_eq!(last.body, "I");
    assert_eq!(bytes, ROWS * 1_000);
    assert_eq!(back.finish().as_ref(), sent.as_ref());
    let relayed = async |direction| {
        scene.leasehold.metrics().await.get("relayed_bytes_total", &[("direction", direction)])
    };
    for direction in ["upstream", "client"] {
        assert!(relayed(direction).await >= bytes as f64, "{direction}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_after_a_rotation() {
    let scene = Scene::on(&bench().postgres().await).await;
    let mut listener = scene.raw().await;
    listener.query("LISTEN news").await;
    scene.rotate(&[]).await;
    let mut new = scene.raw().await;
    assert!(listener.is_quiet().await);

    assert_eq!(tags(&new.query("NOTIFY news, 'it works'").await), "CZ");
    let heard = listener.recv().await.unwrap();
    assert_eq!(heard.tag, 'A');
    assert!(heard.body.ends_with(b"news\0it works\0"), "{heard:?}");
    assert!(listener.is_quiet().await);
}

/// What a connection to the server carried behind its login is what the client sent and got.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_changed_added_or_left_out() {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let uri = format!("postgresql://{}/?sslmode=disable", fault.addr());
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    let (mut raw, login) = scene.raw_with(Raw::PROTOCOL_3_0, &[("application_name", "bytes")]).await;
    let parse = Raw::message('P', b"s\0SELECT $1::text, $2::bytea\0\0\0");
    let bind =
        Raw::message('B', b"p\0s\0\0\x02\0\0\0\x01\0\x02\0\0\0\x03a\xc3\xa9\xff\xff\xff\xff\0\x01\0\x01");
    let execute = Raw::message('E', b"p\0\0\0\0\0");
    let sync = Raw::message('S', &[]);
    // lo_creat(-1); of lo_open and the rest it has the form.
    let function = Raw::message('F', b"\0\0\x03\xbd\0\x01\0\x01\0\x01\0\0\0\x04\xff\xff\xff\xff\0\x01");
    let large = format!("SELECT repeat('ü', 32000000), '{}'", "y".repeat(3_000_000));
    let script: [(Vec<u8>, &str); 12] = [
        (query("SELECT 1, NULL, ''"), "TDCZ"),
        (query(""), "IZ"),
        ([parse, Raw::message('D', b"Ss\0"), sync.clone()].concat(), "1tTZ"),
        ([bind, Raw::message('D', b"Pp\0"), execute, sync].concat(), "2TDCZ"),
        (
            [query("BEGIN"), query("DO $$ BEGIN RAISE NOTICE 'heed'; END $$"), query("COMMIT")].concat(),
            "CZNCZCZ",
        ),
        (query("SELECT nonsense"), "EZ"),
        (function, "VZ"),
        (query("SET TimeZone = 'Asia/Kathmandu'"), "CSZ"),
        (query("COPY (VALUES (1), (2)) TO STDOUT"), "HddcCZ"),
        (query("LISTEN here; NOTIFY here"), "CCAZ"),
        (query(&large), "TDCZ"),
        (Raw::message('X', &[]), ""),
    ];
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    for (bytes, wanted) in script {
        // In pieces of odd sizes: the relay sees messages cut anywhere.
        for piece in bytes.chunks(if bytes.len() > 10_000 { 77_777 } else { 3 }) {
            raw.write(piece).await;
        }
        sent.extend(&bytes);
        let mut frames: Vec<Frame> = Vec::new();
        while tags(&frames) != wanted {
            frames.push(raw.recv().await.unwrap());
            assert!(wanted.starts_with(&tags(&frames)), "{wanted}: {}", tags(&frames));
        }
        got.extend(frames.iter().flat_map(Frame::bytes));
    }
    assert_eq!(raw.recv().await, None);

    let prologue: Vec<u8> = login.iter().flat_map(Frame::bytes).collect();
    let recordings = fault.recordings();
    let is_ours = |bytes: &[u8]| bytes.windows(7).take(300).any(|window| window == b"\0bytes\0");
    let recording = recordings.iter().find(|recording| is_ours(&recording.to_server)).unwrap();
    assert!(recording.to_server.ends_with(&sent), "the server did not get what was sent");
    assert!(
        recording.to_client.ends_with(&[prologue, got].concat()),
        "the client did not get what the server said"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_report_out_of_turn_is_no_reply() {
    let server = bench().own_postgres(json!({"version": "18"})).await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| builder.upstream(db)).await;
    let mut raw = scene.raw().await;
    for statement in ["ALTER SYSTEM SET DateStyle = 'German'", "SELECT pg_reload_conf()"] {
        scene.db.admin.batch_execute(statement).await.unwrap();
    }
    // The server looks up with the next query, and reports ahead of its ReadyForQuery.
    let frames = eventually(SOON, async || {
        let frames = raw.query("SELECT 1").await;
        if tags(&frames) == "TDCZ" { Err("no report yet") } else { Ok(frames) }
    })
    .await;
    assert_eq!(tags(&frames), "TDCSZ");
    assert_eq!(frames[3].body, "DateStyle\0German, DMY\0");
    scene.rotate(&["--drain=8s"]).await;
    assert_eq!(raw.recv_within(SOON * 2).await.unwrap().sqlstate(), "57P01");
    drop(raw);
    eventually(SOON, async || same(scene.closed("drain").await, 1.0)).await;
}

/// leasehold before a server, at an address with this database's name or none, with roles that may replicate.
async fn replicating(names_database: bool) -> Scene {
    let server = bench().own_postgres(json!({"version": "18", "conf": {"wal_level": "logical"}})).await;
    let spec = Spec::new("app").creation_statements(
        "CREATE ROLE \"{{name}}\" LOGIN REPLICATION PASSWORD '{{password}}' IN ROLE \"{{owner}}\";",
    );
    let db = server.database().await;
    db.admin.batch_execute(&format!("ALTER ROLE {} REPLICATION", db.vault_user().0)).await.unwrap();
    let backends = Backends::with_database(db, spec).await;
    let name = if names_database { backends.db.name() } else { "" };
    let uri = format!("postgresql://{}/{name}?sslmode=disable", server.addr());
    let leasehold = backends.leasehold_at(&uri).start().await;
    leasehold.wait_ready().await;
    let Backends { db, setup, .. } = backends;
    Scene { db, setup, leasehold }
}

/// `pg_basebackup` and others name `replication` as their database, which PostgreSQL does not look at.
#[tokio::test(flavor = "multi_thread")]
async fn physical_replication_has_no_database() {
    let scene = replicating(true).await;
    let database = ("database", "replication");
    let (mut raw, _) = scene.raw_with(Raw::PROTOCOL_3_0, &[database, ("replication", "true")]).await;
    assert_eq!(tags(&raw.query("IDENTIFY_SYSTEM").await), "TDCZ");
    for replication in ["database", "false"] {
        let mut raw = scene.leasehold.connect_raw().await;
        raw.startup(Raw::PROTOCOL_3_0, &[("user", "app"), database, ("replication", replication)]).await;
        assert_eq!(raw.until("ZE").await.pop().unwrap().sqlstate(), "3D000", "{replication}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_streams_until_its_lease_ends() {
    let scene = replicating(false).await;

    for replication in ["database", "true"] {
        let (mut raw, _) = scene.raw_with(Raw::PROTOCOL_3_0, &[("replication", replication)]).await;
        let system = raw.query("IDENTIFY_SYSTEM").await;
        assert_eq!(tags(&system), "TDCZ");
        let row = String::from_utf8_lossy(&system[1].body).into_owned();
        let lsn = row
            .split(|c: char| !(c.is_ascii_hexdigit() || c == '/'))
            .find(|text| text.contains('/'))
            .unwrap();
        raw.send('Q', format!("START_REPLICATION PHYSICAL {lsn}\0").as_bytes()).await;
        assert_eq!(raw.recv().await.unwrap().tag, 'W');
        scene.db.admin.batch_execute("SELECT pg_logical_emit_message(true, 'here', 'it is')").await.unwrap();
        let mut stream: Vec<u8> = Vec::new();
        while !stream.windows(5).any(|window| window == b"it is") {
            let frame = raw.recv().await.unwrap();
            assert_eq!(frame.tag, 'd');
            stream.extend(&frame.body);
        }

        // It is never between transactions: the drain leaves it alone up to the end.
        scene.rotate(&["--drain=2s"]).await;
        let last = raw.until("E").await.pop().unwrap().fields();
        assert_eq!(last[&'C'], "57P01");
        assert!(!last[&'D'].contains("between transactions"), "{last:?}");
        assert_eq!(raw.recv().await, None);
    }
    assert_eq!(scene.closed("drain").await, 0.0);

    let (mut raw, _) = scene.raw_with(Raw::PROTOCOL_3_0, &[("replication", "database")]).await;
    raw.query("IDENTIFY_SYSTEM").await;
    scene.rotate(&["--drain=8s"]).await;
    assert!(
        raw.recv_within(SOON * 2).await.unwrap().fields()[&'D'].contains("between transactions"),
        "without a stream it is idle"
    );
}
