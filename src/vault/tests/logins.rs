//! Logins: what they send, and what they take of the replies. The token of a reply that cannot be used is given back.

use super::*;

const LOGGED_IN: &str = r#"{"request_id":"r","auth":{"client_token":"hvs.new","accessor":"a","renewable":true,
    "token_type":"service","lease_duration":90,"num_uses":0}}"#;

fn by_approle(addr: &str) -> Vault {
    let mut config = config(&[addr]);
    config.auth =
        Auth::AppRole { mount: "approle".to_owned(), role_id: "r".to_owned(), secret_id: SecretId::Absent };
    Vault::new(config).unwrap()
}

/// An answer whose rest never comes.
fn cut(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{body}")
}

#[tokio::test]
async fn the_token_of_a_reply_of_no_use_is_given_back() {
    let with = |old: &str, new: &str| stub::ok(&LOGGED_IN.replacen(old, new, 1));
    let replies = [
        (cut(&LOGGED_IN[..80]), "the connection was lost"),
        (stub::ok(&LOGGED_IN[..80]), "the answer is not Vault's"),
        (stub::status(504, LOGGED_IN), "the answer is not Vault's"),
        (with(":90", ":-90"), "not of the kind"),
        (with(":90", ":90.5"), "not of the kind"),
        (with(":90", ":1000000000000000000"), "not of the kind"),
        (with("\"lease_duration\":90,", ""), "does not say how long"),
        (with("\"num_uses\":0", "\"num_uses\":-1"), "not of the kind"),
        (with("true", "\"yes\""), "not of the kind"),
    ];
    for (reply, named) in replies {
        let stub = Stub::replying([reply.clone(), stub::status(204, "")]).await;
        let failure = by_approle(&stub.addr).log_in(WITHIN).await.unwrap_err();
        assert!(failure.to_string().contains(named), "{failure}");
        assert!(failure.outcome_unknown, "{reply}");
        let seen = stub.seen().to_lowercase();
        assert!(seen.contains("/v1/auth/token/revoke-self http"), "{reply}\n{seen}");
        assert!(seen.contains("x-vault-token: hvs.new"), "{seen}");
        assert!(!format!("{failure:?} {failure}").contains("hvs.new"));
    }
}

#[tokio::test]
async fn a_token_that_the_reply_does_not_name_is_left_to_its_end() {
    let (before, _) = LOGGED_IN.split_at(LOGGED_IN.find("new").unwrap());
    for reply in [String::new(), cut(before), cut(""), stub::status(504, "<html>")] {
        let stub = Stub::replying([reply.clone()]).await;
        let failure = by_approle(&stub.addr).log_in(WITHIN).await.unwrap_err();
        assert!(failure.outcome_unknown, "{reply}");
        assert_eq!(stub.connections(), 1, "nothing else was sent: {reply}");
    }
}

#[tokio::test]
async fn a_login_that_is_not_done_in_time_gives_back_what_it_has_heard_of() {
    let (stub, heard) = Stub::dripping(cut(&LOGGED_IN[..80])).await;
    let within = Duration::from_secs(5);
    let failure = by_approle(&stub).log_in(within).await.unwrap_err();
    assert_eq!((failure.kind, failure.outcome_unknown), (Kind::TimedOut, true), "{failure}");
    let heard = heard.lock().unwrap().to_lowercase();
    assert!(heard.contains("/v1/auth/token/revoke-self http"), "{heard}");
}

#[tokio::test]
async fn a_handed_token_that_may_not_look_itself_up_has_no_known_end() {
    let denied = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
    let stub = Stub::replying([stub::status(403, denied)]).await;
    let login = vault(&[&stub.addr]).log_in(WITHIN).await.unwrap();
    assert!(login.handed && !login.ttl_known && login.ttl.is_none());
    let stub = Stub::replying([stub::status(403, r#"{"errors":["permission denied"]}"#)]).await;
    let failure = vault(&[&stub.addr]).log_in(WITHIN).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
}

#[tokio::test]
async fn an_empty_or_missing_file_is_named() {
    let mut config = config(&["http://127.0.0.1:1"]);
    for path in ["/nonexistent/token", "/dev/null"] {
        config.auth = Auth::TokenFile { path: FileSetting::new(path, "token_file") };
        let failure = Vault::new(config.clone()).unwrap().log_in(WITHIN).await.unwrap_err();
        assert_eq!((failure.kind, failure.blame()), (Kind::Transient, Blame::Config));
        assert!(failure.to_string().contains(path), "{failure}");
    }
}

#[tokio::test]
async fn a_login_whose_look_up_fails_keeps_the_word_of_its_reply() {
    let auth = r#"{"auth":{"client_token":"hvs.new","lease_duration":90,"renewable":true,
        "token_type":"service","num_uses":0}}"#;
    let stub = Stub::replying([stub::ok(auth), stub::status(500, "")]).await;
    let mut config = config(&[&stub.addr]);
    config.auth =
        Auth::AppRole { mount: "approle".to_owned(), role_id: "r".to_owned(), secret_id: SecretId::Absent };
    let login = Vault::new(config).unwrap().log_in(WITHIN).await.unwrap();
    assert_eq!(login.ttl, Some(Duration::from_secs(90)));
    assert!(login.ttl_known && login.renewable && !login.handed);
    assert!(stub.seen().contains("POST /v1/auth/approle/login"));
}

#[tokio::test]
async fn a_refused_login_keeps_its_reason_while_it_is_not_asked_for_again() {
    let refused = r#"{"errors":["invalid role or secret ID"]}"#;
    let stub = Stub::replying([stub::status(400, refused)]).await;
    let vault = by_approle(&stub.addr);
    let first = vault.log_in(WITHIN).await.unwrap_err();
    let said = "400 on auth/approle/login: invalid role or secret ID";
    assert_eq!((first.reason().as_str(), first.outlook(), first.again_in()), (said, None, None));
    vault.retry_now(&path("d/creds/x"));
    // The second wait is a minute and its jitter.
    let stub = Stub::replying([stub::status(400, refused)]).await;
    let vault = by_approle(&stub.addr).succeeding(&vault);
    drop(vault.log_in(WITHIN).await.unwrap_err());
    let again = vault.log_in(WITHIN).await.unwrap_err();
    assert_eq!((stub.connections(), again.kind), (1, Kind::Refused), "it was not asked again");
    assert_eq!((again.reason().as_str(), again.to_string()), (said, first.to_string()));
    let wait = again.again_in().unwrap();
    assert!((55..70).contains(&wait.as_secs()), "{wait:?}");
    assert!(again.outlook().unwrap().starts_with("asked again in "));
}

#[tokio::test]
async fn a_kubernetes_login_sends_role_and_token_of_the_service_account() {
    let auth = r#"{"auth":{"client_token":"hvs.new","lease_duration":90,"num_uses":1}}"#;
    let stub = Stub::replying([stub::ok(auth)]).await;
    let jwt_file = std::env::temp_dir().join(format!("leasehold-jwt-{}", std::process::id()));
    std::fs::write(&jwt_file, "eyJ.a.jwt\n").unwrap();
    let mut config = config(&[&stub.addr]);
    config.auth = Auth::Kubernetes {
        mount: "team/kubernetes".to_owned(),
        role: "app".to_owned(),
        jwt_file: FileSetting::new(&jwt_file, "jwt_file"),
    };
    let login = Vault::new(config).unwrap().log_in(WITHIN).await.unwrap();
    std::fs::remove_file(jwt_file).unwrap();
    assert_eq!((login.token.expose(), login.num_uses), ("hvs.new", 1));
    let seen = stub.seen();
    assert!(seen.starts_with("POST /v1/auth/team/kubernetes/login"), "{seen}");
    assert!(seen.contains(r#"{"role":"app","jwt":"eyJ.a.jwt"}"#), "{seen}");
}
