//! A path that leads into a namespace, with a login outside of it.

use serde_json::json;

use super::SOON;
use crate::harness::{Backends, Leasehold, Spec, bench, eventually, same};

/// What a token needs to read the credential, and what the login of the harness has besides.
const READ_ONLY: &str = "path \"sys/leases/renew\" { capabilities = [\"update\"] }
    path \"sys/leases/revoke\" { capabilities = [\"update\"] }";

/// A leasehold whose engine is in a namespace. Its policy is what `leasehold policy` prints, or a read.
async fn in_a_namespace(backends: &Backends, printed: bool) -> Leasehold {
    let Backends { db, vault, setup } = backends;
    let namespace = bench().fresh_name("ns");
    vault.write(&format!("sys/namespaces/{namespace}"), json!({})).await;
    let (user, password) = db.vault_user();
    let server = db.server.addr();
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": user, "password": password,
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{server}/{}?sslmode=disable", db.name()),
    });
    let role = json!({
        "db_name": "db", "default_ttl": "20s", "max_ttl": "10m",
        "creation_statements":
            [format!("CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' IN ROLE {}", db.owner())],
    });
    vault.write(&format!("{namespace}/sys/mounts/team/db"), json!({"type": "database"})).await;
    vault.write(&format!("{namespace}/team/db/config/db"), connection).await;
    vault.write(&format!("{namespace}/team/db/roles/app"), role).await;
    let path = format!("{namespace}/team/db/creds/app");
    let builder = backends.without_login().approle(setup).path(&path);
    let policy = if printed {
        let printed = builder.clone().command("policy").await;
        assert!(printed.status.success(), "{printed:?}");
        String::from_utf8(printed.stdout).unwrap()
    } else {
        format!("path \"{path}\" {{ capabilities = [\"read\"] }} {READ_ONLY}")
    };
    vault.write(&format!("sys/policies/acl/{}", setup.id()), json!({"policy": policy})).await;
    let leasehold = builder.start().await;
    leasehold.wait_ready().await;
    leasehold
}

async fn at_least(leasehold: &Leasehold, name: &str, labels: &[(&str, &str)], least: f64) {
    leasehold.until_metric(SOON * 4, name, labels, least).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_in_a_namespace_of_the_path_is_renewed_and_given_back_there() {
    let backends = Backends::new(Spec::new("app")).await;
    let db = &backends.db;
    let mut leasehold = in_a_namespace(&backends, true).await;
    let first = leasehold.connect("app", db.name()).await.user().await;

    at_least(&leasehold, "renewals_total", &[("outcome", "ok")], 2.0).await;
    leasehold.rotate().await;

    eventually(SOON, async || same(db.roles().await.contains(&first), false)).await;
    at_least(&leasehold, "revocations_total", &[("outcome", "lease")], 1.0).await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");
    assert_eq!(leasehold.stop().await.code(), Some(0));
    assert!(db.roles().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_in_a_namespace_that_may_not_be_revoked_is_not_counted_as_gone_with_its_token() {
    let backends = Backends::new(Spec::new("app")).await;
    let db = &backends.db;
    let leasehold = in_a_namespace(&backends, false).await;
    let first = leasehold.connect("app", db.name()).await.user().await;

    leasehold.rotate().await;

    at_least(&leasehold, "revocations_total", &[("outcome", "forbidden")], 1.0).await;
    let token_gone = [("operation", "revoke_token"), ("outcome", "ok")];
    at_least(&leasehold, "vault_requests_total", &token_gone, 1.0).await;
    assert!(db.roles().await.contains(&first), "the revocation of the token leaves the lease");
    let metrics = leasehold.metrics().await;
    for outcome in ["token", "lease"] {
        assert_eq!(metrics.get("revocations_total", &[("outcome", outcome)]), 0.0, "{outcome}");
    }
}
