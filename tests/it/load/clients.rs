//! The kinds of clients. Each writes into the ledger in its own way, and reconnects when it is told to.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Error};
use tokio_util::sync::CancellationToken;

use super::ledger::{Book, Ledger};
use super::pool::{self, Pooled};
use super::session::{End, Session};
use super::{Tally, Watch};
use crate::harness::Raw;

/// How a client works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A few short transactions, then it leaves.
    Short,
    /// Transactions that stay open for seconds.
    Long,
    /// A connection kept for later.
    Idle,
    /// COPY in and out.
    Copy,
    /// LISTEN to the client before this one.
    Listen,
    /// NOTIFY with each write.
    Notify,
    /// Many requests at once.
    Pipelined,
    /// Statements that live as long as the session.
    Prepared,
    /// Sessions of a pool library.
    Pooled,
    /// Transactions without a rest in between.
    Loop,
    /// It dies in the middle of an answer, time and again.
    Dying,
}

impl Kind {
    /// The kinds in turn; a listener comes after its notifier.
    pub(crate) const TURN: [Self; 18] = [
        Self::Short,
        Self::Long,
        Self::Idle,
        Self::Copy,
        Self::Notify,
        Self::Listen,
        Self::Pipelined,
        Self::Prepared,
        Self::Short,
        Self::Long,
        Self::Idle,
        Self::Copy,
        Self::Pooled,
        Self::Pooled,
        Self::Pipelined,
        Self::Prepared,
        Self::Loop,
        Self::Dying,
    ];
}

/// What the clients have in common.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tally: Arc<Tally>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) stop: CancellationToken,
    /// The acknowledged writes of each notifier.
    notified: Mutex<HashMap<i32, BTreeSet<i64>>>,
    pool: Pooled,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        tally: Arc<Tally>,
        watch: Arc<Watch>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let pool = Pooled::new(config.clone(), Arc::clone(&tally), Arc::clone(&watch));
        Arc::new(Self { config, tally, watch, stop, notified: Mutex::default(), pool })
    }

    /// A session was lost; whether what was sent last is known not to have run.
    fn lost(&self, end: &End, doing: &str) -> bool {
        self.tally.ended(end, doing);
        self.watch.closed(end);
        end.word.as_ref().is_some_and(|word| word.not_run)
    }

    async fn pause(&self, millis: Range<u64>) {
        let span = Duration::from_millis(rand::random_range(millis));
        drop(tokio::time::timeout(span, self.stop.cancelled()).await);
    }
}

/// One client.
pub(crate) struct Worker {
    kind: Kind,
    shared: Arc<Shared>,
    book: Book,
    /// The library would not tell why a session ends just now.
    mute: bool,
}

impl Worker {
    pub(crate) fn start(client: i32, kind: Kind, shared: Arc<Shared>) -> JoinHandle<Book> {
        tokio::spawn(Self { kind, shared, book: Book::new(client), mute: false }.run())
    }

    /// Works until stopped; a login that fails ends it.
    async fn run(mut self) -> Book {
        if self.kind == Kind::Pooled {
            self.pooled().await;
            return self.book;
        }
        if self.kind == Kind::Dying {
            self.dying().await;
            return self.book;
        }
        while !self.shared.stop.is_cancelled() {
            let session = match Session::open(&self.shared.config).await {
                Ok(session) => session,
                Err(error) => {
                    self.shared.tally.fault(format!("a login of {:?}: {error:?}", self.kind));
                    break;
                }
            };
            self.shared.tally.opened();
            match self.work(&session).await {
                Ok(()) => session.close().await,
                Err(error) => {
                    let end = session.ended(&error).await;
                    if std::mem::take(&mut self.mute) && end.word.is_none() {
                        self.book.lost(false);
                        continue;
                    }
                    let not_run = self.shared.lost(&end, &format!("{:?}", self.kind));
                    self.book.lost(not_run);
                }
            }
        }
        self.book
    }

    async fn work(&mut self, session: &Session) -> Result<(), Error> {
        match self.kind {
            Kind::Short => self.short(&session.client, "").await,
            Kind::Long => self.long(&session.client).await,
            Kind::Idle => self.idle(session).await,
            Kind::Copy => self.copy(&session.client).await,
            Kind::Listen => self.listen(session).await,
            Kind::Notify => self.notify(&session.client).await,
            Kind::Pipelined => self.pipelined(&session.client).await,
            Kind::Prepared => self.prepared(&session.client).await,
            Kind::Loop => self.in_a_loop(&session.client).await,
            Kind::Pooled | Kind::Dying => Ok(()),
        }
    }

    async fn short(&mut self, client: &Client, more: &str) -> Result<(), Error> {
        for _ in 0..rand::random_range(1..=3) {
            let seq = self.book.send();
            let steps = Ledger::steps(self.book.client, seq);
            client.batch_execute(&format!("BEGIN; {steps}; {more}COMMIT")).await?;
            self.book.done(seq);
            self.shared.pause(20..120).await;
        }
        Ok(())
    }

    async fn long(&mut self, client: &Client) -> Result<(), Error> {
        for _ in 0..8 {
            let began = Instant::now();
            let span = Duration::from_millis(rand::random_range(500..6000));
            let seq = self.book.begin();
            client.batch_execute("BEGIN").await?;
            client.batch_execute(&Ledger::steps(self.book.client, seq)).await?;
            while began.elapsed() < span && !self.shared.stop.is_cancelled() {
                self.shared.pause(100..1500).await;
                client.batch_execute("SELECT count(*) FROM counter").await?;
            }
            self.book.commit();
            client.batch_execute("COMMIT").await?;
            self.book.done(seq);
            self.shared.tally.survived(began.elapsed());
        }
        Ok(())
    }

    /// Until it is closed.
    async fn idle(&mut self, session: &Session) -> Result<(), Error> {
        while !self.shared.stop.is_cancelled() {
            let until = Instant::now() + Duration::from_millis(rand::random_range(1000..15_000));
            while Instant::now() < until && !self.shared.stop.is_cancelled() && !session.is_over() {
                self.shared.pause(50..100).await;
            }
            let seq = self.book.send();
            session.client.batch_execute(&Ledger::write(self.book.client, seq)).await?;
            self.book.done(seq);
        }
        Ok(())
    }

    async fn copy(&mut self, client: &Client) -> Result<(), Error> {
        let copy_in = client.prepare("COPY ledger FROM STDIN").await?;
        let copy_out = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 500)) TO STDOUT";
        let copy_out = client.prepare(copy_out).await?;
        for _ in 0..3 {
            let lines: i64 = rand::random_range(10..200);
            let me = self.book.client;
            let text: Vec<_> = (0..lines).map(|_| format!("{me}\t{}\n", self.book.begin())).collect();
            client.batch_execute("BEGIN").await?;
            let mut sink = pin!(client.copy_in(&copy_in).await?);
            // Of an error that meets a COPY the library tells only that the connection is closed.
            self.mute = true;
            for part in text.chunks(50) {
                sink.send(Bytes::from(part.concat())).await?;
            }
            sink.finish().await?;
            self.mute = false;
            let count = format!("UPDATE counter SET n = n + {lines} WHERE client = {me}");
            client.batch_execute(&count).await?;
            self.book.commit();
            client.batch_execute("COMMIT").await?;
            self.book.all_done();

            let mut stream = pin!(client.copy_out(&copy_out).await?);
            let mut bytes = 0;
            while let Some(chunk) = stream.next().await {
                bytes += chunk?.len();
            }
            if bytes != 500 * 1001 {
                self.shared.tally.fault(format!("{bytes} bytes were copied out"));
            }
            self.shared.pause(100..500).await;
        }
        Ok(())
    }

    async fn notify(&mut self, client: &Client) -> Result<(), Error> {
        for _ in 0..5 {
            let (me, seq) = (self.book.client, self.book.send());
            let write = format!("BEGIN; {}; NOTIFY c{me}, '{seq}'; COMMIT", Ledger::steps(me, seq));
            client.batch_execute(&write).await?;
            self.book.done(seq);
            self.shared.notified.lock().unwrap().entry(me).or_default().insert(seq);
            self.shared.pause(50..200).await;
        }
        Ok(())
    }

    /// Until it is closed, or for some seconds.
    async fn listen(&mut self, session: &Session) -> Result<(), Error> {
        let notifier = self.book.client - 1;
        session.client.batch_execute(&format!("LISTEN c{notifier}")).await?;
        let until = Instant::now() + Duration::from_millis(rand::random_range(1000..20_000));
        while Instant::now() < until && !self.shared.stop.is_cancelled() && !session.is_over() {
            self.shared.pause(50..100).await;
        }
        let heard = session.notifications();
        self.shared.tally.notified(heard.len());
        if let (Some(first), Some(last)) = (heard.first(), heard.last()) {
            let of_all = self.shared.notified.lock().unwrap();
            let wanted = of_all[&notifier].range(first..=last);
            let missed: Vec<_> = wanted.filter(|seq| !heard.contains(seq)).collect();
            if !missed.is_empty() || !heard.is_sorted_by(|one, next| one < next) {
                self.shared.tally.fault(format!("a listener heard {heard:?} and missed {missed:?}"));
            }
        }
        session.client.batch_execute("SELECT 1").await
    }

    async fn pipelined(&mut self, client: &Client) -> Result<(), Error> {
        let statement = client.prepare(Ledger::STATEMENT).await?;
        for _ in 0..10 {
            let me = self.book.client;
            let seqs: Vec<_> = (0..rand::random_range(2..10)).map(|_| self.book.send()).collect();
            let requests = seqs.iter().map(async |seq| client.execute(&statement, &[&me, seq]).await);
            let mut failed = None;
            for (answer, seq) in join_all(requests).await.into_iter().zip(&seqs) {
                match answer {
                    Ok(_) => self.book.done(*seq),
                    // The first that fails has the reason.
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            self.shared.pause(50..200).await;
        }
        Ok(())
    }

    async fn prepared(&mut self, client: &Client) -> Result<(), Error> {
        let line = client.prepare("INSERT INTO ledger VALUES ($1, $2)").await?;
        let count = client.prepare("UPDATE counter SET n = n + 1 WHERE client = $1").await?;
        for _ in 0..rand::random_range(5..200) {
            let (me, seq) = (self.book.client, self.book.begin());
            client.batch_execute("BEGIN").await?;
            client.execute(&line, &[&me, &seq]).await?;
            client.execute(&count, &[&me]).await?;
            self.book.commit();
            client.batch_execute("COMMIT").await?;
            self.book.done(seq);
            self.shared.pause(20..150).await;
        }
        Ok(())
    }

    /// Until it is closed.
    async fn in_a_loop(&mut self, client: &Client) -> Result<(), Error> {
        while !self.shared.stop.is_cancelled() {
            let seq = self.book.send();
            client.batch_execute(&Ledger::write(self.book.client, seq)).await?;
            self.book.done(seq);
        }
        Ok(())
    }

    /// What is written by a statement whose client dies in the middle of its answer is not there.
    async fn dying(&mut self) {
        let config = &self.shared.config;
        let (Some(Host::Tcp(host)), Some(port)) = (config.get_hosts().first(), config.get_ports().first())
        else {
            panic!("{config:?} is not over TCP")
        };
        let addr = format!("{host}:{port}").parse().unwrap();
        while !self.shared.stop.is_cancelled() {
            let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
            let (mut raw, frames) = Raw::login(addr, user, database).await;
            if frames.last().map(|frame| frame.tag) != Some('Z') {
                self.shared.tally.fault(format!("a login of {:?}: {frames:?}", self.kind));
                break;
            }
            self.shared.tally.opened();
            let seq = self.book.begin();
            let write = format!(
                "WITH line AS (INSERT INTO ledger VALUES ({}, {seq}))
                 SELECT repeat('x', 1000) FROM generate_series(1, 20000)\0",
                self.book.client
            );
            // It may be closed before, and then hears why.
            drop(raw.try_write(&Raw::message('Q', write.as_bytes())).await);
            raw.until("DE").await;
            // Behind a FIN PostgreSQL may commit a statement whose answer it cannot write.
            raw.reset();
            self.book.lost(true);
            self.shared.pause(200..1500).await;
        }
    }

    /// A pool's client knows nothing of sessions: it asks the pool again when one fails.
    async fn pooled(&mut self) {
        while !self.shared.stop.is_cancelled() {
            let mut client = match self.shared.pool.get().await {
                Ok(client) => client,
                Err(error) => {
                    self.shared.tally.fault(format!("a login of a pool: {error:?}"));
                    break;
                }
            };
            let pid = pool::backend(&client).await;
            if let Err(error) = self.transaction(&mut client).await {
                let end = match pid {
                    Ok(pid) => self.shared.pool.end(pid, &error).await,
                    Err(first) => {
                        self.shared.pool.first_failed(&first);
                        None
                    }
                };
                let not_run = end.is_some_and(|end| self.shared.lost(&end, "Pooled"));
                self.book.lost(not_run);
            }
            drop(client);
            self.shared.pause(20..400).await;
        }
    }

    async fn transaction(&mut self, client: &mut deadpool_postgres::Client) -> Result<(), Error> {
        let (me, seq) = (self.book.client, self.book.begin());
        let transaction = client.transaction().await?;
        let statement = transaction.prepare_cached(Ledger::STATEMENT).await?;
        transaction.execute(&statement, &[&me, &seq]).await?;
        self.book.commit();
        transaction.commit().await?;
        self.book.done(seq);
        Ok(())
    }
}
