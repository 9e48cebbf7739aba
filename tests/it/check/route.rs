//! What `leasehold check` finds on a route: the role in Vault, the login at PostgreSQL, the session, the revocation.

use std::ops::Deref;

use serde_json::json;

use crate::check::Report;
use crate::harness::{Backends, Database, Fault, Mode, Spec, bench, leasehold};

/// Backends whose route is checked.
struct Ward(Backends);

impl Deref for Ward {
    type Target = Backends;

    fn deref(&self) -> &Backends {
        &self.0
    }
}

impl Ward {
    /// A role as `spec` says. leasehold may revoke leases.
    async fn of(spec: Spec) -> Self {
        Self(Backends::new(spec.policy(Spec::MAY_REVOKE)).await)
    }

    async fn on(db: Database, spec: Spec) -> Self {
        Self(Backends::with_database(db, spec.policy(Spec::MAY_REVOKE)).await)
    }

    async fn report(&self) -> Report {
        Report::of(self.leasehold().flag("--probe-database", self.db.name())).await
    }

    async fn with_upstream(&self, uri: &str) -> Report {
        Report::of(self.leasehold_at(uri)).await
    }
}

fn app() -> Spec {
    Spec::new("app")
}

const LOGIN: &str = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";

#[tokio::test(flavor = "multi_thread")]
async fn creation_statements_that_fail_are_told() {
    let ward =
        Ward::of(app().creation_statements("CREATE ROLE \"{{name}}\" LOGIN PASWORD '{{password}}'")).await;
    ward.report().await.says("issue", "error", "unrecognized role option", "creation_statements");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_role_is_told() {
    let ward = Ward::of(app()).await;
    ward.vault.delete(&ward.setup.path.replace("/creds/", "/roles/")).await;
    ward.report().await.says("issue", "error", "unknown role", "make the role");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_vault_cannot_reach_is_told() {
    let db = bench().postgres().await.database().await;
    let way = Fault::before(&db.server.addr()).await;
    let ward = Ward::on(db, app().database_addr(&way.addr().to_string())).await;
    // Vault keeps connections, so the old ones go too.
    way.set(Mode::Refuse).await;
    way.cut();
    ward.report().await.says("issue", "error", "connection refused", "connection_url");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_log_in_is_told_and_given_back() {
    let nologin = LOGIN.replace(" LOGIN", " NOLOGIN") + " IN ROLE \"{{owner}}\"";
    let ward = Ward::of(app().creation_statements(&nologin)).await;
    let report = ward.report().await;
    report.says("role", "error", "28000", "LOGIN PASSWORD");
    assert!(ward.db.roles().await.is_empty());

    let other = LOGIN.replace("{{password}}", "another") + " IN ROLE \"{{owner}}\"";
    let ward = Ward::of(app().creation_statements(&other)).await;
    ward.report().await.says("role", "error", "28P01", "{{password}}");
}

/// A renewal would mend the first, and says nothing of the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_lets_no_session_in_is_told_before_a_renewal_mends_it() {
    let past = LOGIN.replace("{{expiration}}", "2020-01-01") + " IN ROLE \"{{owner}}\"";
    let ward = Ward::of(app().creation_statements(&past)).await;
    ward.report().await.says("role", "error", "28P01", "VALID UNTIL '{{expiration}}'");
    assert!(ward.db.roles().await.is_empty());

    let none = LOGIN.to_owned() + " CONNECTION LIMIT 0 IN ROLE \"{{owner}}\"";
    let ward = Ward::of(app().creation_statements(&none)).await;
    ward.report().await.says("role", "error", "53300", "CONNECTION LIMIT that leaves no session");
    assert!(ward.db.roles().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_no_session_may_go_to_is_told() {
    let ward = Ward::of(app()).await;
    let addr = ward.db.server.addr();
    for word in ["standby", "read-only"] {
        let uri = format!("postgresql://{addr}/?sslmode=disable&target_session_attrs={word}");
        let report = ward.with_upstream(&uri).await;
        report.says(
            "server",
            "error",
            "no host is what target_session_attrs asks for",
            "mend target_session_attrs",
        );
    }
    for word in ["any", "primary", "read-write", "prefer-standby"] {
        let uri = format!("postgresql://{addr}/?sslmode=disable&target_session_attrs={word}");
        let report = ward.with_upstream(&uri).await;
        assert!(report.errors().is_empty(), "{word}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_lacks_a_right_is_told() {
    let ward = Ward::of(app().creation_statements(LOGIN)).await;
    ward.db.admin.batch_execute("CREATE TABLE orders (id int)").await.unwrap();
    let in_db = ward.leasehold().flag("--probe-database", ward.db.name());
    let asking = in_db.clone().flag("--probe-sql", "SELECT * FROM orders");
    let report = Report::of(asking.clone().flag("--set-role", &ward.db.owner())).await;
    report.says("set_role", "error", "42501 permission denied to set role", "IN ROLE");
    report.says("probe_sql", "error", "it cannot be asked", "set_role");
    let report = Report::of(asking).await;
    report.says("probe_sql", "error", "permission denied for table orders", "grant the group");
    let report = Report::of(ward.leasehold().flag("--probe-database", "nowhere")).await;
    report.says("database", "error", "3D000", "--probe-database");
    let report =
        ward.with_upstream(&format!("postgresql://{}/nowhere?sslmode=disable", ward.db.server.addr())).await;
    report.says("database", "error", "3D000", "there is no database nowhere");
}

/// Vault's connection is there already; PostgreSQL takes no more of roles that are no superusers.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_connection_left_is_told() {
    let server = bench().own_postgres(json!({"conf": {"max_connections": "14"}})).await;
    let ward = Ward::on(server.database().await, app()).await;
    let (user, password) = ward.db.vault_user();
    let mut sessions = Vec::new();
    while let Ok(session) = server.login(&user, password, ward.db.name()).await {
        sessions.push(session);
        assert!(sessions.len() < 14, "it takes more than it may");
    }
    ward.report().await.says("server", "error", "53300", "raise max_connections");
    sessions.pop().unwrap().close().await;
    assert!(ward.report().await.errors().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_role_of_an_earlier_credential_is_told() {
    let ward = Ward::of(app()).await;
    let is_told = |report: &Report| format!("{report:?}").contains("earlier credentials");
    let earlier = format!("v-approle-earlier-{}", ward.db.name());
    let admin = &ward.db.admin;
    admin
        .batch_execute(&format!("CREATE ROLE \"{earlier}\" LOGIN; CREATE TABLE orders (id int)"))
        .await
        .unwrap();
    admin.batch_execute(&format!("ALTER TABLE orders OWNER TO \"{earlier}\"")).await.unwrap();
    assert!(!is_told(&ward.report().await), "a role without an end is nobody's lease");
    admin.batch_execute(&format!("ALTER ROLE \"{earlier}\" VALID UNTIL '2020-01-01'")).await.unwrap();
    ward.report().await.says("ownership", "warning", &format!("{earlier}\" (1)"), "REASSIGN OWNED");
    admin.batch_execute(&format!("DROP TABLE orders; DROP ROLE \"{earlier}\"")).await.unwrap();
    assert!(!is_told(&ward.report().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_could_not_be_dropped_is_told_with_what_stays() {
    // The role gets a right that `DROP ROLE` trips over, from a function that Vault's user may call.
    let db = bench().postgres().await.database().await;
    let give = "CREATE FUNCTION public.give(who text) RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS
                  $$ BEGIN EXECUTE format('GRANT CREATE ON SCHEMA public TO %I', who); END $$";
    db.admin.batch_execute(give).await.unwrap();
    let statements = LOGIN.to_owned() + " IN ROLE \"{{owner}}\"; SELECT public.give('{{name}}');";
    let ward = Ward::on(db, app().creation_statements(&statements)).await;

    let probe = ("--probe-sql", "CREATE TABLE public.mine (id int)");
    let in_db = ward.leasehold().flag("--probe-database", ward.db.name());
    let report = Report::of(in_db.flag(probe.0, probe.1)).await;

    report.says("ownership", "warning", "schema public", "SET role");
    report.says("revoke", "error", "owner of table mine", "REASSIGN OWNED");
    report.says("revoke", "error", "rights on schema public", "DROP OWNED BY");
    report.says("revoke", "error", "stays", "REASSIGN OWNED");
    assert_eq!(ward.db.roles().await.len(), 1, "as it says");
    let role = ward.db.roles().await[0].clone();
    ward.db.admin.batch_execute(&format!("DROP OWNED BY \"{role}\"")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_statements_that_drop_nothing_are_told() {
    let ward = Ward::of(app()).await;
    let role = ward.setup.path.replace("/creds/", "/roles/");
    let mut words = ward.vault.read(&role).await["data"].clone();
    words["revocation_statements"] = json!(["SELECT 1"]);
    ward.vault.write(&role, words).await;
    ward.report().await.says("revoke", "error", "still logs in", "revocation_statements");
}

#[tokio::test(flavor = "multi_thread")]
async fn ttls_that_cannot_work_together_are_told() {
    let ward = Ward::of(app().ttl("8s", "8s")).await;
    let report = Report::of(ward.leasehold().flag("--rotate-after", "10m").flag("--drain", "5s")).await;
    report.says("ttl", "warning", "the lease has 8s", "default_ttl");
    report.says("ttl", "warning", "max_ttl 8s is no longer than the lease", "raise max_ttl");
    report.says("ttl", "warning", "rotate_after 10m is not shorter than max_ttl 8s", "shorter");
    report.says("ttl", "warning", "drain 5s is cut", "shorten drain");
    let ward = Ward::of(app().ttl("4s", "1h")).await;
    ward.report().await.says("ttl", "error", "given back", "1h");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_or_not_to_be_trusted_is_told() {
    let db = bench().postgres_18().await.database().await;
    let ca = db.server.ca.clone().unwrap();
    let ward = Ward::on(db, app()).await;
    let addr = ward.db.server.addr();
    let report = ward.with_upstream("postgresql://127.0.0.1:1/?sslmode=disable").await;
    report.says("server", "error", "cannot reach", "is PostgreSQL up");
    let report = ward.with_upstream(&format!("postgresql://{addr}/")).await;
    report.says("tls", "error", "certificate", "sslrootcert");
    let both = format!("postgresql://{addr},127.0.0.1:1/?sslrootcert={}", ca.display());
    let report = ward.with_upstream(&both).await;
    report.says("server", "warning", "cannot reach", "network");
    assert_eq!(report.exit, Some(0), "one host suffices");
    let plain = bench().postgres().await;
    let report = ward.with_upstream(&format!("postgresql://{}/", plain.addr())).await;
    report.says("tls", "error", "does not support TLS", "sslmode=disable in --upstream");
    assert!(ward.db.roles().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pg_hba_that_keeps_roles_out_is_told() {
    let server = bench().own_postgres(json!({"hba": ["host all +keep_out all reject"]})).await;
    let superuser = server.superuser("postgres").await;
    superuser.batch_execute("CREATE ROLE keep_out NOLOGIN").await.unwrap();
    let db = server.database().await;
    let grant = format!("GRANT keep_out TO {}", db.owner());
    superuser.batch_execute(&grant).await.unwrap();
    let ward = Ward::on(db, app()).await;
    ward.report().await.says("pg_hba", "error", "28000", "pg_hba.conf");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_role_is_read_and_logged_in_with_and_left_alone() {
    let Backends { db, vault, setup } = Backends::new(app()).await;
    let username = format!("fixed_{}", db.name());
    db.admin.batch_execute(&format!("CREATE ROLE {username} LOGIN")).await.unwrap();
    let path = setup.static_role(&username, "1h").await;
    let report = Report::of(leasehold().upstream(&db).vault(&vault).approle(&setup).path(&path)).await;
    assert_eq!(report.exit, Some(0), "{report:#?}");
    assert!(report.with("warning").is_empty(), "{report:#?}");
    assert!(report.with("ok").contains(&"server"), "{report:#?}");
}
