//! Credentials and tokens that somebody takes away: what is shown, and what Vault is asked meanwhile.

use reqwest::Method;
use serde_json::json;

use super::{Forwarded, SOON, Spec, at_once, piled_up};
use crate::harness::{eventually, same};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    RevokeLease,
    RevokePrefix,
    RevokeToken,
    DropRole,
}

impl Act {
    async fn happen(self, backends: &Forwarded) {
        let vault = &backends.vault;
        let lease = &vault.leases(&backends.setup.path).await[0];
        match self {
            Self::RevokeLease => vault.revoke_lease(lease).await,
            Self::RevokePrefix => vault.revoke_prefix(&backends.setup.path).await,
            Self::DropRole => backends.db.drop_role(&backends.db.roles().await[0]).await,
            Self::RevokeToken => {
                let token = backends.fault.secrets().into_iter().filter(|secret| secret.starts_with("s."));
                for token in token {
                    vault.request(Method::POST, "auth/token/revoke-self", &token, Some(json!({}))).await;
                }
                eventually(SOON, async || same(vault.lease(lease).await, None)).await;
            }
        }
    }
}

async fn is_shown_and_replaced(act: Act) {
    let backends = Forwarded::new(Spec::new("app").ttl("60s", "1h")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    let user = session.user().await;
    act.happen(&backends).await;

    let new = leasehold.connect("app", backends.db.name()).await;

    assert_ne!(new.user().await, user, "{act:?}");
    assert_eq!(session.ended().await.as_deref(), Some("57P01"), "{act:?}");
    assert_eq!(leasehold.last_error().await, "lease lost", "{act:?}");
    assert_eq!(leasehold.http("/readyz").await.status, 200, "{act:?}");
    leasehold.until_metric(SOON * 2, "rotations_total", &[("reason", "revoked")], 1.0).await;
    leasehold.until_metric(SOON * 2, "sessions_closed_total", &[("cause", "revoked")], 1.0).await;
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0, "{act:?}: the new session saw nothing");
    assert_eq!(metrics.get("issuances_total", &[]), 2.0, "{act:?}");
    assert!(metrics.get("lease_runway_seconds", &[]) > 20.0, "{act:?}");
    let times: Vec<_> = backends.fault.asked().iter().map(|asked| asked.at).collect();
    let most = piled_up(&times);
    assert!(most <= 10.0, "{act:?}: {most} requests piled up");
    eventually(SOON, async || same(leasehold.generations().await.len(), 1)).await;
    assert_eq!(leasehold.generations().await[0]["state"], "current", "{act:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_taken_away_is_shown_and_replaced() {
    at_once(
        [Act::RevokeLease, Act::RevokePrefix, Act::RevokeToken, Act::DropRole]
            .map(|act| Box::pin(is_shown_and_replaced(act))),
    )
    .await;
}
