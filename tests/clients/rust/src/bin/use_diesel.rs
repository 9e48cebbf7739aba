//! diesel, which stands on libpq, and r2d2's pool over it.

use clients::*;
use diesel::connection::SimpleConnection as _;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::{Error, QueryResult};
use diesel::sql_types::{Binary, Integer, Text};
use serde_json::{Value, json};

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

/// diesel gives kinds of errors, and no SQLSTATE.
fn kind_of(outcome: QueryResult<()>) -> String {
    match outcome {
        Ok(()) => "none".to_owned(),
        Err(Error::DatabaseError(kind, _)) => format!("{kind:?}"),
        Err(other) => other.to_string(),
    }
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

fn large_value() -> QueryResult<Value> {
    let sent = large();
    let back: Bytes = diesel::sql_query("SELECT $1 AS v").bind::<Binary, _>(&sent).get_result(&mut connect())?;
    Ok(json!([back.v.len() >> 20, back.v == sent]))
}

fn reconnect() -> QueryResult<Value> {
    let said = kind_of(connect().batch_execute("SELECT end_session()"));
    Ok(json!([said, one(&mut connect())?]))
}

fn pool() -> QueryResult<Value> {
    let pool = Pool::builder().max_size(4).build(ConnectionManager::<PgConnection>::new(url())).expect("a pool");
    let ones: Vec<_> = (0..4)
        .map(|_| {
            let pool = pool.clone();
            std::thread::spawn(move || {
                (0..5).map(|_| pool.get().expect("a connection").transaction(|connection| one(connection))).sum::<QueryResult<i32>>()
            })
        })
        .collect();
    ones.into_iter().map(|thread| thread.join().expect("no panic")).sum::<QueryResult<i32>>().map(Value::from)
}

fn main() {
    tell("version", Ok::<_, Error>(json!("diesel 2.3.14")));
    tell("url", who(&url()));
    tell("keywords", who(&keywords()));
    let identity = diesel::sql_query("SELECT identity() AS line").get_result::<Line>(&mut connect());
    tell("identity", identity.map(|line| line.line.into()));
    tell("prepared", prepared());
    tell("batch", batch());
    tell("transaction", transaction());
    tell("large", large_value());
    tell("reconnect", reconnect());
    tell("pool", pool());
}
