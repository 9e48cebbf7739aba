//! A wrapped secret_id whose answer is lost on the way, or is not Vault's.

use super::*;

const LOOK_UP: &str = r#"{"data":{"creation_path":"auth/approle/role/app/secret-id"}}"#;
const USED: &str = r#"{"errors":["wrapping token is not valid or does not exist"]}"#;

/// Logs in with a wrapping token, once for each expected failure. Returns the failures and the log.
async fn failures<const N: usize>(
    name: &str,
    replies: impl IntoIterator<Item = String>,
) -> ([Failure; N], String) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let file = std::env::temp_dir().join(format!("leasehold-{name}-{}", std::process::id()));
    std::fs::write(&file, "s.the-wrapping-token\n").unwrap();
    let stub = Stub::replying(replies).await;
    let mut config = config(&[&stub.addr]);
    config.auth = Auth::AppRole {
        mount: "approle".to_owned(),
        role_id: "r".to_owned(),
        secret_id: SecretId::Wrapped { file: FileSetting::new(&file, "file"), role: None },
    };
    let vault = Vault::new(config).unwrap();
    let mut failures = Vec::new();
    for _ in 0..N {
        failures.push(vault.log_in(WITHIN).await.unwrap_err());
    }
    std::fs::remove_file(file).unwrap();
    assert!(!stub.seen().contains("/login"), "no login was tried");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (failures.try_into().unwrap(), log)
}

#[tokio::test]
async fn a_secret_id_that_is_lost_on_the_way_is_no_theft() {
    let replies = [stub::ok(LOOK_UP), String::new(), stub::status(400, USED), stub::status(400, USED)];
    let ([lost, second, third], log) = failures("lost", replies).await;
    assert!(lost.outcome_unknown, "{lost}");
    assert_eq!((second.kind, third.kind), (Kind::Refused, Kind::Refused));
    assert!(log.contains("the secret_id was lost") && !log.contains("ALARM"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[tokio::test]
async fn a_wrapping_token_is_asked_about_again_when_vault_is_away() {
    let sealed = || stub::status(503, r#"{"errors":["Vault is sealed"]}"#);
    let replies = [sealed(), stub::ok(LOOK_UP), sealed()];
    let ([first, second], log) = failures("away", replies).await;
    assert_eq!((first.kind, second.kind), (Kind::Transient, Kind::Transient));
    assert_eq!(log, "");
}

#[tokio::test]
async fn what_was_wrapped_is_not_shown_when_it_is_no_secret_id() {
    let unwrapped = stub::ok(r#"{"data":{"secret":"s3cr3t-password"}}"#);
    let ([failure], log) = failures("none", [stub::ok(LOOK_UP), unwrapped]).await;
    assert_eq!(failure.kind, Kind::Refused);
    assert_eq!(failure.to_string(), "login: what was wrapped holds no secret_id");
    assert!(!format!("{failure:?}{log}").contains("s3cr3t"));
}

#[tokio::test]
async fn a_foreign_answer_says_nothing_of_a_wrapping_token() {
    let foreign = || stub::status(400, "<html>Bad Request</html>");
    let replies = [foreign(), stub::ok(LOOK_UP), foreign()];
    let ([first, second], log) = failures("foreign", replies).await;
    assert_eq!((first.kind, second.kind), (Kind::Transient, Kind::Transient));
    assert_eq!(log, "");
}
