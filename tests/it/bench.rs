//! The harness does what it says: servers, faults, clean-up. leasehold itself is not run here.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Backends, Fault, Mode, Raw, SOON, Spec, Storage, bench, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn openbao_issues_a_login_that_postgres_accepts() {
    for server in [bench().postgres().await, bench().postgres_18().await] {
        let Backends { db, vault, setup } = Backends::on(&server, Spec::new("app")).await;
        let token = setup.token().await;

        let creds = vault.request(Method::GET, &setup.path, &token, None).await;
        assert_eq!(creds.status, 200, "{}", creds.text);
        let [user, password] =
            ["username", "password"].map(|key| creds.json["data"][key].as_str().unwrap().to_owned());
        let session = server.login(&user, &password, db.name()).await.unwrap();
        assert_eq!(session.value("SELECT current_user").await, db.owner());
        session.batch_execute("CREATE TABLE made_by_the_app (x int)").await.unwrap();
        assert_eq!(db.roles().await, [user.as_str()]);
        assert_eq!(db.backends().await, [Some(user.clone())]);

        let lease = creds.json["lease_id"].as_str().unwrap();
        let body = json!({"lease_id": lease});
        let renewed = vault.request(Method::POST, "sys/leases/renew", &token, Some(body.clone())).await;
        assert_eq!(renewed.status, 200, "{}", renewed.text);
        let revoked = vault.request(Method::POST, "sys/leases/revoke", &token, Some(body)).await;
        assert_eq!(revoked.status, 403, "the policy does not let it revoke");
        assert_eq!(vault.leases(&setup.path).await, [lease]);
        vault.revoke_lease(lease).await;
        assert_eq!(vault.lease(lease).await, None);
        assert!(db.roles().await.is_empty());
        session.close().await;
        eventually(SOON, async || same(db.backends().await.len(), 0)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_the_token_takes_its_lease_along() {
    let Backends { db, vault, setup } =
        Backends::new(Spec::new("app").token(json!({"token_ttl": "1m"})).policy(Spec::MAY_REVOKE)).await;
    let token = setup.token().await;
    vault.request(Method::GET, &setup.path, &token, None).await;
    assert_eq!(db.roles().await.len(), 1);

    let reply = vault.request(Method::POST, "auth/token/revoke-self", &token, Some(json!({}))).await;
    assert_eq!(reply.status, 204);
    eventually(SOON, async || same(db.roles().await.len(), 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raft_server_keeps_its_leases_over_a_seal_and_a_restart() {
    let Backends { db, vault, setup } =
        Backends::with_vault(bench().own_vault(Storage::Raft).await, Spec::new("app")).await;
    let token = setup.token().await;
    let creds = vault.request(Method::GET, &setup.path, &token, None).await;
    let lease = creds.json["lease_id"].as_str().unwrap();

    vault.seal().await;
    let sealed = vault.request(Method::GET, &setup.path, &token, None).await;
    assert_eq!(sealed.status, 503);
    vault.unseal().await;
    eventually(SOON, async || same(vault.lease(lease).await.is_some(), true)).await;
    vault.stop("KILL").await;
    vault.restart().await;
    eventually(SOON, async || same(vault.lease(lease).await.is_some(), true)).await;
    assert_eq!(db.roles().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_openbao_of_ones_own_is_reached_by_tls_and_ends_with_its_handle() {
    let vault = bench().own_vault(Storage::MemoryTls).await;
    assert!(vault.addr.starts_with("https://"));
    vault.read("sys/mounts").await;
    let port = vault.port;
    drop(vault);
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_of_ones_own_can_be_stopped_paused_and_restarted() {
    let server = bench().own_postgres(json!({"version": "18", "conf": {"max_connections": "20"}})).await;
    let session = server.superuser("postgres").await;
    assert_eq!(session.value("SHOW max_connections").await, "20");
    server.pause().await;
    assert!(tokio::time::timeout(Duration::from_millis(300), session.row("SELECT 1")).await.is_err());
    server.resume().await;
    assert_eq!(session.value("SELECT 1").await, "1");
    server.stop("fast").await;
    assert_eq!(session.ended().await.as_deref(), Some("57P01"));
    server.restart().await;
    assert_eq!(server.superuser("postgres").await.value("SELECT 2").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_client_speaks_3_2_to_postgres_18() {
    let server = bench().postgres_18().await;
    let mut raw = Raw::connect(server.addr().parse().unwrap()).await;
    raw.packet(80_877_103, &[]).await;
    assert_eq!(raw.byte().await, Some(b'S'), "the shared 18 has TLS");

    let mut raw = Raw::connect(server.addr().parse().unwrap()).await;
    raw.startup(Raw::PROTOCOL_3_2, &[("user", "postgres"), ("_pq_.nonsense", "1")]).await;
    let frames = raw.until("R").await;
    assert_eq!(frames.iter().map(|frame| frame.tag).collect::<String>(), "vR");
    let mut raw = Raw::connect(server.addr().parse().unwrap()).await;
    raw.startup(Raw::PROTOCOL_3_0, &[("user", "postgres"), ("no_such_setting", "1")]).await;
    raw.send('p', b"nonsense").await;
    let last = raw.until("E").await.pop().unwrap();
    assert!(last.fields().contains_key(&'C'), "{last:?}");
    assert_eq!(raw.recv().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forwarder_fails_as_it_is_told() {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let through = |port| {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("nobody").dbname("postgres").password("wrong");
        config
    };
    let refused = async |fault: &Fault| {
        let login = crate::harness::connect(&through(fault.addr().port())).await;
        login.err().and_then(|error| error.code().map(|code| code.code().to_owned()))
    };
    assert_eq!(refused(&fault).await.as_deref(), Some("28P01"), "it passes");
    fault.set(Mode::Refuse).await;
    assert_eq!(refused(&fault).await, None);
    fault.set(Mode::CutToClientAfter(3)).await;
    assert_eq!(refused(&fault).await, None);
    fault.set(Mode::Delay(Duration::from_millis(50))).await;
    assert_eq!(refused(&fault).await.as_deref(), Some("28P01"));

    for mode in [Mode::Blackhole, Mode::HoldToServer, Mode::HoldToClient] {
        fault.set(mode).await;
        let mut raw = Raw::connect(fault.addr()).await;
        raw.packet(80_877_103, &[]).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), raw.byte()).await.is_err(), "{mode:?}");
        fault.set(Mode::Pass).await;
        assert_eq!(raw.byte().await, Some(b'N'), "what was held passes after {mode:?}");
        fault.cut();
        assert_eq!(raw.byte().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forwarder_finds_the_secrets_of_vault_traffic() {
    let Backends { vault, setup, .. } = Backends::new(Spec::new("app")).await;
    let fault = vault.forwarder().await;
    let through = crate::harness::through(&vault, &fault);
    let secret_id = std::fs::read_to_string(setup.secret_id_file()).unwrap();
    let login = json!({"role_id": setup.role_id(), "secret_id": secret_id});
    let token = through.request(Method::POST, "auth/approle/login", "", Some(login)).await.json;
    let token = token["auth"]["client_token"].as_str().unwrap();
    let creds = through.request(Method::GET, &setup.path, token, None).await.json;

    let secrets = fault.secrets();
    for secret in [secret_id.as_str(), token, creds["data"]["password"].as_str().unwrap()] {
        assert!(secrets.contains(secret), "{secret} is not in {secrets:?}");
    }
    assert_eq!(secrets.len(), 3, "{secrets:?}");
}

/// `deploy/vault/setup.sh` is what a platform team runs, and `make demo`.
#[tokio::test(flavor = "multi_thread")]
async fn the_setup_script_grants_what_is_needed_and_no_more() {
    for version in ["system", "18"] {
        let server = bench().own_postgres(json!({"version": version})).await;
        let vault = bench().own_vault(Storage::Memory).await;
        let out = bench().directory().await;
        // Twice: it may be run again. And with a token that may not: then nothing has changed.
        for token in [vault.root_token.as_str(), &vault.root_token, "no-token"] {
            let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/vault/setup.sh"));
            script
                .arg(&out)
                .envs(server.superuser_env())
                .env("BAO_ADDR", &vault.addr)
                .env("BAO_TOKEN", token);
            script.env("BAO", bench().bao()).env("DEFAULT_TTL", "10m").env("MAX_TTL", "20m");
            let done = tokio::task::spawn_blocking(move || script.output()).await.unwrap().unwrap();
            let may = token == vault.root_token;
            assert_eq!(done.status.success(), may, "{}", String::from_utf8_lossy(&done.stderr));
        }
        // Vault connects anew, with the password that it has.
        vault.write("database/reset/myapp", json!({})).await;
        let [role_id, secret_id] =
            ["role_id", "secret_id"].map(|file| std::fs::read_to_string(out.join(file)).unwrap());
        let login = json!({"role_id": role_id, "secret_id": secret_id});
        let reply = vault.write("auth/approle/login", login).await;
        let token = reply["auth"]["client_token"].as_str().unwrap();
        let admin = server.superuser("myapp").await;
        let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'";

        for (role, group) in
            [("app-role", Some("app_owner")), ("readonly-role", None), ("admin-role", Some("app_admin"))]
        {
            let creds = vault.request(Method::GET, &format!("database/creds/{role}"), token, None).await.json;
            assert_eq!(creds["lease_duration"], 600, "{creds}");
            let [user, password] =
                ["username", "password"].map(|key| creds["data"][key].as_str().unwrap().to_owned());
            let session = server.login(&user, &password, "myapp").await.unwrap();
            assert_eq!(session.value("SELECT current_user").await, group.unwrap_or(&user));
            let made =
                session.batch_execute(&format!("CREATE TABLE {} (x int)", role.replace('-', "_"))).await;
            assert_eq!(made.is_ok(), group.is_some(), "{role}: {made:?}");
            if role == "readonly-role" {
                assert_eq!(session.value("SELECT count(*) FROM app_role").await, "0");
                assert!(session.batch_execute("INSERT INTO app_role VALUES (1)").await.is_err());
            }
            // Nothing that a session makes keeps its role from being dropped.
            session.batch_execute("RESET ROLE; SET ROLE NONE").await.unwrap();
            assert!(session.batch_execute("CREATE TABLE mine (x int)").await.is_err(), "{role}");
            session.close().await;

            let lease = json!({"lease_id": creds["lease_id"], "sync": true});
            let renewed = vault.request(Method::POST, "sys/leases/renew", token, Some(lease.clone())).await;
            assert_eq!(renewed.status, 200, "{}", renewed.text);
            let revoked = vault.request(Method::POST, "sys/leases/revoke", token, Some(lease)).await;
            assert_eq!(revoked.status, 403);
            vault.revoke_lease(creds["lease_id"].as_str().unwrap()).await;
            assert_eq!(admin.value(left).await, "0", "{role}");
        }
        vault.request(Method::GET, "database/creds/app-role", token, None).await;
        assert_eq!(admin.value(left).await, "1");
        vault.request(Method::POST, "auth/token/revoke-self", token, None).await;
        eventually(SOON, async || same(admin.value(left).await, "0")).await;
    }
}

/// The servers of a test process that was killed do not outlive it.
#[test]
fn servers_end_with_their_supervisor() {
    use std::io::{BufRead as _, BufReader, Write as _};

    for by in [rustix::process::Signal::KILL, rustix::process::Signal::TERM] {
        let mut supervisor = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/servers.py"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut commands = supervisor.stdin.take().unwrap();
        let mut replies = BufReader::new(supervisor.stdout.take().unwrap());
        let ports = ["postgres", "openbao"].map(|kind| {
            writeln!(commands, "{}", json!({"start": kind, "name": kind})).unwrap();
            let mut reply = String::new();
            replies.read_line(&mut reply).unwrap();
            let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
            u16::try_from(reply["port"].as_u64().unwrap()).unwrap()
        });
        let pid = rustix::process::Pid::from_child(&supervisor);
        rustix::process::kill_process(pid, by).unwrap();
        supervisor.wait().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(eventually(SOON, async || {
            let mut up = Vec::new();
            for port in ports {
                up.extend(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(|_| port));
            }
            same(up, Vec::<u16>::new())
        }));
    }
}
