//! The audit trail: who was connected, as whom, from when to when.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Backends, SOON, Spec, bench, connect, eventually, same};

/// The lines of the file, each a JSON object.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the file has so many lines.
async fn until_lines(path: &Path, count: usize) -> Vec<Value> {
    eventually(SOON, async || same(lines(path).len(), count)).await;
    lines(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_leaves_its_begin_and_its_end_with_all_that_tells_whose_it_was() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let file = bench().directory().await.join("audit");
    let mut leasehold = backends
        .leasehold()
        .flag("--log-level", "info")
        .flag("--audit-file", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    let (role, pid) = (session.user().await, session.value("SELECT pg_backend_pid()").await);
    session.close().await;
    let [opened, closed] = &until_lines(&file, 2).await[..] else { panic!("two lines") };

    let generation = &leasehold.generations().await[0];
    for line in [opened, closed] {
        assert_eq!(line["db.user"], role);
        assert_eq!(line["upstream.pid"].to_string(), pid);
        assert_eq!((&line["user"], &line["database"]), (&"app".into(), &db.name().into()));
        assert_eq!((&line["route"], &line["lease.generation"]), (&"app".into(), &1.into()));
        assert_eq!(line["lease.id"], generation["lease_id"]);
        assert_eq!(line["upstream.addr"], db.server.addr());
        assert!(line["client.addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["client.uid"].is_null() && line["client.pid"].is_null(), "{line}");
        assert!(line["timestamp"].is_string() && line["application_name"].is_string(), "{line}");
    }
    assert_eq!(
        (&opened["message"], &closed["message"]),
        (&"session opened".into(), &"session closed".into())
    );
    assert_eq!((&closed["cause"], &opened["session.id"]), (&"client".into(), &closed["session.id"]));
    assert!(closed["bytes_to_client"].as_u64().unwrap() > 0 && closed["duration_s"].as_f64().unwrap() > 0.0);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(leasehold.log().messages("session opened").len(), 0, "at info they are in the file alone");

    // It is moved away, as logrotate does.
    let moved = file.with_extension("1");
    std::fs::rename(&file, &moved).unwrap();
    assert_eq!(leasehold.admin(Method::POST, "/reload").await.status, 200);
    let rotated = leasehold.connect("app", db.name()).await;
    until_lines(&file, 1).await;
    assert_eq!(lines(&moved).len(), 2);
    leasehold.stop().await;
    assert_eq!(rotated.ended().await.as_deref(), Some("57P01"));
    assert_eq!(until_lines(&file, 2).await[1]["cause"], "shutdown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_a_unix_socket_leaves_its_user_and_process_instead_of_an_address() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let directory = bench().directory().await;
    let file = directory.join("audit");
    let listen = format!("127.0.0.1:0,{}", directory.to_str().unwrap());
    let leasehold = backends
        .leasehold()
        .flag("--listen", &listen)
        .flag("--audit-file", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;
    let mut config = tokio_postgres::Config::new();
    config.host_path(&directory).port(6432).user("app").dbname(db.name());

    let session = connect(&config).await.unwrap();
    let role = session.user().await;
    session.close().await;

    let lines = until_lines(&file, 2).await;
    let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
    assert_eq!(messages, ["session opened", "session closed"]);
    for line in &lines {
        assert_eq!(line["client.uid"], rustix::process::getuid().as_raw(), "{line}");
        assert_eq!(line["client.pid"], std::process::id(), "{line}");
        assert_eq!(
            (&line["client.addr"], &line["db.user"]),
            (&"unix".into(), &role.as_str().into()),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_file_that_cannot_be_opened_again_loses_no_line_and_is_tried_again() {
    let backends = Backends::new(Spec::new("app")).await;
    let file = bench().directory().await.join("audit");
    let leasehold = backends.leasehold().flag("--audit-file", file.to_str().unwrap()).start().await;
    leasehold.wait_ready().await;
    let session = async || {
        let session = leasehold.connect("app", backends.db.name()).await;
        session.close().await;
    };
    let moved = file.with_extension("1");
    std::fs::rename(&file, &moved).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(leasehold.admin(Method::POST, "/reload").await.status, 200);

    session().await;
    session().await;
    until_lines(&moved, 4).await;
    leasehold.wait_log("audit_file cannot be opened again").await;
    let failed = leasehold.log().messages("audit_file cannot be opened again").len();
    assert_eq!(failed, 1, "it is said once");

    std::fs::remove_dir(&file).unwrap();
    session().await;
    until_lines(&file, 2).await;
    assert_eq!(lines(&moved).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_file_that_cannot_be_written_ends_the_start() {
    let backends = Backends::new(Spec::new("app")).await;
    let nowhere = bench().directory().await.join("missing").join("audit");
    let described = backends.leasehold();
    let described = described.flag("--audit-file", nowhere.to_str().unwrap());
    let (status, log) = described.run_to_end().await;
    assert_eq!(status.code(), Some(78), "{}", log.0);
    let directory = nowhere.parent().unwrap().display();
    let no_directory =
        format!("there is no directory {directory}; make it, for the user that leasehold runs as");
    assert!(log.0.contains("--audit-file") && log.0.contains(&no_directory), "{}", log.0);
    let checked = backends.leasehold().flag("--audit-file", nowhere.to_str().unwrap()).switch("--offline");
    let checked = String::from_utf8(checked.command("check").await.stdout).unwrap();
    assert!(checked.contains("audit_file") && checked.contains("make it, for the user"), "{checked}");
}
