//! A Vault role whose statements the database does not accept: what is shown before there is a credential, and after the
//! last one is gone.

use serde_json::json;

use super::{SOON, Spec, Stage};
use crate::harness::{eventually, same};

const SYNTAX: &str =
    "issue: refused: the database does not accept the role's creation_statements (SQLSTATE 42601)";

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_database_does_not_accept_are_named_and_an_outage_of_theirs_is_an_error() {
    let mut stage = Stage::shared(Spec::new("app").creation_statements("CREATE ROL \"{{name}}\"")).await;
    let leasehold = stage.start(&[("--limits-login-wait", "1s")]).await;

    eventually(SOON, async || same(leasehold.last_error().await, SYNTAX.to_owned())).await;
    super::said(&leasehold, SOON * 2, "no usable credential: new sessions are refused", 1).await;
    let log = leasehold.log();
    assert_eq!(log.at("ERROR").len(), 1, "{:#?}", log.at("ERROR"));

    // By hand it is tried at once, and what was wrong is past.
    stage.setup.recreate(&stage.db).await;
    leasehold.rotate().await;
    let past = async || leasehold.status().await["routes"][0]["last_error"]["past"].clone();
    eventually(SOON, async || same(past().await, json!(true))).await;
    assert_eq!(leasehold.last_error().await, SYNTAX);

    // The loss of the last credential is more than a line among others.
    let broken = json!({"creation_statements": ["CREATE ROL \"{{name}}\""]});
    stage.vault.write(&format!("{}/roles/app", stage.setup.mount()), broken).await;
    stage.vault.revoke_prefix(&stage.setup.path).await;
    super::is_told_57p03(&leasehold, &stage.db).await;
    let lost = leasehold
        .log()
        .at("WARN")
        .iter()
        .filter(|line| line.contains("the last usable credential is gone"))
        .count();
    assert_eq!(lost, 1);
    assert_eq!(leasehold.status().await["routes"][0]["last_error"]["past"], json!(false));
}
