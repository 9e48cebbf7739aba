//! leasehold itself, as a process.

mod builder;
mod output;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::time::Duration;

use reqwest::Method;
use rustix::process::Resource;
use serde_json::Value;
use tokio_postgres::Config;

use super::http::{Http, Reply};
use super::postgres::{Session, connect};
use super::raw::Raw;
use super::{SOON, eventually};
pub(crate) use builder::{Builder, leasehold};
pub(crate) use output::{Log, Metrics, field};

/// A running leasehold. Dropping it kills it; where the test is failing, the end of its log is printed.
pub(crate) struct Leasehold {
    child: Child,
    log: PathBuf,
    directory: PathBuf,
    listeners: usize,
    addrs: BTreeMap<&'static str, Vec<String>>,
    http: Http,
}

impl Leasehold {
    /// Where it takes clients: the first TCP address.
    pub(crate) fn addr(&self) -> SocketAddr {
        let addrs = self.listening("client").iter();
        addrs.filter_map(|addr| addr.parse().ok()).next().expect("it listens on TCP")
    }

    /// All addresses of a listener (`client`, `http`, `admin`), as it logged them; a Unix socket's is its path.
    pub(crate) fn listening(&self, listener: &str) -> &[String] {
        &self.addrs[listener]
    }

    /// Its directory: the log, the configuration, stdout.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `DATABASE_URL` says: no password.
    pub(crate) fn config(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.host(self.addr().ip().to_string()).port(self.addr().port()).user(user).dbname(database);
        config
    }

    /// A session with no password.
    pub(crate) async fn connect(&self, user: &str, database: &str) -> Session {
        self.try_connect(user, database)
            .await
            .unwrap_or_else(|error| panic!("login through leasehold: {error:?}"))
    }

    pub(crate) async fn try_connect(
        &self,
        user: &str,
        database: &str,
    ) -> Result<Session, tokio_postgres::Error> {
        connect(&self.config(user, database)).await
    }

    /// A connection on which nothing has been sent.
    pub(crate) async fn connect_raw(&self) -> Raw {
        Raw::connect(self.addr()).await
    }

    /// GET on the `http` address.
    pub(crate) async fn http(&self, path: &str) -> Reply {
        self.http
            .send(Method::GET, &format!("http://{}{path}", self.addrs["http"][0]), None, None)
            .await
            .unwrap()
    }

    /// A request to the `admin` address.
    pub(crate) async fn admin(&self, method: Method, path: &str) -> Reply {
        self.http.command(method, &format!("http://{}{path}", self.addrs["admin"][0])).await.unwrap()
    }

    /// Waits until `/readyz` says 200.
    pub(crate) async fn wait_ready(&self) {
        eventually(SOON, async || {
            let reply = self.http("/readyz").await;
            if reply.status == 200 { Ok(()) } else { Err(reply) }
        })
        .await;
    }

    /// Waits until this route has a credential.
    pub(crate) async fn wait_ready_route(&self, route: &str) {
        eventually(SOON, async || {
            let reply = self.http(&format!("/readyz?route={route}")).await;
            if reply.status == 200 { Ok(()) } else { Err(reply) }
        })
        .await;
    }

    /// `GET /metrics`.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.http("/metrics").await.text)
    }

    /// Waits until the sum of these series is at least so much.
    pub(crate) async fn until_metric(
        &self,
        within: Duration,
        name: &str,
        labels: &[(&str, &str)],
        least: f64,
    ) {
        eventually(within, async || {
            let value = self.metrics().await.get(name, labels);
            if value >= least { Ok(()) } else { Err(format!("{name} {labels:?} is {value}, not {least}")) }
        })
        .await;
    }

    /// The kind of the first route's `last_error` in `/status`; empty where there is none.
    pub(crate) async fn last_error(&self) -> String {
        self.status().await["routes"][0]["last_error"]["kind"].as_str().unwrap_or_default().to_owned()
    }

    /// `GET /status`.
    pub(crate) async fn status(&self) -> Value {
        self.admin(Method::GET, "/status").await.json
    }

    /// The generations of the first route, as `/status` shows them.
    pub(crate) async fn generations(&self) -> Vec<Value> {
        self.status().await["routes"][0]["generations"].as_array().cloned().unwrap_or_default()
    }

    /// A command line such as `rotate --drain`, against this process.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).args(["--admin", &self.addrs["admin"][0]]).env_clear();
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Log {
        Log(std::fs::read_to_string(&self.log).unwrap())
    }

    /// Asserts that none of these is in the log, the metrics, the status or the probes.
    pub(crate) async fn shows_none_of(&self, secrets: impl IntoIterator<Item = String>) {
        let outputs = [
            self.log().0,
            self.http("/metrics").await.text,
            self.http("/readyz").await.text,
            self.admin(Method::GET, "/status").await.text,
            std::fs::read_to_string(self.directory.join("stdout")).unwrap(),
        ];
        for secret in secrets {
            assert!(!secret.is_empty());
            assert!(outputs.iter().all(|output| !output.contains(&secret)), "{secret} was shown");
        }
    }

    /// `rotate`, which must succeed.
    pub(crate) async fn rotate(&self) {
        let rotated = self.command(&["rotate"]).await;
        assert!(rotated.status.success(), "{rotated:?}");
    }

    /// Waits until these words are in the log, which is written a moment after the deed.
    pub(crate) async fn wait_log(&self, words: &str) {
        eventually(SOON, async || if self.log().0.contains(words) { Ok(()) } else { Err(words.to_owned()) })
            .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn sigterm(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub(crate) fn sighup(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// SIGSTOP: it does nothing at all, and its clock goes on.
    ///
    /// One of its threads has to run to take the signal and stop the others, which on a busy machine go on until then.
    pub(crate) fn suspend(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_stopped = |task: std::fs::DirEntry| {
            // The state follows the name, which is in parentheses.
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        let all_stopped = || std::fs::read_dir(&tasks).unwrap().flatten().all(is_stopped);
        let stopped = (0..1_000_000).any(|_| all_stopped() || (std::thread::yield_now(), false).1);
        assert!(stopped, "it goes on after SIGSTOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// From now on so much of a resource (open files, bytes of a file) and no more; `None`: as much as at the start.
    pub(crate) fn limit(&self, resource: Resource, to: Option<u64>) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        // It was started with the limits of this process.
        let maximum = rustix::process::getrlimit(resource).maximum;
        let limit = rustix::process::Rlimit { current: to.or(maximum), maximum };
        rustix::process::prlimit(pid, resource, limit).unwrap();
    }

    /// Limits it to so many file descriptors more than it has, where what it has is without gaps.
    pub(crate) fn leave_files(&self, more: u64) {
        let open = |number: &u64| Path::new(&format!("/proc/{}/fd/{number}", self.pid())).exists();
        let lowest = (0..).find(|number| !open(number)).unwrap();
        self.limit(Resource::Nofile, Some(lowest + more));
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Stops it in order; its exit status.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.sigterm();
        self.wait_exit().await
    }

    /// Waits until it has ended; its exit status.
    pub(crate) async fn wait_exit(&mut self) -> ExitStatus {
        eventually(SOON * 4, async || self.exited().ok_or("it runs")).await
    }

    /// Ends it without a chance to say anything.
    pub(crate) fn kill9(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.exited().is_some()
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Leasehold {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the end of leasehold's log ---");
            eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
            eprintln!("---");
        }
    }
}

pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_leasehold");
