//! No secret comes out. One story touches everything that holds one, at TRACE; then all that came out is searched.

mod files;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use tokio_postgres::NoTls;

use crate::harness::{
    Builder, Collector, Database, Fault, Forwarded, Leasehold, Memory, Mode, Raw, SOON, Spec, connect,
    eventually, same, traced,
};

/// All secrets that passed, by what they are, and all that was said where they must not be.
#[derive(Default)]
struct Search {
    secrets: BTreeMap<String, &'static str>,
    said: Vec<(String, String)>,
}

impl Search {
    /// Short ones would be found by chance.
    fn secret(&mut self, kind: &'static str, text: String) {
        assert!(text.len() >= 8, "{kind} is too short to search for");
        self.secrets.insert(text, kind);
    }

    fn said(&mut self, place: &str, text: impl Into<String>) {
        self.said.push((place.to_owned(), text.into()));
    }

    fn count(&self, kind: &str) -> usize {
        self.secrets.values().filter(|of| **of == kind).count()
    }

    /// What was found, and where.
    fn found(&self) -> Vec<String> {
        let in_all = |(secret, kind): (&String, &&'static str)| {
            let hits = self.said.iter().filter(|(_, text)| text.contains(secret.as_str()));
            hits.map(|(place, _)| format!("{kind} in {place}")).collect::<Vec<_>>()
        };
        self.secrets.iter().flat_map(in_all).collect()
    }

    /// What Vault's traffic held.
    fn take_vault(&mut self, fault: &Fault, db: &Database) {
        for secret in fault.secrets() {
            let kind =
                if secret.starts_with("s.") || secret.starts_with("hvs.") { "token" } else { "password" };
            if secret != db.vault_user().1 {
                self.secret(kind, secret);
            }
        }
    }

    /// SCRAM's proofs and nonces, and the cancel keys, as PostgreSQL's traffic held them.
    fn take_postgres(&mut self, fault: &Fault) {
        for recording in fault.recordings() {
            for (bytes, before, kind) in [
                (&recording.to_server, &b",p="[..], "proof"),
                (&recording.to_client, b"v=", "server signature"),
            ] {
                for at in positions(bytes, before) {
                    // 32 bytes in base64.
                    let text = bytes.get(at..at + 44).unwrap_or_default();
                    if let Ok(text) = str::from_utf8(text)
                        && STANDARD.decode(text).is_ok()
                    {
                        self.secret(kind, text.to_owned());
                    }
                }
            }
            // BackendKeyData of protocol 3.0: a length of 12, a process id, four bytes of key.
            for at in positions(&recording.to_client, b"K\0\0\0\x0c") {
                let key: [u8; 4] = recording.to_client[at + 4..at + 8].try_into().unwrap();
                let words = [
                    i32::from_be_bytes(key).unsigned_abs().to_string(),
                    u32::from_be_bytes(key).to_string(),
                    format!("{:08x}", u32::from_be_bytes(key)),
                    format!("{key:?}"),
                    format!("{:?}", key.map(u32::from)),
                ];
                for word in words.into_iter().filter(|word| word.len() >= 8) {
                    self.secret("cancel key", word);
                }
            }
        }
    }
}

fn positions(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(needle.len()).enumerate();
    windows.filter(|(_, window)| *window == needle).map(|(at, _)| at + needle.len()).collect()
}

/// The parts of the story.
struct Stage {
    backends: Forwarded,
    to_postgres: Fault,
    search: Search,
}

impl Deref for Stage {
    type Target = Forwarded;

    fn deref(&self) -> &Forwarded {
        &self.backends
    }
}

impl Stage {
    async fn command(&mut self, leasehold: &Leasehold, arguments: &[&str]) {
        let output = leasehold.command(arguments).await;
        let place = format!("the output of {arguments:?}");
        self.search.said(&place, String::from_utf8_lossy(&output.stdout));
        self.search.said(&place, String::from_utf8_lossy(&output.stderr));
    }

    async fn pages(&mut self, leasehold: &Leasehold) {
        for path in
            ["/metrics", "/status", "/sessions", "/history", "/", "/readyz", "/startup", "/livez", "/nothing"]
        {
            let reply = leasehold.admin(Method::GET, path).await;
            self.search.said(path, reply.text);
        }
    }

    /// What the console shows.
    async fn console(&mut self, leasehold: &Leasehold) {
        let mut config = tokio_postgres::Config::new();
        let addr = leasehold.addr();
        config.host(addr.ip().to_string()).port(addr.port()).user("me").dbname("leasehold");
        let console = connect(&config).await.unwrap();
        for view in ["routes", "credentials", "sessions", "stats", "vault", "config", "version", "help"] {
            let rows = console.client.simple_query(&format!("SHOW {view}")).await.unwrap();
            self.search.said(&format!("SHOW {view}"), format!("{rows:?}"));
        }
    }

    /// A login by hand: everything that is not its own data is kept.
    async fn login_by_hand(&mut self, leasehold: &Leasehold, user: &str, database: &str) -> Raw {
        let (raw, frames) = Raw::login(leasehold.addr(), user, database).await;
        for frame in &frames {
            // The key is the client's to have.
            if frame.tag != 'K' {
                self.search.said(&format!("the {} of a login", frame.tag), lossy(&frame.body));
            }
        }
        raw
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_metric_status_error_or_client_message_of_a_whole_story() {
    let backends = Forwarded::new(Spec::new("app").ttl("24s", "1h")).await;
    let to_postgres = Fault::before(&backends.db.server.addr()).await;
    let memory = Memory::new();
    let collector = Collector::start(None).await;
    let described = backends
        .leasehold_at(&format!("postgresql://{}/?sslmode=disable", to_postgres.addr()))
        .flag("--log-level", "trace")
        .flag("--console", "all")
        .flag("--limits-replica-grace", "1s")
        .flag("--limits-login-wait", "1s")
        .flag("--state-file", memory.file().to_str().unwrap())
        .flag("--audit-file", memory.file().with_extension("audit").to_str().unwrap())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.addr()))
        .env("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer%20{COLLECTORS}"))
        // With this build there is one output more.
        .binary(traced().await);
    let leasehold = described.clone().start().await;
    let mut stage = Stage { backends, to_postgres, search: Search::default() };
    leasehold.wait_ready().await;

    sessions(&mut stage, &leasehold).await;
    leases(&mut stage, &leasehold).await;
    failures(&mut stage, &leasehold).await;
    let (mut leasehold, saved) = crashes(&mut stage, leasehold, &described, &memory).await;
    let open = leasehold.connect("app", stage.db.name()).await;
    let mut ended = stage.login_by_hand(&leasehold, "app", stage.db.name().to_owned().as_str()).await;
    stage.pages(&leasehold).await;
    stage.console(&leasehold).await;
    stage.command(&leasehold, &["status"]).await;
    stage.command(&leasehold, &["status", "--json"]).await;
    stage.command(&leasehold, &["sessions"]).await;
    stage.command(&leasehold, &["shutdown", "--wait"]).await;
    assert_eq!(open.ended().await.as_deref(), Some("57P01"));
    for frame in ended.until("").await {
        stage.search.said("the end of a session", lossy(&frame.body));
    }
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));

    let Stage { backends, to_postgres, mut search } = stage;
    search.take_vault(&backends.fault, &backends.db);
    search.take_postgres(&to_postgres);
    let stdout = std::fs::read_to_string(leasehold.directory().join("stdout")).unwrap();
    search.said("stdout", stdout);
    let audit = std::fs::read_to_string(memory.file().with_extension("audit")).unwrap();
    assert!(audit.contains("session closed"), "{audit}");
    search.said("the audit trail", audit);
    search.secret("key of the collector", COLLECTORS.to_owned());
    let spans = collector.spans();
    assert!(spans.len() > 20 && spans.iter().any(|span| span["error"] != ""), "{spans:?}");
    for span in spans {
        // Ids and times are long numbers, in which short secrets would be found by chance.
        let said = ["name", "attributes", "error", "resource"].map(|part| span[part].to_string());
        search.said("a span", said.join(" "));
    }
    let log = leasehold.log();
    let levels: BTreeSet<_> = log.lines().iter().map(|line| line["level"].to_string()).collect();
    for line in log.0.lines() {
        search.said("the log", line);
    }
    // The state file is the one place where they may be, and are.
    for kind in ["token", "password"] {
        let is_saved = search.secrets.iter().any(|(secret, of)| *of == kind && saved.contains(secret));
        assert!(is_saved, "no {kind} in the state file");
    }
    // The story is worth what it touches: four logins and creds and more of each, at every level but ERROR.
    for (kind, least) in
        [("token", 4), ("password", 5), ("proof", 6), ("server signature", 6), ("cancel key", 12)]
    {
        assert!(search.count(kind) >= least, "{} of {kind}", search.count(kind));
    }
    for level in ["\"WARN\"", "\"INFO\"", "\"DEBUG\""] {
        assert!(levels.contains(level), "{levels:?}");
    }
    assert!(search.said.len() > 80, "{}", search.said.len());
    assert_eq!(search.found(), Vec::<String>::new());

    // And a search that would find nothing anywhere proves nothing: each is found where it is planted.
    let secrets: Vec<_> = search.secrets.keys().cloned().collect();
    for secret in secrets {
        search.said.push(("a planted line".to_owned(), format!("{{\"error\":\"said {secret}.\"}}")));
        assert!(search.found().iter().any(|found| found.ends_with("in a planted line")));
        search.said.pop();
    }
}

/// What the collector of traces is shown.
const COLLECTORS: &str = "key-of-the-collector";

/// Queries, a wrong startup, a cancel, rubbish, no route, no database.
async fn sessions(stage: &mut Stage, leasehold: &Leasehold) {
    let name = stage.db.name().to_owned();
    let session = leasehold.connect("app", &name).await;
    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    assert!(session.batch_execute("SELECT no_such_column").await.is_err());
    let cancel = session.cancel_token();
    let sleeping = tokio::spawn(async move { session.batch_execute("SELECT pg_sleep(60)").await });
    eventually(SOON, async || {
        drop(cancel.cancel_query(NoTls).await);
        same(sleeping.is_finished(), true)
    })
    .await;
    let mut raw = stage.login_by_hand(leasehold, "app", &name).await;
    raw.query("SELECT 1").await;
    raw.write(b"\0\xff\xff\xff\xff rubbish in the place of a message").await;
    for frame in raw.until("").await {
        stage.search.said("the answer to rubbish", lossy(&frame.body));
    }
    for (user, database) in [("nobody", "no_such_database"), ("app", "no_such_database")] {
        stage.login_by_hand(leasehold, user, database).await;
    }
    for wrong in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &b"\0\0\0\x09\0\x03\0\0\0"[..], &b"\0\0\0\x08\0\x02\0\0"[..]]
    {
        let mut raw = leasehold.connect_raw().await;
        raw.write(wrong).await;
        for frame in raw.until("").await {
            stage.search.said("the answer to a wrong startup", lossy(&frame.body));
        }
    }
}

/// Renewals, a rotation, a revoked lease, a refused password.
async fn leases(stage: &mut Stage, leasehold: &Leasehold) {
    let name = stage.db.name().to_owned();
    let old = leasehold.connect("app", &name).await;
    stage.command(leasehold, &["rotate"]).await;
    eventually(SOON * 4, async || {
        same(leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]) >= 2.0, true)
    })
    .await;
    stage.vault.revoke_prefix(&stage.setup.path).await;
    drop(leasehold.connect("app", &name).await);
    drop(old.ended().await);
    let roles = stage.db.roles().await;
    let role = roles.last().unwrap();
    stage.db.admin.batch_execute(&format!("ALTER ROLE \"{role}\" PASSWORD 'another'")).await.unwrap();
    drop(eventually(SOON * 2, async || leasehold.try_connect("app", &name).await).await);
    let suspects = leasehold.metrics().await.get("suspect_logins_total", &[]);
    assert!(suspects >= 2.0, "{suspects}");
}

/// Vault errors with bodies, PostgreSQL away, Vault away.
async fn failures(stage: &mut Stage, leasehold: &Leasehold) {
    let name = stage.db.name().to_owned();
    stage.vault.delete(&format!("{}/roles/app", stage.setup.mount())).await;
    stage.command(leasehold, &["rotate"]).await;
    stage.backends.retune("24s", "1h").await;
    let secret_id = std::fs::read_to_string(stage.setup.secret_id_file()).unwrap();
    std::fs::write(stage.setup.secret_id_file(), "00000000-wrong-secret-id-000000000000").unwrap();
    stage.command(leasehold, &["rotate"]).await;
    std::fs::write(stage.setup.secret_id_file(), &secret_id).unwrap();
    for mode in [Mode::Refuse, Mode::CutToClientAfter(20)] {
        stage.fault.set(mode).await;
        stage.fault.cut();
        stage.command(leasehold, &["rotate"]).await;
    }
    stage.fault.set(Mode::Pass).await;
    stage.to_postgres.set(Mode::Refuse).await;
    stage.login_by_hand(leasehold, "app", &name).await;
    stage.to_postgres.set(Mode::Pass).await;
    stage.command(leasehold, &["rotate"]).await;
    drop(eventually(SOON * 2, async || leasehold.try_connect("app", &name).await).await);
}

/// A crash, a start that takes up what is left, another crash, and one that finds half a file. Gives what was in it.
async fn crashes(
    stage: &mut Stage,
    mut leasehold: Leasehold,
    described: &Builder,
    memory: &Memory,
) -> (Leasehold, String) {
    let saved = std::fs::read_to_string(memory.file()).unwrap();
    for half in [false, true] {
        leasehold.kill9();
        if half {
            let text = std::fs::read_to_string(memory.file()).unwrap();
            std::fs::write(memory.file(), &text[..text.len() - 1]).unwrap();
        }
        for line in leasehold.log().0.lines() {
            stage.search.said("the log before a crash", line);
        }
        leasehold = described.clone().start().await;
        leasehold.wait_ready().await;
        drop(leasehold.connect("app", stage.db.name()).await);
        stage.command(&leasehold, &["status", "--json"]).await;
    }
    let second = described.clone().run_to_end().await.1;
    stage.search.said("the log of a second process", second.0);
    (leasehold, saved)
}
