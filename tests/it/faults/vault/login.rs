//! Logins that Vault refuses, locks out, or answers with a token of no use; and a secret that cannot be read.

use reqwest::Method;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use super::{SOON, Spec, Stage, is_told_57p03, said};
use crate::harness::{eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_id_does_not_lock_its_role_out_and_the_right_one_is_tried_at_once() {
    let stage = Stage::shared(Spec::new("app")).await;
    let right = std::fs::read_to_string(stage.setup.secret_id_file()).unwrap();
    std::fs::write(stage.setup.secret_id_file(), "not-a-secret-id").unwrap();
    let leasehold = stage.start(&[("--limits-login-wait", "500ms")]).await;

    // Six tries by the clock of the route: at five refusals Vault would lock the role.
    said(&leasehold, SOON * 2, "could not log in", 6).await;
    let shown = stage.asked("/login");
    assert!((1..=2).contains(&shown), "it was shown {shown} times");
    assert_eq!(leasehold.last_error().await, "log in: refused");
    assert_eq!(leasehold.http("/readyz").await.status, 503);
    is_told_57p03(&leasehold, &stage.db).await;
    let rotated = leasehold.command(&["rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    assert!(stage.asked("/login") > shown, "somebody asked for a try");
    let refused = [("operation", "login"), ("outcome", "client_error")];
    assert!(leasehold.metrics().await.get("vault_requests_total", &refused) <= 3.0);

    std::fs::write(stage.setup.secret_id_file(), right).unwrap();

    leasehold.wait_ready().await;
    assert_eq!(leasehold.connect("app", stage.db.name()).await.value("SELECT 40 + 2").await, "42");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_others_have_locked_out_is_back_when_the_lock_ends() {
    let stage = Stage::shared(Spec::new("app")).await;
    let mount = stage.setup.enable("approle").await;
    let lockout = json!({"user_lockout_config": {"lockout_threshold": "5", "lockout_duration": "6s",
        "lockout_counter_reset_duration": "6s"}});
    stage.vault.write(&format!("sys/auth/{mount}/tune"), lockout).await;
    let role = format!("auth/{mount}/role/app");
    stage.vault.write(&role, json!({"token_policies": [stage.setup.id()], "token_period": "1h"})).await;
    let role_id = stage.vault.read(&format!("{role}/role-id")).await["data"]["role_id"].clone();
    let secret_id = stage.vault.write(&format!("{role}/secret-id"), json!({})).await;
    std::fs::write(stage.setup.secret_id_file(), secret_id["data"]["secret_id"].as_str().unwrap()).unwrap();
    let login = format!("auth/{mount}/login");
    for _ in 0..5 {
        let wrong = json!({"role_id": role_id, "secret_id": "not-a-secret-id"});
        assert_eq!(stage.vault.request(Method::POST, &login, "", Some(wrong)).await.status, 400);
    }

    let leasehold = crate::harness::leasehold()
        .upstream(&stage.db)
        .vault_addr(&format!("http://{}", stage.fault.addr()))
        .method("approle", &mount, &stage.setup)
        .flag("--vault-auth-role-id", role_id.as_str().unwrap())
        .flag("--vault-auth-secret-id-file", stage.setup.secret_id_file().to_str().unwrap())
        .start()
        .await;

    said(&leasehold, SOON, "could not log in", 1).await;
    assert!(leasehold.log().0.contains("status 403"), "{}", leasehold.log().0);
    eventually(SOON * 3, async || same(leasehold.http("/readyz").await.status, 200)).await;
    let shown = stage.asked("/login");
    assert!(shown <= 5, "a lock is not asked about all the time: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_use_is_told_of_and_no_credential_is_made_with_it() {
    let stage = Stage::shared(Spec::new("app").token(json!({"token_ttl": "1h", "token_num_uses": 1}))).await;
    let leasehold = stage.start(&[("--limits-login-wait", "500ms")]).await;

    said(&leasehold, SOON, "a fresh credential is needed", 4).await;
    leasehold.wait_log("set token_num_uses of the login to 0").await;
    assert_eq!(leasehold.last_error().await, "log in: the token can be used once only");
    assert_eq!(leasehold.http("/readyz").await.status, 503);
    is_told_57p03(&leasehold, &stage.db).await;
    assert_eq!(stage.asked(&stage.setup.path), 0, "Vault would make a role and drop it again");
    // Nor is any of these tokens left behind.
    leasehold
        .until_metric(
            SOON * 2,
            "vault_requests_total",
            &[("operation", "revoke_token"), ("outcome", "ok")],
            3.0,
        )
        .await;

    let role = format!("auth/approle/role/{}", stage.setup.id());
    stage.vault.write(&role, json!({"token_num_uses": 0})).await;

    leasehold.wait_ready().await;
    leasehold.connect("app", stage.db.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_that_is_a_fifo_is_refused_and_holds_nothing_up() {
    let stage = Stage::shared(Spec::new("app")).await;
    let mut leasehold = stage.start(&[]).await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", stage.db.name()).await;
    let file = stage.setup.secret_id_file();
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
