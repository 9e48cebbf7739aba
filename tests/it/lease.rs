//! Leases under way, on real servers: renewed, rotated, lost, ended and given back.
//!
//! Machines are shown by scripts beside them; here it is shown that PostgreSQL and OpenBao agree.

mod auth;
mod endings;
mod giving_back;
mod healing;
mod namespace;
mod outage;
mod policy;
mod proof;
mod renewal;
mod rotation;
mod shutdown;
mod standby;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;

use crate::harness::{Database, Leasehold, SOON, Session, connect};

/// Logs in again and again, as a pool does, until told to stop.
struct Logins {
    stop: CancellationToken,
    run: JoinHandle<(u64, Vec<String>)>,
}

impl Logins {
    fn through(leasehold: &Leasehold, db: &Database) -> Self {
        let stop = CancellationToken::new();
        let run = tokio::spawn(log_in_again_and_again(leasehold.config("app", db.name()), stop.clone()));
        Self { stop, run }
    }

    /// How many there were; panics if one of them failed.
    async fn all_succeeded(self) -> u64 {
        self.stop.cancel();
        let (done, failures) = self.run.await.unwrap();
        assert!(failures.is_empty(), "{} of {done} logins failed: {failures:#?}", failures.len());
        assert!(done > 0, "no login was tried");
        done
    }
}

async fn log_in_again_and_again(config: Config, stop: CancellationToken) -> (u64, Vec<String>) {
    let (mut done, mut failures) = (0, Vec::new());
    while !stop.is_cancelled() {
        match connect(&config).await {
            Ok(session) => {
                session.value("SELECT 1").await;
                session.close().await;
            }
            Err(error) => failures.push(format!("{error:?}")),
        }
        done += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (done, failures)
}

/// Looks all the time for sessions whose role has been dropped, which must never be.
pub(crate) struct Orphans {
    stop: CancellationToken,
    run: JoinHandle<(u64, Vec<String>)>,
}

impl Orphans {
    pub(crate) async fn watch(db: &Database) -> Self {
        let stop = CancellationToken::new();
        let session = db.server.superuser(db.name()).await;
        let stopped = stop.clone();
        let run = tokio::spawn(async move {
            let (mut looks, mut seen) = (0, Vec::new());
            while !stopped.is_cancelled() {
                for suspect in session.query(WITHOUT_A_ROLE, &[]).await.unwrap() {
                    let (pid, role): (i32, u32) = (suspect.get(0), suspect.get(1));
                    // Sessions are listed as they are, roles as they were when the statement began: a role may only
                    // just have been made. The ids of roles that were dropped do not come back.
                    if session
                        .query_opt("SELECT FROM pg_roles WHERE oid = $1", &[&role])
                        .await
                        .unwrap()
                        .is_none()
                    {
                        seen.push(format!("backend {pid}, role {role}"));
                    }
                }
                looks += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (looks, seen)
        });
        Self { stop, run }
    }

    pub(crate) async fn none_was_seen(self) {
        self.stop.cancel();
        let (looks, seen) = self.run.await.unwrap();
        assert!(looks > 0, "nobody looked");
        assert!(seen.is_empty(), "sessions outlived their role: {seen:?}");
    }
}

const WITHOUT_A_ROLE: &str = "SELECT a.pid, a.usesysid FROM pg_stat_activity a
                               WHERE a.datname = current_database() AND a.backend_type = 'client backend'
                                 AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)";

/// Uses a table, as an app does, until an error ends it; the SQLSTATE of that error.
fn work_until_error(session: Session) -> JoinHandle<Option<String>> {
    tokio::spawn(async move {
        loop {
            // Both of these break for a session whose role has been dropped: the first by 42501, the second by 42704.
            if let Err(error) = session.batch_execute("UPDATE work SET n = n + 1; SELECT session_user").await
            {
                return match error.code() {
                    Some(code) => Some(code.code().to_owned()),
                    // The query met a connection that had ended already; its end says why.
                    None => session.ended().await,
                };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// A table that `work_until_error` uses.
async fn work_table(db: &Database) {
    let owner = db.owner();
    let statement = format!(
        "CREATE TABLE work (n bigint); INSERT INTO work VALUES (0); ALTER TABLE work OWNER TO {owner}"
    );
    db.admin.batch_execute(&statement).await.unwrap();
}
