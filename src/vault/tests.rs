//! The module against a scripted server, for cases that a real Vault cannot be made to produce.

mod addresses;
mod certificates;
mod foreign;
mod logins;
mod stub;
mod wrapped;

use std::time::Duration;

use super::*;
use crate::error::Blame;
use crate::files::FileSetting;
use stub::Stub;

const WITHIN: Duration = Duration::from_secs(10);
const GRANT: &str = r#"{"lease_id":"database/creds/app/1","lease_duration":60,"renewable":true,
    "data":{"username":"v-app","password":"s3cr3t-password"}}"#;
const LIVES: &str =
    r#"{"data":{"ttl":60,"expire_time":"2026-01-01T00:00:00Z","renewable":true,"type":"service"}}"#;

fn config(addrs: &[&str]) -> Config {
    Config {
        addrs: addrs.iter().map(|addr| Address::parse(addr).unwrap()).collect(),
        namespace: None,
        ca_cert: None,
        ca_cert_bytes: None,
        ca_path: None,
        client_cert: None,
        client_key: None,
        tls_server_name: None,
        skip_verify: false,
        client_timeout: WITHIN,
        auth: Auth::Token { token: Some(token()) },
    }
}

fn vault(addrs: &[&str]) -> Vault {
    Vault::new(config(addrs)).unwrap()
}

fn lease() -> Lease {
    Lease::new("l".to_owned(), "x")
}

fn path(text: &str) -> VaultPath {
    VaultPath::parse(text).unwrap()
}

fn token() -> Secret {
    Secret::new("hvs.the-token".to_owned())
}

#[tokio::test]
async fn a_request_has_token_namespace_and_path() {
    let stub = Stub::replying([stub::ok(GRANT)]).await;
    let mut config = config(&[&stub.addr]);
    config.namespace = Some("team".to_owned());
    let grant =
        Vault::new(config).unwrap().issue(&token(), &path("/database/creds/app"), WITHIN).await.unwrap();
    assert_eq!(grant.username, "v-app");
    let seen = stub.seen().to_lowercase();
    assert!(seen.starts_with("get /v1/database/creds/app http/1.1"), "{seen}");
    assert!(seen.contains("x-vault-token: hvs.the-token"));
    assert!(seen.contains("x-vault-namespace: team"));
    assert!(seen.contains("x-vault-request: true"));
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let announced = "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{".to_owned();
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    let endless = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk.repeat(20));
    for reply in [announced, endless] {
        let stub = Stub::replying([reply]).await;
        let failure = vault(&[&stub.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Transient);
        assert!(failure.outcome_unknown);
        assert!(failure.to_string().contains("larger than 1 MiB"), "{failure}");
    }
}

/// Replies to a creds request that name a lease and cannot be used, each with the kind of its failure.
fn replies_of_no_use() -> [(String, Kind); 6] {
    let named = r#"{"lease_id":"database/creds/app/1","lease_duration":60,"data":{"username":"v-app"}}"#;
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{}", &GRANT[..60]);
    [
        (stub::ok(named), Kind::Refused),
        (stub::ok(&GRANT.replace(":60,", ":60.0,")), Kind::Refused),
        (stub::ok(&GRANT[..60]), Kind::Transient),
        (stub::status(504, GRANT), Kind::Transient),
        (stub::status(502, &GRANT[..60]), Kind::Transient),
        (cut, Kind::Transient),
    ]
}

#[tokio::test]
async fn a_creds_reply_of_no_use_names_the_lease_that_it_leaves() {
    for (reply, kind) in replies_of_no_use() {
        let stub = Stub::replying([reply.clone()]).await;
        let issued = vault(&[&stub.addr]).issue(&token(), &path("ns1/database/creds/app"), WITHIN).await;
        let failure = issued.unwrap_err();
        assert_eq!((failure.kind, failure.outcome_unknown), (kind, true), "{reply}");
        let left = failure.left.unwrap();
        assert_eq!(left.lease.id(), "database/creds/app/1", "{reply}");
        assert_eq!(left.lease.path("sys/leases/revoke"), "ns1/sys/leases/revoke");
    }
}

#[tokio::test]
async fn an_error_that_is_not_vaults_leaves_the_outcome_unknown() {
    let sealed = r#"{"errors":["Vault is sealed"]}"#;
    let html = "<html>Gateway Time-out</html>";
    for (status, body, unknown) in
        [(504, html, true), (502, "", true), (408, html, false), (500, sealed, false), (400, html, false)]
    {
        let stub = Stub::replying([stub::status(status, body)]).await;
        let failure = vault(&[&stub.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
        assert_eq!((failure.outcome_unknown, failure.left), (unknown, None), "{status} {body}");
    }
}

#[tokio::test]
async fn a_lease_is_renewed_and_revoked_in_its_namespace() {
    let renewed = r#"{"lease_id":"l","lease_duration":60,"renewable":true}"#;
    let stub =
        Stub::replying([stub::ok(renewed), stub::status(204, ""), stub::ok(r#"{"data":{"ttl":9}}"#)]).await;
    let vault = vault(&[&stub.addr]);
    let lease = Lease::new("database/creds/app/1.nsid".to_owned(), "ns1/database/creds/app");
    vault.renew(&token(), &lease, "v-app", WITHIN).await.unwrap();
    vault.revoke(&token(), &lease, WITHIN).await.unwrap();
    assert!(vault.has_lease(&token(), &lease, WITHIN).await.unwrap());
    let seen = stub.seen();
    for word in ["renew", "revoke", "lookup"] {
        assert!(seen.contains(&format!("PUT /v1/ns1/sys/leases/{word} HTTP/1.1")), "{seen}");
    }
    assert_eq!(seen.matches(r#""lease_id":"database/creds/app/1.nsid""#).count(), 3, "{seen}");
    assert!(!seen.contains("\"path\""), "{seen}");
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_nothing_was_sent() {
    let gone = Stub::gone().await;
    let vault = vault(&[&gone]);
    let failure = vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
    assert_eq!((failure.kind, failure.outcome_unknown), (Kind::Transient, false), "{failure}");
    assert_eq!(vault.standing(), Standing::Unreachable);
    assert!(vault.last_success().is_none());
}

#[tokio::test]
async fn no_answer_in_time_leaves_the_outcome_unknown() {
    let hangs = Stub::hanging().await;
    let vault = vault(&[&hangs.addr]);
    let within = Duration::from_millis(300);
    let failure = vault.issue(&token(), &path("d/creds/x"), within).await.unwrap_err();
    assert_eq!((failure.kind, failure.outcome_unknown), (Kind::TimedOut, true));
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_leaves_the_outcome_unknown() {
    let stub = Stub::replying([String::new()]).await;
    let failure = vault(&[&stub.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
    assert_eq!((failure.kind, failure.outcome_unknown), (Kind::Transient, true), "{failure}");
}

#[tokio::test]
async fn a_denial_is_told_from_a_dead_token_by_a_look_up() {
    let dead = r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#;
    let denied = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
    let cases = [
        (stub::ok(LIVES), Kind::Forbidden),
        (stub::status(403, denied), Kind::Forbidden),
        (stub::status(403, dead), Kind::TokenDead),
        (stub::status(503, r#"{"errors":["Vault is sealed"]}"#), Kind::Transient),
    ];
    for (look_up, kind) in cases {
        let stub = Stub::replying([stub::status(403, denied), look_up]).await;
        let failure = vault(&[&stub.addr]).renew(&token(), &lease(), "v-app", WITHIN).await.unwrap_err();
        assert_eq!((failure.kind, failure.status), (kind, Some(403)));
    }
}

#[tokio::test]
async fn a_failing_vault_is_asked_five_times_a_second_over_all_addresses_and_reloads() {
    let sealed = || Stub::replying(vec![stub::status(503, r#"{"errors":["Vault is sealed"]}"#); 6]);
    let (one, other) = (sealed().await, sealed().await);
    let start = Instant::now();
    let mut vault = vault(&[&one.addr, &other.addr]);
    for _ in 0..6 {
        vault.renew(&token(), &lease(), "v-app", WITHIN).await.unwrap_err();
        vault = Vault::new(config(&[&one.addr, &other.addr])).unwrap().succeeding(&vault);
    }
    let asked = one.seen().matches("/leases/renew").count() + other.seen().matches("/leases/renew").count();
    assert_eq!(asked, 12);
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_policy_that_forbids_it_is_no_failing_vault() {
    let denied = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
    let replies = (0..20).flat_map(|_| [stub::status(403, denied), stub::ok(LIVES)]);
    let stub = Stub::replying(replies).await;
    let vault = vault(&[&stub.addr]);
    for _ in 0..10 {
        assert_eq!(vault.revoke(&token(), &lease(), WITHIN).await.unwrap_err().kind, Kind::Forbidden);
        let failure = vault.renew(&token(), &lease(), "v-app", WITHIN).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Forbidden);
    }
    // A failing Vault would get only five requests a second.
    for _ in 0..6 {
        assert!(may_be_sent(&vault, "/v1/sys/leases/renew").await);
    }
}

/// Whether a request for this path may be sent at once. A turn taken in this way counts as a request without a good
/// answer.
async fn may_be_sent(vault: &Vault, path: &str) -> bool {
    let limit = Limit::new(WITHIN.into());
    tokio::time::timeout(Duration::ZERO, vault.transport.pace.turn(path, &limit)).await.is_ok()
}

#[tokio::test]
async fn the_wish_to_be_left_alone_is_granted_for_that_path() {
    for status in ["429 Too Many", "503 Unavailable"] {
        let busy = r#"{"errors":["busy"]}"#;
        let reply =
            format!("HTTP/1.1 {status}\r\nretry-after: 2\r\ncontent-length: {}\r\n\r\n{busy}", busy.len());
        let stub = Stub::replying([reply, stub::ok(GRANT), stub::ok(GRANT)]).await;
        let vault = vault(&[&stub.addr]);
        let asked = Instant::now();
        vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
        let early = may_be_sent(&vault, "/v1/d/creds/x").await;
        assert!(!early || asked.elapsed() >= Duration::from_secs(2));
        assert!(may_be_sent(&vault, "/v1/d/creds/y").await);
        vault.issue(&token(), &path("d/creds/y"), WITHIN).await.unwrap();
        vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
        assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn an_unknown_role_is_asked_for_more_and_more_slowly_and_holds_no_other_up() {
    let unknown = || stub::status(400, r#"{"errors":["unknown role: x"]}"#);
    let stub = Stub::replying([unknown(), unknown(), unknown(), stub::ok(GRANT), stub::ok(GRANT)]).await;
    let vault = vault(&[&stub.addr]);
    let began = Instant::now();
    let mut refused = began;
    // The waits after the first, the second and the third refusal.
    for wait in [500, 1000, 2000].map(Duration::from_millis) {
        vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
        let early = may_be_sent(&vault, "/v1/d/creds/x").await;
        assert!(!early || refused.elapsed() >= wait, "{:?}", refused.elapsed());
        refused = Instant::now();
    }
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(may_be_sent(&vault, "/v1/d/creds/y").await);
    vault.issue(&token(), &path("d/creds/y"), WITHIN).await.unwrap();
    vault.retry_now(&path("d/creds/x"));
    assert!(may_be_sent(&vault, "/v1/d/creds/x").await);
    vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
}

#[tokio::test]
async fn a_sealed_or_leaderless_vault_does_not_count_as_serving_and_a_reload_forgets_nothing() {
    let errors = |text: &str| format!(r#"{{"errors":["{text}"]}}"#);
    let cases = [
        (stub::ok(GRANT), Standing::Serving),
        (stub::status(400, &errors("unknown role: x")), Standing::Serving),
        (stub::status(500, &errors("broken")), Standing::Serving),
        (stub::status(503, &errors("Vault is sealed")), Standing::Sealed),
        (stub::status(503, &errors("no active OpenBao instance found")), Standing::NotServing),
        (stub::status(503, "<html>no backend</html>"), Standing::Unreachable),
        (String::new(), Standing::Unreachable),
    ];
    for (reply, standing) in cases {
        let stub = Stub::replying([stub::ok(GRANT), reply]).await;
        let vault = vault(&[&stub.addr]);
        assert_eq!(vault.standing(), Standing::NotAsked, "nothing is known yet");
        vault.issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap();
        drop(vault.issue(&token(), &path("d/creds/y"), WITHIN).await);
        assert_eq!(vault.standing(), standing);
        let reloaded = Vault::new(config(&[&stub.addr])).unwrap().succeeding(&vault);
        assert_eq!(reloaded.standing(), standing);
        assert!(reloaded.last_success().is_some());
    }
}

#[tokio::test]
async fn a_scheme_that_is_not_the_servers_is_named_with_the_one_to_write() {
    for body in [
        "Client sent an HTTP request to an HTTPS server.\n",
        "<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
    ] {
        let stub = Stub::replying([stub::status(400, body)]).await;
        let failure = vault(&[&stub.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
        assert_eq!((failure.kind, failure.is_about_https()), (Kind::Transient, true));
        let said = "400 on d/creds/x: the server speaks TLS, and was sent plain HTTP: write https:// in --vault-addr";
        assert_eq!(failure.reason(), said);
    }
    let stub = Stub::replying([stub::status(400, "Bad Request")]).await;
    let failure = vault(&[&stub.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
    assert!(failure.reason().contains("the answer is not Vault's"), "{failure}");
}

#[tokio::test]
async fn what_vault_says_is_kept_without_the_token() {
    let said = r#"{"errors":["bad hvs.the-token here"],"data":{"password":"s3cr3t-password"}}"#;
    let stub = Stub::replying([stub::status(400, said)]).await;
    let failure = vault(&[&stub.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
    assert_eq!(failure.to_string(), "issue: status 400: bad [redacted] here");
    assert!(!format!("{failure:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn a_reply_that_cannot_be_read_shows_nothing_of_itself() {
    let stub = Stub::replying([stub::ok(r#"{"lease_duration":"s3cr3t-password"}"#)]).await;
    let failure = vault(&[&stub.addr]).issue(&token(), &path("d/creds/x"), WITHIN).await.unwrap_err();
    assert!(failure.outcome_unknown);
    assert!(!format!("{failure:?} {failure}").contains("s3cr3t"));
}

#[tokio::test]
async fn a_token_that_is_no_header_is_refused() {
    let token = Secret::new("two\nlines".to_owned());
    let failure = vault(&["http://127.0.0.1:1"]).renew(&token, &lease(), "v-app", WITHIN).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(!failure.to_string().contains("lines"));
}

#[tokio::test]
async fn nothing_secret_is_logged_at_trace() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let unusable = stub::ok(r#"{"lease_id":"l","data":{"password":"s3cr3t-password"}}"#);
    let replies = [stub::ok(LIVES), stub::ok(GRANT), unusable, stub::status(400, GRANT)];
    let stub = Stub::replying(replies).await;
    let vault = vault(&[&stub.addr]);
    let login = vault.log_in(WITHIN).await.unwrap();
    let grant = vault.issue(&login.token, &path("database/creds/app"), WITHIN).await.unwrap();
    let unusable = vault.issue(&login.token, &path("d/creds/x"), WITHIN).await.unwrap_err();
    let failed = vault.revoke(&login.token, &lease(), WITHIN).await.unwrap_err();
    let shown = format!("{vault:?} {login:?} {grant:?} {unusable:?} {unusable} {failed:?} {failed}");
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("rustify"), "the log is captured");
    for text in [shown, logged] {
        assert!(!text.contains("hvs.the-token") && !text.contains("s3cr3t-password"), "{text}");
    }
}

/// Collects the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_reason() {
    let say = |change: fn(&mut Config)| {
        let mut config = config(&["https://127.0.0.1:8200"]);
        change(&mut config);
        Vault::new(config).unwrap_err().to_string()
    };
    assert!(say(|c| c.namespace = Some("a\nb".into())).contains("namespace"));
    assert!(say(|c| c.ca_cert = Some(FileSetting::new("/nonexistent", "ca_cert"))).contains("/nonexistent"));
    assert!(say(|c| c.ca_cert_bytes = Some("no".into())).contains("no certificate in PEM"));
    assert!(say(|c| c.client_cert = Some(FileSetting::new("/x", "client_cert"))).contains("go together"));
    assert!(
        say(|c| c.auth = Auth::Jwt {
            mount: "jwt".into(),
            role: String::new(),
            jwt_file: FileSetting::new("/j", "jwt_file")
        })
        .contains("needs role")
    );
}
