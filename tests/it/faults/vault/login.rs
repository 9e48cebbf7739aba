//! Logins that Vault refuses, locks out, or answers with a token of no use; and a secret that cannot be read.

use std::collections::BTreeSet;
use std::time::SystemTime;

use reqwest::Method;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use super::{Forwarded, SOON, Spec, is_told_57p03, said};
use crate::harness::{Leasehold, eventually, field, same};

/// The lines with this message at this level.
fn at(leasehold: &Leasehold, level: &str, message: &str) -> Vec<Value> {
    let mut lines = leasehold.log().messages(message);
    lines.retain(|line| field(line, "level") == level);
    lines
}

#[expect(clippy::disallowed_methods, reason = "compared with the times that /status shows to people")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_id_does_not_lock_its_role_out_and_the_right_one_is_tried_at_once() {
    let backends = Forwarded::new(Spec::new("app")).await;
    let right = std::fs::read_to_string(backends.setup.secret_id_file()).unwrap();
    std::fs::write(backends.setup.secret_id_file(), "not-a-secret-id").unwrap();
    let leasehold = backends.leasehold().flag("--limits-login-wait", "500ms").start().await;

    // Six tries by the clock of the route: at five refusals Vault would lock the role. All but the first of a reason are at `debug`.
    said(&leasehold, SOON * 2, "could not log in", 6).await;
    let warnings = at(&leasehold, "WARN", "could not log in");
    let reasons: BTreeSet<_> = warnings.iter().map(|line| field(line, "reason")).collect();
    assert_eq!(warnings.len(), reasons.len(), "{warnings:#?}");
    assert_eq!(at(&leasehold, "INFO", "a fresh credential is needed").len(), 1);
    let shown = backends.asked("/login");
    assert!((1..=2).contains(&shown), "it was shown {shown} times");
    assert_eq!(leasehold.last_error().await, "log in: refused");
    // Vault's words stay though it is not asked, and the log has them once.
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(field(&warnings[0], "reason").ends_with("/login: invalid role or secret ID"), "{warnings:#?}");
    let status = leasehold.status().await;
    let route = &status["routes"][0];
    let reason = route["last_error"]["reason"].as_str().unwrap();
    assert!(reason.contains("/login: invalid role or secret ID; asked again in "), "{status}");
    let next = humantime::parse_rfc3339(route["next_action_at"].as_str().unwrap()).unwrap();
    let wait = next.duration_since(SystemTime::now()).unwrap_or_default();
    assert!(route["next_action"] == "issue" && wait > SOON, "Vault is asked in a minute: {wait:?}");
    assert_eq!(leasehold.http("/readyz").await.status, 503);
    is_told_57p03(&leasehold, &backends.db).await;
    let rotated = leasehold.command(&["rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    assert!(backends.asked("/login") > shown, "somebody asked for a try");
    let refused = [("operation", "login"), ("outcome", "client_error")];
    assert!(leasehold.metrics().await.get("vault_requests_total", &refused) <= 3.0);

    std::fs::write(backends.setup.secret_id_file(), right).unwrap();

    leasehold.wait_ready().await;
    assert_eq!(leasehold.connect("app", backends.db.name()).await.value("SELECT 40 + 2").await, "42");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_others_have_locked_out_is_back_when_the_lock_ends() {
    let backends = Forwarded::new(Spec::new("app")).await;
    let mount = backends.setup.enable("approle").await;
    let lockout = json!({"user_lockout_config": {"lockout_threshold": "5", "lockout_duration": "6s",
        "lockout_counter_reset_duration": "6s"}});
    backends.vault.write(&format!("sys/auth/{mount}/tune"), lockout).await;
    let role = format!("auth/{mount}/role/app");
    backends.vault.write(&role, json!({"token_policies": [backends.setup.id()], "token_period": "1h"})).await;
    let role_id = backends.vault.read(&format!("{role}/role-id")).await["data"]["role_id"].clone();
    let secret_id = backends.vault.write(&format!("{role}/secret-id"), json!({})).await;
    std::fs::write(backends.setup.secret_id_file(), secret_id["data"]["secret_id"].as_str().unwrap())
        .unwrap();
    let login = format!("auth/{mount}/login");
    for _ in 0..5 {
        let wrong = json!({"role_id": role_id, "secret_id": "not-a-secret-id"});
        assert_eq!(backends.vault.request(Method::POST, &login, "", Some(wrong)).await.status, 400);
    }

    let leasehold = backends
        .without_login()
        .method("approle", &mount, &backends.setup)
        .flag("--vault-auth-role-id", role_id.as_str().unwrap())
        .flag("--vault-auth-secret-id-file", backends.setup.secret_id_file().to_str().unwrap())
        .start()
        .await;

    said(&leasehold, SOON, "could not log in", 1).await;
    assert!(leasehold.log().0.contains("status 403"), "{}", leasehold.log().0);
    eventually(SOON * 3, async || same(leasehold.http("/readyz").await.status, 200)).await;
    let shown = backends.asked("/login");
    assert!(shown <= 5, "a lock is not asked about all the time: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_use_is_told_of_and_no_credential_is_made_with_it() {
    let backends =
        Forwarded::new(Spec::new("app").token(json!({"token_ttl": "1h", "token_num_uses": 1}))).await;
    let leasehold = backends.leasehold().flag("--limits-login-wait", "500ms").start().await;

    // The first at `info`, the others at `debug`.
    said(&leasehold, SOON, "a fresh credential is needed", 4).await;
    assert_eq!(at(&leasehold, "INFO", "a fresh credential is needed").len(), 1);
    leasehold.wait_log("set token_num_uses of the login to 0").await;
    let errors = leasehold.log().at("ERROR").into_iter();
    assert_eq!(errors.filter(|message| message.contains("can be used once only")).count(), 1);
    assert_eq!(leasehold.last_error().await, "log in: the token can be used once only");
    assert_eq!(leasehold.http("/readyz").await.status, 503);
    is_told_57p03(&leasehold, &backends.db).await;
    assert_eq!(backends.asked(&backends.setup.path), 0, "Vault would make a role and drop it again");
    // Nor is any of these tokens left behind.
    leasehold
        .until_metric(
            SOON * 2,
            "vault_requests_total",
            &[("operation", "revoke_token"), ("outcome", "ok")],
            3.0,
        )
        .await;

    let role = format!("auth/approle/role/{}", backends.setup.id());
    backends.vault.write(&role, json!({"token_num_uses": 0})).await;

    leasehold.wait_ready().await;
    leasehold.connect("app", backends.db.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_that_is_a_fifo_is_refused_and_holds_nothing_up() {
    let backends = Forwarded::new(Spec::new("app")).await;
    let mut leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    let file = backends.setup.secret_id_file();
    let right = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();

    for _ in 0..3 {
        let rotated = leasehold.command(&["rotate"]).await;
        assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    }

    leasehold.wait_log("secret_id: it is not a regular file").await;
    assert_eq!(leasehold.last_error().await, "log in: transient");
    assert_eq!(leasehold.http("/readyz").await.status, 200);
    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, right).unwrap();
    leasehold.rotate().await;
    drop(session);
    // A thread that waits in open() would keep the process.
    assert_eq!(leasehold.stop().await.code(), Some(0));
}
