//! A Vault role whose statements the database does not accept: what is shown before there is a credential, and after the
//! last one is gone.

use serde_json::json;

use super::{Forwarded, SOON, Spec};
use crate::harness::{eventually, same};

const NONE_USABLE: &str =
    "no usable credential: new sessions are refused; `leasehold check` tries each step and names the remedy";
const SYNTAX: &str =
    "issue: refused: the database does not accept the role's creation_statements (SQLSTATE 42601)";

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_database_does_not_accept_are_named_and_an_outage_of_theirs_is_an_error() {
    let mut backends = Forwarded::new(Spec::new("app").creation_statements("CREATE ROL \"{{name}}\"")).await;
    let leasehold = backends.leasehold().flag("--limits-login-wait", "1s").start().await;

    eventually(SOON, async || same(leasehold.last_error().await, SYNTAX.to_owned())).await;
    let reason = leasehold.status().await["routes"][0]["last_error"]["reason"].clone();
    let words = "issue: the role's creation statements fail: syntax error at or near … (42601)";
    assert_eq!(reason, words);
    super::said(&leasehold, SOON * 2, NONE_USABLE, 1).await;
    let log = leasehold.log();
    assert_eq!(log.at("ERROR").len(), 1, "{:#?}", log.at("ERROR"));

    // By hand it is tried at once, and what was wrong is past.
    backends.recreate().await;
    leasehold.rotate().await;
    let past = async || leasehold.status().await["routes"][0]["last_error"]["past"].clone();
    eventually(SOON, async || same(past().await, json!(true))).await;
    assert_eq!(leasehold.last_error().await, SYNTAX);

    // The loss of the last credential is more than a line among others.
    let broken = json!({"creation_statements": ["CREATE ROL \"{{name}}\""]});
    backends.vault.write(&format!("{}/roles/app", backends.setup.mount()), broken).await;
    backends.vault.revoke_prefix(&backends.setup.path).await;
    super::is_told_57p03(&leasehold, &backends.db).await;
    let lost = leasehold
        .log()
        .at("WARN")
        .iter()
        .filter(|line| line.contains("the last usable credential is gone"))
        .count();
    assert_eq!(lost, 1);
    assert_eq!(leasehold.status().await["routes"][0]["last_error"]["past"], json!(false));
}
