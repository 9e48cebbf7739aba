//! The sessions of a pool library, which tells its users little of how they ended.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use super::session::{End, Heard};
use super::{Tally, Watch};

/// The process that serves this session. A statement of its own would be closed when it is dropped, and an error that
/// answers that request is heard by nobody.
pub(super) async fn backend(client: &Client) -> Result<i32, Error> {
    let answer = client.simple_query("SELECT pg_backend_pid()").await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    Ok(row.expect("it has a process"))
}

/// A pool, and how its sessions end.
pub(super) struct Pooled {
    pool: Pool,
    sessions: Arc<Sessions>,
}

/// What the sessions of the pool have heard, by their backend.
struct Sessions {
    tally: Arc<Tally>,
    watch: Arc<Watch>,
    heard: Mutex<HashMap<i32, (String, Arc<Heard>)>>,
}

impl Pooled {
    pub(super) fn new(config: Config, tally: Arc<Tally>, watch: Arc<Watch>) -> Self {
        let sessions = Arc::new(Sessions { tally, watch, heard: Mutex::default() });
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(config, Connector(Arc::clone(&sessions)), recycling);
        Self { pool: Pool::builder(manager).max_size(4).build().unwrap(), sessions }
    }

    pub(super) async fn get(&self) -> Result<deadpool_postgres::Client, PoolError> {
        self.pool.get().await
    }

    /// Nothing is known of a session whose first request fails: mostly it was closed while it was idle.
    pub(super) fn first_failed(&self, error: &Error) {
        let code = error.code().map(|code| code.code());
        if code.is_some_and(|code| code != "57P01") {
            self.sessions.tally.fault(format!("a pooled session: {error:?}"));
        }
    }

    /// How the session of this backend ended.
    pub(super) async fn end(&self, pid: i32, error: &Error) -> Option<End> {
        let (role, heard) = self.sessions.heard.lock().unwrap().get(&pid).cloned()?;
        heard.hear(error);
        // Its driver may be a moment behind.
        let deadline = Instant::now() + Duration::from_secs(2);
        while heard.word().is_none() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(End { role, word: heard.word(), error: format!("{error:?}") })
    }
}

struct Connector(Arc<Sessions>);

type Connected = Result<(Client, JoinHandle<()>), Error>;

impl deadpool_postgres::Connect for Connector {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, connection) = config.connect(NoTls).await?;
            let heard = Arc::new(Heard::default());
            let drive = tokio::spawn(Heard::drive(Arc::clone(&heard), connection));
            let row = client.query_one("SELECT pg_backend_pid(), session_user::text", &[]).await?;
            let (pid, role): (i32, String) = (row.get(0), row.get(1));
            self.0.heard.lock().unwrap().insert(pid, (role.clone(), Arc::clone(&heard)));
            self.0.tally.opened();
            let watch = Arc::clone(&self.0.watch);
            let end = tokio::spawn(async move {
                drop(drive.await);
                // The pool throws away what was closed while it was idle, without a word to its clients.
                watch.closed(&End { role, word: heard.word(), error: String::new() });
            });
            Ok((client, end))
        })
    }
}
