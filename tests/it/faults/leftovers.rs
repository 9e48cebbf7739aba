//! What stops PostgreSQL from dropping a role, and with it Vault from revoking a lease.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Leasehold, SOON, Scene, Spec, bench, eventually, same};

/// Until a lease has been looked up for the last time.
const LOOKED_UP: Duration = Duration::from_secs(40);

/// A role that owns what it creates, as without `set_role`.
const OWNS_ITSELF: &str =
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'
                             INHERIT IN ROLE \"{{owner}}\";";

async fn scene(policy: &str) -> Scene {
    let spec = Spec::new("app").creation_statements(OWNS_ITSELF).policy(policy);
    Scene::with(&bench().postgres().await, spec, |builder, db| builder.upstream(db)).await
}

/// How many leases were given back, by outcome: `lease`, `token`, `failed`.
async fn given_back(leasehold: &Leasehold) -> [f64; 3] {
    let metrics = leasehold.metrics().await;
    ["lease", "token", "failed"].map(|outcome| metrics.get("revocations_total", &[("outcome", outcome)]))
}

/// The first line of the log with these words.
fn line(leasehold: &Leasehold, words: &str) -> Value {
    let lines = leasehold.log().lines();
    let found = lines.iter().find(|line| line.to_string().contains(words));
    found.unwrap_or_else(|| panic!("no {words:?} in the log")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_stays_after_its_tokens_revocation_is_noticed_said_and_counted() {
    let scene = scene("").await;
    let owner = scene.session().await;
    let user = owner.user().await;
    owner.batch_execute("CREATE TABLE owned (n int)").await.unwrap();
    let vault = bench().vault().await;
    let lease = vault.leases(&scene.setup.path).await.remove(0);
    scene.rotate(&[]).await;
    owner.close().await;

    let failed = async || same(given_back(&scene.leasehold).await, [0.0, 0.0, 1.0]);
    eventually(LOOKED_UP, failed).await;

    assert!(scene.db.roles().await.contains(&user), "PostgreSQL has kept it: it owns a table");
    assert_eq!(scene.leasehold.last_error().await, "revoke: the lease stays, and its database user with it");
    let said = line(&scene.leasehold, "Vault cannot revoke the lease").to_string();
    assert!(said.contains("WARN") && said.contains(&user), "{said}");
    assert!(said.contains(&lease[lease.len() - 8..]), "{said}");
    let looks = [("operation", "look_up_lease"), ("outcome", "ok")];
    assert_eq!(scene.leasehold.metrics().await.get("vault_requests_total", &looks), 4.0);
    // What serves is not touched, and what its administrator clears away is gone.
    assert_eq!(scene.leasehold.http("/readyz").await.status, 200);
    scene.session().await.close().await;
    scene.db.admin.batch_execute(&format!("DROP OWNED BY \"{user}\"")).await.unwrap();
    vault.revoke_lease(&lease).await;
    assert_eq!(scene.db.roles().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_goes_with_its_token_is_counted_once_it_is_seen_to_be_gone() {
    let scene = scene("").await;
    let session = scene.session().await;
    // It ends with its session, before anything is revoked.
    session.batch_execute("CREATE TEMP TABLE passing (n int)").await.unwrap();
    scene.rotate(&[]).await;
    session.close().await;

    eventually(LOOKED_UP, async || same(given_back(&scene.leasehold).await, [0.0, 1.0, 0.0])).await;

    assert_eq!(scene.db.roles().await.len(), 1);
    assert_eq!(scene.leasehold.last_error().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_a_stranger_delays_a_revocation_until_it_is_taken_back() {
    let scene = scene(Spec::MAY_REVOKE).await;
    let session = scene.session().await;
    let user = session.user().await;
    let admin = &scene.db.admin;
    admin
        .batch_execute(&format!(
            "CREATE TABLE foreign_table (n int); GRANT SELECT ON foreign_table TO \"{user}\""
        ))
        .await
        .unwrap();
    scene.rotate(&[]).await;
    session.close().await;

    // Vault's own words say why.
    scene.leasehold.wait_log("could not revoke").await;
    let said = line(&scene.leasehold, "could not revoke").to_string();
    assert!(said.contains("WARN") && said.contains(&format!("\"db.user\":\"{user}\"")), "{said}");
    assert_eq!(
        scene.leasehold.last_error().await,
        "revoke: transient: the database answers Vault with SQLSTATE 2BP01"
    );
    assert!(scene.db.roles().await.contains(&user));
    assert_eq!(given_back(&scene.leasehold).await, [0.0, 0.0, 0.0]);
    admin.batch_execute("REVOKE ALL ON foreign_table FROM PUBLIC; DROP TABLE foreign_table").await.unwrap();

    eventually(LOOKED_UP, async || same(given_back(&scene.leasehold).await, [1.0, 0.0, 0.0])).await;
    assert!(!scene.db.roles().await.contains(&user));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temp_table_that_stops_a_revocation_by_hand_ends_with_its_session() {
    let scene = scene("").await;
    let asked = scene.session().await;
    let user = asked.user().await;
    asked.close().await;
    let mut session = scene.raw().await;
    session.query("CREATE TEMP TABLE mine (n int)").await;
    let vault = bench().vault().await;
    let lease = vault.leases(&scene.setup.path).await.remove(0);

    vault.write("sys/leases/revoke", json!({"lease_id": lease, "sync": false})).await;
    let refused = format!("role \"{user}\" cannot be dropped because some objects depend on it");
    eventually(SOON, async || same(scene.db.server.log().contains(&refused), true)).await;
    // The role lives on and gets in; a denial that passes by has its lease looked at.
    session.send('Q', b"SELECT FROM pg_authid\0").await;
    assert_eq!(session.error().await, "42501");

    // The server sends the error before it is ready for the next query, and the end of the session may come in between.
    assert_eq!(session.error().await, "57P01");
    drop(session);
    let fresh = scene.session().await.user().await;
    assert_ne!(fresh, user);
    eventually(SOON, async || same(scene.closed("revoked").await, 1.0)).await;
    // Vault tries again within some 15 s, and meets no temporary table any more.
    eventually(LOOKED_UP, async || same(scene.db.roles().await, [fresh.clone()])).await;
}
