//! A real PgBouncer between leasehold and PostgreSQL: it has words of its own for a role that is gone.

use serde_json::{Value, json};

use crate::harness::{Backends, Database, Leasehold, SOON, Spec, bench, connect, eventually, same};

/// Backends with a pooler between leasehold and the database.
struct Pooled {
    backends: Backends,
    /// `host:port` of the pooler.
    pooler: String,
}

impl Pooled {
    async fn new(settings: Value) -> Self {
        let backends = Backends::new(Spec::new("app")).await;
        let pooler = bench().pgbouncer(&backends.db.server, settings).await;
        Self { backends, pooler }
    }

    fn db(&self) -> &Database {
        &self.backends.db
    }

    async fn start(&self, flags: &[(&str, &str)]) -> Leasehold {
        let uri = format!("postgresql://{}/?sslmode=disable", self.pooler);
        self.backends.leasehold_at(&uri).flags(flags).start().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_a_pooler_does_not_know_any_more_is_replaced_at_the_next_login() {
    let pooled = Pooled::new(json!({})).await;
    let leasehold = pooled.start(&[]).await;
    leasehold.wait_ready().await;
    let before = leasehold.connect("app", pooled.db().name()).await.user().await;
    pooled.db().drop_role(&before).await;

    let after = leasehold.connect("app", pooled.db().name()).await;

    assert_ne!(after.user().await, before);
    let metrics = leasehold.metrics().await;
    assert!(metrics.get("suspect_logins_total", &[]) >= 1.0);
    assert_eq!(metrics.get("rotations_total", &[("reason", "revoked")]), 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_a_pooler_refuses_is_replaced_at_the_next_login() {
    let pooled = Pooled::new(json!({})).await;
    let leasehold = pooled.start(&[]).await;
    leasehold.wait_ready().await;
    let before = leasehold.connect("app", pooled.db().name()).await.user().await;
    let change = format!("ALTER ROLE \"{before}\" PASSWORD 'another'");
    pooled.db().admin.batch_execute(&change).await.unwrap();

    // For the moments in which it goes by the password that it knows, the pooler may let in.
    eventually(SOON, async || {
        let session = leasehold.connect("app", pooled.db().name()).await;
        let user = session.user().await;
        session.close().await;
        same(user != before, true)
    })
    .await;

    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[("reason", "refused")]), 1.0);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pooler_refuses_for_another_reason_is_told_in_its_own_words_and_nothing_is_replaced() {
    let pooled = Pooled::new(json!({})).await;
    let leasehold = pooled.start(&[]).await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", pooled.db().name()).await;

    let mut config = leasehold.config("app", pooled.db().name());
    config.options("-c geqo=off");
    let refused = connect(&config).await.err().expect("the pooler takes no options");
    let told = refused.as_db_error().expect("an answer");
    assert_eq!(told.code().code(), "08P01");
    assert_eq!(told.message(), "unsupported startup parameter: options");

    assert_eq!(session.value("SELECT 1").await, "1");
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[]), 1.0);
    assert_eq!(metrics.get("rotations_total", &[]), 0.0);
    assert!(metrics.get("proofs_total", &[("outcome", "ok")]) >= 2.0, "it was proved again, and is good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_sessions_that_a_pooler_does_not_take_is_found_by_the_proof() {
    let pooled = Pooled::new(json!({})).await;
    let owner = pooled.db().owner();
    let leasehold = pooled.start(&[("--set-role", &owner), ("--limits-login-wait", "300ms")]).await;

    eventually(SOON, async || {
        let refused = leasehold.metrics().await.get("proofs_total", &[("outcome", "refused")]);
        if refused >= 1.0 { Ok(()) } else { Err(refused) }
    })
    .await;

    assert_eq!(leasehold.http("/readyz").await.status, 503);
    assert_eq!(leasehold.metrics().await.get("proofs_total", &[("outcome", "ok")]), 0.0);
    leasehold.wait_log("set_role is refused, and would be in every session").await;
    let error = leasehold.try_connect("app", pooled.db().name()).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "57P03");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_sessions_that_the_fresh_role_is_no_member_of_is_found_by_the_proof() {
    let pooled = Pooled::new(json!({})).await;
    let stranger = format!("{}_stranger", pooled.db().name());
    pooled.db().admin.batch_execute(&format!("CREATE ROLE {stranger}")).await.unwrap();
    let direct = pooled.backends.leasehold().flag("--set-role", &stranger).start().await;

    eventually(SOON, async || {
        let refused = direct.metrics().await.get("proofs_total", &[("outcome", "refused")]);
        if refused >= 1.0 { Ok(()) } else { Err(refused) }
    })
    .await;
    assert_eq!(direct.http("/readyz").await.status, 503);

    // The same candidate is proved again, and published once it may be what sessions are.
    let grant = format!("GRANT {stranger} TO {}", pooled.db().owner());
    pooled.db().admin.batch_execute(&grant).await.unwrap();
    direct.wait_ready().await;
    let session = direct.connect("app", pooled.db().name()).await;
    assert_eq!(session.value("SELECT current_user").await, stranger);
}
