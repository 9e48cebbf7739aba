//! A session that remembers how it ended.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls};

use crate::harness::SOON;

/// A client, and the task that drives it.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// Who it logged in as in the database.
    pub(crate) role: String,
    heard: Arc<Heard>,
    drive: JoinHandle<()>,
}

/// What a session has heard beside its answers.
#[derive(Default)]
pub(crate) struct Heard {
    word: Mutex<Option<Word>>,
    notifications: Mutex<Vec<i64>>,
}

/// The error that ended it.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) code: String,
    pub(crate) message: String,
    /// It says that nothing sent since the last ReadyForQuery was run.
    pub(crate) not_run: bool,
    pub(crate) at: SystemTime,
}

/// How a session ended; `None`: without a word.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) role: String,
    pub(crate) word: Option<Word>,
    /// What its last request met.
    pub(crate) error: String,
}

impl Session {
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let (client, connection) = config.connect(NoTls).await?;
        let heard = Arc::new(Heard::default());
        let drive = tokio::spawn(Heard::drive(Arc::clone(&heard), connection));
        let role = match client.query_one("SELECT session_user::text", &[]).await {
            Ok(row) => row.get(0),
            Err(error) => {
                heard.hear(&error);
                return Err(error);
            }
        };
        Ok(Self { client, role, heard, drive })
    }

    /// It failed: what was the last word?
    pub(crate) async fn ended(mut self, error: &Error) -> End {
        self.heard.hear(error);
        // A request that met a closed connection does not say why; the connection does.
        drop(tokio::time::timeout(SOON, &mut self.drive).await);
        End { role: self.role, word: self.heard.word(), error: format!("{error:?}") }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.drive.is_finished()
    }

    /// The numbers that were notified of so far.
    pub(crate) fn notifications(&self) -> Vec<i64> {
        self.heard.notifications.lock().unwrap().clone()
    }

    /// Ends it from our side, and waits until the socket is closed.
    pub(crate) async fn close(self) {
        drop(self.client);
        drop(tokio::time::timeout(SOON, self.drive).await);
    }
}

impl Heard {
    /// Drives a connection to its end.
    pub(crate) async fn drive<S, T>(self: Arc<Self>, mut connection: Connection<S, T>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        T: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    self.notifications.lock().unwrap().push(notification.payload().parse().unwrap());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.hear(&error),
                None => return,
            }
        }
    }

    /// The first error from the server is the one that counts.
    pub(crate) fn hear(&self, error: &Error) {
        if let Some(said) = error.as_db_error() {
            let not_run =
                said.detail().is_some_and(|detail| detail.contains("nothing sent since then was run"));
            let word = Word {
                code: said.code().code().to_owned(),
                message: said.message().to_owned(),
                not_run,
                at: wall(),
            };
            self.word.lock().unwrap().get_or_insert(word);
        }
    }

    pub(crate) fn word(&self) -> Option<Word> {
        self.word.lock().unwrap().clone()
    }
}

/// The wall clock, as `/status` has it.
#[expect(clippy::disallowed_methods, reason = "compared with the times that /status shows to people")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}
