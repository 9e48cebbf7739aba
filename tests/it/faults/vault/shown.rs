//! What is shown of a Vault that is away, slow or busy while its credential serves on.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{Forwarded, SOON, Spec, at_once, is_told_57p03, piled_up};
use crate::harness::{Leasehold, Mode, Storage, bench, eventually, field, same};

/// How a Vault is brought to its knees and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Pause,
    Kill,
    Seal,
    Quota,
}

impl Act {
    async fn begin(self, backends: &Forwarded) {
        match self {
            Self::Pause => backends.vault.pause().await,
            Self::Kill => backends.vault.stop("KILL").await,
            Self::Seal => backends.vault.seal().await,
            Self::Quota => {
                let quota = json!({"path": "sys/leases/renew", "rate": 1, "interval": "1h"});
                backends.vault.write("sys/quotas/rate-limit/renew", quota).await;
                // The one that it lets through.
                let lease = Some(json!({"lease_id": "x"}));
                backends
                    .vault
                    .request(Method::POST, "sys/leases/renew", &backends.vault.root_token, lease)
                    .await;
            }
        }
    }

    async fn end(self, backends: &Forwarded) {
        match self {
            Self::Pause => backends.vault.resume().await,
            Self::Kill => backends.vault.restart().await,
            Self::Seal => backends.vault.unseal().await,
            Self::Quota => backends.vault.delete("sys/quotas/rate-limit/renew").await,
        }
    }

    /// What the status says last, the outcome of the requests, and whether Vault counts as reachable.
    fn shown(self) -> (&'static str, &'static str, bool) {
        match self {
            Self::Pause => ("renew: timed_out", "timeout", false),
            Self::Kill => ("renew: transient", "unreachable", false),
            Self::Seal => ("renew: transient", "server_error", false),
            Self::Quota => ("renew: transient", "server_error", true),
        }
    }
}

async fn is_shown_and_heals(act: Act) {
    let storage = if act == Act::Pause { Storage::Memory } else { Storage::Raft };
    // Renewed within 37 s, and serves for 56 s. In its last 6 s a successor would be asked for.
    let backends =
        Forwarded::with_vault(bench().own_vault(storage).await, Spec::new("app").ttl("60s", "1h")).await;
    let leasehold = backends.leasehold().flag("--vault-client-timeout", "5s").start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    let user = session.user().await;
    act.begin(&backends).await;

    leasehold.until_metric(SOON * 5, "renewals_total", &[("outcome", "failed")], 1.0).await;
    let (kind, outcome, reachable) = act.shown();
    assert_eq!(leasehold.last_error().await, kind, "{act:?}");
    let status = leasehold.status().await;
    assert_eq!(status["vault"]["reachable"], reachable, "{act:?}: {status}");
    let trouble = if act == Act::Seal { json!("sealed") } else { json!(null) };
    assert_eq!(status["vault"]["trouble"], trouble, "{act:?}: {status}");
    let route = &status["routes"][0];
    let line = leasehold.log().messages("could not renew").remove(0);
    assert_eq!((&line["lease.generation"], &line["db.user"]), (&json!(1), &json!(user)), "{act:?}: {line}");
    if act == Act::Seal {
        assert_eq!(route["last_error"]["reason"], "renew: Vault is sealed", "{status}");
        assert_eq!(line["reason"], "Vault is sealed", "{line}");
    }
    assert_eq!(
        (&route["ready"], &route["next_action"]),
        (&json!(true), &json!("renew")),
        "{act:?}: {status}"
    );
    let metrics = leasehold.metrics().await;
    let labels = [("operation", "renew"), ("outcome", outcome)];
    assert!(metrics.get("vault_requests_total", &labels) >= 1.0, "{act:?}");
    assert_eq!(metrics.get("vault_requests_total", &[("operation", "renew"), ("outcome", "ok")]), 0.0);
    assert_eq!(leasehold.http("/readyz").await.status, 200, "{act:?}");
    assert_eq!(session.user().await, user, "{act:?}: its session goes on");
    assert_eq!(
        leasehold.connect("app", backends.db.name()).await.user().await,
        user,
        "{act:?}: a login works"
    );

    act.end(&backends).await;

    leasehold.until_metric(SOON * 4, "renewals_total", &[("outcome", "ok")], 1.0).await;
    assert_eq!(leasehold.status().await["vault"]["reachable"], true, "{act:?}");
    assert_eq!(session.user().await, user, "{act:?}");
    assert_eq!(leasehold.metrics().await.get("issuances_total", &[]), 1.0, "{act:?}: nothing was lost");
    let times: Vec<_> = backends.fault.asked().iter().map(|asked| asked.at).collect();
    let most = piled_up(&times);
    assert!(most <= 10.0, "{act:?}: {most} requests piled up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_stopped_killed_sealed_or_used_up_is_shown_and_heals() {
    at_once([Act::Pause, Act::Kill, Act::Seal, Act::Quota].map(|act| Box::pin(is_shown_and_heals(act))))
        .await;
}

/// Status, readiness, `rotate` and the log give this reason, which that step met with, for a route without a credential.
async fn is_said_everywhere(leasehold: &Leasehold, step: &str, reason: &str) {
    let words = format!("{step}: {reason}");
    eventually(SOON * 2, async || {
        let status = leasehold.status().await;
        same(status["routes"][0]["last_error"]["reason"].as_str().unwrap_or_default(), &words)
    })
    .await;
    let status = leasehold.status().await;
    assert_eq!(status["routes"][0]["credential_error"]["reason"], words.as_str(), "{status}");
    let ready = leasehold.http("/readyz").await;
    assert!(ready.status == 503 && ready.text.contains(&words), "{ready:?}");
    let rotated = leasehold.command(&["rotate"]).await;
    let said = String::from_utf8_lossy(&rotated.stderr);
    assert!(rotated.status.code() == Some(1) && said.contains(&words), "{rotated:?}");
    let lines = leasehold.log().messages(&format!("could not {step}"));
    assert!(lines.iter().any(|line| field(line, "reason") == reason), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_without_read_and_a_seal_are_said_in_the_same_words_everywhere() {
    let vault = bench().own_vault(Storage::Raft).await;
    let backends = Forwarded::with_vault(vault, Spec::new("app")).await;
    let policy = format!("sys/policies/acl/{}", backends.setup.id());
    let right = backends.vault.read(&policy).await["data"]["policy"].clone();
    let elsewhere = "path \"elsewhere\" { capabilities = [\"read\"] }";
    backends.vault.write(&policy, json!({"policy": elsewhere})).await;
    let leasehold = backends.leasehold().flag("--limits-login-wait", "500ms").start().await;

    let lacking = format!("403 on {}: the policy lacks read", backends.setup.path);
    is_said_everywhere(&leasehold, "issue", &lacking).await;
    is_told_57p03(&leasehold, &backends.db).await;

    backends.vault.seal().await;
    is_said_everywhere(&leasehold, "log in", "Vault is sealed").await;

    backends.vault.unseal().await;
    backends.vault.write(&policy, json!({"policy": right})).await;
    leasehold.wait_ready().await;
    leasehold.connect("app", backends.db.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_takes_two_seconds_for_a_request_is_waited_for() {
    let backends = Forwarded::new(Spec::new("app").ttl("40s", "1h")).await;
    // A second on the way there, and one back.
    backends.fault.set(Mode::Delay(Duration::from_secs(1))).await;
    let leasehold = backends.leasehold().start().await;
    eventually(SOON * 2, async || same(leasehold.http("/readyz").await.status, 200)).await;
    let session = leasehold.connect("app", backends.db.name()).await;
    let user = session.user().await;

    leasehold.rotate().await;

    assert_ne!(leasehold.connect("app", backends.db.name()).await.user().await, user);
    assert_eq!(session.user().await, user, "a rotation closes nothing");
    assert_eq!(leasehold.log().messages("could not log in").len(), 0);
    assert_eq!(leasehold.log().messages("could not issue").len(), 0);
    let status = leasehold.status().await;
    assert_eq!(status["vault"]["reachable"], true);
    assert!(status["routes"][0]["last_error"].is_null(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_comes_after_the_drain_time_drains_from_its_publication_on() {
    // Capped at its first renewal; usable for 56 s, and would be drained 14 s before that.
    let mut backends = Forwarded::new(Spec::new("app").ttl("60s", "60s")).await;
    let leasehold = backends.leasehold().flag("--drain", "14s").start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    let user = session.user().await;
    backends.vault.delete(&format!("{}/roles/app", backends.setup.mount())).await;

    eventually(SOON * 7, async || {
        let runway = leasehold.metrics().await.get("lease_runway_seconds", &[]);
        assert_eq!(session.user().await, user, "without a successor nothing is drained");
        if runway < 13.5 { Ok(()) } else { Err(runway) }
    })
    .await;
    assert_eq!(leasehold.last_error().await, "issue: refused");
    assert_eq!(leasehold.http("/readyz").await.status, 200);
    backends.retune("1h", "1h").await;

    assert_eq!(session.ended_within(SOON * 3).await.as_deref(), Some("57P01"));
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("rotations_total", &[]), 1.0, "it was closed for its successor");
    // It is counted a moment after the client has heard of it.
    leasehold.until_metric(SOON * 2, "sessions_closed_total", &[("cause", "drain")], 1.0).await;
    assert_ne!(leasehold.connect("app", backends.db.name()).await.user().await, user);
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
}
