//! diesel, which stands on libpq, and r2d2's pool over it.

use std::io::{self, BufRead as _};
use std::sync::Arc;
use std::thread;

use chrono::{DateTime, NaiveDate, Utc};
use clients::*;
use diesel::connection::SimpleConnection as _;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::{Error, QueryResult};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Date, Double, Integer, Jsonb, Nullable, Text, Timestamptz};
use serde_json::{Value, json};
use uuid::Uuid;

type PgPool = Pool<ConnectionManager<PgConnection>>;

diesel::table! {
    things (x) {
        x -> Integer,
    }
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

#[derive(QueryableByName)]
struct Bytes {
    #[diesel(sql_type = Binary)]
    v: Vec<u8>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    n: i32,
}

/// What the step `types` sends and gets back.
#[derive(QueryableByName)]
struct Types {
    #[diesel(sql_type = Text)]
    line: String,
    #[diesel(sql_type = Bool)]
    yes: bool,
    #[diesel(sql_type = BigInt)]
    greatest: i64,
    #[diesel(sql_type = Text)]
    numeric: String,
    #[diesel(sql_type = Double)]
    float: f64,
    #[diesel(sql_type = Text)]
    text: String,
    #[diesel(sql_type = Binary)]
    bytes: Vec<u8>,
    #[diesel(sql_type = Date)]
    date: NaiveDate,
    #[diesel(sql_type = Timestamptz)]
    instant: DateTime<Utc>,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    uuid: Uuid,
    #[diesel(sql_type = Jsonb)]
    tree: Value,
    #[diesel(sql_type = Array<Integer>)]
    array: Vec<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    nothing: Option<String>,
}

fn connect_to(target: &str) -> PgConnection {
    PgConnection::establish(target).expect("a connection")
}

fn connect() -> PgConnection {
    connect_to(&url())
}

fn who(target: &str) -> QueryResult<Value> {
    let both: Line = diesel::sql_query("SELECT current_user || ' ' || current_database() AS line").get_result(&mut connect_to(target))?;
    Ok(json!(both.line.split(' ').collect::<Vec<_>>()))
}

fn one(connection: &mut PgConnection) -> QueryResult<i32> {
    diesel::select(diesel::dsl::sql::<Integer>("1")).get_result(connection)
}

/// diesel gives the server's message, and no SQLSTATE.
fn message_of(outcome: QueryResult<()>) -> String {
    outcome.err().map_or_else(|| "none".to_owned(), |error| error.to_string())
}

fn prepared() -> QueryResult<Value> {
    let mut connection = connect();
    let answers: QueryResult<Vec<i32>> = (1..=3)
        .map(|n| diesel::select(diesel::dsl::sql::<Integer>("2 * ").bind::<Integer, _>(n)).get_result(&mut connection))
        .collect();
    Ok(json!(answers?))
}

fn batch() -> QueryResult<Value> {
    let mut connection = connect();
    connection.batch_execute(TABLE)?;
    let rows: Vec<_> = (1..=100).map(|n| things::x.eq(n)).collect();
    diesel::insert_into(things::table).values(rows).execute(&mut connection)?;
    Ok(json!(things::table.select(diesel::dsl::sum(things::x)).get_result::<Option<i64>>(&mut connection)?))
}

fn transaction() -> QueryResult<Value> {
    let insert = |connection: &mut PgConnection, n: i32| diesel::insert_into(things::table).values(things::x.eq(n)).execute(connection);
    let mut connection = connect();
    connection.batch_execute(TABLE)?;
    connection.transaction(|connection| {
        insert(connection, 1)?;
        let undone: QueryResult<()> = connection.transaction(|connection| {
            insert(connection, 2)?;
            Err(Error::RollbackTransaction)
        });
        assert!(undone.is_err());
        insert(connection, 3)
    })?;
    let undone: QueryResult<()> = connection.transaction(|connection| {
        insert(connection, 4)?;
        Err(Error::RollbackTransaction)
    });
    assert!(undone.is_err());
    Ok(json!(things::table.select(things::x).order(things::x).load::<i32>(&mut connection)?))
}

fn errors() -> QueryResult<Value> {
    let mut connection = connect();
    connection.batch_execute(TABLE)?;
    connection.batch_execute("INSERT INTO things VALUES (1)")?;
    let mut messages = Vec::new();
    let undone: QueryResult<()> = connection.transaction(|connection| {
        messages.push(message_of(connection.batch_execute("SELECT 1/0")));
        messages.push(message_of(connection.batch_execute("SELECT 1")));
        Err(Error::RollbackTransaction)
    });
    assert!(undone.is_err());
    messages.extend(WRONG.map(|sql| message_of(connection.batch_execute(sql))));
    Ok(json!(messages))
}

fn large_value() -> QueryResult<Value> {
    let sent = large();
    let back: Bytes = diesel::sql_query("SELECT $1 AS v").bind::<Binary, _>(&sent).get_result(&mut connect())?;
    Ok(json!([back.v.len() >> 20, back.v == sent]))
}

fn copy() -> QueryResult<Value> {
    let mut connection = connect();
    connection.batch_execute(TABLE)?;
    let wrong = |error: io::Error| Error::SerializationError(Box::new(error));
    let count = diesel::copy_from(things::table)
        .from_raw_data(things::table, |sink| (1..=10_000).try_for_each(|n| writeln!(sink, "{n}").map_err(wrong)))
        .execute(&mut connection)?;
    let lines = diesel::copy_to(things::table).load_raw(&mut connection)?.lines();
    Ok(json!([count, lines.map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok()).sum::<u64>()]))
}

/// diesel has no call that waits for a notification.
fn notify() -> QueryResult<Value> {
    let mut listener = connect();
    listener.batch_execute("LISTEN news")?;
    connect().batch_execute("NOTIFY news, 'said'")?;
    loop {
        if let Some(notification) = listener.notifications_iter().next() {
            return Ok(json!(notification?.payload));
        }
        thread::yield_now();
    }
}

/// By SQL: `load_iter` of diesel reads all rows in one go of the protocol.
fn cursor() -> QueryResult<Value> {
    connect().transaction(|connection| {
        connection.batch_execute("DECLARE numbers CURSOR FOR SELECT n FROM generate_series(1, 1000) n")?;
        let mut sum = 0;
        loop {
            let rows: Vec<Number> = diesel::sql_query("FETCH 100 FROM numbers").load(connection)?;
            if rows.is_empty() {
                return Ok(json!(sum));
            }
            sum += rows.iter().map(|row| row.n).sum::<i32>();
        }
    })
}

fn timeout() -> QueryResult<Value> {
    let mut connection = connect_to(&format!("{} options='-c statement_timeout=500'", keywords()));
    let message = message_of(connection.batch_execute("SELECT pg_sleep(30)"));
    Ok(json!([message, one(&mut connection)?]))
}

/// The time zone is UTC by diesel's own doing.
fn types() -> QueryResult<Value> {
    let sql = format!(
        "SELECT {LINE} AS line, $1::bool AS yes, $2::int8 AS greatest, $3::text AS numeric, $4::float8 AS float, $5::text AS text, \
         $6::bytea AS bytes, $7::date AS date, $8::timestamptz AS instant, $9::uuid AS uuid, $10::jsonb AS tree, \
         $11::int4[] AS array, $12::text AS nothing"
    );
    let row: Types = diesel::sql_query(sql)
        .bind::<Bool, _>(true)
        .bind::<BigInt, _>(i64::MAX)
        .bind::<Text, _>(NUMERIC)
        .bind::<Double, _>(1.5)
        .bind::<Text, _>(TEXT)
        .bind::<Binary, _>(BYTES)
        .bind::<Date, _>(date())
        .bind::<Timestamptz, _>(instant())
        .bind::<diesel::sql_types::Uuid, _>(UUID)
        .bind::<Jsonb, _>(tree())
        .bind::<Array<Integer>, _>(&ARRAY[..])
        .bind::<Nullable<Text>, _>(None::<&str>)
        .get_result(&mut connect())?;
    let same = row.yes && row.greatest == i64::MAX && row.numeric == NUMERIC && row.float == 1.5 && row.text == TEXT
        && row.bytes == BYTES && row.date == date() && row.instant == instant() && row.uuid == UUID && row.tree == tree()
        && row.array == ARRAY && row.nothing.is_none();
    Ok(json!([row.line, same]))
}

fn reconnect() -> QueryResult<Value> {
    let said = message_of(connect().batch_execute("SELECT end_session()"));
    Ok(json!([said, one(&mut connect())?]))
}

fn pool() -> QueryResult<Value> {
    let pool: PgPool = Pool::builder().max_size(4).build(ConnectionManager::new(url())).expect("a pool");
    let ones: Vec<_> = (0..4)
        .map(|_| {
            let pool = pool.clone();
            thread::spawn(move || {
                (0..5).map(|_| pool.get().expect("a connection").transaction(|connection| one(connection))).sum::<QueryResult<i32>>()
            })
        })
        .collect();
    ones.into_iter().map(|thread| thread.join().expect("no panic")).sum::<QueryResult<i32>>().map(Value::from)
}

/// The kind of error that diesel gives, or what the pool or diesel says.
fn transact(pool: &PgPool) -> Result<(), String> {
    let outcome = pool.get().map_err(|error| error.to_string())?.transaction(|connection| one(connection));
    outcome.map(|_| ()).map_err(|error| match error {
        Error::DatabaseError(kind, _) => format!("{kind:?}"),
        other => other.to_string(),
    })
}

fn work_on_pool() {
    let mut settings = Pool::builder().max_size(WORKERS);
    settings = match recommended() {
        Some(lifetime) => settings.max_lifetime(Some(lifetime)),
        // Its own words: 30 minutes, and a look at each connection before it is handed out.
        None => settings.test_on_check_out(false),
    };
    let pool: PgPool = settings.build(ConnectionManager::new(url())).expect("a pool");
    let seen = Arc::new(Seen::default());
    let workers: Vec<_> = (1..=WORKERS)
        .map(|number| {
            let (pool, seen) = (pool.clone(), seen.clone());
            thread::spawn(move || {
                for step in 1.. {
                    if seen.stopped() {
                        return;
                    }
                    seen.note(transact(&pool));
                    thread::sleep(pause(number, step));
                }
            })
        })
        .collect();
    seen.wait();
    for worker in workers {
        worker.join().expect("no panic");
    }
    seen.tell();
}

fn main() {
    if std::env::args().nth(1).is_some() {
        return work_on_pool();
    }
    tell("version", Ok::<_, Error>(json!("diesel 2.3.14")));
    tell("url", who(&url()));
    tell("keywords", who(&keywords()));
    let identity = diesel::sql_query("SELECT identity() AS line").get_result::<Line>(&mut connect());
    tell("identity", identity.map(|line| line.line.into()));
    tell("prepared", prepared());
    tell("batch", batch());
    tell("transaction", transaction());
    tell("errors", errors());
    tell("large", large_value());
    tell("copy", copy());
    tell("notify", notify());
    tell("cursor", cursor());
    tell("timeout", timeout());
    tell("types", types());
    tell("reconnect", reconnect());
    tell("pool", pool());
}
