//! Which of several addresses get a request, and which do not.

use super::*;

#[tokio::test]
async fn a_redirect_to_a_stranger_gets_no_token() {
    let stranger = Stub::replying([stub::ok(GRANT)]).await;
    let stub = Stub::replying([stub::redirect(&format!("{}/v1/database/creds/app", stranger.addr))]).await;
    let vault = vault(&[&stub.addr]);
    let failure = vault.issue(&token(), &path("database/creds/app"), WITHIN).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Transient);
    assert!(failure.to_string().contains(&stranger.addr), "{failure}");
    assert_eq!(stranger.seen(), "");
}

#[tokio::test]
async fn a_redirect_to_a_configured_address_is_followed_once() {
    let active = Stub::replying([stub::ok(GRANT)]).await;
    let standby = Stub::replying([stub::redirect(&format!("{}/v1/database/creds/app", active.addr))]).await;
    let vault = vault(&[&standby.addr, &active.addr]);
    vault.issue(&token(), &path("database/creds/app"), WITHIN).await.unwrap();
    assert!(active.seen().contains("hvs.the-token"));
    assert_eq!(vault.addr(), active.addr);
}

#[tokio::test]
async fn a_redirect_to_another_path_or_in_a_circle_is_transient() {
    let elsewhere = Stub::replying([stub::redirect("/v1/other")]).await;
    let failure =
        vault(&[&elsewhere.addr]).issue(&token(), &path("database/creds/app"), WITHIN).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Transient);
    let circle =
        Stub::replying([stub::redirect("/v1/d/creds/x"), stub::redirect("/v1/d/creds/x"), stub::ok(GRANT)])
            .await;
    let failure = vault(&[&circle.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Transient);
}

#[tokio::test]
async fn a_node_that_serves_nothing_is_passed_over_at_once() {
    for status in [472, 473, 503] {
        let idle = Stub::replying([stub::status(status, r#"{"errors":["Vault is sealed"]}"#)]).await;
        let live = Stub::replying([stub::ok(GRANT), stub::ok(GRANT)]).await;
        let vault = vault(&[&idle.addr, &live.addr]);
        vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
        assert_eq!(vault.addr(), live.addr);
        vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
        assert_eq!(idle.seen().matches("GET").count(), 1, "it is not asked first again");
    }
}

#[tokio::test]
async fn a_node_that_may_have_acted_is_the_only_one_asked() {
    for status in [412, 429, 500, 502, 504] {
        let first = Stub::replying([stub::status(status, "{}")]).await;
        let second = Stub::replying([stub::ok(GRANT)]).await;
        let failure = vault(&[&first.addr, &second.addr])
            .issue(&token(), &path("d/creds/x"), WITHIN)
            .await
            .unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Transient, Some(status)));
        assert_eq!(second.seen(), "");
    }
}

#[tokio::test]
async fn a_node_that_redirects_to_a_stranger_is_passed_over() {
    let stranger = Stub::replying([stub::ok(GRANT)]).await;
    let standby = Stub::replying([stub::redirect(&format!("{}/v1/d/creds/x", stranger.addr))]).await;
    let live = Stub::replying([stub::ok(GRANT)]).await;
    vault(&[&standby.addr, &live.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
    assert_eq!(stranger.seen(), "");
}

#[tokio::test]
async fn where_no_node_serves_the_most_telling_answer_stands() {
    let sealed = || Stub::replying([stub::status(503, r#"{"errors":["Vault is sealed"]}"#)]);
    let gone = Stub::gone().await;
    for addrs in [[sealed().await.addr, gone.clone()], [gone.clone(), sealed().await.addr]] {
        let failure =
            vault(&[&addrs[0], &addrs[1]]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
        assert_eq!(failure.status, Some(503), "{failure}");
    }
}

#[tokio::test]
async fn another_scheme_is_another_place() {
    let stub = Stub::replying([stub::ok(GRANT)]).await;
    let secure = stub.addr.replace("http:", "https:");
    let standby = Stub::replying([stub::redirect(&format!("{}/v1/d/creds/x", stub.addr))]).await;
    let mut config = config(&[&standby.addr, &secure]);
    config.skip_verify = true;
    let failure = Vault::new(config).unwrap().issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
    assert!(failure.to_string().contains("not one of the configured addresses"), "{failure}");
    assert!(!stub.seen().contains("hvs.the-token"));
}

#[tokio::test]
async fn an_address_that_does_not_connect_is_passed_over_within_two_seconds() {
    let hangs = Stub::hanging().await;
    let live = Stub::replying([stub::ok(GRANT), stub::ok(GRANT)]).await;
    let mut config = config(&[&hangs.addr.replace("http", "https"), &live.addr]);
    config.skip_verify = true;
    let vault = Vault::new(config).unwrap();
    let start = Instant::now();
    // Without the limit of two seconds for connecting, this address would use all of the time.
    vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    assert_eq!((vault.addr(), hangs.connections()), (live.addr.clone(), 1));
    vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
    assert_eq!(hangs.connections(), 1, "the one that answered last is asked first");
}
