//! Ways to a token, and to Vault.

use std::path::Path;

use serde_json::json;

use super::{Logins, Orphans, SOON};
use crate::harness::{Backends, Mode, Setup, Spec, Storage, Vault, bench, eventually, leasehold, same};

/// A token of a platform team's making, with the rights of this setup.
async fn handed_token(vault: &Vault, setup: &Setup) -> String {
    let body = json!({"policies": [setup.id()], "ttl": "1h", "no_parent": true});
    let reply = vault.write("auth/token/create", body).await;
    reply["auth"]["client_token"].as_str().unwrap().to_owned()
}

/// Whether the token lives.
async fn lives(vault: &Vault, token: &str) -> bool {
    let reply = vault.request(reqwest::Method::GET, "auth/token/lookup-self", token, None).await;
    reply.status == 200
}

/// Replaced as by a rename, so that it is never half there.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_handed_to_leasehold_lives_on_after_it() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let token = handed_token(vault, setup).await;
    let mut leasehold = backends
        .without_login()
        .path(&setup.path)
        .env("BAO_TOKEN", &token)
        .env("VAULT_TOKEN", "of another tool")
        .start()
        .await;
    leasehold.wait_ready().await;
    leasehold.connect("app", db.name()).await.close().await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    eventually(SOON, async || same(db.roles().await.len(), 1)).await;

    assert_eq!(leasehold.stop().await.code(), Some(0));

    assert!(lives(vault, &token).await);
    assert!(vault.leases(&setup.path).await.is_empty(), "its leases are given back by themselves");
    assert!(db.roles().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_handed_token_lapses_where_it_may_not_be_revoked() {
    let backends = Backends::new(Spec::new("app").ttl("10s", "1h")).await;
    let Backends { db, vault, setup } = &backends;
    let token = handed_token(vault, setup).await;
    let leasehold = backends.without_login().path(&setup.path).env("VAULT_TOKEN", &token).start().await;
    leasehold.wait_ready().await;
    let first = db.roles().await.remove(0);

    assert!(leasehold.command(&["rotate"]).await.status.success());

    leasehold.until_metric(SOON, "revocations_total", &[("outcome", "forbidden")], 1.0).await;
    assert!(lives(vault, &token).await);
    eventually(SOON * 2, async || same(db.roles().await.contains(&first), false)).await;
    leasehold.connect("app", db.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_is_read_again_for_each_credential() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, vault, setup } = &backends;
    let file = bench().directory().await.join("token");
    let first = handed_token(vault, setup).await;
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let leasehold = backends
        .without_login()
        .path(&setup.path)
        .flag("--vault-auth-method", "token-file")
        .flag("--vault-auth-token-file", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    let second = handed_token(vault, setup).await;
    replace(&file, &second);
    assert!(leasehold.command(&["rotate"]).await.status.success());
    let new = leasehold.connect("app", db.name()).await;
    assert_eq!(db.roles().await.len(), 2);

    // What dies with the first token was issued under it, and what lives was not.
    vault.request(reqwest::Method::POST, "auth/token/revoke-self", &first, None).await;

    let new_user = new.user().await;
    eventually(SOON, async || same(db.roles().await, [new_user.clone()])).await;
    drop(old);
    assert!(lives(vault, &second).await);
    leasehold.connect("app", db.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_secret_id_leaves_the_living_token_to_issue() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let login = format!("auth/approle/role/{}/secret-id", setup.id());
    let secret_id = vault.write(&login, json!({"num_uses": 1})).await;
    std::fs::write(setup.secret_id_file(), secret_id["data"]["secret_id"].as_str().unwrap()).unwrap();
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;

    let rotated = leasehold.command(&["rotate"]).await;

    assert!(rotated.status.success(), "{rotated:?}");
    let new = leasehold.connect("app", db.name()).await;
    assert_ne!(new.user().await, old.user().await);
    let old_user = old.user().await;
    old.close().await;
    // The shared token carries the new lease: it is not revoked for the sake of the old one.
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("vault_requests_total", &[("operation", "revoke_token")]), 0.0);
    assert!(db.roles().await.contains(&new.user().await));
    assert!(db.roles().await.contains(&old_user), "it lapses, or goes with the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_token_is_replaced_in_time_though_nothing_of_it_can_be_renewed() {
    let token = json!({"token_type": "batch", "token_ttl": "24s"});
    let backends = Backends::new(Spec::new("app").token(token)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let orphans = Orphans::watch(db).await;
    let logins = Logins::through(&leasehold, db);
    let session = leasehold.connect("app", db.name()).await;
    let first = session.user().await;
    // It is not drained, and lasts to the hard close.
    session.batch_execute("BEGIN").await.unwrap();

    leasehold.until_metric(SOON * 2, "rotations_total", &[], 1.0).await;
    assert_eq!(session.user().await, first, "it lives on beside the successor");
    assert_eq!(session.ended_within(SOON * 2).await.as_deref(), Some("57P01"));
    leasehold.until_metric(SOON * 2, "rotations_total", &[], 2.0).await;

    logins.all_succeeded().await;
    orphans.none_was_seen().await;
    eventually(SOON, async || same(db.roles().await.contains(&first), false)).await;
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("vault_requests_total", &[("operation", "renew_token")]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_asked_in_and_bao_variables_come_before_vault_variables() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let namespace = bench().fresh_name("ns");
    vault.write(&format!("sys/namespaces/{namespace}"), json!({})).await;
    let (user, password) = db.vault_user();
    let server = db.server.addr();
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": user, "password": password,
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{server}/{}?sslmode=disable", db.name()),
    });
    let role = json!({
        "db_name": "db", "default_ttl": "1h",
        "creation_statements":
            [format!("CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' IN ROLE {}", db.owner())],
    });
    vault.write(&format!("{namespace}/sys/mounts/team/db"), json!({"type": "database"})).await;
    vault.write(&format!("{namespace}/team/db/config/db"), connection).await;
    vault.write(&format!("{namespace}/team/db/roles/app"), role).await;
    let policy = "path \"team/db/creds/app\" { capabilities = [\"read\"] }
                  path \"sys/leases/revoke\" { capabilities = [\"update\"] }";
    vault.write(&format!("{namespace}/sys/policies/acl/app"), json!({"policy": policy})).await;
    let token = vault.write(&format!("{namespace}/auth/token/create"), json!({"policies": ["app"]})).await;
    let mut leasehold = leasehold()
        .upstream(&db)
        .path("team/db/creds/app")
        .env("BAO_ADDR", &vault.addr)
        .env("VAULT_ADDR", "http://127.0.0.1:1")
        .env("BAO_NAMESPACE", &namespace)
        .env("VAULT_NAMESPACE", "of-another-tool")
        .env("BAO_TOKEN", token["auth"]["client_token"].as_str().unwrap())
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .start()
        .await;

    leasehold.wait_ready().await;

    assert_eq!(db.roles().await, [leasehold.connect("app", db.name()).await.user().await]);
    assert_eq!(leasehold.stop().await.code(), Some(0));
    assert!(db.roles().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn vaults_certificate_is_verified_against_the_ca_that_was_named() {
    let Backends { db, vault, setup } =
        Backends::with_vault(bench().own_vault(Storage::MemoryTls).await, Spec::new("app")).await;
    let right = vault.ca.clone().unwrap();
    let wrong = bench().postgres_18().await.ca.unwrap();
    let trusting = leasehold()
        .upstream(&db)
        .vault_addr(&vault.addr)
        .login(&setup)
        .env("BAO_CACERT", right.to_str().unwrap())
        .env("VAULT_CACERT", wrong.to_str().unwrap())
        .start()
        .await;
    trusting.wait_ready().await;
    trusting.connect("app", db.name()).await;

    let distrusting = leasehold()
        .upstream(&db)
        .vault_addr(&vault.addr)
        .flag("--vault-ca-cert", wrong.to_str().unwrap())
        .login(&setup)
        .start()
        .await;

    let failed = [("operation", "login"), ("outcome", "unreachable")];
    distrusting.until_metric(SOON, "vault_requests_total", &failed, 1.0).await;
    assert_eq!(distrusting.http("/readyz").await.status, 503);
    assert!(distrusting.log().0.contains("invalid peer certificate"), "it says what is wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_does_not_answer_is_waited_for_as_long_as_was_said() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { vault, .. } = &backends;
    let fault = vault.forwarder().await;
    fault.set(Mode::Blackhole).await;
    let leasehold = backends.leasehold_through(&fault).env("VAULT_CLIENT_TIMEOUT", "1s").start().await;

    let timed_out = [("operation", "login"), ("outcome", "timeout")];
    leasehold.until_metric(SOON, "vault_requests_total", &timed_out, 2.0).await;

    fault.set(Mode::Pass).await;
    leasehold.wait_ready().await;
}
