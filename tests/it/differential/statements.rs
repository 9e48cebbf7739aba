//! The SQL of the conversations, and the messages that are made of it. Nothing here depends on the time, on a process id
//! or on what another conversation has done.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::script::Message;

/// One statement, or several, for a Query or a Parse.
pub(super) fn sql(dice: &mut StdRng) -> String {
    let text = *SQL.choose(dice).unwrap();
    match text {
        "LARGE" => format!("SELECT repeat('ü', {})", dice.random_range(1..200_000)),
        "MANY" => {
            format!("SELECT i, md5(i::text) FROM generate_series(1, {}) i", dice.random_range(1..3_000))
        }
        "COPY OUT" => format!(
            "COPY (SELECT i, repeat('y', i) FROM generate_series(1, {}) i) TO STDOUT",
            dice.random_range(0..300)
        ),
        "LONG" => format!("SELECT length('{}')", "z".repeat(dice.random_range(1..120_000))),
        "INSERT" => format!("INSERT INTO things VALUES ({}, 'one')", dice.random_range(1..6)),
        _ => text.to_owned(),
    }
}

/// Like [`sql`], with placeholders.
fn sql_with_parameters(dice: &mut StdRng) -> String {
    if dice.random_bool(0.4) { sql(dice) } else { (*WITH_PARAMETERS.choose(dice).unwrap()).to_owned() }
}

pub(super) fn query(text: &str) -> Message {
    Message::new('Q', [text.as_bytes(), b"\0"].concat())
}

/// A single message of any type, in place or not.
pub(super) fn any(dice: &mut StdRng) -> Message {
    match dice.random_range(0..17) {
        0..=2 => query(&sql(dice)),
        3 => parse(dice),
        4 => bind(dice),
        5 => describe(dice),
        6 => execute(dice),
        7 => close(dice),
        8 | 9 => sync(),
        10 => flush(),
        11 => function_call(dice),
        12 => copy_data(dice),
        13 => Message::new('c', ""),
        14 => Message::new('f', "on purpose\0"),
        15 => malformed(dice),
        _ => query("COPY things FROM STDIN"),
    }
}

pub(super) fn parse(dice: &mut StdRng) -> Message {
    let text = sql_with_parameters(dice);
    parse_of(name(dice), &text)
}

pub(super) fn parse_of(name: &str, text: &str) -> Message {
    Message::new('P', [name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat())
}

pub(super) fn bind(dice: &mut StdRng) -> Message {
    let mut body = [name(dice).as_bytes(), b"\0", name(dice).as_bytes(), b"\0"].concat();
    let binary = dice.random_bool(0.2);
    body.extend(if binary { &[0, 1, 0, 1][..] } else { &[0, 0][..] });
    let count = *[0, 1, 1, 1, 2].choose(dice).unwrap();
    body.extend(i16::to_be_bytes(count));
    for _ in 0..count {
        let value: &[u8] = VALUES.choose(dice).unwrap();
        if value == b"NULL" {
            body.extend((-1_i32).to_be_bytes());
        } else {
            body.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend(value);
        }
    }
    // The results: as text, or all binary.
    body.extend(if dice.random_bool(0.3) { &[0, 1, 0, 1][..] } else { &[0, 0][..] });
    Message::new('B', body)
}

pub(super) fn describe(dice: &mut StdRng) -> Message {
    Message::new('D', [which(dice), name(dice).as_bytes(), b"\0"].concat())
}

pub(super) fn execute(dice: &mut StdRng) -> Message {
    let most: i32 = *[0, 0, 0, 1, 2].choose(dice).unwrap();
    Message::new('E', [name(dice).as_bytes(), b"\0", &most.to_be_bytes()].concat())
}

pub(super) fn close(dice: &mut StdRng) -> Message {
    Message::new('C', [which(dice), name(dice).as_bytes(), b"\0"].concat())
}

pub(super) fn sync() -> Message {
    Message::new('S', "")
}

pub(super) fn flush() -> Message {
    Message::new('H', "")
}

/// `int4pl` or `lower`, as text or binary, and a function that is none.
pub(super) fn function_call(dice: &mut StdRng) -> Message {
    let body: &[u8] = [
        &b"\0\0\0\xb1\0\0\0\x02\0\0\0\x0240\0\0\0\x012\0\0"[..],
        b"\0\0\0\xb1\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x28\0\0\0\x04\0\0\0\x02\0\x01",
        b"\0\0\x03\x66\0\0\0\x01\0\0\0\x05LOWER\0\0",
        b"\0\0\0\xb1\0\0\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0",
        b"\x7f\xff\xff\xff\0\0\0\0\0\0",
    ]
    .choose(dice)
    .unwrap();
    Message::new('F', body)
}

pub(super) fn copy_data(dice: &mut StdRng) -> Message {
    match dice.random_range(0..8) {
        0 => Message::new('d', "no number\tx\n"),
        1 => Message::new('d', ""),
        2 => Message::new(
            'd',
            format!("{}\t{}\n", dice.random_range(1..9), "w".repeat(dice.random_range(1..80_000))),
        ),
        // Half a line, which the next message may end.
        3 => Message::new('d', "7\tha"),
        _ => Message::new('d', format!("{}\tline\n", dice.random_range(1..9))),
    }
}

/// A body that is too short or too long for its type.
fn malformed(dice: &mut StdRng) -> Message {
    let mut message = match dice.random_range(0..7) {
        0 => parse(dice),
        1 => bind(dice),
        2 => describe(dice),
        3 => execute(dice),
        4 => close(dice),
        5 => function_call(dice),
        _ => query("SELECT 1"),
    };
    if dice.random_bool(0.5) {
        let kept = dice.random_range(0..message.body.len());
        message.body.truncate(kept);
    } else {
        message.body.extend(b"more");
    }
    message
}

/// Of a statement or a portal; mostly the one without a name.
fn name(dice: &mut StdRng) -> &'static str {
    ["", "", "", "one", "two"].choose(dice).unwrap()
}

fn which(dice: &mut StdRng) -> &'static [u8] {
    if dice.random_bool(0.02) { b"?" } else { [&b"S"[..], b"P", b"P"][dice.random_range(0..3)] }
}

/// The words in capitals are made longer by [`sql`].
const SQL: &[&str] = &[
    "",
    ";",
    "SELECT 1",
    "SELECT 1, NULL, ''",
    "SELECT 1; SELECT 2",
    "SELECT 1; SELECT 1/0; SELECT 3",
    "SELECT nonsense",
    "SELEKT 1",
    "SELECT 1/0",
    "SELECT session_user, current_user",
    "BEGIN",
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
    "COMMIT",
    "COMMIT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "BEGIN; SELECT 1; COMMIT; SELECT 2",
    "BEGIN; SELECT 1/0; COMMIT",
    "INSERT",
    "INSERT",
    "INSERT INTO things SELECT i, 'many' FROM generate_series(10, 20) i ON CONFLICT DO NOTHING",
    "INSERT INTO things VALUES (1, 'twice'), (1, 'twice')",
    "INSERT INTO things VALUES (30, 'back') RETURNING *",
    "UPDATE things SET t = 'changed' WHERE n < 3 RETURNING n",
    "DELETE FROM things WHERE n > 15",
    "SELECT * FROM things",
    "TABLE things",
    "DO $$ BEGIN RAISE NOTICE 'heed %', 1; RAISE WARNING 'and this'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = 'LH001', DETAIL = 'a detail', HINT = 'a hint'; END $$",
    "SET TimeZone = 'Asia/Kathmandu'",
    "SET LOCAL application_name = 'local'",
    "SET application_name = 'other'",
    "SET client_encoding = 'LATIN1'",
    "SELECT 'ü€'",
    "SET extra_float_digits = 9",
    "SELECT 1.1::float8, '\\x00ff'::bytea, ARRAY[1, NULL]",
    "RESET ALL",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "PREPARE one AS SELECT $1::int",
    "EXECUTE one(5)",
    "DECLARE c CURSOR FOR SELECT generate_series(1, 10)",
    "FETCH 3 FROM c",
    "MOVE 2 IN c",
    "CLOSE ALL",
    "LISTEN news",
    "UNLISTEN *",
    "NOTIFY news, 'from within'",
    "LISTEN news; NOTIFY news",
    "SET ROLE NONE",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION DEFAULT",
    "COPY things FROM STDIN",
    "COPY things FROM STDIN WITH (FORMAT csv)",
    "COPY things FROM STDIN (FORMAT binary)",
    "COPY things FROM STDIN; SELECT 2",
    "COPY things FROM STDIN; COPY things FROM STDIN",
    "COPY things (nothing) FROM STDIN",
    "COPY nowhere FROM STDIN",
    "COPY things TO STDOUT",
    "COPY (SELECT 1/0) TO STDOUT",
    "COPY (SELECT 1/(5 - i) FROM generate_series(1, 9) i) TO STDOUT",
    "COPY OUT",
    "EXPLAIN (COSTS OFF) SELECT * FROM things",
    "SHOW TimeZone",
    "LOCK TABLE things",
    "CREATE TEMP TABLE IF NOT EXISTS mine (x int)",
    "DROP TABLE IF EXISTS nothing",
    "VALUES (1, 'a'), (2, 'b')",
    "LARGE",
    "MANY",
    "LONG",
];

const WITH_PARAMETERS: &[&str] = &[
    "SELECT $1::text",
    "SELECT $1::int + 1",
    "SELECT $1::int FROM generate_series(1, 20)",
    "INSERT INTO things VALUES ($1::int, 'bound')",
    "INSERT INTO things VALUES ($1::int, $2) RETURNING n",
    "SELECT $1",
    "SELECT 1 / $1::int",
];

const VALUES: &[&[u8]] = &[b"1", b"3", b"0", b"four", b"", b"NULL", b"\xfc", b"\0\0\0\x05", b"40 and more"];
