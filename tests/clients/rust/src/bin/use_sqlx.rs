//! sqlx and its pool.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use clients::*;
use futures_util::{TryStreamExt as _, future};
use serde_json::{Value, json};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolCopyExt as _, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Error, PgConnection, PgPool, Postgres, Row as _};
use uuid::Uuid;

async fn connect() -> Result<PgConnection, Error> {
    PgConnection::connect(&url()).await
}

async fn value<T>(connection: &mut PgConnection, sql: &'static str) -> Result<T, Error>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(sql).fetch_one(connection).await
}

fn code(error: &Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
    code.unwrap_or_else(|| error.to_string())
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(|_| ())
}

async fn state_of(connection: &mut PgConnection, sql: &str) -> String {
    run(connection, sql).await.err().map_or_else(|| "none".to_owned(), |error| code(&error))
}

async fn who(mut connection: PgConnection) -> Result<Value, Error> {
    let row = sqlx::query(WHO).fetch_one(&mut connection).await?;
    Ok(json!([row.get::<String, _>(0), row.get::<String, _>(1)]))
}

fn options() -> PgConnectOptions {
    let options = PgConnectOptions::new()
        .host(&variable("CLIENT_HOST"))
        .port(variable("CLIENT_PORT").parse().expect("a port"))
        .username(&variable("CLIENT_USER"))
        .database(&variable("CLIENT_DATABASE"));
    match variable("CLIENT_PASSWORD") {
        password if password.is_empty() => options,
        password => options.password(&password),
    }
}

async fn prepared() -> Result<Value, Error> {
    let mut connection = connect().await?;
    let mut answers = Vec::new();
    for n in 1..=3 {
        // By itself sqlx keeps each statement prepared.
        answers.push(sqlx::query_scalar::<_, i32>("SELECT $1::int * 2").bind(n).fetch_one(&mut connection).await?);
    }
    Ok(json!(answers))
}

async fn batch() -> Result<Value, Error> {
    let mut connection = connect().await?;
    run(&mut connection, TABLE).await?;
    let numbers: Vec<i32> = (1..=100).collect();
    sqlx::query("INSERT INTO things SELECT * FROM unnest($1::int[])").bind(numbers).execute(&mut connection).await?;
    Ok(value::<i64>(&mut connection, "SELECT sum(x) FROM things").await?.into())
}

async fn transaction() -> Result<Value, Error> {
    let mut connection = connect().await?;
    run(&mut connection, TABLE).await?;
    let mut outer = connection.begin().await?;
    run(&mut outer, "INSERT INTO things VALUES (1)").await?;
    let mut inner = outer.begin().await?;
    run(&mut inner, "INSERT INTO things VALUES (2)").await?;
    inner.rollback().await?;
    run(&mut outer, "INSERT INTO things VALUES (3)").await?;
    outer.commit().await?;
    let mut undone = connection.begin().await?;
    run(&mut undone, "INSERT INTO things VALUES (4)").await?;
    undone.rollback().await?;
    Ok(json!(value::<Vec<i32>>(&mut connection, "SELECT array_agg(x ORDER BY x) FROM things").await?))
}

async fn errors() -> Result<Value, Error> {
    let mut connection = connect().await?;
    run(&mut connection, TABLE).await?;
    run(&mut connection, "INSERT INTO things VALUES (1)").await?;
    run(&mut connection, "BEGIN").await?;
    let mut states = vec![state_of(&mut connection, "SELECT 1/0").await, state_of(&mut connection, "SELECT 1").await];
    run(&mut connection, "ROLLBACK").await?;
    for sql in WRONG {
        states.push(state_of(&mut connection, sql).await);
    }
    Ok(json!(states))
}

async fn large_value() -> Result<Value, Error> {
    let sent = large();
    let row = sqlx::query("SELECT length(v), v FROM (SELECT $1::bytea AS v) t").bind(&sent).fetch_one(&mut connect().await?).await?;
    Ok(json!([row.get::<i32, _>(0) >> 20, row.get::<&[u8], _>(1) == sent]))
}

async fn copy() -> Result<Value, Error> {
    let mut connection = connect().await?;
    run(&mut connection, TABLE).await?;
    let lines: String = (1..=10_000).map(|n| format!("{n}\n")).collect();
    let mut copy = connection.copy_in_raw("COPY things FROM STDIN").await?;
    copy.send(lines.as_bytes()).await?;
    let count = copy.finish().await?;
    let pool = PgPool::connect(&url()).await?;
    let out: Vec<bytes::Bytes> = pool.copy_out_raw("COPY things TO STDOUT").await?.try_collect().await?;
    let text = String::from_utf8(out.concat()).unwrap_or_default();
    Ok(json!([count, text.lines().filter_map(|line| line.parse::<u64>().ok()).sum::<u64>()]))
}

async fn notify() -> Result<Value, Error> {
    let mut listener = PgListener::connect(&url()).await?;
    listener.listen("news").await?;
    run(&mut connect().await?, "NOTIFY news, 'said'").await?;
    Ok(json!(listener.recv().await?.payload()))
}

/// By SQL: `fetch` of sqlx reads all rows in one go of the protocol.
async fn cursor() -> Result<Value, Error> {
    let mut connection = connect().await?;
    let mut transaction = connection.begin().await?;
    run(&mut transaction, "DECLARE numbers CURSOR FOR SELECT n FROM generate_series(1, 1000) n").await?;
    let mut sum = 0;
    loop {
        let rows: Vec<i32> = sqlx::query_scalar("FETCH 100 FROM numbers").fetch_all(&mut *transaction).await?;
        if rows.is_empty() {
            return Ok(json!(sum));
        }
        sum += rows.iter().sum::<i32>();
    }
}

async fn timeout() -> Result<Value, Error> {
    let mut connection = PgConnection::connect_with(&options().options([("statement_timeout", "500")])).await?;
    let state = state_of(&mut connection, "SELECT pg_sleep(30)").await;
    Ok(json!([state, value::<i32>(&mut connection, "SELECT 1").await?]))
}

fn bound(sql: &str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .bind(true)
        .bind(i64::MAX)
        .bind(NUMERIC)
        .bind(1.5_f64)
        .bind(TEXT)
        .bind(BYTES)
        .bind(date())
        .bind(instant())
        .bind(UUID)
        .bind(tree())
        .bind(ARRAY.to_vec())
        .bind(None::<String>)
}

async fn types() -> Result<Value, Error> {
    let mut connection = connect().await?;
    run(&mut connection, "SET timezone = 'UTC'").await?;
    let line: String = bound(&format!("SELECT {LINE}")).fetch_one(&mut connection).await?.get(0);
    let row = bound("SELECT $1::bool, $2::int8, $3::text, $4::float8, $5::text, $6::bytea, $7::date, $8::timestamptz, $9::uuid, \
        $10::jsonb, $11::int4[], $12::text").fetch_one(&mut connection).await?;
    let same = row.get::<bool, _>(0) && row.get::<i64, _>(1) == i64::MAX && row.get::<String, _>(2) == NUMERIC
        && row.get::<f64, _>(3) == 1.5 && row.get::<String, _>(4) == TEXT && row.get::<Vec<u8>, _>(5) == BYTES
        && row.get::<NaiveDate, _>(6) == date() && row.get::<DateTime<Utc>, _>(7) == instant() && row.get::<Uuid, _>(8) == UUID
        && row.get::<Value, _>(9) == tree() && row.get::<Vec<i32>, _>(10) == ARRAY
        && row.get::<Option<String>, _>(11).is_none();
    Ok(json!([line, same]))
}

async fn reconnect() -> Result<Value, Error> {
    let state = state_of(&mut connect().await?, "SELECT end_session()").await;
    Ok(json!([state, value::<i32>(&mut connect().await?, "SELECT 1").await?]))
}

async fn transact(pool: &PgPool) -> Result<i32, Error> {
    let mut transaction = pool.begin().await?;
    let one = value::<i32>(&mut transaction, "SELECT 1").await?;
    transaction.commit().await?;
    Ok(one)
}

async fn pool() -> Result<Value, Error> {
    let pool = PgPoolOptions::new().max_connections(4).connect(&url()).await?;
    let ones = future::try_join_all((0..20).map(|_| transact(&pool))).await?;
    Ok(json!(ones.iter().sum::<i32>()))
}

async fn work_on_pool() {
    let mut settings = PgPoolOptions::new().max_connections(WORKERS);
    settings = match recommended() {
        Some(lifetime) => settings.max_lifetime(lifetime),
        // Its own words: 30 minutes, and a look at each connection before it is handed out.
        None => settings.test_before_acquire(false),
    };
    let pool = settings.connect(&url()).await.expect("a pool");
    let seen = Arc::new(Seen::default());
    let workers: Vec<_> = (1..=WORKERS)
        .map(|number| {
            let (pool, seen) = (pool.clone(), seen.clone());
            tokio::spawn(async move {
                for step in 1.. {
                    if seen.stopped() {
                        return;
                    }
                    seen.note(transact(&pool).await.map(|_| ()).map_err(|error| code(&error)));
                    tokio::time::sleep(pause(number, step)).await;
                }
            })
        })
        .collect();
    let waiting = seen.clone();
    tokio::task::spawn_blocking(move || waiting.wait()).await.expect("it waits");
    future::join_all(workers).await;
    seen.tell();
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    if std::env::args().nth(1).is_some() {
        work_on_pool().await;
        return Ok(());
    }
    tell("version", Ok::<_, Error>(json!("sqlx 0.9.0")));
    tell("url", who(connect().await?).await);
    tell("keywords", who(PgConnection::connect_with(&options()).await?).await);
    tell("identity", value::<String>(&mut connect().await?, "SELECT identity()").await.map(Value::from));
    tell("prepared", prepared().await);
    tell("batch", batch().await);
    tell("transaction", transaction().await);
    tell("errors", errors().await);
    tell("large", large_value().await);
    tell("copy", copy().await);
    tell("notify", notify().await);
    tell("cursor", cursor().await);
    tell("timeout", timeout().await);
    tell("types", types().await);
    tell("reconnect", reconnect().await);
    tell("pool", pool().await);
    Ok(())
}
