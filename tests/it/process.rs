//! leasehold as a process among others, as far as its tests share it: HTTP by hand, and a run on sockets alone.

mod alerts;
mod audit;
mod commands;
mod console;
mod crowd;
mod descriptors;
mod endpoints;
mod flood;
mod hardening;
mod logs;
mod metrics;
mod sessions;
mod stop;
mod traces;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::harness::{Database, SOON, Session, Setup, Vault, bench, connect, eventually};

/// The status and the body of what an HTTP server says to these lines.
pub(crate) async fn http_lines(addr: &str, lines: &[&str]) -> (u16, String) {
    let mut stream = TcpStream::connect(addr.parse::<SocketAddr>().unwrap()).await.unwrap();
    stream.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut reply)).await.unwrap().unwrap();
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    (head.split(' ').nth(1).unwrap_or("0").parse().unwrap(), body.to_owned())
}

/// The command with these arguments and nothing in its environment.
pub(crate) async fn run_command(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear();
    output(command).await
}

/// What a command that ends by itself says. One that does not is killed, and fails the test.
pub(crate) async fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Owned(Some(command.spawn().unwrap()));
    let running = child.0.as_mut().unwrap();
    eventually(SOON * 3, async || running.try_wait().unwrap().ok_or("it runs")).await;
    child.0.take().unwrap().wait_with_output().unwrap()
}

/// Killed when dropped.
struct Owned(Option<Child>);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A leasehold that listens on Unix sockets alone, so that its log is not needed to find it.
pub(crate) struct OnSockets {
    pub(crate) child: Child,
    pub(crate) directory: PathBuf,
}

impl OnSockets {
    /// Runs it with this stderr, and waits until it is ready.
    pub(crate) async fn start(
        db: &Database,
        vault: &Vault,
        setup: &Setup,
        stderr: Stdio,
        flags: &[&str],
    ) -> Self {
        let directory = bench().directory().await;
        let mut command = Command::new(BINARY);
        command
            .arg("run")
            .args(["--http", "off", "--listen", directory.to_str().unwrap(), "--admin"])
            .arg(directory.join("admin.sock"))
            .args(["--upstream", &format!("postgresql://{}/?sslmode=disable", db.server.addr())])
            .args(["--vault-addr", &vault.addr, "--vault-path", &setup.path])
            .args(["--vault-auth-method", "approle", "--vault-auth-role-id", &setup.role_id()])
            .arg("--vault-auth-secret-id-file")
            .arg(setup.secret_id_file())
            .args(flags)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let this = Self { child: command.spawn().unwrap(), directory };
        let waited = this.command(&["wait", "--max", "10s"]).await;
        assert!(waited.status.success(), "{waited:?}");
        this
    }

    /// Where clients connect.
    pub(crate) fn client_socket(&self) -> PathBuf {
        self.directory.join(".s.PGSQL.6432")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// A session over its Unix socket.
    pub(crate) async fn connect(&self, user: &str, database: &str) -> Session {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.directory).port(6432).user(user).dbname(database);
        connect(&config).await.unwrap_or_else(|error| panic!("login over a Unix socket: {error:?}"))
    }

    /// A command line against it.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let admin = self.admin_socket();
        run_command(&[arguments, &["--admin", admin.to_str().unwrap()]].concat()).await
    }

    /// GET on its admin socket.
    pub(crate) async fn get(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(self.admin_socket()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        tokio::time::timeout(SOON, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
        reply
    }

    /// One number of its metrics; 0 where it is missing.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) async fn wait_exit(&mut self) -> ExitStatus {
        eventually(SOON * 4, async || self.child.try_wait().unwrap().ok_or("it runs")).await
    }
}

impl Drop for OnSockets {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_leasehold");
