//! Answers that are not Vault's: the page of a load balancer, the JSON of another server.

use super::*;

/// Bodies of a load balancer, a gateway and a captive portal.
const BODIES: [&str; 4] =
    ["<html><body>Bad Request</body></html>", "", r#"{"message":"no Route matched"}"#, r#"["errors"]"#];

fn stub_of(status: u16, body: &str, times: usize) -> impl Future<Output = Stub> {
    Stub::replying(vec![stub::status(status, body); times])
}

#[tokio::test]
async fn no_operation_takes_a_foreign_answer_for_vaults() {
    for (status, unknown) in
        [(200, true), (400, false), (403, false), (404, false), (503, false), (504, true)]
    {
        for body in BODIES {
            let stub = stub_of(status, body, 7).await;
            // Each request uses a new client, so that the rate limiter delays none.
            let vault = || vault(&[&stub.addr]);
            let token = token();
            let failures = [
                vault().issue(&token, &path("d/creds/x"), WITHIN).await.map(drop),
                vault().renew(&token, &lease(), "v-app", WITHIN).await.map(drop),
                vault().renew_token(&token, WITHIN).await.map(drop),
                vault().look_up_token(&token, WITHIN).await.map(drop),
                vault().has_lease(&token, &lease(), WITHIN).await.map(drop),
                vault().revoke(&token, &lease(), WITHIN).await,
                vault().revoke_token(&token, WITHIN).await,
            ];
            for failure in failures.map(Result::unwrap_err) {
                assert_eq!(
                    (failure.kind, failure.status, failure.outcome_unknown),
                    (Kind::Transient, Some(status), unknown),
                    "{status} {body}: {failure}"
                );
                assert!(failure.to_string().contains("the answer is not Vault's"), "{failure}");
            }
        }
    }
}

#[tokio::test]
async fn a_foreign_answer_tells_no_health() {
    for status in [200, 429, 503] {
        let stub = stub_of(status, BODIES[0], 1).await;
        let failure = vault(&[&stub.addr]).look(WITHIN).await.unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Transient, Some(status)));
    }
    let standby = r#"{"initialized":true,"sealed":false,"standby":true}"#;
    let stub = stub_of(429, standby, 1).await;
    assert_eq!(vault(&[&stub.addr]).look(WITHIN).await.unwrap().0, Health::Standby);
}

#[tokio::test]
async fn a_foreign_answer_to_a_login_is_no_refusal() {
    let auth = r#"{"auth":{"client_token":"hvs.new","lease_duration":90,"num_uses":1}}"#;
    let file = std::env::temp_dir().join(format!("leasehold-foreign-{}", std::process::id()));
    std::fs::write(&file, "a-secret-id").unwrap();
    let replies = (0..5).map(|_| stub::status(400, BODIES[0])).chain([stub::ok(auth)]);
    let stub = Stub::replying(replies).await;
    let mut config = config(&[&stub.addr]);
    config.auth = Auth::AppRole {
        mount: "approle".to_owned(),
        role_id: "r".to_owned(),
        secret_id: SecretId::File(FileSetting::new(&file, "secret_id_file")),
    };
    let vault = Vault::new(config).unwrap();
    for _ in 0..5 {
        let failure = vault.log_in(WITHIN).await.unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Transient, Some(400)), "{failure}");
    }
    assert_eq!(vault.log_in(WITHIN).await.unwrap().token.expose(), "hvs.new", "it is shown again at once");
    std::fs::remove_file(file).unwrap();
}
