//! However Vault fails, it is asked at most five times a second; what it refuses is asked for as seldom by many routes as by
//! one. Counted before it, for a leasehold of six routes.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::{Forwarded, Spec, at_once, piled_up};
use crate::harness::{Fault, Leasehold, Mode, SOON, Storage, Vault, bench, eventually, same};
use crate::vault::addresses::cluster;

const ROUTES: usize = 6;

/// How long each failure is watched.
const WATCHED: Duration = Duration::from_secs(7);

/// A failure that is there when leasehold starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    Sealed,
    Paused,
    Killed,
    Leaderless,
    Blackholed,
    CutShort,
    QuotaUsedUp,
    BusyWithRetryAfter,
    PolicyForbids,
    RoleDeleted,
    StatementsBroken,
    LeaseTooShort,
    TokenOfOneUse,
    SecretIdWrong,
    CachedByAProxy,
}

impl Failing {
    fn spec(self) -> Spec {
        let spec = Spec::new("app").policy(Spec::MAY_REVOKE);
        match self {
            Self::LeaseTooShort => spec.ttl("3s", "3s"),
            Self::TokenOfOneUse => spec.token(json!({"token_ttl": "1h", "token_num_uses": 1})),
            Self::StatementsBroken => spec.creation_statements("CREATE ROLE \"{{name}}\" WITH NONSENSE"),
            _ => spec,
        }
    }

    /// What is not to be asked for too often: all, or a path that is refused alone.
    fn path(self, backends: &Forwarded) -> String {
        match self {
            Self::Sealed
            | Self::Paused
            | Self::Killed
            | Self::Leaderless
            | Self::Blackholed
            | Self::CutShort
            | Self::BusyWithRetryAfter => String::new(),
            Self::TokenOfOneUse | Self::SecretIdWrong => "/login".to_owned(),
            Self::QuotaUsedUp
            | Self::PolicyForbids
            | Self::RoleDeleted
            | Self::StatementsBroken
            | Self::LeaseTooShort
            | Self::CachedByAProxy => backends.setup.path.clone(),
        }
    }

    /// Until the first failure is known what is sent is not held back: a login and what comes of it, for each route.
    fn is_known_after(self) -> Duration {
        // What comes out of a cache is found out at the first rotation.
        Duration::from_secs(if self == Self::CachedByAProxy { 4 } else { 1 })
    }

    /// The other node of the cluster is there where it has two.
    async fn begin(self) -> (Forwarded, Option<Vault>) {
        let own = async |storage| Forwarded::with_vault(bench().own_vault(storage).await, self.spec()).await;
        let backends = match self {
            Self::Sealed => {
                let backends = own(Storage::Raft).await;
                backends.vault.seal().await;
                backends
            }
            Self::Killed => {
                let backends = own(Storage::Raft).await;
                backends.vault.stop("KILL").await;
                backends
            }
            Self::Leaderless => {
                let (first, other) = cluster().await;
                let backends = Forwarded::with_vault(first, self.spec()).await;
                backends.vault.write("sys/step-down", json!({})).await;
                eventually(SOON * 3, async || same(other.health().await, 200)).await;
                // What is left sends everybody to the one that has gone.
                other.stop("KILL").await;
                return (backends, Some(other));
            }
            Self::Paused => {
                let backends = own(Storage::Memory).await;
                backends.vault.pause().await;
                backends
            }
            Self::BusyWithRetryAfter => {
                let backends = own(Storage::Memory).await;
                let headers = json!({"enable_rate_limit_response_headers": true});
                backends.vault.write("sys/quotas/config", headers).await;
                let quota = json!({"path": "auth/approle/", "rate": 1, "interval": "4s"});
                backends.vault.write("sys/quotas/rate-limit/logins", quota).await;
                backends
            }
            _ => {
                let mut backends = Forwarded::new(self.spec()).await;
                self.spoil(&mut backends).await;
                backends
            }
        };
        (backends, None)
    }

    /// On the shared server: the setup alone, or the way to it.
    async fn spoil(self, backends: &mut Forwarded) {
        let (vault, setup) = (backends.vault.clone(), &backends.setup);
        match self {
            Self::Blackholed => backends.fault.set(Mode::Blackhole).await,
            Self::CutShort => backends.fault.set(Mode::CutToClientAfter(100)).await,
            Self::QuotaUsedUp => {
                let quota = json!({"path": format!("{}/", setup.mount()), "rate": 1, "interval": "10m"});
                vault.write(&format!("sys/quotas/rate-limit/{}", setup.id()), quota).await;
                vault.request(Method::GET, &setup.path, "", None).await;
            }
            Self::PolicyForbids => {
                let role = format!("auth/approle/role/{}", setup.id());
                vault.write(&role, json!({"token_policies": ["default"]})).await;
            }
            Self::RoleDeleted => vault.delete(&format!("{}/roles/app", setup.mount())).await,
            Self::SecretIdWrong => std::fs::write(setup.secret_id_file(), "not-a-secret-id").unwrap(),
            Self::CachedByAProxy => {
                let proxy = bench().caching_proxy(&vault).await;
                backends.fault = Fault::before(proxy.trim_start_matches("http://")).await;
            }
            _ => {}
        }
    }

    async fn end(self, backends: &mut Forwarded, other: Option<&Vault>) {
        let login = format!("auth/approle/role/{}", backends.setup.id());
        let vault = backends.vault.clone();
        match self {
            Self::Sealed => vault.unseal().await,
            Self::Killed => vault.restart().await,
            Self::Leaderless => other.unwrap().restart().await,
            Self::Paused => vault.resume().await,
            Self::Blackholed | Self::CutShort => backends.fault.set(Mode::Pass).await,
            Self::BusyWithRetryAfter => vault.delete("sys/quotas/rate-limit/logins").await,
            Self::QuotaUsedUp => {
                vault.delete(&format!("sys/quotas/rate-limit/{}", backends.setup.id())).await
            }
            Self::PolicyForbids => {
                vault.write(&login, json!({"token_policies": [backends.setup.id()]})).await;
            }
            Self::TokenOfOneUse => {
                vault.write(&login, json!({"token_num_uses": 0})).await;
            }
            Self::RoleDeleted | Self::LeaseTooShort => backends.retune("1h", "24h").await,
            Self::StatementsBroken => backends.recreate().await,
            Self::SecretIdWrong => {
                let fresh = vault.write(&format!("{login}/secret-id"), json!({})).await;
                let fresh = fresh["data"]["secret_id"].as_str().unwrap();
                std::fs::write(backends.setup.secret_id_file(), fresh).unwrap();
            }
            Self::CachedByAProxy => {}
        }
    }
}

async fn routes(backends: &Forwarded, more: &str) -> Leasehold {
    let toml: String = (0..ROUTES)
        .map(|number| {
            format!(
                "[[route]]\nname = \"r{number}\"\nuser = \"r{number}\"\nvault_path = \"{}\"\n{more}\
                 upstream = \"postgresql://{}/?sslmode=disable\"\n",
                backends.setup.path,
                backends.db.server.addr()
            )
        })
        .collect();
    backends.with_file(&toml).flag("--vault-client-timeout", "2s").start().await
}

/// When requests for that came, but for those before the first failure was known.
fn held_back(backends: &Forwarded, failing: Failing) -> Vec<Instant> {
    let path = failing.path(backends);
    let asked = backends.fault.asked();
    let Some(first) = asked.first().map(|first| first.at) else { return Vec::new() };
    let of_path = asked.into_iter().filter(|asked| asked.line.contains(&path)).map(|asked| asked.at);
    of_path.filter(|at| *at > first + failing.is_known_after()).collect()
}

async fn is_held_to_its_rate(failing: Failing) {
    let (mut backends, other) = failing.begin().await;
    let more = if failing == Failing::CachedByAProxy { "rotate_after = \"2s\"\n" } else { "" };
    let leasehold = routes(&backends, more).await;
    eventually(SOON, async || if backends.fault.asked().is_empty() { Err("no request") } else { Ok(()) })
        .await;
    tokio::time::sleep(WATCHED).await;
    let while_it_failed = held_back(&backends, failing);

    failing.end(&mut backends, other.as_ref()).await;

    for number in 0..ROUTES {
        eventually(SOON * 4, async || {
            let reply = leasehold.http(&format!("/readyz?route=r{number}")).await;
            if reply.status == 200 { Ok(()) } else { Err((failing, reply)) }
        })
        .await;
    }
    let most = piled_up(&while_it_failed);
    assert!(most <= 10.0, "{failing:?}: {most} requests piled up");
    let is_asked_again = !while_it_failed.is_empty() || failing == Failing::SecretIdWrong;
    assert!(is_asked_again, "{failing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_away_is_asked_at_most_five_times_a_second() {
    at_once(
        [
            Failing::Sealed,
            Failing::Paused,
            Failing::Killed,
            Failing::Leaderless,
            Failing::Blackholed,
            Failing::CutShort,
            Failing::BusyWithRetryAfter,
        ]
        .map(|failing| Box::pin(is_held_to_its_rate(failing))),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_vault_refuses_is_asked_for_no_more_by_six_routes() {
    at_once(
        [
            Failing::QuotaUsedUp,
            Failing::PolicyForbids,
            Failing::RoleDeleted,
            Failing::StatementsBroken,
            Failing::LeaseTooShort,
            Failing::TokenOfOneUse,
            Failing::SecretIdWrong,
            Failing::CachedByAProxy,
        ]
        .map(|failing| Box::pin(is_held_to_its_rate(failing))),
    )
    .await;
}
