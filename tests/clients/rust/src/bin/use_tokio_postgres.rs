//! tokio-postgres, and deadpool's pool over it.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use clients::*;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future, pin_mut};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

/// tokio-postgres knows `require`, and leaves it to the connector what of a certificate is verified.
fn config(target: &str) -> Config {
    let mut config: Config = target.replace("sslmode=verify-full", "sslmode=require").parse().expect("a URL, or keywords");
    config.ssl_mode(if variable("PGSSLMODE").is_empty() { SslMode::Disable } else { SslMode::Require });
    config
}

/// Verifies all of it, by the CA that libpq's variable names.
fn tls() -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    let file = variable("PGSSLROOTCERT");
    if !file.is_empty() {
        let ca = CertificateDer::from_pem_file(file).expect("a certificate");
        roots.add(ca).expect("that of a CA");
    }
    MakeRustlsConnect::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

async fn connect_to(target: &str) -> Result<Client, Error> {
    let (client, connection) = config(target).connect(tls()).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect() -> Result<Client, Error> {
    connect_to(&url()).await
}

async fn who(target: &str) -> Result<Value, Error> {
    let row = connect_to(target).await?.query_one(WHO, &[]).await?;
    Ok(json!([row.get::<_, String>(0), row.get::<_, String>(1)]))
}

async fn one(client: &Client) -> Result<i32, Error> {
    Ok(client.query_one("SELECT 1", &[]).await?.get(0))
}

fn code(error: &Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

async fn state_of(client: &Client, sql: &str) -> String {
    client.batch_execute(sql).await.err().map_or_else(|| "none".to_owned(), |error| code(&error))
}

async fn identity() -> Result<Value, Error> {
    Ok(connect().await?.query_one("SELECT identity()", &[]).await?.get::<_, String>(0).into())
}

async fn prepared() -> Result<Value, Error> {
    let client = connect().await?;
    let double = client.prepare("SELECT $1::int * 2").await?;
    let mut answers = Vec::new();
    for n in 1..=3 {
        answers.push(client.query_one(&double, &[&n]).await?.get::<_, i32>(0));
    }
    Ok(json!(answers))
}

/// Pipelined: futures that run at once share the connection.
async fn batch() -> Result<Value, Error> {
    let client = connect().await?;
    client.batch_execute(TABLE).await?;
    let insert = client.prepare("INSERT INTO things VALUES ($1)").await?;
    future::try_join_all((1..=100).map(|n| {
        let (client, insert) = (&client, &insert);
        async move { client.execute(insert, &[&n]).await }
    }))
    .await?;
    Ok(client.query_one("SELECT sum(x) FROM things", &[]).await?.get::<_, i64>(0).into())
}

async fn transaction() -> Result<Value, Error> {
    let mut client = connect().await?;
    client.batch_execute(TABLE).await?;
    let mut outer = client.transaction().await?;
    outer.execute("INSERT INTO things VALUES (1)", &[]).await?;
    let inner = outer.savepoint("s").await?;
    inner.execute("INSERT INTO things VALUES (2)", &[]).await?;
    inner.rollback().await?;
    outer.execute("INSERT INTO things VALUES (3)", &[]).await?;
    outer.commit().await?;
    let undone = client.transaction().await?;
    undone.execute("INSERT INTO things VALUES (4)", &[]).await?;
    undone.rollback().await?;
    Ok(json!(client.query_one("SELECT array_agg(x ORDER BY x) FROM things", &[]).await?.get::<_, Vec<i32>>(0)))
}

async fn errors() -> Result<Value, Error> {
    let client = connect().await?;
    client.batch_execute(TABLE).await?;
    client.batch_execute("INSERT INTO things VALUES (1)").await?;
    client.batch_execute("BEGIN").await?;
    let mut states = vec![state_of(&client, "SELECT 1/0").await, state_of(&client, "SELECT 1").await];
    client.batch_execute("ROLLBACK").await?;
    for sql in WRONG {
        states.push(state_of(&client, sql).await);
    }
    Ok(json!(states))
}

async fn large_value() -> Result<Value, Error> {
    let sent = large();
    let client = connect().await?;
    let row = client.query_one("SELECT length(v), v FROM (SELECT $1::bytea AS v) t", &[&sent]).await?;
    Ok(json!([row.get::<_, i32>(0) >> 20, row.get::<_, &[u8]>(1) == sent]))
}

async fn copy() -> Result<Value, Error> {
    let client = connect().await?;
    client.batch_execute(TABLE).await?;
    let sink = client.copy_in("COPY things FROM STDIN").await?;
    pin_mut!(sink);
    for n in 1..=10_000 {
        sink.feed(Bytes::from(format!("{n}\n"))).await?;
    }
    let count = sink.finish().await?;
    let out: Vec<Bytes> = client.copy_out("COPY things TO STDOUT").await?.try_collect().await?;
    let text = String::from_utf8(out.concat()).unwrap_or_default();
    Ok(json!([count, text.lines().filter_map(|line| line.parse::<u64>().ok()).sum::<u64>()]))
}

async fn notify() -> Result<Value, Error> {
    let (listener, mut connection) = config(&url()).connect(tls()).await?;
    let (say, mut said) = tokio::sync::mpsc::channel(1);
    let messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
    tokio::spawn(messages.for_each(move |message| {
        let say = say.clone();
        async move {
            if let Ok(AsyncMessage::Notification(note)) = message {
                let _ = say.send(note.payload().to_owned()).await;
            }
        }
    }));
    listener.batch_execute("LISTEN news").await?;
    connect().await?.batch_execute("NOTIFY news, 'said'").await?;
    Ok(json!(said.recv().await))
}

async fn cursor() -> Result<Value, Error> {
    let mut client = connect().await?;
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT n FROM generate_series(1, 1000) n", &[]).await?;
    let mut sum = 0;
    loop {
        let rows = transaction.query_portal(&portal, 100).await?;
        if rows.is_empty() {
            return Ok(json!(sum));
        }
        sum += rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>();
    }
}

async fn cancel() -> Result<Value, Error> {
    let (client, other) = (connect().await?, connect().await?);
    let token = client.cancel_token();
    let canceller = async {
        while other.query_one(SLEEPERS, &[]).await?.get::<_, i64>(0) == 0 {}
        token.cancel_query(tls()).await
    };
    let (state, cancelled) = tokio::join!(state_of(&client, SLEEP), canceller);
    cancelled?;
    Ok(json!([state, one(&client).await?]))
}

async fn timeout() -> Result<Value, Error> {
    let client = connect_to(&format!("{} options='-c statement_timeout=500'", keywords())).await?;
    Ok(json!([state_of(&client, "SELECT pg_sleep(30)").await, one(&client).await?]))
}

async fn types() -> Result<Value, Error> {
    let client = connect().await?;
    client.batch_execute("SET timezone = 'UTC'").await?;
    let sql = format!(
        "SELECT {LINE}, $1::bool, $2::int8, $3::text, $4::float8, $5::text, $6::bytea, $7::date, $8::timestamptz, $9::uuid, \
         $10::jsonb, $11::int4[], $12::text"
    );
    let row = client
        .query_one(&sql, &[&true, &i64::MAX, &NUMERIC, &1.5_f64, &TEXT, &BYTES, &date(), &instant(), &UUID, &tree(), &&ARRAY[..],
            &None::<&str>])
        .await?;
    let same = row.get::<_, bool>(1) && row.get::<_, i64>(2) == i64::MAX && row.get::<_, &str>(3) == NUMERIC
        && row.get::<_, f64>(4) == 1.5 && row.get::<_, &str>(5) == TEXT && row.get::<_, &[u8]>(6) == BYTES
        && row.get::<_, NaiveDate>(7) == date() && row.get::<_, DateTime<Utc>>(8) == instant() && row.get::<_, Uuid>(9) == UUID
        && row.get::<_, Value>(10) == tree() && row.get::<_, Vec<i32>>(11) == ARRAY
        && row.get::<_, Option<&str>>(12).is_none();
    Ok(json!([row.get::<_, String>(0), same]))
}

async fn reconnect() -> Result<Value, Error> {
    let state = state_of(&connect().await?, "SELECT end_session()").await;
    Ok(json!([state, one(&connect().await?).await?]))
}

fn deadpool(size: usize) -> Pool {
    let recycling_method = if recommended().is_some() { RecyclingMethod::Verified } else { RecyclingMethod::Fast };
    let manager = Manager::from_config(config(&url()), tls(), ManagerConfig { recycling_method });
    Pool::builder(manager).max_size(size).build().expect("a pool")
}

async fn pool() -> Result<Value, String> {
    let pool = deadpool(4);
    let work = || async {
        let mut client = pool.get().await.map_err(|error| error.to_string())?;
        let transaction = client.transaction().await.map_err(|error| code(&error))?;
        let one: i32 = transaction.query_one("SELECT 1", &[]).await.map_err(|error| code(&error))?.get(0);
        transaction.commit().await.map_err(|error| code(&error))?;
        Ok::<i32, String>(one)
    };
    let ones = future::try_join_all((0..20).map(|_| work())).await?;
    Ok(json!(ones.iter().sum::<i32>()))
}

async fn transact(pool: &Pool) -> Result<(), String> {
    let mut client = pool.get().await.map_err(|error| error.to_string())?;
    let transaction = client.transaction().await.map_err(|error| code(&error))?;
    transaction.query_one("SELECT 1", &[]).await.map_err(|error| code(&error))?;
    transaction.commit().await.map_err(|error| code(&error))
}

async fn work_on_pool() {
    let pool = deadpool(WORKERS as usize);
    let seen = Arc::new(Seen::default());
    let workers: Vec<_> = (1..=WORKERS)
        .map(|number| {
            let (pool, seen) = (pool.clone(), seen.clone());
            tokio::spawn(async move {
                for step in 1.. {
                    if seen.stopped() {
                        return;
                    }
                    if let Some(lifetime) = recommended() {
                        // deadpool has no lifetime of its own; this is what its documentation does for one.
                        pool.retain(|_, metrics| metrics.age() < lifetime);
                    }
                    seen.note(transact(&pool).await);
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
async fn main() {
    if std::env::args().nth(1).is_some() {
        return work_on_pool().await;
    }
    tell("version", Ok::<_, Error>(json!("tokio-postgres 0.7.18, deadpool-postgres 0.14.2")));
    tell("url", who(&url()).await);
    tell("keywords", who(&keywords()).await);
    tell("identity", identity().await);
    tell("prepared", prepared().await);
    tell("batch", batch().await);
    tell("transaction", transaction().await);
    tell("errors", errors().await);
    tell("large", large_value().await);
    tell("copy", copy().await);
    tell("notify", notify().await);
    tell("cursor", cursor().await);
    tell("cancel", cancel().await);
    tell("timeout", timeout().await);
    tell("types", types().await);
    tell("reconnect", reconnect().await);
    tell("pool", pool().await);
}
