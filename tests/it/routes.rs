//! Several routes on one port, picked by user name: each with its own lease, its own limit, its own troubles.

use serde_json::{Value, json};

use crate::harness::{Backends, Builder, Fault, Mode, SOON, Spec, bench, eventually, leasehold, same};

impl Backends {
    /// A database with what three kinds of users are granted, and a Vault role for each kind.
    async fn with_three_kinds() -> Self {
        let this = Self::on(&bench().postgres_18().await, Spec::new("app")).await;
        let name = this.db.name();
        this.db
            .admin
            .batch_execute(&format!(
                "CREATE TABLE stock (item text);
                 ALTER TABLE stock OWNER TO {name}_owner;
                 CREATE ROLE {name}_readonly NOLOGIN;
                 GRANT SELECT ON stock TO {name}_readonly;
                 CREATE ROLE {name}_admin NOLOGIN;
                 GRANT CREATE ON DATABASE {name} TO {name}_admin;
                 GRANT {name}_readonly, {name}_admin TO {name}_vault
                   WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;"
            ))
            .await
            .unwrap();
        for role in ["readonly", "admin"] {
            let create = format!(
                "CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'
                   IN ROLE \"{}_{role}\"",
                this.db.name()
            );
            let body = json!({"db_name": "db", "default_ttl": "1h", "creation_statements": [create]});
            this.vault.write(&format!("{}/roles/{role}", this.setup.mount()), body).await;
        }
        let policy = format!("path \"{}/creds/*\" {{ capabilities = [\"read\"] }}", this.setup.mount());
        this.vault.write(&format!("sys/policies/acl/{}", this.setup.id()), json!({"policy": policy})).await;
        this
    }

    /// A leasehold with a route for each of these users, which are also names of Vault roles.
    fn routes(&self, users: &[&str], more: &str) -> Builder {
        let mut toml = more.to_owned();
        for user in users {
            toml.push_str(&format!(
                "[[route]]\nuser = \"{user}\"\nupstream = \"postgresql://{}/?sslmode=disable\"\n\
                 vault_path = \"{}/creds/{user}\"\n",
                self.db.server.addr(),
                self.setup.mount()
            ));
        }
        leasehold().approle(&self.setup).config_toml(&toml)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_name_picks_the_route_and_each_route_has_its_own_lease_and_grants() {
    let backends = Backends::with_three_kinds().await;
    let db = &backends.db;
    let leasehold = backends.routes(&["app", "readonly", "admin"], "").vault(&backends.vault).start().await;
    for route in ["app", "readonly", "admin"] {
        leasehold.wait_ready_route(route).await;
    }

    let app = leasehold.connect("app", db.name()).await;
    let readonly = leasehold.connect("readonly", db.name()).await;
    let admin = leasehold.connect("admin", db.name()).await;

    app.batch_execute("INSERT INTO stock VALUES ('nail')").await.unwrap();
    assert_eq!(readonly.value("SELECT count(*) FROM stock").await, "1");
    let denied = readonly.batch_execute("INSERT INTO stock VALUES ('screw')").await.unwrap_err();
    assert_eq!(denied.code().unwrap().code(), "42501", "readonly cannot write");
    admin.batch_execute("CREATE SCHEMA made_by_admin").await.unwrap();
    let denied = app.batch_execute("CREATE SCHEMA made_by_app").await.unwrap_err();
    assert_eq!(denied.code().unwrap().code(), "42501", "app cannot create a schema");

    let status = leasehold.status().await;
    let routes = status["routes"].as_array().unwrap();
    let mut leases = Vec::new();
    for (route, session) in routes.iter().zip([&app, &readonly, &admin]) {
        let generations = route["generations"].as_array().unwrap();
        assert_eq!(generations.len(), 1, "{status}");
        assert_eq!(generations[0]["username"], session.user().await);
        assert_eq!(route["sessions"], 1, "{status}");
        leases.push(generations[0]["lease_id"].as_str().unwrap());
    }
    leases.sort_unstable();
    leases.dedup();
    assert_eq!(leases.len(), 3, "a lease each");

    let rotated = leasehold.command(&["rotate", "readonly"]).await;
    assert_eq!(String::from_utf8_lossy(&rotated.stdout), "readonly: generation 2 is published\n");
    let numbers = |status: &Value, route: usize| {
        let generations = status["routes"][route]["generations"].as_array().unwrap();
        generations.iter().map(|generation| generation["generation"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let status = leasehold.status().await;
    assert_eq!((numbers(&status, 0), numbers(&status, 1)), (vec![1], vec![1, 2]), "only readonly rotated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_route_leaves_the_other_one_alone_and_readyz_tells() {
    let backends = Backends::with_three_kinds().await;
    let leasehold = backends
        .routes(&["app", "unknown"], "[limits]\nlogin_wait = \"300ms\"\n")
        .vault(&backends.vault)
        .start()
        .await;
    leasehold.wait_ready().await;

    let startup = leasehold.http("/startup").await;
    assert_eq!(
        startup.status, 200,
        "a refusal that does not go away by itself holds nothing up: {startup:?}"
    );
    let ready = leasehold.http("/readyz").await;
    assert!(ready.text.starts_with("app: ready, runway "), "{ready:?}");
    assert!(ready.text.contains("unknown: no usable credential (issue: "), "{ready:?}");
    assert_eq!(leasehold.http("/livez").await.status, 200);
    assert_eq!(leasehold.http("/readyz?route=app").await.status, 200);
    let broken = leasehold.http("/readyz?route=unknown").await;
    assert_eq!(broken.status, 503, "{broken:?}");
    assert!(!broken.text.contains("app:"), "{broken:?}");
    assert_eq!(leasehold.http("/readyz?route=nobody").await.status, 404);

    assert_eq!(leasehold.connect("app", backends.db.name()).await.value("SELECT 1").await, "1");
    let turned_away = leasehold.try_connect("unknown", backends.db.name()).await.err().unwrap();
    assert_eq!(turned_away.code().unwrap().code(), "57P03");
    assert_eq!(leasehold.command(&["wait", "--max", "5s"]).await.status.code(), Some(0));

    let rotated = leasehold.command(&["rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1), "one of two could not be rotated: {rotated:?}");
    assert_eq!(String::from_utf8_lossy(&rotated.stdout), "app: generation 2 is published\n");
    let complaint = String::from_utf8_lossy(&rotated.stderr);
    assert!(complaint.starts_with("leasehold: unknown: issue: "), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_no_route_is_told_the_names_it_asked_for() {
    let backends = Backends::with_three_kinds().await;
    let leasehold = backends.routes(&["app"], "").vault(&backends.vault).start().await;
    leasehold.wait_ready().await;

    let error = leasehold.try_connect("nobody", "shop").await.err().unwrap();
    let told = error.as_db_error().unwrap();

    assert_eq!(told.severity(), "FATAL");
    assert_eq!(told.code().code(), "28000");
    assert_eq!(told.message(), "no route for user \"nobody\" and database \"shop\"");
    assert!(told.hint().is_some());
    let failures = leasehold.metrics().await.get("login_failures_total", &[("reason", "no_route")]);
    assert_eq!(failures, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_too_many_is_told_53300_and_a_closed_one_makes_room() {
    let backends = Backends::with_three_kinds().await;
    let db = backends.db.name();
    let limits = "[defaults]\nmax_sessions = 2\n[limits]\nmax_sessions = 3\n";
    let leasehold = backends.routes(&["app", "readonly"], limits).vault(&backends.vault).start().await;
    for route in ["app", "readonly"] {
        leasehold.wait_ready_route(route).await;
    }
    let refused = async |user: &str| {
        let error = leasehold.try_connect(user, db).await.err().unwrap();
        let told = error.as_db_error().unwrap();
        (told.code().code().to_owned(), told.detail().unwrap().to_owned())
    };
    let first = leasehold.connect("app", db).await;
    let _second = leasehold.connect("app", db).await;
    let of_the_route = ("53300".to_owned(), "The route has as many as it may.".to_owned());
    assert_eq!(refused("app").await, of_the_route);

    let _third = leasehold.connect("readonly", db).await;
    let of_all = ("53300".to_owned(), "The proxy has as many as it may.".to_owned());
    assert_eq!(refused("readonly").await, of_all);

    first.close().await;
    // The place is free once the server has let go, a moment after the client.
    eventually(SOON, async || leasehold.try_connect("readonly", db).await.map(drop)).await;
    let limited = leasehold.metrics().await.get("login_failures_total", &[("reason", "limit")]);
    assert!(limited >= 2.0, "{limited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_is_latched_and_readiness_is_not() {
    let mut backends = Backends::with_three_kinds().await;
    let away = Fault::before(&format!("127.0.0.1:{}", backends.vault.port)).await;
    away.set(Mode::Refuse).await;
    let leasehold = backends
        .routes(&["app"], "[limits]\nlogin_wait = \"5s\"\n")
        .vault_addr(&format!("http://{}", away.addr()))
        .start()
        .await;
    eventually(SOON, async || {
        let startup = leasehold.http("/startup").await;
        same(
            (startup.status, startup.text.contains("app: waits for its first credential (log in: ")),
            (503, true),
        )
    })
    .await;
    let ready = leasehold.http("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.starts_with("starting\napp: no usable credential (log in: "), "{ready:?}");
    assert_eq!(leasehold.status().await["state"], "starting");
    assert_eq!(leasehold.http("/livez").await.status, 200);

    away.set(Mode::Pass).await;
    leasehold.wait_ready().await;
    assert_eq!(leasehold.http("/startup").await.text, "started\n");
    assert_eq!(leasehold.status().await["state"], "serving");

    // The Vault role goes, and the lease with it: the next login finds out.
    backends.vault.delete(&format!("{}/roles/app", backends.setup.mount())).await;
    backends.vault.revoke_prefix(&format!("{}/creds", backends.setup.mount())).await;
    let refused = leasehold.try_connect("app", backends.db.name()).await.err().unwrap();
    assert_eq!(refused.code().unwrap().code(), "57P03");
    eventually(SOON, async || {
        let ready = leasehold.http("/readyz").await;
        same((ready.status, ready.text.starts_with("app: no usable credential (issue: ")), (503, true))
    })
    .await;
    assert_eq!(leasehold.http("/startup").await.status, 200, "latched");
    assert_eq!(leasehold.status().await["state"], "serving");

    backends.retune("1h", "24h").await;
    eventually(SOON * 2, async || leasehold.try_connect("app", backends.db.name()).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_at_the_start_is_used_when_it_comes() {
    let backends = Backends::with_three_kinds().await;
    let away = Fault::before(&backends.db.server.addr()).await;
    away.set(Mode::Refuse).await;
    let leasehold = leasehold()
        .upstream_uri(&format!("postgresql://{}/?sslmode=disable", away.addr()))
        .vault(&backends.vault)
        .login(&backends.setup)
        .start()
        .await;
    leasehold.wait_ready().await;
    let unproved = leasehold.metrics().await.get("proofs_total", &[("outcome", "unprovable")]);
    assert!(unproved >= 1.0, "published unproved, and counted");
    let error = leasehold.try_connect("app", backends.db.name()).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "08001");

    away.set(Mode::Pass).await;

    assert_eq!(leasehold.connect("app", backends.db.name()).await.value("SELECT 1").await, "1");
    assert_eq!(leasehold.generations().await.len(), 1, "the same credential");
}
