//! Clients that write all the time and know what they have written.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;

use super::postgres::{Database, connect};

/// Clients at work, each with a ledger of its own. One that gets an error fails its test.
pub(crate) struct Writers {
    stop: CancellationToken,
    clients: Vec<JoinHandle<(u32, u64)>>,
}

/// What they did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) logins: u32,
    transactions: u64,
}

impl Writers {
    /// So many, by way of `config`. Every fourth keeps its session to the end; the others come and go.
    pub(crate) async fn start(db: &Database, config: &Config, clients: i32) -> Self {
        let owner = db.owner();
        let tables = format!(
            "CREATE TABLE ledger (client int, seq bigint, PRIMARY KEY (client, seq));
             CREATE TABLE counter (client int PRIMARY KEY, n bigint);
             INSERT INTO counter SELECT client, 0 FROM generate_series(0, {clients} - 1) client;
             ALTER TABLE ledger OWNER TO {owner}; ALTER TABLE counter OWNER TO {owner}"
        );
        db.admin.batch_execute(&tables).await.unwrap();
        let stop = CancellationToken::new();
        let clients = (0..clients)
            .map(|client| tokio::spawn(write_ahead(client, config.clone(), client % 4 == 0, stop.clone())))
            .collect();
        Self { stop, clients }
    }

    /// Lets them end what they do, and looks whether all that was acknowledged is there, and nothing else.
    pub(crate) async fn stop(self, db: &Database) -> Written {
        self.stop.cancel();
        let mut written = Written { logins: 0, transactions: 0 };
        for client in self.clients {
            let (logins, transactions) = client.await.unwrap();
            written.logins += logins;
            written.transactions += transactions;
        }
        let acknowledged = written.transactions.to_string();
        assert_eq!(db.admin.value("SELECT count(*) FROM ledger").await, acknowledged);
        assert_eq!(db.admin.value("SELECT sum(n) FROM counter").await, acknowledged);
        let gaps = "SELECT count(*) FROM counter c
                     WHERE n <> (SELECT coalesce(max(seq), 0) FROM ledger l WHERE l.client = c.client)";
        assert_eq!(db.admin.value(gaps).await, "0", "each client's writes are there without a gap");
        written
    }
}

/// Writes a ledger line and counts it, one transaction each; ends its session when it likes, or never. How many
/// sessions it had, and how many transactions were acknowledged.
async fn write_ahead(client: i32, config: Config, stays: bool, stop: CancellationToken) -> (u32, u64) {
    let (mut sessions, mut seq) = (0, 0);
    while !stop.is_cancelled() {
        let session = connect(&config).await.unwrap_or_else(|error| panic!("a login: {error:?}"));
        sessions += 1;
        let mut turns = 0;
        while !stop.is_cancelled() && (stays || turns < 5 + client % 7) {
            let next = seq + 1;
            let transaction = format!(
                "BEGIN; INSERT INTO ledger VALUES ({client}, {next});
                 UPDATE counter SET n = n + 1 WHERE client = {client}; COMMIT"
            );
            session.batch_execute(&transaction).await.unwrap_or_else(|error| panic!("a write: {error:?}"));
            seq = next;
            turns += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        session.close().await;
    }
    (sessions, seq)
}
