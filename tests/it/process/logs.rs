//! Its log: formats, a reader that has gone, a reader that does not read, how much is said.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{Backends, Fault, Log, Mode, SOON, Spec, bench, eventually, field, leasehold, same};
use crate::process::{BINARY, OnSockets};

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_text_for_people_or_one_json_object_each() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app")).await;
    for format in ["text", "json"] {
        let path = bench().directory().await.join("log");
        let stderr = Stdio::from(File::create(&path).unwrap());
        let flags = ["--log-format", format, "--log-level", "debug"];
        let mut running = OnSockets::start(&db, &vault, &setup, stderr, &flags).await;
        running.connect("app", db.name()).await.close().await;
        assert!(running.command(&["shutdown", "--wait"]).await.status.success());
        assert_eq!(running.wait_exit().await.code(), Some(0));

        let log = std::fs::read_to_string(&path).unwrap();
        assert!(log.lines().count() >= 8, "{log}");
        assert!(log.lines().last().unwrap().contains("stopped"), "the last word is written: {log}");
        assert!(!log.contains('\u{1b}'), "a file has no use for colours: {log}");
        for line in log.lines() {
            let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line);
            assert_eq!(object.is_ok(), format == "json", "{line}");
            if let Ok(object) = object {
                for key in ["timestamp", "level", "message", "target"] {
                    assert!(object[key].is_string(), "{line}");
                }
                // A lease's line has its route where a session's has it.
                assert!(!object.contains_key("span") && !object.contains_key("spans"), "{line}");
                let message = object["message"].as_str().unwrap();
                if ["issued", "published", "revoked", "session opened", "session closed"].contains(&message) {
                    assert_eq!(object["route"], "app", "{line}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_warnings_names_their_route() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app").ttl("9s", "1h")).await;
    let path = bench().directory().await.join("log");
    let stderr = Stdio::from(File::create(&path).unwrap());
    let flags = ["--log-format", "json", "--log-level", "warn"];
    let running = OnSockets::start(&db, &vault, &setup, stderr, &flags).await;
    let line = eventually(SOON, async || {
        let lines = Log(std::fs::read_to_string(&path).unwrap());
        lines.messages("a lease under 10 s leaves little between renewals").pop().ok_or("no warning yet")
    })
    .await;
    drop(running);
    assert_eq!(line["route"], "app", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_thread_the_reason_and_the_log_reach_stderr_all_the_same() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    for (listen, reason) in [
        ("127.0.0.1:0", "leasehold: the log's thread cannot be started"),
        // What is wrong with the settings goes first.
        (taken.as_str(), "leasehold: cannot listen on "),
    ] {
        let without_threads = leasehold()
            .upstream_uri("postgresql://127.0.0.1:1/?sslmode=disable")
            .vault_addr("http://127.0.0.1:1")
            .path("database/creds/app")
            .env("VAULT_TOKEN", "none")
            .flag("--listen", listen)
            // No machine has so much memory for the stack of a thread.
            .env("RUST_MIN_STACK", &(1_u64 << 60).to_string());
        let (status, log) = without_threads.run_to_end().await;
        assert_eq!(status.code(), Some(71), "{}", log.0);
        assert!(log.0.contains(reason), "{}", log.0);
        assert_eq!(
            log.messages("the process is restricted").len(),
            usize::from(listen != taken),
            "{}",
            log.0
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_says_what_is_served_and_then_where_to_connect() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, setup, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let ready = format!("ready: postgresql://app@localhost:{}/<database>", leasehold.addr().port());
    eventually(SOON, async || same(leasehold.log().messages(&ready).len(), 1)).await;
    let log = leasehold.log();
    let route = log.messages("serves a route").remove(0);
    assert_eq!((&route["user"], &route["database"]), (&"*".into(), &"*".into()), "{route}");
    assert_eq!(route["vault.path"], setup.path.as_str(), "{route}");
    assert_eq!(route["upstream"], db.server.addr().to_string(), "{route}");
    let login = log.messages("logs in to Vault").remove(0);
    assert_eq!((&login["auth.method"], &login["auth.mount"]), (&"approle".into(), &"approle".into()));
    assert!(!login.to_string().contains(&setup.role_id()), "{login}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_a_leases_life_names_its_generation_and_its_role() {
    let backends = Backends::new(Spec::new("app").ttl("20s", "1h").policy(Spec::MAY_REVOKE)).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    let role = session.user().await;
    leasehold.until_metric(SOON * 3, "renewals_total", &[("outcome", "ok")], 1.0).await;
    assert!(leasehold.command(&["rotate", "--drain=0s"]).await.status.success());
    assert_eq!(session.ended().await.as_deref(), Some("57P01"));
    leasehold.until_metric(SOON, "revocations_total", &[("outcome", "lease")], 1.0).await;

    for message in ["issued", "published", "renewed", "ends: its sessions are closed", "revoked"] {
        eventually(SOON, async || {
            let lines = leasehold.log().messages(message);
            let of_first = lines.iter().find(|line| line["lease.generation"] == 1);
            same(of_first.map(|line| field(line, "db.user")), Some(role.clone())).map_err(|e| (message, e))
        })
        .await;
    }
    let lines = leasehold.log().lines();
    let of_leases = lines.iter().filter(|line| !line["lease.generation"].is_null());
    let nameless: Vec<_> = of_leases.filter(|line| field(line, "db.user").is_empty()).collect();
    assert!(nameless.is_empty(), "{nameless:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_says_to_people_what_the_policy_does_not_allow() {
    let without = Spec::new("app").policy("path \"sys/leases/renew\" { capabilities = [\"deny\"] }");
    let backends = Backends::new(without).await;
    let leasehold = backends.leasehold().flag("--log-format", "text").spawn().await;
    eventually(SOON, async || {
        let log = leasehold.log().0;
        let said = log.lines().filter(|line| line.contains("the policy does not allow it"));
        let paths: Vec<_> = said.filter_map(|line| line.split("vault.path=").nth(1)).collect();
        same(paths.iter().filter(|line| line.starts_with("sys/leases/renew capability=update")).count(), 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_takes_holds_nobody_up_and_its_dropped_lines_are_counted() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app")).await;

    // Whoever read it has gone: every line is lost, at once.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut closed = OnSockets::start(&db, &vault, &setup, writer.into(), &[]).await;
    assert_eq!(closed.connect("app", db.name()).await.value("SELECT 1").await, "1");
    eventually(SOON, async || same(closed.metric("leasehold_log_lines_dropped_total").await >= 3.0, true))
        .await;
    assert!(closed.command(&["shutdown", "--wait"]).await.status.success());
    assert_eq!(closed.wait_exit().await.code(), Some(0));

    // It is there and does not read: the pipe fills, then the queue of 1 MiB, and then lines are lost.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let flags = ["--log-level", "trace", "--log-format", "json"];
    let mut stuck = OnSockets::start(&db, &vault, &setup, writer.into(), &flags).await;
    let before = stuck.connect("app", db.name()).await;
    let socket = stuck.client_socket();
    for _ in 0..10 {
        let mut logins = JoinSet::new();
        for _ in 0..8 {
            let socket = socket.clone();
            logins.spawn(async move {
                for _ in 0..400 {
                    // A line each, and nothing upstream.
                    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut stream, b"\0\0\0\x08\0\0\0\0").await.unwrap();
                    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
                }
            });
        }
        logins.join_all().await;
        if stuck.metric("leasehold_log_lines_dropped_total").await > 0.0 {
            break;
        }
    }
    assert!(stuck.metric("leasehold_log_lines_dropped_total").await > 0.0);
    assert_eq!(before.value("SELECT 1").await, "1", "an old session goes on");
    assert_eq!(stuck.connect("app", db.name()).await.value("SELECT 2").await, "2", "a new one gets in");
    assert!(stuck.command(&["rotate"]).await.status.success());
    assert!(stuck.command(&["shutdown"]).await.status.success());
    assert_eq!(stuck.wait_exit().await.code(), Some(0), "nor does it hold up the end");
    let mut log = Vec::new();
    reader.read_to_end(&mut log).unwrap();
    assert!(!log.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_fail_by_the_hundred_are_a_few_lines_with_a_count() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let away = Fault::before(&db.server.addr()).await;
    let leasehold = backends
        .leasehold_at(&format!("postgresql://{}/?sslmode=disable", away.addr()))
        .flag("--log-level", "info")
        .start()
        .await;
    leasehold.wait_ready().await;
    away.set(Mode::Refuse).await;

    for _ in 0..300 {
        let error = leasehold.try_connect("app", db.name()).await.err().unwrap();
        assert_eq!(error.code().unwrap().code(), "08001");
    }

    let failures = leasehold.metrics().await.get("login_failures_total", &[("reason", "unreachable")]);
    assert_eq!(failures, 300.0, "each is counted");
    let logged = |field: &str| {
        let lines = leasehold.log().messages("login failed");
        lines.iter().map(|line| crate::harness::field(line, field).parse::<u64>().unwrap_or(0)).sum::<u64>()
    };
    let lines = leasehold.log().messages("login failed").len();
    assert!((1..100).contains(&lines), "{lines} lines for 300 failures");
    // The ones that were held back are told with the next line.
    let left_out = logged("left_out");
    assert!(usize::try_from(left_out).unwrap() + lines <= 300, "{left_out} beside {lines}");
    eventually(SOON, async || {
        drop(leasehold.try_connect("app", db.name()).await);
        let lines = leasehold.log().messages("login failed").len();
        same(usize::try_from(logged("left_out")).unwrap() + lines >= 300, true)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_that_fail_for_the_same_reason_are_one_line_until_one_succeeds() {
    let backends = Backends::new(Spec::new("app")).await;
    let policy = format!("sys/policies/acl/{}", backends.setup.id());
    let right = backends.vault.read(&policy).await["data"]["policy"].clone();
    let wrong = json!({"policy": "path \"elsewhere\" { capabilities = [\"read\"] }"});
    backends.vault.write(&policy, wrong.clone()).await;
    let leasehold = backends.leasehold().start().await;
    let fails = async || {
        let rotated = leasehold.command(&["rotate"]).await;
        assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    };
    let lines = |level: &str, message: &str, reason: &str| {
        let lines = leasehold.log().messages(message).into_iter();
        lines.filter(|line| field(line, "level") == level && field(line, "reason") == reason).count()
    };
    let lacking = format!("403 on {}: the policy lacks read", backends.setup.path);

    for _ in 0..10 {
        fails().await;
    }

    let tries = leasehold.metrics().await.get("issuances_total", &[("outcome", "refused")]);
    assert!(tries >= 10.0, "{tries} tries");
    assert_eq!(lines("WARN", "could not issue", &lacking), 1);
    assert!(lines("DEBUG", "could not issue", &lacking) >= 9);
    for (reason, times) in [("first", 1), ("command", 0)] {
        let said = lines("INFO", "a fresh credential is needed", reason);
        assert!((times..=1).contains(&said), "{reason}: {said} lines");
    }

    backends.vault.write(&policy, json!({"policy": right})).await;
    leasehold.rotate().await;
    backends.vault.write(&policy, wrong).await;
    fails().await;
    assert_eq!(lines("WARN", "could not issue", &lacking), 2, "it had worked in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stderr_that_is_full_does_not_hold_up_a_failing_start() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap().to_string();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    // What a pipe holds.
    writer.write_all(&[b'.'; 64 * 1024]).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--upstream=postgresql://db/", "--vault-path=database/creds/app", "--admin=off"]);
    command
        .args(["--listen=127.0.0.1:0", "--http", &addr])
        .env_clear()
        .env("VAULT_TOKEN", "t")
        .stderr(writer);
    let mut child = command.spawn().unwrap();
    let ended = eventually(SOON, async || child.try_wait().unwrap().ok_or("it runs")).await;
    assert_eq!(ended.code(), Some(71));
}
