//! A PostgreSQL server, a database on it, and a session.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, Row};

use super::servers::Owned;
use super::{SOON, bench, eventually, same, soon};

/// A running server.
#[derive(Clone)]
pub(crate) struct Server {
    name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) socket_dir: PathBuf,
    log: PathBuf,
    /// The CA of its certificate, where it has TLS.
    pub(crate) ca: Option<PathBuf>,
    superuser: String,
    password: String,
    _owned: Option<Arc<Owned>>,
}

impl Server {
    pub(crate) fn new(coordinates: &Value) -> Self {
        let text = |key: &str| coordinates[key].as_str().map(str::to_owned);
        Self {
            name: text("name").unwrap(),
            host: text("host").unwrap(),
            port: u16::try_from(coordinates["port"].as_u64().unwrap()).unwrap(),
            socket_dir: PathBuf::from(text("socket_dir").unwrap()),
            log: PathBuf::from(text("log").unwrap()),
            ca: text("ca").map(PathBuf::from),
            superuser: text("superuser").unwrap(),
            password: text("password").unwrap(),
            _owned: None,
        }
    }

    pub(crate) fn own(coordinates: Value) -> Self {
        let server = Self::new(&coordinates);
        let owned = Some(Arc::new(Owned(server.name.clone())));
        Self { _owned: owned, ..server }
    }

    /// Its name among the servers of the run.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `host:port`.
    pub(crate) fn addr(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// A session as the superuser.
    pub(crate) async fn superuser(&self, database: &str) -> Session {
        self.login(&self.superuser, &self.password, database).await.expect("the superuser gets in")
    }

    /// A login with a password.
    pub(crate) async fn login(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Session, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host(&self.host).port(self.port).user(user).password(password).dbname(database);
        connect(&config).await
    }

    /// The environment of `psql` as the superuser.
    pub(crate) fn superuser_env(&self) -> [(&'static str, String); 4] {
        [
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.superuser.clone()),
            ("PGPASSWORD", self.password.clone()),
        ]
    }

    /// A fresh database, with an owner group and a user for Vault.
    pub(crate) async fn database(&self) -> Database {
        let name = bench().fresh_name("db");
        let superuser = self.superuser("postgres").await;
        let since_16 = superuser.value("SHOW server_version_num").await.parse::<u32>().unwrap() >= 160_000;
        for statement in [
            format!("CREATE DATABASE {name}"),
            format!("CREATE ROLE {name}_owner NOLOGIN"),
            format!("CREATE ROLE {name}_vault LOGIN CREATEROLE PASSWORD '{VAULT_PASSWORD}'"),
        ] {
            superuser.batch_execute(&statement).await.unwrap();
        }
        if since_16 {
            let grant =
                format!("GRANT {name}_owner TO {name}_vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE");
            superuser.batch_execute(&grant).await.unwrap();
        }
        let admin = self.superuser(&name).await;
        let owner = format!("ALTER SCHEMA public OWNER TO {name}_owner");
        admin.batch_execute(&owner).await.unwrap();
        Database { server: self.clone(), name, admin }
    }

    /// A standby that streams from it, of the same version. Ours is restarted for it.
    pub(crate) async fn standby(&self, version: &str) -> Self {
        bench().own_postgres(json!({"version": version, "standby_of": self.name})).await
    }

    /// Waits until this standby has replayed all that its primary has written.
    pub(crate) async fn catch_up(&self, primary: &Session) {
        let written = primary.value("SELECT pg_current_wal_insert_lsn()").await;
        let standby = self.superuser("postgres").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        // A record of its own makes the primary flush what came before.
        primary.batch_execute("CHECKPOINT").await.unwrap();
        eventually(SOON, async || same(standby.value(&replayed).await, "t")).await;
    }

    /// Has this standby replay nothing any more, until [`Server::replay`].
    pub(crate) async fn pause_replay(&self) {
        let standby = self.superuser("postgres").await;
        standby.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
        let state = "SELECT pg_get_wal_replay_pause_state()";
        eventually(SOON, async || same(standby.value(state).await, "paused")).await;
    }

    /// Ends [`Server::pause_replay`].
    pub(crate) async fn replay(&self) {
        let standby = self.superuser("postgres").await;
        standby.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    }

    /// Stops it: `fast`, `immediate`, `TERM` or `KILL`.
    pub(crate) async fn stop(&self, signal: &str) {
        bench().command(json!({"stop": self.name, "signal": signal})).await;
    }

    /// Starts it again on the same port, with the same data.
    pub(crate) async fn restart(&self) {
        bench().command(json!({"restart": self.name})).await;
    }

    /// Whether it can start processes, as it must for each session; until it is restarted.
    pub(crate) async fn may_fork(&self, may: bool) {
        let most = if may { json!(null) } else { json!(1) };
        bench().command(json!({"processes": self.name, "most": most})).await;
    }

    /// Freezes all its processes: connections are accepted by the kernel, and nothing answers.
    pub(crate) async fn pause(&self) {
        bench().command(json!({"pause": self.name})).await;
    }

    /// Ends [`Server::pause`].
    pub(crate) async fn resume(&self) {
        bench().command(json!({"cont": self.name})).await;
    }
}

/// A database of one test.
pub(crate) struct Database {
    pub(crate) server: Server,
    name: String,
    /// A session in it as the superuser.
    pub(crate) admin: Session,
}

impl Database {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The group that owns the schema `public`; the roles that Vault makes are its members.
    pub(crate) fn owner(&self) -> String {
        format!("{}_owner", self.name)
    }

    /// The user that Vault logs in as, and its password.
    pub(crate) fn vault_user(&self) -> (String, &'static str) {
        (format!("{}_vault", self.name), VAULT_PASSWORD)
    }

    /// The roles that Vault has made for this database and not dropped, oldest first.
    pub(crate) async fn roles(&self) -> Vec<String> {
        let rows = self
            .admin
            .query(
                "SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
                  WHERE m.roleid = $1::text::regrole AND r.rolname <> $2 ORDER BY r.oid",
                &[&self.owner(), &self.vault_user().0],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The roles of the sessions in it, ours excepted, oldest session first. `None`: a role that has been dropped.
    pub(crate) async fn backends(&self) -> Vec<Option<String>> {
        let rows = self
            .admin
            .query(
                "SELECT usename::text FROM pg_stat_activity
                  WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                    AND usename IS DISTINCT FROM $2 ORDER BY backend_start",
                &[&self.name, &self.vault_user().0],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Ends the sessions of a role, as an operator would.
    pub(crate) async fn terminate(&self, role: &str) {
        self.admin
            .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", &[&role])
            .await
            .unwrap();
    }

    /// Drops a role behind Vault's back.
    pub(crate) async fn drop_role(&self, role: &str) {
        self.admin.batch_execute(&format!("DROP ROLE \"{role}\"")).await.unwrap();
    }
}

/// A client and the task that drives it.
pub(crate) struct Session {
    pub(crate) client: Client,
    end: JoinHandle<Result<(), tokio_postgres::Error>>,
}

/// Logs in, without TLS.
pub(crate) async fn connect(config: &Config) -> Result<Session, tokio_postgres::Error> {
    connect_within(config, SOON).await
}

/// The same for a login that takes its time.
pub(crate) async fn connect_within(
    config: &Config,
    within: Duration,
) -> Result<Session, tokio_postgres::Error> {
    let Ok(connected) = tokio::time::timeout(within, config.connect(NoTls)).await else {
        panic!("a login: not within {within:?}")
    };
    let (client, connection) = connected?;
    let end = tokio::spawn(connection);
    Ok(Session { client, end })
}

impl Session {
    /// The single value of a query, as text.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let rows = self.client.simple_query(sql).await.unwrap();
        for message in rows {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                return row.get(0).unwrap_or_default().to_owned();
            }
        }
        panic!("{sql}: no row")
    }

    /// Who it logged in as in the database.
    pub(crate) async fn user(&self) -> String {
        self.value("SELECT session_user").await
    }

    /// One row.
    pub(crate) async fn row(&self, sql: &str) -> Row {
        self.client.query_one(sql, &[]).await.unwrap()
    }

    /// Waits until the server's side has ended it; the SQLSTATE that it sent, `None` for a bare end.
    pub(crate) async fn ended(self) -> Option<String> {
        self.ended_within(SOON).await
    }

    /// The same, for an end that takes its time.
    pub(crate) async fn ended_within(self, within: Duration) -> Option<String> {
        let Self { client, end } = self;
        let Ok(end) = tokio::time::timeout(within, end).await else {
            panic!("a session: no end within {within:?}")
        };
        let end = end.unwrap();
        drop(client);
        end.err().and_then(|error| error.code().map(|code| code.code().to_owned()))
    }

    /// Ends it from our side, and waits until the socket is closed.
    pub(crate) async fn close(self) {
        let Self { client, end } = self;
        drop(client);
        drop(soon("closing a session", end).await);
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

const VAULT_PASSWORD: &str = "vault-user-password";
