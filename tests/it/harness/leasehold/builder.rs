//! How leasehold is run: its flags, environment, file and limits.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::{BINARY, Leasehold, Log};
use crate::harness::clock::WallClock;
use crate::harness::http::Http;
use crate::harness::postgres::Database;
use crate::harness::vault::{Setup, Vault};
use crate::harness::{SOON, bench, eventually, same};

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
    /// System calls that its kernel does not have.
    missing: Vec<i64>,
    hosts: Option<PathBuf>,
    /// Another build than that of the tests.
    binary: Option<PathBuf>,
}

impl Builder {
    /// Another build of leasehold.
    pub(crate) fn binary(self, binary: PathBuf) -> Self {
        Self { binary: Some(binary), ..self }
    }

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

    pub(crate) fn flags(self, flags: &[(&str, &str)]) -> Self {
        flags.iter().fold(self, |this, (name, value)| this.flag(name, value))
    }

    /// `--require-auth`: the server may let it in without a password, over TCP without TLS too.
    pub(crate) fn trusted(self) -> Self {
        self.flag("--require-auth", "scram-sha-256,none")
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

    /// Its kernel does not have this system call, as far as it can see.
    pub(crate) fn without_system_call(mut self, number: i64) -> Self {
        self.missing.push(number);
        self
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
            child: spawn_without(command, &self.missing),
            log,
            listeners: 1 + usize::from(!off("--http")) + usize::from(!off("--admin")),
            addrs: BTreeMap::new(),
            http: Http::new(None),
            directory,
        }
    }

    /// The command line in its directory; its output goes nowhere yet.
    fn prepare(&self, name: &str, directory: &Path) -> Command {
        let binary = self.binary.as_deref().unwrap_or_else(|| Path::new(BINARY));
        let mut command = match (&self.first[..], &self.hosts) {
            ([], None) => {
                // Who runs the tests may ignore hangups, as under nohup, which a child would inherit.
                let mut command = Command::new("env");
                command.arg("--default-signal=HUP").arg(binary);
                command
            }
            (first, None) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{} && exec \"$0\" \"$@\"", first.join(" && "))]).arg(binary);
                shell
            }
            (_, Some(hosts)) => {
                let mut command = Command::new("unshare");
                let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
                command.args(["--mount", "--map-root-user", "sh", "-c", script]).arg(hosts).arg(binary);
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

/// Starts a process to which these system calls do not exist. A filter is a thread's own and its children's, so it is
/// that of a thread made for this.
fn spawn_without(mut command: Command, missing: &[i64]) -> Child {
    if missing.is_empty() {
        return command.spawn().unwrap();
    }
    let rules = missing.iter().map(|call| (*call, Vec::new())).collect();
    let errno = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    let spawned = std::thread::spawn(move || {
        seccompiler::apply_filter(&program).unwrap();
        command.spawn().unwrap()
    });
    spawned.join().unwrap()
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

const DEFAULTS: [(&str, &str); 5] = [
    ("--listen", "127.0.0.1:0"),
    ("--http", "127.0.0.1:0"),
    ("--admin", "127.0.0.1:0"),
    ("--log-format", "json"),
    ("--log-level", "debug"),
];
