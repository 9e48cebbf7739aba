//! `leasehold check`: what it shows, and that it leaves nothing behind. `check::vault` and `check::route` have a real
//! cause for each finding.

mod route;
mod vault;

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Backends, Builder, Fault, Mode, SOON, Spec, Storage, bench, eventually, leasehold, same,
};

/// What a check said.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) exit: Option<i32>,
    findings: Vec<Value>,
    pub(crate) text: String,
}

impl Report {
    /// Runs `check --json`.
    pub(crate) async fn of(builder: Builder) -> Self {
        let Output { status, stdout, stderr } = builder.switch("--json").command("check").await;
        let text = String::from_utf8(stdout).unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(stderr, "", "nothing but the report");
        let findings = serde_json::from_str(&text).unwrap();
        Self { exit: status.code(), findings, text }
    }

    /// The findings of a check that are not `ok`.
    fn bad(&self, check: &str) -> Vec<&Value> {
        self.findings.iter().filter(|f| f["check"] == check && f["outcome"] != "ok").collect()
    }

    /// One of a check's findings has this outcome, and these words in its detail and in its remedy.
    #[track_caller]
    pub(crate) fn says(&self, check: &str, outcome: &str, detail: &str, remedy: &str) {
        let has = |finding: &&Value, key: &str, words: &str| finding[key].as_str().unwrap().contains(words);
        let found = self
            .bad(check)
            .into_iter()
            .any(|f| f["outcome"] == outcome && has(&f, "detail", detail) && has(&f, "remedy", remedy));
        assert!(found, "no {outcome} of {check} with {detail:?} and {remedy:?} in {:#?}", self.findings);
        assert_eq!(self.exit, Some(if self.errors().is_empty() { 0 } else { 1 }));
    }

    /// The checks that are errors.
    pub(crate) fn errors(&self) -> Vec<&str> {
        self.with("error")
    }

    /// The checks with this outcome.
    pub(crate) fn with(&self, outcome: &str) -> Vec<&str> {
        let found = self.findings.iter().filter(|f| f["outcome"] == outcome);
        found.map(|f| f["check"].as_str().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_where_all_is_well_and_nothing_is_left_and_no_secret_is_shown() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let wire = vault.forwarder().await;
    let builder = backends
        .leasehold_through(&wire)
        .flag("--probe-database", db.name())
        .flag("--probe-sql", "SELECT 1")
        .flag("--set-role", &db.owner());

    let report = Report::of(builder.clone()).await;

    assert_eq!(report.exit, Some(0), "{report:#?}");
    let well = [
        "config",
        "vault",
        "clock",
        "login",
        "capability",
        "issue",
        "server",
        "clock",
        "set_role",
        "probe_sql",
        "renew",
        "revoke",
    ];
    assert_eq!(report.with("ok"), well, "{report:#?}");
    assert!(report.with("warning").is_empty(), "{report:#?}");
    // It does not change what it asks about.
    let asked =
        wire.recordings().into_iter().map(|recording| recording.to_server).collect::<Vec<_>>().concat();
    let asked = String::from_utf8_lossy(&asked);
    assert!(asked.contains("sys/leases/renew") && !asked.contains("increment"), "{asked}");
    assert!(vault.leases(&setup.path).await.is_empty());
    assert!(db.roles().await.is_empty());
    eventually(SOON, async || same(db.backends().await, [])).await;

    let table = builder.command("check").await;
    assert_eq!(table.status.code(), Some(0));
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.starts_with("CHECK       ROUTE  OUTCOME  FINDING\n"), "{table}");
    assert!(table.ends_with("\nerrors: 0, warnings: 0\n"), "{table}");
    let secrets = wire.secrets();
    assert!(secrets.len() >= 3, "a token, a password and a secret_id passed");
    for secret in secrets {
        assert!(!report.text.contains(&secret) && !table.contains(&secret), "{secret} was shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_nothing_is_asked_and_no_token_is_needed() {
    let nowhere = leasehold()
        .vault_addr("https://vault.invalid:8200")
        .path("database/creds/app")
        .upstream_uri("postgresql://db.invalid/?sslmode=disable")
        .switch("--offline");
    let report = Report::of(nowhere.clone()).await;
    assert_eq!((report.exit, report.with("ok")), (Some(0), vec!["config"]), "{report:#?}");

    let report = Report::of(nowhere.clone().flag("--rotate-after", "5s").flag("--drain", "6s")).await;
    report.says("ttl", "warning", "rotate_after is 5s", "hours");
    report.says("ttl", "warning", "drain 6s is not shorter", "small part");
    let report = Report::of(nowhere.clone().env("VAULT_SKIP_VERIFY", "true")).await;
    report.says("config", "warning", "not verified", "CA");
    let report = Report::of(nowhere.clone().flag("--state-file", "/proc/state")).await;
    report.says("state_file", "error", "is not in memory", "tmpfs");
    let report = Report::of(nowhere.clone().flag("--state-file", "/dev/shm/state")).await;
    assert_eq!((report.exit, report.with("ok")), (Some(0), vec!["config", "state_file"]), "{report:#?}");

    let report = Report::of(nowhere.clone()).await;
    report.says(
        "tls",
        "warning",
        "sslmode=disable lets sessions with db.invalid go without TLS",
        "--upstream",
    );
    let anywhere =
        leasehold().vault_addr("https://vault.invalid:8200").path("database/creds/app").switch("--offline");
    let at = |uri: &str| Report::of(anywhere.clone().upstream_uri(uri));
    let report = at("postgresql://db.invalid/?sslmode=require").await;
    report.says("tls", "warning", "sslmode=require does not ask who db.invalid is", "sslmode=verify-full");
    for uri in ["postgresql://localhost,[::1],127.0.0.2/?sslmode=disable", "postgresql://db.invalid/"] {
        assert!(at(uri).await.with("warning").is_empty(), "{uri}");
    }

    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    // Only on the machine that it runs on.
    let report = Report::of(nowhere.clone().flag("--listen", &taken)).await;
    assert_eq!(report.exit, Some(0), "{report:#?}");
    let here = leasehold()
        .vault_addr("http://127.0.0.1:1")
        .env("VAULT_TOKEN", "of-nobody")
        .path("database/creds/app")
        .upstream_uri("postgresql://127.0.0.1:1/?sslmode=disable");
    for flag in ["--listen", "--http", "--admin"] {
        let report = Report::of(here.clone().flag(flag, &taken)).await;
        report.says(
            "listen",
            "error",
            &format!("{taken} is taken by "),
            &format!("name another address by {flag}"),
        );
        assert_eq!(report.bad("listen").len(), 1, "{report:#?}");
    }
    let report = Report::of(here.clone().flag("--listen", "/nonexistent/directory")).await;
    report.says("listen", "error", "there is no directory /nonexistent/directory", "--listen");
    let public = nowhere.clone().flag("--listen", "0.0.0.0:0").switch("--listen-public");
    let report = Report::of(public.flag("--allow-addresses", "10.0.0.0/8")).await;
    report.says("client_tls", "warning", "connect without TLS", "--tls-cert-file");

    let file = bench().directory().await.join("secret");
    let path = file.to_str().unwrap();
    let token_file = ["--vault-auth-method", "token-file", "--vault-auth-token-file"];
    let approle =
        ["--vault-auth-method", "approle", "--vault-auth-role-id", "r", "--vault-auth-secret-id-file"];
    for flags in [&token_file[..], &approle] {
        let with_file =
            flags.iter().chain([&path]).fold(nowhere.clone(), |builder, word| builder.switch(word));
        let name = flags.last().unwrap();
        let missing = Report::of(with_file.clone()).await;
        missing.says(
            "login",
            "error",
            &format!("{name}: cannot use {path}: there is no such file"),
            "put the secret",
        );
        assert_eq!(missing.exit, Some(1), "{missing:#?}");
        std::fs::write(&file, "hvs.secret\n").unwrap();
        let there = Report::of(with_file).await;
        assert_eq!((there.exit, there.with("ok")), (Some(0), vec!["config", "login"]), "{there:#?}");
        std::fs::remove_file(&file).unwrap();
    }
    let wrong = nowhere.clone().flag("--vault-ca-cert", "/nonexistent/ca.pem").command("check").await;
    assert_eq!(wrong.status.code(), Some(78), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_interrupted_gives_everything_back() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let server = Fault::before(&db.server.addr()).await;
    server.set(Mode::Blackhole).await;
    let builder = backends
        .leasehold_at(&format!("postgresql://{}/?sslmode=disable", server.addr()))
        .flag("--limits-connect-timeout", "60s");
    for signal in ["INT", "TERM", "QUIT", "HUP"] {
        let check = builder.clone().start_command("check").await;
        eventually(SOON, async || same(db.roles().await.len(), 1)).await;

        check.signal(signal);

        // Its login at the database hangs still; the lease is not kept waiting for that.
        eventually(SOON, async || same(vault.leases(&setup.path).await, Vec::<String>::new())).await;
        eventually(SOON, async || same(db.roles().await.len(), 0)).await;
        let output = tokio::time::timeout(Duration::from_secs(20), check.output()).await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{signal}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("interrupted"), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_interrupted_twice_says_how_long_its_role_stays() {
    let backends =
        Backends::with_vault(bench().own_vault(Storage::Memory).await, Spec::new("app").ttl("20m", "24h"))
            .await;
    let Backends { db, vault, .. } = &backends;
    let server = Fault::before(&db.server.addr()).await;
    server.set(Mode::HoldToClient).await;
    let check = backends
        .leasehold_at(&format!("postgresql://{}/?sslmode=disable", server.addr()))
        .flag("--limits-connect-timeout", "60s")
        .start_command("check")
        .await;
    // Its login has begun, so it knows of its role.
    let login = || server.recordings().iter().any(|recording| !recording.to_server.is_empty());
    eventually(SOON, async || same(login(), true)).await;
    let role = db.roles().await.pop().expect("the login has a role");
    vault.pause().await;

    check.signal("INT");
    check.signal("HUP");

    let output = tokio::time::timeout(Duration::from_secs(20), check.output()).await.unwrap();
    vault.resume().await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let stays = format!("told twice to stop: {role} stays until its lease ends, in ");
    let rest = said.split_once(&stays).unwrap_or_else(|| panic!("{said}")).1;
    let rest = humantime::parse_duration(rest.split_once(" at most").unwrap().0).unwrap();
    // Not the 24 hours that it could be renewed to.
    assert!((Duration::from_secs(19 * 60)..=Duration::from_secs(20 * 60 + 1)).contains(&rest), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handed_token_leaves_its_lease_unless_it_may_revoke_it() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { vault, setup, .. } = &backends;
    let builder = backends.without_login().path(&setup.path);
    let plain = json!({"policies": [setup.id()], "ttl": "1h"});
    let made = vault.write("auth/token/create-orphan", plain).await;
    let token = made["auth"]["client_token"].as_str().unwrap().to_owned();

    let report = Report::of(builder.env("VAULT_TOKEN", &token)).await;

    assert_eq!(report.exit, Some(0), "{report:#?}");
    report.says("revoke", "warning", "stays until its lease ends", "sys/leases/revoke");
    report.says("capability", "warning", "sys/leases/revoke", "path \"sys/leases/revoke\"");
    report.says("ttl", "warning", "not periodic", "token_period");
    assert_eq!(vault.leases(&setup.path).await.len(), 1);
    assert!(!report.text.contains(&token));
}
