//! Makes conversations up: phrases as programs send them, and messages in any order between them.

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::script::{End, Message, Script, Send, Start, Step};
use super::statements::{
    any, bind, close, copy_data, describe, execute, flush, function_call, parse, parse_of, query, sql, sync,
};
use crate::harness::Raw;

/// The conversation of this number.
pub(super) fn script(seed: u64, number: u64) -> Script {
    let dice = &mut StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut steps = Vec::new();
    // While all is known of the session, what has to be waited for.
    if dice.random_bool(0.15) {
        steps.extend(waited_for(dice));
    }
    for _ in 0..dice.random_range(1..10) {
        steps.push(Step::Send(send(dice)));
        if dice.random_bool(0.5) {
            steps.push(Step::Wait);
        }
    }
    let end = match dice.random_range(0..20) {
        0..9 => End::Terminate,
        9..19 => End::HalfClose,
        _ => End::Reset,
    };
    if end != End::Terminate && dice.random_bool(0.3) {
        cut_short(&mut steps, dice);
    }
    Script { start: start(dice), steps, end }
}

fn start(dice: &mut StdRng) -> Start {
    let asks = ["", "", "", "S", "G", "GS", "SG"].choose(dice).unwrap();
    let protocol =
        *[Raw::PROTOCOL_3_0, Raw::PROTOCOL_3_0, Raw::PROTOCOL_3_2, 0x0003_0f9f].choose(dice).unwrap();
    let count = *[0, 0, 1, 2].choose(dice).unwrap();
    let parameters = PARAMETERS.sample(dice, count);
    let pair = |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    Start { asks: (*asks).to_owned(), protocol, parameters: parameters.map(pair).collect() }
}

fn send(dice: &mut StdRng) -> Send {
    let mut messages = Vec::new();
    for _ in 0..*[1, 1, 1, 2, 3].choose(dice).unwrap() {
        messages.extend(phrase(dice));
    }
    if dice.random_bool(0.05) {
        messages.shuffle(dice);
    }
    // Now and then what no server goes on with; what is behind it is never read.
    if dice.random_bool(0.004) {
        messages.push(hopeless(dice));
    }
    let mut send = Send::new(messages);
    let length = send.bytes().len();
    send.pieces = match dice.random_range(0..6) {
        0 if length < 400 => 1,
        1 => dice.random_range(2..9).max(length / 100),
        2 => dice.random_range(1..length + 1).max(length / 100),
        _ => 0,
    };
    send
}

/// What a program may send in one go.
fn phrase(dice: &mut StdRng) -> Vec<Message> {
    match dice.random_range(0..20) {
        0..6 => vec![query(&sql(dice))],
        6..11 => extended(dice),
        11 => (0..dice.random_range(2..5)).flat_map(|_| extended(dice)).collect(),
        12 | 13 => copy_in(dice),
        14 => copy_in_extended(dice),
        15 => vec![function_call(dice)],
        16 => vec![close(dice), sync()],
        _ => (0..dice.random_range(1..4)).map(|_| any(dice)).collect(),
    }
}

/// Parse to Sync, mostly all of it.
fn extended(dice: &mut StdRng) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut add = |likely: f64, message: fn(&mut StdRng) -> Message, dice: &mut StdRng| {
        if dice.random_bool(likely) {
            messages.push(message(dice));
        }
    };
    add(0.9, parse, dice);
    add(0.2, describe, dice);
    add(0.9, bind, dice);
    add(0.5, describe, dice);
    add(0.9, execute, dice);
    add(0.2, execute, dice);
    add(0.15, |_| flush(), dice);
    add(0.85, |_| sync(), dice);
    messages
}

/// libpq sends a Sync behind the end of a COPY in any case; others in between.
fn copy_in(dice: &mut StdRng) -> Vec<Message> {
    let mut messages = vec![query("COPY things FROM STDIN")];
    copied(dice, &mut messages);
    messages
}

fn copy_in_extended(dice: &mut StdRng) -> Vec<Message> {
    let nameless = b"\0\0\0\0\0\0\0\0";
    let mut messages = vec![
        parse_of("", "COPY things FROM STDIN"),
        Message::new('B', &nameless[..]),
        Message::new('E', &b"\0\0\0\0\0"[..]),
    ];
    if dice.random_bool(0.5) {
        messages.push(sync());
    }
    copied(dice, &mut messages);
    if dice.random_bool(0.8) {
        messages.push(sync());
    }
    messages
}

fn copied(dice: &mut StdRng, messages: &mut Vec<Message>) {
    for _ in 0..dice.random_range(0..5) {
        messages.push(if dice.random_bool(0.1) { flush() } else { copy_data(dice) });
    }
    if dice.random_bool(0.1) {
        messages.push(sync());
    }
    match dice.random_range(0..5) {
        0 => messages.push(Message::new('f', "on purpose\0")),
        1 => {}
        _ => messages.push(Message::new('c', "")),
    }
}

/// A type that is none, or a length that is none.
fn hopeless(dice: &mut StdRng) -> Message {
    match dice.random_range(0..6) {
        0 => Message::new('y', "what?"),
        1 => Message::new('p', "a password\0"),
        2 => Message { length: Some(3), ..sync() },
        3 => Message { length: Some(-1), ..query("SELECT 1") },
        // Longer than this type may be.
        4 => Message { length: Some(20_000), ..sync() },
        _ => Message::new('Q', b"SELECT pg_terminate_backend(pg_backend_pid())\0".to_vec()),
    }
}

/// The last message ends in its middle.
fn cut_short(steps: &mut Vec<Step>, dice: &mut StdRng) {
    while steps.pop_if(|step| !matches!(step, Step::Send(_))).is_some() {}
    if let Some(Step::Send(send)) = steps.last_mut() {
        let last = send.messages.last().map_or(1, |message| message.body.len() + 5);
        send.short = dice.random_range(1..=last);
    }
}

/// What has to wait for something; each leaves the session idle, or ended.
fn waited_for(dice: &mut StdRng) -> Vec<Step> {
    let send = |messages: Vec<Message>| Step::Send(Send::new(messages));
    let sleeps = "DO $$ BEGIN RAISE NOTICE 'asleep'; PERFORM pg_sleep(60); END $$";
    let nameless = b"\0\0\0\0\0\0\0\0";
    match dice.random_range(0..5) {
        // A cancel of what runs, by both protocols, and of nothing.
        0 => vec![send(vec![query(sleeps), query("SELECT 2")]), Step::Until('N'), Step::Cancel, Step::Wait],
        1 => {
            let run = [
                parse_of("", sleeps),
                Message::new('B', &nameless[..]),
                Message::new('E', &b"\0\0\0\0\0"[..]),
            ];
            let run = run.into_iter().chain([sync(), query("SELECT 2")]).collect();
            vec![send(run), Step::Until('N'), Step::Cancel, Step::Wait]
        }
        2 => vec![Step::Cancel, send(vec![query("SELECT 2")]), Step::Wait],
        3 => vec![
            send(vec![query("LISTEN news")]),
            Step::Until('Z'),
            Step::Notify("news".to_owned()),
            Step::Until('A'),
        ],
        // The server ends it while it is idle in a transaction.
        4 if dice.random_bool(0.5) => {
            vec![send(vec![query("BEGIN; SET idle_in_transaction_session_timeout = 50")]), Step::Until('E')]
        }
        _ => vec![send(vec![query("SELECT repeat('ü', 700000)")]), Step::Wait],
    }
}

const PARAMETERS: &[(&str, &str)] = &[
    ("application_name", "differential"),
    ("application_name", ""),
    ("client_encoding", "LATIN1"),
    ("client_encoding", "SQL_ASCII"),
    ("client_encoding", "no such"),
    ("DateStyle", "German"),
    ("TimeZone", "Europe/Paris"),
    ("search_path", "\"a b\", public"),
    ("options", "-c geqo=off -c statement_timeout=100s"),
    ("options", "-c application_name=a\\ b\\\\c"),
    ("options", "-c no_such=1"),
    ("options", "--search_path=public -cwork_mem=1"),
    ("extra_float_digits", "3"),
    ("default_transaction_read_only", "on"),
    ("no_such", "1"),
    ("x.custom", "1"),
    ("_pq_.unknown", "1"),
    ("replication", "database"),
    ("replication", "perhaps"),
];
