//! `probe_sql`: what a fresh credential must be able to do before it is published.

use std::time::Duration;

use crate::harness::{SOON, Spec, bench, eventually, leasehold, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_cannot_run_probe_sql_is_not_published() {
    let db = bench().postgres().await.database().await;
    db.admin.batch_execute("CREATE TABLE orders (id int)").await.unwrap();
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault(&vault)
        .login(&setup)
        .flag("--probe-database", db.name())
        .flag("--probe-sql", "SELECT count(*) FROM orders")
        .flag("--limits-login-wait", "300ms")
        .start()
        .await;

    eventually(SOON, async || {
        let refused = leasehold.metrics().await.get("proofs_total", &[("outcome", "refused")]);
        if refused >= 1.0 { Ok(()) } else { Err(refused) }
    })
    .await;
    let error = leasehold.try_connect("app", db.name()).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "57P03");
    assert_eq!(leasehold.log().messages("probe_sql fails")[0]["sqlstate"], "42501");
    assert!(!leasehold.log().0.contains("orders"), "no SQL in the log");

    // The right is granted: the same candidate is tried again, and published.
    db.admin.batch_execute(&format!("GRANT SELECT ON orders TO {}", db.owner())).await.unwrap();
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    assert_eq!(db.roles().await, [session.user().await]);
    session.close().await;
    eventually(SOON, async || same(db.backends().await, [])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_sql_is_asked_as_sessions_are_by_tls_and_under_set_role() {
    let db = bench().postgres_18().await.database().await;
    let vault = bench().vault().await;
    let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'
                    IN ROLE \"{{owner}}\";";
    let setup = vault.setup(&db, Spec::new("app").creation_statements(create)).await;
    // The server tells by an error who asks. The URI has no way but TLS, with channel binding.
    let sql = format!(
        "DO $$ BEGIN
           ASSERT current_user = '{0}' AND session_user <> '{0}';
         END $$; SELECT 1; SELECT 2",
        db.owner()
    );
    let ca = db.server.ca.as_ref().unwrap().display();
    let uri = format!("postgresql://{}/?sslrootcert={ca}&channel_binding=require", db.server.addr());
    let leasehold = leasehold()
        .upstream_uri(&uri)
        .vault(&vault)
        .login(&setup)
        .flag("--set-role", &db.owner())
        .flag("--probe-sql", &sql)
        .start()
        .await;

    leasehold.wait_ready().await;

    assert_eq!(leasehold.metrics().await.get("proofs_total", &[("outcome", "ok")]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_sql_that_does_not_end_says_nothing_of_the_credential_and_is_cancelled() {
    let db = bench().postgres().await.database().await;
    let vault = bench().vault().await;
    let setup = vault.setup(&db, Spec::new("app")).await;
    let leasehold = leasehold()
        .upstream(&db)
        .vault(&vault)
        .login(&setup)
        .flag("--probe-database", db.name())
        .flag("--probe-sql", "SELECT pg_sleep(600)")
        .flag("--limits-connect-timeout", "1s")
        .start()
        .await;

    // With no other credential it is published, and counted as unproved.
    leasehold.wait_ready().await;

    assert_eq!(leasehold.metrics().await.get("proofs_total", &[("outcome", "unprovable")]), 1.0);
    eventually(Duration::from_secs(20), async || same(db.backends().await, [])).await;
}
