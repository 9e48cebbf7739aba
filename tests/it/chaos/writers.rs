//! Clients that expect everything: whatever fails, they come again.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};
use tokio_util::sync::CancellationToken;

use super::HEALS_WITHIN;
use super::stage::Gate;
use crate::harness::{eventually, same};
use crate::load::{Book, Ledger, Session};

/// All writers.
#[derive(Default)]
pub(super) struct Writers {
    writers: Vec<(Gate<Book>, Arc<Progress>)>,
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// How far one writer is.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    /// The call that its latest write came after.
    call: AtomicU64,
}

#[derive(Default)]
struct Shared {
    /// Where leasehold is now.
    config: Mutex<Config>,
    noticed: Mutex<Noticed>,
    /// Sessions from before this call are given up.
    call: AtomicU64,
    stop: CancellationToken,
}

/// What clients have met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noticed {
    /// Logins that failed.
    logins: u64,
    /// Sessions that ended by 57P01 because their credential was retired or has come to its end.
    planned: u64,
    /// Sessions that ended otherwise.
    lost: u64,
}

impl Noticed {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            logins: self.logins - before.logins,
            planned: self.planned - before.planned,
            lost: self.lost - before.lost,
        }
    }

    /// What nobody should meet because of Vault.
    pub(super) fn unplanned(&self) -> u64 {
        self.logins + self.lost
    }
}

impl fmt::Display for Noticed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>3} logins failed, {:>2} sessions lost, {:>2} closed",
            self.logins, self.lost, self.planned
        )
    }
}

impl Writers {
    /// Leasehold is here from now on.
    pub(super) fn reach(&self, config: Config) {
        *self.shared.config.lock().unwrap() = config;
    }

    pub(super) fn add(&mut self, client: i32) {
        let book = Arc::new(tokio::sync::Mutex::new(Book::new(client)));
        let progress = Arc::new(Progress::default());
        self.writers.push((Arc::clone(&book), Arc::clone(&progress)));
        self.tasks.push(tokio::spawn(write(book, progress, Arc::clone(&self.shared))));
    }

    /// The acknowledged writes of each.
    pub(super) fn acknowledged(&self) -> Vec<u64> {
        self.writers.iter().map(|(_, progress)| progress.acknowledged.load(Ordering::Relaxed)).collect()
    }

    /// Has all log in anew after their transaction; the number of this call.
    pub(super) fn call(&self) -> u64 {
        self.shared.call.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Has all log in anew, and waits until each has written.
    pub(super) async fn come_again(&self) {
        let call = self.call();
        eventually(HEALS_WITHIN, async || {
            let called =
                self.writers.iter().filter(|(_, progress)| progress.call.load(Ordering::Relaxed) == call);
            same(called.count(), self.writers.len())
        })
        .await;
    }

    pub(super) fn noticed(&self) -> Noticed {
        *self.shared.noticed.lock().unwrap()
    }

    /// Holds all writers between two transactions.
    pub(super) async fn books(&self) -> Vec<OwnedMutexGuard<Book>> {
        let mut books = Vec::new();
        for (book, _) in &self.writers {
            books.push(Arc::clone(book).lock_owned().await);
        }
        books
    }

    pub(super) async fn stop(&mut self) {
        self.shared.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }
}

/// Logs in and writes, again and again.
async fn write(book: Gate<Book>, progress: Arc<Progress>, shared: Arc<Shared>) {
    let pause = async |most: u64| {
        let span = Duration::from_millis(rand::random_range(5..most));
        drop(tokio::time::timeout(span, shared.stop.cancelled()).await);
    };
    while !shared.stop.is_cancelled() {
        let call = shared.call.load(Ordering::Relaxed);
        let config = shared.config.lock().unwrap().clone();
        let Ok(Ok(session)) = tokio::time::timeout(PATIENCE, Session::open(&config)).await else {
            shared.noticed.lock().unwrap().logins += 1;
            pause(400).await;
            continue;
        };
        let mut failed = None;
        for _ in 0..rand::random_range(1..60) {
            let mut book = book.lock().await;
            match tokio::time::timeout(PATIENCE, transaction(&session.client, &mut book)).await {
                Ok(Ok(())) => {
                    progress.acknowledged.store(book.acknowledged, Ordering::Relaxed);
                    progress.call.store(call, Ordering::Relaxed);
                }
                Ok(Err(error)) => {
                    failed = Some((Some(error), book));
                    break;
                }
                Err(_) => {
                    failed = Some((None, book));
                    break;
                }
            }
            drop(book);
            pause(60).await;
            if shared.stop.is_cancelled() || shared.call.load(Ordering::Relaxed) != call {
                break;
            }
        }
        let Some((error, mut book)) = failed else {
            session.close().await;
            continue;
        };
        let end = match error {
            Some(error) => session.ended(&error).await.word,
            None => None,
        };
        book.lost(end.as_ref().is_some_and(|word| word.not_run));
        drop(book);
        let planned = end.is_some_and(|word| {
            word.code == "57P01"
                && ["being retired", "come to its end"].iter().any(|why| word.message.contains(why))
        });
        {
            let mut noticed = shared.noticed.lock().unwrap();
            noticed.planned += u64::from(planned);
            noticed.lost += u64::from(!planned);
        }
        pause(100).await;
    }
}

/// One write: in one message, or step by step with time for a fault in between.
async fn transaction(client: &Client, book: &mut Book) -> Result<(), Error> {
    let me = book.client;
    if rand::random_bool(0.5) {
        let seq = book.send();
        client.batch_execute(&Ledger::write(me, seq)).await?;
    } else {
        let seq = book.begin();
        client.batch_execute("BEGIN").await?;
        client.batch_execute(&Ledger::steps(me, seq)).await?;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..40))).await;
        book.commit();
        client.batch_execute("COMMIT").await?;
    }
    book.all_done();
    Ok(())
}

/// A login or a transaction that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(20);
