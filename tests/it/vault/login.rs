//! Each way to log in, at a mount of its own that nests, against a real OpenBao.

use serde_json::json;

use crate::harness::{
    Authority, Backends, Certificate, Database, Forwarded, Issuer, Leasehold, SOON, Spec, Storage,
    TokenReview, bench, eventually,
};

/// Its engine's mount nests as well.
fn nested() -> Spec {
    Spec::new("app").below("team/a/")
}

/// A rotation that fails leaves a reason, and the current credential; the reason names what could not be used.
async fn fails_to_rotate(leasehold: &Leasehold, db: &Database, named: &str) {
    let rotated = leasehold.command(&["rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    leasehold.wait_log(named).await;
    assert_eq!(leasehold.http("/readyz").await.status, 200);
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 1").await, "1");
    let status = leasehold.status().await;
    assert!(status["routes"][0]["last_error"]["kind"].as_str().unwrap().starts_with("log in: "), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn userpass_reads_its_password_file_at_each_login() {
    let backends = Forwarded::new(nested()).await;
    let Backends { db, vault, setup } = &*backends;
    let mount = setup.enable("userpass").await;
    let user = format!("auth/{mount}/users/app");
    vault.write(&user, json!({"password": "first-password", "token_policies": [setup.id()]})).await;
    let file = setup.directory().join("password");
    std::fs::write(&file, "first-password\n").unwrap();
    let leasehold = backends
        .without_login()
        .flag("--log-level", "trace")
        .method("userpass", &mount, setup)
        .flag("--vault-auth-username", "app")
        .flag("--vault-auth-password-file", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");

    vault.write(&format!("{user}/password"), json!({"password": "second-password"})).await;
    // The login is refused, and the token that lives carries the next lease.
    leasehold.rotate().await;
    leasehold.wait_log("invalid username or password").await;
    std::fs::write(&file, "second-password\n").unwrap();
    leasehold.rotate().await;

    let secrets = backends.fault.secrets();
    assert!(["first-password", "second-password"].iter().all(|word| secrets.contains(*word)));
    leasehold.shows_none_of(secrets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_that_is_replaced_while_running_is_used_at_the_next_login() {
    let backends = Forwarded::new(nested()).await;
    let Backends { db, vault, setup } = &*backends;
    let mount = setup.enable("jwt").await;
    let (first, second) = (Issuer::new(), Issuer::new());
    let trust = async |issuer: &Issuer| {
        let keys = json!({"jwt_validation_pubkeys": [issuer.public_key]});
        vault.write(&format!("auth/{mount}/config"), keys).await;
    };
    trust(&first).await;
    let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"],
        "token_policies": [setup.id()], "token_period": "1h"});
    vault.write(&format!("auth/{mount}/role/app"), role).await;
    let jwt = |issuer: &Issuer| issuer.jwt(json!({"sub": "app", "aud": "vault", "iss": "test"}));
    let file = setup.directory().join("jwt");
    std::fs::write(&file, jwt(&first)).unwrap();
    let leasehold = backends
        .without_login()
        .flag("--log-level", "trace")
        .method("jwt", &mount, setup)
        .flag("--vault-auth-role", "app")
        .flag("--vault-auth-jwt-file", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;

    // From here on only the second issuer's are good.
    trust(&second).await;
    let fresh = jwt(&second);
    std::fs::write(&file, format!("{fresh}\n")).unwrap();
    leasehold.rotate().await;
    assert!(backends.fault.secrets().contains(&fresh));
    assert_eq!(leasehold.log().messages("could not log in").len(), 0, "it was let in");

    std::fs::write(&file, "\n").unwrap();
    fails_to_rotate(&leasehold, db, "it is empty").await;
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    fails_to_rotate(&leasehold, db, "it is not a regular file").await;
    std::fs::remove_dir(&file).unwrap();
    fails_to_rotate(&leasehold, db, "there is no such file").await;
    std::fs::write(&file, jwt(&second)).unwrap();
    leasehold.rotate().await;

    leasehold.shows_none_of(backends.fault.secrets()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_logs_in_with_the_service_accounts_token_of_the_moment() {
    let backends = Forwarded::new(nested()).await;
    let Backends { db, vault, setup } = &*backends;
    let mount = setup.enable("kubernetes").await;
    let review = TokenReview::start().await;
    let issuer = Issuer::new();
    let token = || {
        issuer.jwt(json!({"iss": "https://kubernetes.default.svc", "aud": ["vault"],
            "sub": "system:serviceaccount:default:app",
            "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "app", "uid": "uid-1"}}}))
    };
    let config = json!({"kubernetes_host": review.url(), "kubernetes_ca_cert": review.ca,
        "token_reviewer_jwt": token(), "disable_local_ca_jwt": true});
    vault.write(&format!("auth/{mount}/config"), config).await;
    let role = json!({"bound_service_account_names": ["app"], "bound_service_account_namespaces": ["default"],
        "audience": "vault", "token_policies": [setup.id()], "token_period": "1h"});
    vault.write(&format!("auth/{mount}/role/app"), role).await;
    let file = setup.directory().join("token");
    let first = token();
    std::fs::write(&file, &first).unwrap();
    review.vouch_for(&first);
    let leasehold = backends
        .without_login()
        .flag("--log-level", "trace")
        .method("kubernetes", &mount, setup)
        .flag("--vault-auth-role", "app")
        .flag("--vault-auth-jwt-file", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;
    assert!(review.asked().iter().eq([&first]));

    // The kubelet puts another one in its place, and the old one expires.
    let second = token();
    review.vouch_for(&second);
    std::fs::write(&file, &second).unwrap();
    leasehold.rotate().await;
    assert_eq!(review.asked(), [first, second]);
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");

    leasehold.shows_none_of(backends.fault.secrets()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cert_logs_in_with_the_client_certificate_of_the_moment() {
    let vault = bench().own_vault(Storage::MemoryTls).await;
    let backends = Backends::with_vault(vault, nested()).await;
    let Backends { vault, setup, db } = &backends;
    let mount = setup.enable("cert").await;
    let (first, second, third) = (Certificate::new("app"), Certificate::new("app"), Certificate::new("app"));
    let trust = async |certificate: &Certificate| {
        let role = json!({"certificate": certificate.cert, "token_policies": [setup.id()],
            "token_ttl": "12s", "token_max_ttl": "1h"});
        vault.write(&format!("auth/{mount}/certs/app"), role).await;
    };
    trust(&first).await;
    first.write(setup.directory());
    let leasehold = backends
        .without_login()
        .method("cert", &mount, setup)
        .flag("--vault-auth-cert-name", "app")
        .flag("--vault-client-cert", setup.directory().join("cert.pem").to_str().unwrap())
        .flag("--vault-client-key", setup.directory().join("key.pem").to_str().unwrap())
        .flag("--vault-client-timeout", "10s")
        .flag("--log-level", "trace")
        .start()
        .await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;

    trust(&second).await;
    second.write(setup.directory());
    // The first login's token cannot be renewed by a connection that shows the second certificate: the credential is
    // replaced before the token's end, by a login with the second one.
    eventually(SOON * 2, async || {
        let generations = leasehold.generations().await;
        let fresh = generations.last().unwrap();
        // While it is being proved, a rotation that is asked for would be answered by this one.
        if fresh["generation"] == 2 && fresh["state"] == "current" { Ok(()) } else { Err(generations) }
    })
    .await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");
    drop(session);

    // One that is no pair is not shown; the earlier one is.
    std::fs::write(setup.directory().join("key.pem"), &third.key).unwrap();
    leasehold.rotate().await;
    leasehold.wait_log("the client certificate cannot be read again").await;
    // Nor does a file that would be waited for keep anybody out.
    std::fs::remove_file(setup.directory().join("key.pem")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = setup.directory().join("key.pem");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for _ in 0..2 {
        leasehold.rotate().await;
    }
    leasehold.wait_log("it is not a regular file").await;
    let key = second.key.lines().nth(1).unwrap().to_owned();
    leasehold.shows_none_of([key]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_on_p_521_serve_on_both_sides() {
    let directory = bench().directory().await;
    let authority = Authority::p_521(&directory, "ca");
    let vault = bench().own_vault_with(&authority.issue("vault", 1), &authority.ca).await;
    let backends = Backends::with_vault(vault, nested()).await;
    let Backends { vault, setup, db } = &backends;
    let mount = setup.enable("cert").await;
    let ours = authority.issue("app", 2);
    let role =
        json!({"certificate": std::fs::read_to_string(&ours.cert).unwrap(), "token_policies": [setup.id()]});
    vault.write(&format!("auth/{mount}/certs/app"), role).await;

    let leasehold = backends
        .without_login()
        .method("cert", &mount, setup)
        .flag("--vault-client-cert", ours.cert.to_str().unwrap())
        .flag("--vault-client-key", ours.key.to_str().unwrap())
        .start()
        .await;

    leasehold.wait_ready().await;
    assert_eq!(leasehold.connect("app", db.name()).await.value("SELECT 40 + 2").await, "42");
}
