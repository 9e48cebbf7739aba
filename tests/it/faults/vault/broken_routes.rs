//! A hundred routes beside ten that are broken, each in its own way: nobody's lease ends for it.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{Forwarded, SOON, Spec};
use crate::harness::{Fault, Leasehold, Mode, Session, eventually};

const GOOD: usize = 100;

/// Twice the life of a lease.
const WATCHED: Duration = Duration::from_secs(40);

/// What a broken route asks for, and what keeps the faults up.
struct Broken {
    paths: Vec<(&'static str, String)>,
    _hangs: Fault,
}

/// Ten ways to be broken: what Vault refuses, fails at, hangs in, or gives to no use.
async fn broken(backends: &Forwarded) -> Broken {
    let (vault, mount) = (&backends.vault, backends.setup.mount());
    let role = vault.read(&format!("{mount}/roles/app")).await["data"].clone();
    let like_app = async |name: &str, change: serde_json::Value| {
        let mut role = role.clone();
        for (key, value) in change.as_object().unwrap() {
            role[key] = value.clone();
        }
        vault.write(&format!("{mount}/roles/{name}"), role).await;
    };
    let hangs = Fault::before("127.0.0.1:1").await;
    hangs.set(Mode::Blackhole).await;
    for (name, addr) in [("gone", "127.0.0.1:1".to_owned()), ("hangs", hangs.addr().to_string())] {
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{addr}/x?sslmode=disable");
        let config = json!({"plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
            "connection_url": url, "username": "u", "password": "p", "verify_connection": false});
        vault.write(&format!("{mount}/config/{name}"), config).await;
        like_app(name, json!({"db_name": name})).await;
    }
    let broken_sql = "CREATE ROLE \"{{name}}\" WITH NONSENSE";
    like_app("nonsense", json!({"creation_statements": [broken_sql]})).await;
    let no_login = "CREATE ROLE \"{{name}}\" NOLOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    like_app("nologin", json!({"creation_statements": [no_login]})).await;
    like_app("short", json!({"default_ttl": "3s", "max_ttl": "3s"})).await;
    like_app("busy", json!({})).await;
    like_app("forbidden", json!({})).await;
    let policy = format!(
        "path \"{mount}/creds/*\" {{ capabilities = [\"read\"] }}
         path \"{mount}/creds/forbidden\" {{ capabilities = [\"deny\"] }}
         path \"{mount}/static-creds/*\" {{ capabilities = [\"read\"] }}
         path \"sys/leases/renew\" {{ capabilities = [\"update\"] }}"
    );
    vault.write(&format!("sys/policies/acl/{}", backends.setup.id()), json!({"policy": policy})).await;
    let busy = format!("{mount}/creds/busy");
    let quota = json!({"path": busy, "rate": 1, "interval": "1h"});
    vault.write(&format!("sys/quotas/rate-limit/{}", backends.setup.id()), quota).await;
    vault.request(Method::GET, &busy, "", None).await;
    let creds = |role| format!("{mount}/creds/{role}");
    let paths = vec![
        ("missing", creds("missing")),
        ("forbidden", creds("forbidden")),
        ("nonsense", creds("nonsense")),
        ("gone", creds("gone")),
        ("hangs", creds("hangs")),
        ("nologin", creds("nologin")),
        ("short", creds("short")),
        ("busy", busy),
        ("unmounted", format!("not-{mount}/creds/app")),
        ("unknown", format!("{mount}/static-creds/unknown")),
    ];
    Broken { paths, _hangs: hangs }
}

async fn start(backends: &Forwarded, broken: &Broken) -> Leasehold {
    let good = (0..GOOD).map(|number| (format!("r{number}"), backends.setup.path.clone()));
    let bad = broken.paths.iter().map(|(name, path)| ((*name).to_owned(), path.clone()));
    let upstream = format!("postgresql://{}/?sslmode=disable", backends.db.server.addr());
    let routes = bad.chain(good).map(|(name, path)| {
        format!("[[route]]\nname = \"{name}\"\nuser = \"{name}\"\nvault_path = \"{path}\"\nupstream = \"{upstream}\"\n")
    });
    let toml: String = routes.collect();
    backends.with_file(&toml).flag("--vault-client-timeout", "4s").start().await
}

/// A session on each of the good routes, as soon as they all have a credential.
async fn sessions(leasehold: &Leasehold, backends: &Forwarded) -> Vec<Session> {
    eventually(SOON * 6, async || {
        let status = leasehold.status().await;
        let routes = status["routes"].as_array().unwrap();
        let ready = routes
            .iter()
            .filter(|route| route["ready"] == true && route["vault_path"] == backends.setup.path);
        match ready.count() {
            GOOD => Ok(()),
            ready => Err(ready),
        }
    })
    .await;
    let connect = async |number: usize| leasehold.connect(&format!("r{number}"), backends.db.name()).await;
    let mut sessions = Vec::new();
    for number in 0..GOOD {
        sessions.push(connect(number).await);
    }
    sessions
}

/// Nobody's session ends, and no credential is replaced.
async fn all_live_on(leasehold: &Leasehold, sessions: Vec<Session>) {
    let users = join_all(sessions.iter().map(Session::user)).await;
    tokio::time::sleep(WATCHED).await;
    assert_eq!(join_all(sessions.iter().map(Session::user)).await, users);
    let closed = leasehold.metrics().await.get("sessions_closed_total", &[]);
    for session in sessions {
        session.close().await;
    }
    assert_eq!(closed, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_broken_routes_end_no_session_of_a_hundred_others() {
    let backends = Forwarded::new(Spec::new("app").ttl("20s", "1h")).await;
    let broken = broken(&backends).await;
    let leasehold = start(&backends, &broken).await;
    let sessions = sessions(&leasehold, &backends).await;

    all_live_on(&leasehold, sessions).await;

    let status = leasehold.status().await;
    let routes = status["routes"].as_array().unwrap();
    for (name, _) in &broken.paths {
        let route = routes.iter().find(|route| route["name"] == *name).unwrap();
        assert!(route["ready"] == false && !route["last_error"].is_null(), "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_ten_broken_routes_keep_no_other_from_coming_back() {
    let backends = Forwarded::new(Spec::new("app").ttl("20s", "1h")).await;
    let broken = broken(&backends).await;
    let leasehold = start(&backends, &broken).await;
    let before = sessions(&leasehold, &backends).await;
    backends.fault.set(Mode::Refuse).await;
    backends.fault.cut();
    for session in before {
        assert_eq!(session.ended_within(SOON * 3).await.as_deref(), Some("57P01"));
    }

    backends.fault.set(Mode::Pass).await;

    let after = sessions(&leasehold, &backends).await;
    let closed = leasehold.metrics().await.get("sessions_closed_total", &[]);
    let users = join_all(after.iter().map(Session::user)).await;
    tokio::time::sleep(WATCHED).await;
    assert_eq!(join_all(after.iter().map(Session::user)).await, users);
    assert_eq!(leasehold.metrics().await.get("sessions_closed_total", &[]), closed);
}
