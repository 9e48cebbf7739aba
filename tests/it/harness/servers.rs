//! The servers that the tests share, kept by `tests/bench/servers.py`.
//!
//! That program starts and stops them. It notices by the end of its stdin that this process has gone, so a killed test
//! leaves nothing behind.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::pki::Files;
use super::postgres::Server;
use super::vault::{Storage, Vault};

/// The servers of this test binary.
pub(crate) fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(Bench::start)
}

pub(crate) struct Bench {
    supervisor: Mutex<Supervisor>,
    names: AtomicU32,
    postgres: OnceCell<Value>,
    postgres_18: OnceCell<Value>,
    vault: OnceCell<Value>,
}

impl Bench {
    /// The shared PostgreSQL of the system's version, without TLS.
    pub(crate) async fn postgres(&'static self) -> Server {
        let start = || self.command(json!({"start": "postgres", "name": "postgres", "version": "system"}));
        Server::new(self.postgres.get_or_init(start).await)
    }

    /// The shared PostgreSQL 18, with TLS: protocol 3.2, long cancel keys, SCRAM-SHA-256-PLUS.
    pub(crate) async fn postgres_18(&'static self) -> Server {
        let start = || {
            self.command(json!({"start": "postgres", "name": "postgres-18", "version": "18", "ssl": true}))
        };
        Server::new(self.postgres_18.get_or_init(start).await)
    }

    /// A PostgreSQL of this test's own, to be stopped, paused and set up as it likes. `options` are those of
    /// `servers.py`, such as `{"version": "18", "conf": {"max_connections": "12"}}`.
    pub(crate) async fn own_postgres(&'static self, mut options: Value) -> Server {
        options["start"] = json!("postgres");
        options["name"] = json!(self.fresh_name("p"));
        Server::own(self.command(options).await)
    }

    /// The shared OpenBao, in memory. Each setup has mounts of its own on it.
    pub(crate) async fn vault(&'static self) -> Vault {
        let start = || self.command(json!({"start": "openbao", "name": "openbao"}));
        Vault::new(self.vault.get_or_init(start).await)
    }

    /// An OpenBao of this test's own, to be sealed, stopped and paused.
    pub(crate) async fn own_vault(&'static self, storage: Storage) -> Vault {
        let (storage, tls) = match storage {
            Storage::Memory => ("dev", false),
            Storage::MemoryTls => ("dev", true),
            Storage::Raft => ("raft", false),
        };
        let name = self.fresh_name("v");
        Vault::own(
            self.command(json!({"start": "openbao", "name": name, "storage": storage, "tls": tls})).await,
        )
    }

    /// The same on disk, by https, with a certificate that `ca` has signed.
    pub(crate) async fn own_vault_with(&'static self, server: &Files, ca: &Path) -> Vault {
        let tls = json!({"cert": server.cert, "key": server.key, "ca": ca});
        let name = self.fresh_name("v");
        Vault::own(
            self.command(json!({"start": "openbao", "name": name, "storage": "raft", "tls": tls})).await,
        )
    }

    /// A second node of this one's cluster: a standby.
    pub(crate) async fn join(&'static self, leader: &Vault) -> Vault {
        let name = self.fresh_name("v");
        let command = json!({"start": "openbao", "name": name, "storage": "raft", "join": leader.name()});
        Vault::own(self.command(command).await)
    }

    /// OpenBao's own proxy before this server: it keeps the tokens and leases that pass. Its URL; it goes with the run.
    pub(crate) async fn caching_proxy(&'static self, vault: &Vault) -> String {
        let name = self.fresh_name("proxy");
        let proxy = self.command(json!({"start": "proxy", "name": name, "to": vault.name()})).await;
        proxy["addr"].as_str().unwrap().to_owned()
    }

    /// A PgBouncer before this server; its `host:port`. It goes with the run.
    pub(crate) async fn pgbouncer(&'static self, server: &Server, settings: Value) -> String {
        let name = self.fresh_name("pgbouncer");
        let command = json!({"start": "pgbouncer", "name": name, "to": server.name(), "settings": settings});
        let pgbouncer = self.command(command).await;
        format!("127.0.0.1:{}", pgbouncer["port"].as_u64().unwrap())
    }

    /// A fresh directory, deleted with the servers.
    pub(crate) async fn directory(&'static self) -> PathBuf {
        let run = self.command(json!({"dir": true})).await;
        let path = PathBuf::from(run["dir"].as_str().unwrap()).join(self.fresh_name("d"));
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Does a command of `servers.py`; panics with the server's log if it fails.
    pub(crate) async fn command(&'static self, command: Value) -> Value {
        tokio::task::spawn_blocking(move || self.command_now(&command)).await.unwrap()
    }

    /// The same, blocking.
    pub(crate) fn command_now(&self, command: &Value) -> Value {
        let reply = self.supervisor().exchange(command);
        let reply =
            reply.unwrap_or_else(|error| panic!("{command}: servers.py has ended, see stderr: {error}"));
        if let Some(error) = reply.get("error") {
            panic!("{command}: {error}\n{}", reply["log"].as_str().unwrap_or_default());
        }
        reply
    }

    pub(crate) fn fresh_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// The `bao` command.
    pub(crate) fn bao(&self) -> PathBuf {
        let found = Command::new("python3")
            .args(["-c", "import install; print(install.bao())"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench"))
            .output()
            .unwrap();
        PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
    }

    /// A test that panicked while it held the lock has failed by itself; its neighbours go on.
    fn supervisor(&self) -> MutexGuard<'_, Supervisor> {
        self.supervisor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start() -> Self {
        // reqwest and tokio-postgres take the provider that the process has.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        Self {
            supervisor: Mutex::new(Supervisor::start()),
            names: AtomicU32::new(1),
            postgres: OnceCell::new(),
            postgres_18: OnceCell::new(),
            vault: OnceCell::new(),
        }
    }
}

struct Supervisor {
    /// Never killed: it ends by itself once `commands` is closed.
    _child: Child,
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Supervisor {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/servers.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is a prerequisite of the tests");
        let commands = child.stdin.take().unwrap();
        let replies = BufReader::new(child.stdout.take().unwrap());
        Self { _child: child, commands, replies }
    }

    /// Sends a command and waits for its answer.
    fn exchange(&mut self, command: &Value) -> io::Result<Value> {
        writeln!(self.commands, "{command}")?;
        let mut reply = String::new();
        self.replies.read_line(&mut reply)?;
        Ok(serde_json::from_str(&reply)?)
    }
}

/// A server that is removed with its last handle, so that a test's own server does not outlive the test.
pub(crate) struct Owned(pub(crate) String);

impl Drop for Owned {
    fn drop(&mut self) {
        drop(bench().supervisor().exchange(&json!({"remove": self.0})));
    }
}
