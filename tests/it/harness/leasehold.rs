//! leasehold itself, as a process.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use rustix::process::Resource;
use serde_json::Value;
use tokio_postgres::Config;

use super::clock::WallClock;
use super::http::{Http, Reply};
use super::postgres::{Database, Session, connect};
use super::raw::Raw;
use super::vault::{Setup, Vault};
use super::{SOON, bench, eventually, same};

/// Begins to describe a leasehold; [`Builder::start`] runs it.
pub(crate) fn leasehold() -> Builder {
    Builder::default()
}

/// What it is run with. All three listeners take a free port unless a flag or the file says otherwise.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: Option<String>,
    /// Shell words that come before it is run.
    first: Vec<String>,
    hosts: Option<PathBuf>,
}

impl Builder {
    /// `--upstream`: this database's server, without TLS; clients name the database.
    pub(crate) fn upstream(self, db: &Database) -> Self {
        self.upstream_uri(&format!("postgresql://{}/?sslmode=disable", db.server.addr()))
    }

    pub(crate) fn upstream_uri(self, uri: &str) -> Self {
        self.flag("--upstream", uri)
    }

    /// `--vault-addr`, and the CA of its certificate.
    pub(crate) fn vault(self, vault: &Vault) -> Self {
        let this = self.vault_addr(&vault.addr);
        match &vault.ca {
            Some(ca) => this.flag("--vault-ca-cert", ca.to_str().unwrap()),
            None => this,
        }
    }

    pub(crate) fn vault_addr(self, addr: &str) -> Self {
        self.flag("--vault-addr", addr)
    }

    /// The AppRole login and the path of this setup.
    pub(crate) fn login(self, setup: &Setup) -> Self {
        self.approle(setup).path(&setup.path)
    }

    /// The AppRole login alone.
    pub(crate) fn approle(self, setup: &Setup) -> Self {
        self.flag("--vault-auth-method", "approle")
            .flag("--vault-auth-role-id", &setup.role_id())
            .flag("--vault-auth-secret-id-file", setup.secret_id_file().to_str().unwrap())
    }

    /// The auth method, its mount, and the path of this setup.
    pub(crate) fn method(self, method: &str, mount: &str, setup: &Setup) -> Self {
        self.flag("--vault-auth-method", method).flag("--vault-auth-mount", mount).path(&setup.path)
    }

    /// `--vault-path`.
    pub(crate) fn path(self, path: &str) -> Self {
        self.flag("--vault-path", path)
    }

    pub(crate) fn flag(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// A flag without a value.
    pub(crate) fn switch(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its wall clock.
    pub(crate) fn wall_clock(self, clock: &WallClock) -> Self {
        clock.env().into_iter().fold(self, |this, (name, value)| this.env(name, value))
    }

    /// The text of `--config`.
    pub(crate) fn config_toml(self, text: &str) -> Self {
        Self { config: Some(text.to_owned()), ..self }
    }

    /// At most so many open files.
    pub(crate) fn limit_files(self, files: u32) -> Self {
        self.first(&format!("ulimit -n {files}"))
    }

    /// At most so many open files at its start, and more for the asking.
    pub(crate) fn limit_files_softly(self, files: u32, hard: u32) -> Self {
        self.first(&format!("ulimit -Sn {files} && ulimit -Hn {hard}"))
    }

    /// As `nohup` runs it.
    pub(crate) fn ignoring_hangups(self) -> Self {
        self.first("trap '' HUP")
    }

    fn first(mut self, words: &str) -> Self {
        self.first.push(words.to_owned());
        self
    }

    /// This file is its `/etc/hosts`: it runs in a mount namespace of its own.
    pub(crate) fn hosts_file(self, path: &Path) -> Self {
        Self { hosts: Some(path.to_owned()), ..self }
    }

    /// Runs it, and waits until all its listeners are bound.
    pub(crate) async fn start(self) -> Leasehold {
        let mut process = self.spawn().await;
        eventually(SOON, async || {
            if let Some(status) = process.exited() {
                panic!("leasehold ended at its start with {status}");
            }
            let log = process.log();
            for listener in ["client", "http", "admin"] {
                let addrs = log.listening(listener);
                if !addrs.is_empty() {
                    process.addrs.insert(listener, addrs);
                }
            }
            same(process.addrs.len() >= process.listeners, true)
        })
        .await;
        process
    }

    /// Runs it and waits until it has ended by itself; its exit status and its log.
    pub(crate) async fn run_to_end(self) -> (ExitStatus, Log) {
        let mut process = self.spawn().await;
        let status = eventually(SOON, async || process.exited().ok_or("it runs")).await;
        (status, process.log())
    }

    /// Runs another command than `run` with all this, such as `policy`, and waits for its end.
    pub(crate) async fn command(self, name: &str) -> Output {
        let directory = bench().directory().await;
        let mut command = self.prepare(name, &directory);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// Starts another command than `run`.
    pub(crate) async fn start_command(self, name: &str) -> Running {
        let directory = bench().directory().await;
        let mut command = self.prepare(name, &directory);
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Runs it, and waits for nothing.
    pub(crate) async fn spawn(self) -> Leasehold {
        let directory = bench().directory().await;
        let mut command = self.prepare("run", &directory);
        let log = directory.join("log");
        command.stdout(File::create(directory.join("stdout")).unwrap()).stderr(File::create(&log).unwrap());
        let off = |name: &str| self.arguments.windows(2).any(|pair| pair[0] == name && pair[1] == "off");
        Leasehold {
            child: command.spawn().unwrap(),
            log,
            listeners: 1 + usize::from(!off("--http")) + usize::from(!off("--admin")),
            addrs: BTreeMap::new(),
            http: Http::new(None),
            directory,
        }
    }

    /// The command line in its directory; its output goes nowhere yet.
    fn prepare(&self, name: &str, directory: &Path) -> Command {
        let mut command = match (&self.first[..], &self.hosts) {
            ([], None) => {
                // Who runs the tests may ignore hangups, as under nohup, which a child would inherit.
                let mut command = Command::new("env");
                command.args(["--default-signal=HUP", BINARY]);
                command
            }
            (first, None) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{} && exec \"$0\" \"$@\"", first.join(" && ")), BINARY]);
                shell
            }
            (_, Some(hosts)) => {
                let mut command = Command::new("unshare");
                let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
                command.args(["--mount", "--map-root-user", "sh", "-c", script]).arg(hosts).arg(BINARY);
                command
            }
        };
        command.arg(name).args(&self.arguments);
        let said = |name: &str| self.arguments.iter().any(|argument| argument == name);
        for (name, value) in DEFAULTS {
            if !said(name) {
                command.args([name, value]);
            }
        }
        if let Some(text) = &self.config {
            let path = directory.join("leasehold.toml");
            std::fs::write(&path, text).unwrap();
            command.arg("--config").arg(path);
        }
        // Nothing of the shell that the tests run in is for leasehold.
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", directory)
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(directory)
            .stdin(Stdio::null());
        command
    }
}

/// A command under way.
pub(crate) struct Running(Child);

impl Running {
    /// `INT` or `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let signal = if name == "INT" { rustix::process::Signal::INT } else { rustix::process::Signal::TERM };
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn output(self) -> Output {
        tokio::task::spawn_blocking(move || self.0.wait_with_output()).await.unwrap().unwrap()
    }
}

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
        self.http.send(method, &format!("http://{}{path}", self.addrs["admin"][0]), None, None).await.unwrap()
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
    pub(crate) fn suspend(&self) {
        self.signal(rustix::process::Signal::STOP);
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

/// A log in JSON lines.
pub(crate) struct Log(pub(crate) String);

impl Log {
    /// Its lines, those that are not JSON left out.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.0.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines with this message.
    pub(crate) fn messages(&self, message: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| field(line, "message") == message);
        lines
    }

    /// The messages at this level, such as `ERROR`.
    pub(crate) fn at(&self, level: &str) -> Vec<String> {
        let lines = self.lines().into_iter();
        lines.filter(|line| field(line, "level") == level).map(|line| field(&line, "message")).collect()
    }

    /// The addresses that a listener was bound to.
    pub(crate) fn listening(&self, listener: &str) -> Vec<String> {
        let lines = self.messages("listening").into_iter();
        lines.filter(|line| field(line, "listener") == listener).map(|line| field(&line, "addr")).collect()
    }
}

/// A field of a log line as text, whether fields stand at the top or under `fields`; empty where it is missing.
pub(crate) fn field(line: &Value, name: &str) -> String {
    let value = line.get("fields").and_then(|fields| fields.get(name)).or_else(|| line.get(name));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// `/metrics`, parsed.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<Series>);

#[derive(Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Parses the Prometheus text format; label values here hold no quotes or commas.
    fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
                let (key, value) = label.split_once('=')?;
                Some((key.to_owned(), value.trim_matches('"').to_owned()))
            });
            Some(Series { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
        });
        Self(series.collect())
    }

    /// The sum of the series with this name (without its `leasehold_`) and all these labels; 0 where there is none.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |series: &Series, (key, value): &(&str, &str)| {
            series.labels.iter().any(|label| label.0 == *key && label.1 == *value)
        };
        self.0
            .iter()
            .filter(|series| series.name.strip_prefix("leasehold_") == Some(name))
            .filter(|series| labels.iter().all(|label| has(series, label)))
            .map(|series| series.value)
            .sum()
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_leasehold");

const DEFAULTS: [(&str, &str); 5] = [
    ("--listen", "127.0.0.1:0"),
    ("--http", "127.0.0.1:0"),
    ("--admin", "127.0.0.1:0"),
    ("--log-format", "json"),
    ("--log-level", "debug"),
];
