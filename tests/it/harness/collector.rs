//! A collector of traces, and the leasehold that was built to send them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;

use super::pki::Files;
use super::{SOON, eventually};

/// `tests/bench/collector.py`. It ends with this value.
pub(crate) struct Collector {
    process: Child,
    commands: ChildStdin,
    port: u16,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// Begins to listen; by https with a certificate.
    pub(crate) async fn start(tls: Option<&Files>) -> Self {
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/collector.py"));
        if let Some(Files { cert, key }) = tls {
            command.arg("--certificate").arg(cert).arg("--key").arg(key);
        }
        tokio::task::spawn_blocking(move || {
            let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (commands, said) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
            let mut lines = BufReader::new(said).lines().map_while(Result::ok);
            let port = lines.next().expect("a port").parse().unwrap();
            let spans = Arc::<Mutex<Vec<Value>>>::default();
            let heard = Arc::clone(&spans);
            std::thread::spawn(move || {
                for line in lines {
                    heard.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                }
            });
            Self { process, commands, port, spans }
        })
        .await
        .unwrap()
    }

    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it answers with from now on; what is not 200 takes no spans.
    pub(crate) fn answer_with(&mut self, status: u16) {
        writeln!(self.commands, "{status}").unwrap();
    }

    /// It takes what is posted from now on, and says that it has rejected so many of the spans, for this reason.
    pub(crate) fn reject(&mut self, spans: u64, reason: &str) {
        writeln!(self.commands, "200 {spans} {reason}").unwrap();
    }

    /// The spans so far.
    pub(crate) fn spans(&self) -> Vec<Value> {
        self.spans.lock().unwrap().clone()
    }

    /// Those of this name.
    pub(crate) fn named(&self, name: &str) -> Vec<Value> {
        self.spans().into_iter().filter(|span| span["name"] == name).collect()
    }

    /// Waits for a span of this name that fits; an attribute is `span["attributes"]["outcome"]`.
    pub(crate) async fn until(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON * 2, async || {
            let spans = self.named(name);
            spans.iter().find(|span| fits(span)).cloned().ok_or(spans)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The leasehold with the feature `otlp`. It is built where it is not there yet, or older than its sources.
pub(crate) async fn traced() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    tokio::task::spawn_blocking(|| BUILT.get_or_init(build).clone()).await.unwrap()
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Where and how the tests' own leasehold was built.
    let profile = Path::new(super::leasehold::BINARY).parent().unwrap();
    let built = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--features", "otlp", "--example", "traced"])
        .args(profile.ends_with("release").then_some("--release"))
        .arg("--target-dir")
        .arg(profile.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "{built}");
    profile.join("examples").join("traced")
}
