//! A real browser, Debian's Chromium without a window, driven by its DevTools protocol.
//!
//! Source: <https://chromedevtools.github.io/devtools-protocol/>

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{SOON, bench, eventually};

/// One page in a browser of its own. Dropping it kills the browser.
pub(crate) struct Browser {
    process: Child,
    commands: ChildStdin,
    answers: mpsc::Receiver<Value>,
    page: String,
    last_id: u64,
    /// What the page has complained of: exceptions, refused loads, violations of its policy.
    pub(crate) complaints: Vec<String>,
}

/// A browser's first start on a busy machine.
const START: Duration = Duration::from_secs(60);

impl Browser {
    /// With an empty page of this size, in pixels.
    pub(crate) async fn start(width: u32, height: u32) -> Self {
        let program = tokio::task::spawn_blocking(installed).await.unwrap();
        let profile = bench().directory().await;
        // It takes commands from descriptor 3, and answers on 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.join("profile").display()))
            .env("HOME", &profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (commands, said) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (heard, answers) = mpsc::channel(1024);
        std::thread::spawn(move || read(said, &heard));
        let mut browser =
            Self { process, commands, answers, page: String::new(), last_id: 0, complaints: Vec::new() };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"})).await;
        let to = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", to).await;
        browser.page = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({})).await;
        }
        browser.resize(width, height).await;
        browser
    }

    /// Sets the size of the page, in pixels.
    pub(crate) async fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Has the page see what a system with this preference shows it: `light` or `dark`.
    pub(crate) async fn prefer(&mut self, colour_scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": colour_scheme});
        self.ask("Emulation.setEmulatedMedia", json!({"features": [feature]})).await;
    }

    /// Loads this address, as one that was typed.
    pub(crate) async fn go(&mut self, url: &str) {
        let went = self.ask("Page.navigate", json!({"url": url, "transitionType": "typed"})).await;
        assert_eq!(went.get("errorText"), None, "{went}");
    }

    /// The value of an expression in the page.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", asked).await;
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text of the first element that this selects; empty without one.
    pub(crate) async fn text(&mut self, selector: &str) -> String {
        let found = self.eval(&format!("document.querySelector({selector:?})?.textContent ?? ''")).await;
        found.as_str().unwrap().to_owned()
    }

    /// Waits until the text of what this selects has these words.
    #[track_caller]
    pub(crate) fn shows(&mut self, selector: &str, words: &str) -> impl Future<Output = ()> {
        let looks = async |browser: &mut Self| browser.text(selector).await;
        async move {
            eventually(SOON * 3, async || {
                let seen = looks(self).await;
                if seen.contains(words) { Ok(()) } else { Err(seen) }
            })
            .await;
        }
    }

    /// Waits until this expression has this value.
    pub(crate) async fn becomes(&mut self, expression: &str, wanted: &Value) {
        eventually(SOON * 3, async || {
            let seen = self.eval(expression).await;
            if seen == *wanted { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }

    /// Presses a key such as `Tab` or `ArrowRight`.
    pub(crate) async fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", event).await;
        }
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": parameters});
        if !self.page.is_empty() {
            command["sessionId"] = self.page.clone().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let answer = tokio::time::timeout(START, self.answers.recv()).await;
            let answer = answer.unwrap_or_else(|_| panic!("{method}: no answer within {START:?}"));
            let answer = answer.expect("the browser has ended");
            if answer["id"] == self.last_id {
                assert_eq!(answer.get("error"), None, "{method}: {answer}");
                return answer["result"].clone();
            }
            self.hear(&answer);
        }
    }

    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string())
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Each message ends with a zero byte.
fn read(answers: impl Read, heard: &mpsc::Sender<Value>) {
    let mut answers = BufReader::new(answers);
    let mut bytes = Vec::new();
    while answers.read_until(0, &mut bytes).is_ok() && bytes.pop() == Some(0) {
        let message = serde_json::from_slice(&bytes).expect("a message is JSON");
        if heard.blocking_send(message).is_err() {
            return;
        }
        bytes.clear();
    }
}

/// The program, which is installed first where it is missing.
fn installed() -> PathBuf {
    let script = "import install; install.ensure('chromium'); print(install.chromium())";
    let found = Command::new("python3")
        .args(["-c", script])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench"))
        .output()
        .unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    PathBuf::from(String::from_utf8(found.stdout).unwrap().lines().last().unwrap())
}

/// No window, and no word to anybody but the page that is tested.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--force-color-profile=srgb",
];
