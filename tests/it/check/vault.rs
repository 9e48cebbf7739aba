//! What `leasehold check` finds at Vault: reach, seal, trust, namespace, login, capabilities, clock.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use reqwest::Method;
use rustix::thread::{CapabilitySet, capabilities};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::check::Report;
use crate::harness::{Backends, Builder, Fault, Mode, Spec, Storage, Vault, bench, leasehold};

/// A login that is never come to.
fn anybody(vault: &Vault) -> Builder {
    leasehold()
        .upstream_uri("postgresql://127.0.0.1:1/?sslmode=disable")
        .vault(vault)
        .path("database/creds/app")
        .env("VAULT_TOKEN", "root")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_not_there_or_sealed_is_told() {
    let away = Fault::before("127.0.0.1:1").await;
    away.set(Mode::Refuse).await;
    let report = Report::of(anybody(&only_an_address(&format!("http://{}", away.addr())))).await;
    report.says("vault", "error", "cannot connect", "is Vault up");
    assert_eq!(report.exit, Some(1));

    let own = bench().own_vault(Storage::Memory).await;
    own.seal().await;
    Report::of(anybody(&own)).await.says("vault", "error", "is sealed", "unseal it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_ca_and_a_missing_https_are_told() {
    let tls = bench().own_vault(Storage::MemoryTls).await;
    let foreign = bench().postgres_18().await.ca.unwrap();
    let at = |addr: &str| anybody(&only_an_address(addr)).flag("--vault-ca-cert", foreign.to_str().unwrap());
    let report = Report::of(at(&tls.addr)).await;
    report.says("vault", "error", "certificate", "--vault-ca-cert");
    let plain = tls.addr.replace("https://", "http://");
    Report::of(at(&plain)).await.says("vault", "error", "the server speaks TLS", "write https://");
    // The other way round.
    let vault = bench().vault().await;
    let https = vault.addr.replace("http://", "https://");
    Report::of(at(&https)).await.says(
        "vault",
        "error",
        "what answers does not speak TLS",
        "write http:// in --vault-addr",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_depend_on_vault_is_looked_at_though_vault_is_away() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, setup, .. } = &backends;
    let away = Fault::before("127.0.0.1:1").await;
    away.set(Mode::Refuse).await;
    let vault = only_an_address(&format!("http://{}", away.addr()));
    std::fs::remove_file(setup.secret_id_file()).unwrap();

    let report = Report::of(leasehold().upstream(db).vault(&vault).login(setup)).await;

    report.says("vault", "error", "cannot connect", "is Vault up");
    report.says("login", "error", "there is no such file", "put the secret");
    assert!(report.text.contains(&format!("{} can be reached", db.server.addr())), "{report:#?}");
    let gone =
        leasehold().upstream_uri("postgresql://127.0.0.1:1/?sslmode=disable").vault(&vault).login(setup);
    let report = Report::of(gone).await;
    report.says("vault", "error", "cannot connect", "is Vault up");
    report.says("server", "error", "127.0.0.1:1: cannot reach", "is PostgreSQL up");
    // Nor on a role that Vault does not have.
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { vault, setup, .. } = &backends;
    vault.delete(&setup.path.replace("/creds/", "/roles/")).await;
    let report = Report::of(backends.leasehold_at("postgresql://127.0.0.1:1/?sslmode=disable")).await;
    report.says("issue", "error", "unknown role", "make the role");
    report.says("server", "error", "127.0.0.1:1: cannot reach", "is PostgreSQL up");
}

fn only_an_address(addr: &str) -> Vault {
    Vault::new(&json!({"name": "none", "addr": addr, "port": 1, "root_token": ""}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_and_a_wrong_namespace_are_told() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { setup, .. } = &backends;
    let builder = backends.leasehold();
    let elsewhere = Report::of(builder.clone().flag("--vault-namespace", "nowhere")).await;
    elsewhere.says("login", "error", "(in the namespace nowhere)", "is there a namespace nowhere");

    std::fs::write(setup.secret_id_file(), "no-such-secret-id").unwrap();
    let report = Report::of(builder).await;
    report.says("login", "error", "status 400", "secret_id");
    assert!(!report.text.contains("no-such-secret-id"));
    let dead = backends.without_login().path(&setup.path).env("VAULT_TOKEN", "dead-token");
    let report = Report::of(dead).await;
    report.says("login", "error", "403", "a token that lives");
    assert!(!report.text.contains("dead-token"));
}

/// `run` as root would read it at its start, and not again.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_root_reads_by_its_capabilities_alone_is_told_unless_it_keeps_them() {
    if !capabilities(None).unwrap().effective.contains(CapabilitySet::CHOWN) {
        return;
    }
    let backends = Backends::new(Spec::new("app")).await;
    let others = |path: &Path| {
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    };
    others(&backends.setup.secret_id_file());
    for builder in [backends.leasehold(), backends.leasehold().switch("--offline")] {
        Report::of(builder).await.says("login", "error", "Permission denied", "--hardening off");
    }
    let report = Report::of(backends.leasehold().flag("--hardening", "off")).await;
    assert_eq!(report.exit, Some(0), "{report:#?}");

    let ca = backends.setup.directory().join("ca.pem");
    std::fs::copy(bench().postgres_18().await.ca.unwrap(), &ca).unwrap();
    others(&ca);
    let denied = backends.leasehold().flag("--vault-ca-cert", ca.to_str().unwrap()).command("check").await;
    let said = String::from_utf8(denied.stderr).unwrap();
    assert_eq!(denied.status.code(), Some(78), "{said}");
    assert!(said.contains("Permission denied") && said.contains("--hardening off"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_capability_is_told_by_its_path_asked_or_tried() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { vault, setup, .. } = &backends;
    let builder = backends.leasehold();
    let rewrite = async |hcl: &str| {
        vault.write(&format!("sys/policies/acl/{}", setup.id()), json!({"policy": hcl})).await;
    };
    rewrite("path \"elsewhere\" { capabilities = [\"read\"] }").await;
    let report = Report::of(builder.clone()).await;
    report.says("capability", "error", &setup.path, &format!("path \"{}\"", setup.path));
    assert!(vault.leases(&setup.path).await.is_empty(), "what is known to fail is not tried");

    // Without the default policy, which lets it renew leases: less is a warning.
    let login = format!("auth/approle/role/{}", setup.id());
    let words = json!({"token_policies": [setup.id()], "token_no_default_policy": true});
    vault.write(&login, words).await;
    let read = format!("path \"{}\" {{ capabilities = [\"read\"] }}\n", setup.path);
    let ask = "path \"sys/capabilities-self\" { capabilities = [\"update\"] }\n";
    rewrite(&(read.clone() + ask)).await;
    let report = Report::of(builder.clone()).await;
    report.says("capability", "warning", "sys/leases/renew", "path \"sys/leases/renew\"");
    report.says("capability", "warning", "auth/token/renew-self", "leasehold policy");
    report.says("revoke", "warning", "stays until its lease ends", "sys/leases/revoke");
    vault.revoke_prefix(&setup.path).await;

    // It may not even ask, so only the try tells.
    rewrite("path \"elsewhere\" { capabilities = [\"read\"] }").await;
    let report = Report::of(builder).await;
    report.says("issue", "error", "403", &format!("allow read on {}", setup.path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_takes_its_leases_along_is_told() {
    let batch = json!({"token_type": "batch", "token_ttl": "10m"});
    let backends = Backends::new(Spec::new("app").token(batch)).await;
    let Backends { vault, setup, .. } = &backends;
    let report = Report::of(backends.leasehold()).await;
    report.says("ttl", "warning", "batch token", "periodic");
    vault.revoke_prefix(&setup.path).await;

    let used = json!({"token_num_uses": 20, "token_ttl": "1h"});
    let backends = Backends::new(Spec::new("app").token(used)).await;
    let Backends { vault, .. } = &backends;
    let report = Report::of(backends.leasehold()).await;
    report.says("login", "warning", "times only", "token_num_uses=0");
    let left = vault.request(Method::GET, "sys/health", "", None).await;
    assert_eq!(left.status, 200);
}

/// A forwarder that sets Vault's clock to the past. The length of a Date never changes.
async fn with_old_dates(vault: &Vault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let port = vault.port;
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { drop(tokio::io::copy(&mut from_client, &mut to_server).await) });
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(count) = from_server.read(&mut bytes).await
                    && count > 0
                {
                    let mark = b"\r\nDate: ";
                    let found = bytes[..count].windows(mark.len()).position(|window| window == mark);
                    if let Some(at) = found {
                        let old = b"Thu, 01 Jan 2026 00:00:00 GMT";
                        bytes[at + mark.len()..][..old.len()].copy_from_slice(old);
                    }
                    to_client.write_all(&bytes[..count]).await.unwrap();
                }
            });
        }
    });
    format!("http://{addr}")
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_apart_are_told() {
    let Backends { db, vault, setup } = Backends::new(Spec::new("app")).await;
    let old = with_old_dates(&vault).await;
    let report = Report::of(leasehold().upstream(&db).vault_addr(&old).login(&setup)).await;
    report.says("clock", "warning", "the clock of Vault is", "NTP");
    assert_eq!(report.exit, Some(0), "a warning is no error");
}
