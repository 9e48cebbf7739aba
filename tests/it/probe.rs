//! The proof of a fresh credential: in which database it is made, and `probe_sql`.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Backends, Leasehold, SOON, Spec, bench, eventually, field, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_cannot_run_probe_sql_is_not_published() {
    let db = bench().postgres().await.database().await;
    db.admin.batch_execute("CREATE TABLE orders (id int)").await.unwrap();
    let backends = Backends::with_database(db, Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends
        .leasehold()
        .flag("--probe-database", db.name())
        .flag("--probe-sql", "SELECT count(*) FROM orders")
        .flag("--limits-login-wait", "300ms")
        .start()
        .await;

    eventually(SOON, async || {
        let refused = leasehold.metrics().await.get("proofs_total", &[("outcome", "refused")]);
        if refused >= 2.0 { Ok(()) } else { Err(refused) }
    })
    .await;
    let error = leasehold.try_connect("app", db.name()).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "57P03");
    let lines = leasehold.log().messages("probe_sql fails");
    assert_eq!(lines[0]["sqlstate"], "42501");
    let warnings = lines.iter().filter(|line| line["level"] == "WARN").count();
    assert!(lines.len() >= 2 && warnings == 1, "one line a change, not one a try: {lines:#?}");
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
    let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'
                    IN ROLE \"{{owner}}\";";
    let backends = Backends::with_database(db, Spec::new("app").creation_statements(create)).await;
    let Backends { db, .. } = &backends;
    // The server tells by an error who asks. The URI has no way but TLS, with channel binding.
    let sql = format!(
        "DO $$ BEGIN
           ASSERT current_user = '{0}' AND session_user <> '{0}';
         END $$; SELECT 1; SELECT 2",
        db.owner()
    );
    let ca = db.server.ca.as_ref().unwrap().display();
    let uri = format!("postgresql://{}/?sslrootcert={ca}&channel_binding=require", db.server.addr());
    let leasehold = backends
        .leasehold_at(&uri)
        .flag("--set-role", &db.owner())
        .flag("--probe-database", db.name())
        .flag("--probe-sql", &sql)
        .start()
        .await;

    leasehold.wait_ready().await;

    assert_eq!(leasehold.metrics().await.get("proofs_total", &[("outcome", "ok")]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_sql_that_does_not_end_says_nothing_of_the_credential_and_is_cancelled() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends
        .leasehold()
        .flag("--probe-database", db.name())
        .flag("--probe-sql", "SELECT pg_sleep(600)")
        .flag("--limits-connect-timeout", "5s")
        .start()
        .await;

    // With no other credential it is published, and counted as unproved.
    leasehold.wait_ready().await;

    assert_eq!(leasehold.metrics().await.get("proofs_total", &[("outcome", "unprovable")]), 1.0);
    eventually(Duration::from_secs(20), async || same(db.backends().await, [])).await;
}

/// How often a proof ended so.
async fn proofs(leasehold: &Leasehold, outcome: &str) -> f64 {
    leasehold.metrics().await.get("proofs_total", &[("outcome", outcome)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_a_client_chose_is_no_evidence_against_a_credential() {
    let hba = ["host shut +kept_out all reject"];
    let server = bench().own_postgres(json!({"version": "18", "hba": hba})).await;
    let backends = Backends::on(&server, Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().flag("--limits-connect-timeout", "1s").start().await;
    leasehold.wait_ready().await;
    // The last one is what a proof tries first.
    for database in ["gone", "slow", "shut"] {
        db.admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        leasehold.connect("app", database).await.close().await;
    }

    // One is dropped, one lets no login come to its end, one is closed by the rules of pg_hba.conf.
    db.admin.batch_execute("DROP DATABASE gone").await.unwrap();
    let linger = "CREATE FUNCTION linger() RETURNS event_trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF session_user LIKE 'v-%' THEN PERFORM pg_sleep(600); END IF; END $$;
                  CREATE EVENT TRIGGER linger ON login EXECUTE FUNCTION linger();
                  ALTER EVENT TRIGGER linger ENABLE ALWAYS;";
    server.superuser("slow").await.batch_execute(linger).await.unwrap();
    let shut = format!("CREATE ROLE kept_out; GRANT kept_out TO {}", db.owner());
    db.admin.batch_execute(&shut).await.unwrap();
    assert!(leasehold.try_connect("app", "shut").await.is_err());
    let rotated = leasehold.command(&["rotate"]).await;

    assert!(rotated.status.success(), "{rotated:?}");
    assert_eq!(proofs(&leasehold, "ok").await, 2.0);
    assert_eq!(proofs(&leasehold, "refused").await + proofs(&leasehold, "unprovable").await, 0.0);
    let log = leasehold.log();
    let tried = log.messages("the proof is refused");
    assert_eq!(tried[0]["database.of"], "client", "{tried:?}");
    assert_eq!(log.messages("no proof").len(), 1, "the slow one was tried too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_credentials_may_not_enter_the_database_postgres_gets_one() {
    let server = bench().own_postgres(json!({"hba": ["host postgres all all reject"]})).await;
    let backends = Backends::on(&server, Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;

    leasehold.wait_ready().await;
    assert_eq!(proofs(&leasehold, "unprovable").await, 1.0);
    leasehold.connect("app", db.name()).await.close().await;
    let rotated = leasehold.command(&["rotate"]).await;

    assert!(rotated.status.success(), "it is proved where a client got in: {rotated:?}");
    assert_eq!(proofs(&leasehold, "ok").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_sql_whose_database_is_gone_says_nothing_of_the_credential() {
    let db = bench().postgres().await.database().await;
    let probed = format!("{}_probed", db.name());
    db.admin.batch_execute(&format!("CREATE DATABASE {probed}")).await.unwrap();
    let backends = Backends::with_database(db, Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let leasehold =
        backends.leasehold().flag("--probe-database", &probed).flag("--probe-sql", "SELECT 1").start().await;
    leasehold.wait_ready().await;
    let before = leasehold.connect("app", db.name()).await.user().await;

    db.admin.batch_execute(&format!("DROP DATABASE {probed}")).await.unwrap();
    vault.revoke_prefix(&setup.path).await;

    // Whoever gets in by then has a fresh one: the route is not left without.
    eventually(SOON, async || match leasehold.try_connect("app", db.name()).await {
        Ok(session) => same(session.user().await == before, false),
        Err(error) => Err(format!("{error:?}")),
    })
    .await;
    assert_eq!(proofs(&leasehold, "refused").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_uri_that_is_missing_is_said_and_no_url_of_it_is_ready() {
    let backends = Backends::new(Spec::new("app")).await;
    let db = &backends.db;
    let missing = format!("{}_missing", db.name());
    let uri = format!("postgresql://{}/{missing}?sslmode=disable", db.server.addr());
    let leasehold = backends.leasehold_at(&uri).start().await;

    // The credential is proved: the server had let it in before it looked for the database.
    leasehold.wait_ready().await;
    assert_eq!(proofs(&leasehold, "ok").await, 1.0);
    let words = format!("3D000: database \"{missing}\" does not exist");
    let refused = leasehold.log().messages("the proof is refused").remove(0);
    assert!(field(&refused, "error").ends_with(&words), "{refused}");
    assert_eq!(refused["db.name"], missing.as_str());
    let shown = async || leasehold.status().await["routes"][0]["upstream_error"]["reason"].to_string();
    assert!(shown().await.contains("does not exist"), "{}", shown().await);
    let ready = leasehold.http("/readyz").await;
    assert!(ready.text.contains(&format!("no server gives sessions ({}: ", db.server.addr())), "{ready:?}");
    assert!(!leasehold.log().0.contains("ready: "), "a URL that no session gets in at");

    db.admin.batch_execute(&format!("CREATE DATABASE {missing}")).await.unwrap();
    leasehold.wait_log("ready: postgresql://").await;
    assert_eq!(shown().await, "null");
    leasehold.connect("app", &missing).await.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_log_in_is_shown_in_the_servers_words() {
    let no_login = "CREATE ROLE \"{{name}}\" NOLOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    let backends = Backends::new(Spec::new("app").creation_statements(no_login)).await;
    let leasehold = backends.leasehold().start().await;

    let words = "is not permitted to log in";
    let reason = async || leasehold.status().await["routes"][0]["last_error"]["reason"].to_string();
    eventually(SOON, async || same(reason().await.contains(words), true)).await;
    let shown = reason().await;
    assert!(shown.contains("prove: the server refuses the new credential: "), "{shown}");
    let lines = leasehold.log().messages("the proof is refused");
    assert!(field(&lines[0], "error").contains(words), "{lines:?}");
}
