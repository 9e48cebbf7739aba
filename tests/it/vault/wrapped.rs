//! AppRole with a response-wrapped secret_id, and with one of few uses.

use std::ops::Deref;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Builder, Forwarded, Leasehold, SOON, Spec, eventually, same};

/// Backends whose secret_id file holds what the test writes into it.
struct Platform(Forwarded);

impl Deref for Platform {
    type Target = Forwarded;

    fn deref(&self) -> &Forwarded {
        &self.0
    }
}

impl Platform {
    async fn new(spec: Spec) -> Self {
        Self(Forwarded::new(spec).await)
    }

    fn leasehold(&self) -> Builder {
        self.0.leasehold().flag("--log-level", "trace")
    }

    fn secret_id_path(&self) -> String {
        format!("auth/approle/role/{}/secret-id", self.setup.id())
    }

    fn put(&self, text: &str) {
        std::fs::write(self.setup.secret_id_file(), text).unwrap();
    }

    /// How often this path was asked for.
    fn posted(&self, path: &str) -> usize {
        self.fault.handed_on(&format!("POST /v1/{path} "))
    }

    /// Waits for the alarm, and for two more tries: it is raised once. Nothing was issued.
    async fn alarm(&self, leasehold: &Leasehold, words: &str) {
        let denied = [("operation", "login"), ("outcome", "client_error")];
        eventually(SOON, async || {
            let metrics = leasehold.metrics().await;
            let tries = metrics.get("vault_requests_total", &[("operation", "login")]);
            let denied = metrics.get("vault_requests_total", &denied);
            if tries >= 3.0 { Ok(()) } else { Err((tries, denied)) }
        })
        .await;
        leasehold.wait_log(words).await;
        let errors = leasehold.log().at("ERROR");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("ALARM: ") && errors[0].contains(words), "{errors:?}");
        assert_eq!(leasehold.http("/readyz").await.status, 503);
        let status = leasehold.status().await;
        assert_eq!(status["routes"][0]["last_error"]["kind"], "log in: refused");
        assert_eq!(self.posted("auth/approle/login"), 0, "no login was tried");
        assert!(self.db.roles().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_secret_id_is_unwrapped_once_and_kept() {
    let platform = Platform::new(Spec::new("app")).await;
    platform.put(&platform.vault.wrap(&platform.secret_id_path(), json!({})).await);
    let leasehold = platform.leasehold().switch("--vault-auth-secret-id-wrapped").start().await;
    leasehold.wait_ready().await;

    leasehold.rotate().await;
    std::fs::remove_file(platform.setup.secret_id_file()).unwrap();
    assert!(leasehold.command(&["reload"]).await.status.success());
    leasehold.rotate().await;

    assert_eq!(leasehold.connect("app", platform.db.name()).await.value("SELECT 40 + 2").await, "42");
    assert_eq!(platform.posted("auth/approle/login"), 3);
    assert_eq!(platform.posted("sys/wrapping/lookup"), 1);
    assert_eq!(platform.posted("sys/wrapping/unwrap"), 1);

    // A new wrapping token is taken at the next login, and one of no use in its place changes nothing.
    platform.put(&platform.vault.wrap(&platform.secret_id_path(), json!({})).await);
    leasehold.rotate().await;
    assert_eq!(platform.posted("sys/wrapping/unwrap"), 2);
    platform.put("s.nonsense-in-the-file");
    leasehold.rotate().await;
    leasehold.wait_log("ALARM: ").await;
    assert_eq!(leasehold.log().at("ERROR").len(), 1, "it is an alarm all the same");

    let secrets = platform.fault.secrets();
    assert!(secrets.contains("s.nonsense-in-the-file"));
    assert!(secrets.len() >= 15, "5 tokens, 5 passwords, 3 wrapping tokens, 2 secret_ids");
    leasehold.shows_none_of(secrets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapping_token_used_by_somebody_else_is_an_alarm() {
    let platform = Platform::new(Spec::new("app")).await;
    let token = platform.vault.wrap(&platform.secret_id_path(), json!({})).await;
    let stolen = platform.vault.request(Method::POST, "sys/wrapping/unwrap", &token, None).await;
    assert_eq!(stolen.status, 200);
    platform.put(&token);
    let leasehold = platform.leasehold().switch("--vault-auth-secret-id-wrapped").start().await;

    platform.alarm(&leasehold, "was unwrapped by somebody else").await;

    platform.put(&platform.vault.wrap(&platform.secret_id_path(), json!({})).await);
    leasehold.wait_ready().await;
    leasehold.shows_none_of(platform.fault.secrets()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapping_token_made_by_another_path_is_an_alarm_and_is_not_used() {
    let platform = Platform::new(Spec::new("app")).await;
    let other = format!("auth/approle/role/{}-other", platform.setup.id());
    platform.vault.write(&other, json!({})).await;
    let made_up = platform.vault.wrap("sys/wrapping/wrap", json!({"secret_id": "made-up-secret-id"})).await;
    let of_another = platform.vault.wrap(&format!("{other}/secret-id"), json!({})).await;
    let named = ["--vault-auth-role", platform.setup.id()];
    for token in [made_up, of_another] {
        platform.put(&token);
        let leasehold = platform
            .leasehold()
            .switch("--vault-auth-secret-id-wrapped")
            .flag(named[0], named[1])
            .start()
            .await;
        platform.alarm(&leasehold, "was not made by this AppRole's secret-id endpoint").await;
        let unused = platform.vault.request(Method::POST, "sys/wrapping/unwrap", &token, None).await;
        assert_eq!(unused.status, 200, "it was left as it is");
        leasehold.shows_none_of([token]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_id_that_is_used_up_leaves_the_next_lease_to_the_living_token() {
    let spec = Spec::new("app")
        .token(json!({"token_period": "1h", "secret_id_num_uses": 2}))
        .policy(Spec::MAY_REVOKE);
    let platform = Platform::new(spec).await;
    let mut leasehold = platform.leasehold().start().await;
    leasehold.wait_ready().await;
    leasehold.rotate().await;

    leasehold.rotate().await;
    leasehold.rotate().await;

    assert_eq!(platform.posted("auth/approle/login"), 4);
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[("outcome", "ok")]), 4.0);
    let refused = [("operation", "login"), ("outcome", "client_error")];
    assert_eq!(metrics.get("vault_requests_total", &refused), 2.0);
    let session = leasehold.connect("app", platform.db.name()).await;
    // The two that shared the second login's token were told apart: only the retired one was revoked.
    let user = session.user().await;
    eventually(SOON, async || same(platform.db.roles().await, [user.clone()])).await;
    session.close().await;
    assert_eq!(leasehold.stop().await.code(), Some(0));
    assert!(platform.db.roles().await.is_empty());
    let log = leasehold.log().0;
    assert!(platform.fault.secrets().iter().all(|secret| !log.contains(secret)));
}
