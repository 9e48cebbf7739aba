//! The files: what is wrong with them, and how they are read again.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use reqwest::Method;

use super::shown;
use crate::check::Report;
use crate::harness::{
    Authority, Backends, Builder, ClientTls, Files, Leasehold, Raw, SOON, Scene, Spec, bench, eventually,
    leasehold, same, tags,
};

/// Names a pair, and nothing that can be reached.
fn offline(files: &Files) -> Builder {
    leasehold()
        .upstream_uri("postgresql://127.0.0.1:1/?sslmode=disable")
        .path("database/creds/app")
        .vault_addr("http://127.0.0.1:1")
        .env("VAULT_TOKEN", "none")
        .flag("--tls-cert-file", shown(&files.cert))
        .flag("--tls-key-file", shown(&files.key))
}

fn encrypted(key: &Path) -> PathBuf {
    let path = key.with_extension("encrypted");
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["pkcs8", "-topk8", "-passout", "pass:hunter2-passphrase", "-in"]).arg(key);
    let done = openssl.arg("-out").arg(&path).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_be_used_is_named_before_anything_is_bound() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let (ours, other) = (authority.issue("ours", 1), authority.issue("other", 2));
    let with_key = |key: PathBuf| Files { cert: ours.cert.clone(), key };
    let cases = [
        (
            with_key(other.key),
            "--tls-cert-file: cannot use",
            "its certificate is not that of the key beside it",
        ),
        (
            with_key(encrypted(&ours.key)),
            "--tls-key-file: cannot use",
            "is encrypted, and leasehold has no passphrase",
        ),
        (
            with_key(ours.cert.clone()),
            "--tls-key-file: cannot use",
            "holds no private key, but something else",
        ),
        (with_key("/no/such/file".into()), "--tls-key-file: cannot use", "there is no such file"),
        (
            Files { cert: ours.key.clone(), key: ours.key.clone() },
            "--tls-cert-file: cannot use",
            "holds no certificate",
        ),
    ];
    for (files, place, reason) in cases {
        let (status, log) = offline(&files).run_to_end().await;
        assert_eq!(status.code(), Some(78), "{}", log.0);
        assert!(log.0.contains(place) && log.0.contains(reason), "{}", log.0);
        assert!(log.messages("listening").is_empty(), "nothing was bound");
        let checked = offline(&files).switch("--offline").command("check").await;
        assert_eq!(checked.status.code(), Some(78));
        assert!(String::from_utf8_lossy(&checked.stderr).contains(reason), "{checked:?}");
    }
    let builder = offline(&ours).flag("--tls-client-ca-file", shown(&ours.key));
    let (status, log) = builder.run_to_end().await;
    assert_eq!(status.code(), Some(78));
    assert!(
        log.0.contains("--tls-client-ca-file: cannot use") && log.0.contains("no certificate"),
        "{}",
        log.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_verifies_the_pair() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let good = Report::of(offline(&authority.issue("ours", 1)).switch("--offline")).await;
    assert_eq!(good.exit, Some(0), "{}", good.text);
    assert!(good.text.contains("clients are offered TLS, with a certificate good until"), "{}", good.text);
    let expired = Report::of(offline(&authority.issue_expired("expired")).switch("--offline")).await;
    expired.says("client_tls", "error", "the certificate expired at 2021-01-01T00:00:00Z", "renewed");
}

/// A leasehold whose pair lies behind links, as Kubernetes mounts a secret: `tls.crt` leads to `..data/tls.crt`, and
/// `..data` to the directory of a version.
struct Mounted {
    directory: PathBuf,
    scene: Scene,
    authority: Authority,
}

impl Mounted {
    async fn new() -> Self {
        let directory = bench().directory().await;
        let authority = Authority::new(&bench().directory().await, "ca");
        let files = Files { cert: directory.join("tls.crt"), key: directory.join("tls.key") };
        for (link, file) in [(&files.cert, "tls.crt"), (&files.key, "tls.key")] {
            symlink(Path::new("..data").join(file), link).unwrap();
        }
        publish(&directory, &authority.issue("first", 1));
        let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
            let (cert, key) = (shown(&files.cert), shown(&files.key));
            builder.upstream(db).config_toml(&format!("[tls]\ncert_file = '{cert}'\nkey_file = '{key}'\n"))
        })
        .await;
        Self { directory, scene, authority }
    }

    fn leasehold(&self) -> &Leasehold {
        &self.scene.leasehold
    }

    /// Replaces the directory of the pair, at once.
    fn publish(&self, files: &Files) {
        publish(&self.directory, files);
    }

    /// The certificate that a new client is shown.
    async fn shown(&self) -> Vec<u8> {
        let raw = Raw::secured(self.leasehold().addr(), &ClientTls::trusting_anything()).await.unwrap();
        raw.tls().peer_certificates().unwrap()[0].to_vec()
    }

    async fn wait_shown(&self, files: &Files) {
        let wanted = der(files);
        eventually(SOON * 2, async || if self.shown().await == wanted { Ok(()) } else { Err("the old one") })
            .await;
    }
}

fn publish(directory: &Path, files: &Files) {
    let version = directory.join(format!("..{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&version).unwrap();
    std::fs::copy(&files.cert, version.join("tls.crt")).unwrap();
    std::fs::copy(&files.key, version.join("tls.key")).unwrap();
    let fresh = directory.join("..data_tmp");
    symlink(version.file_name().unwrap(), &fresh).unwrap();
    std::fs::rename(fresh, directory.join("..data")).unwrap();
}

fn der(files: &Files) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    CertificateDer::from_pem_file(&files.cert).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_is_replaced_on_disk_is_shown_to_new_clients() {
    let mounted = Mounted::new().await;
    let tls = ClientTls::trusting(&mounted.authority.ca);
    let mut old = Raw::secured(mounted.leasehold().addr(), &tls).await.unwrap();
    old.startup(Raw::PROTOCOL_3_0, &[("user", "app"), ("database", mounted.scene.db.name())]).await;
    assert!(tags(&old.until("ZE").await).ends_with('Z'));

    let second = mounted.authority.issue("second", 2);
    mounted.publish(&second);
    mounted.wait_shown(&second).await;
    mounted.leasehold().wait_log("the certificate files for clients have changed and are read again").await;
    assert_eq!(tags(&old.query("SELECT 1").await), "TDCZ", "a session keeps what it began with");

    // Written one after the other, in place.
    let third = mounted.authority.issue("third", 3);
    for (from, name) in [(&third.cert, "tls.crt"), (&third.key, "tls.key")] {
        std::fs::write(mounted.directory.join(name), std::fs::read(from).unwrap()).unwrap();
    }
    mounted.wait_shown(&third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_be_used_leaves_the_earlier_one_in_force() {
    let mounted = Mounted::new().await;
    let first = mounted.shown().await;
    let (second, third) = (mounted.authority.issue("second", 2), mounted.authority.issue("third", 3));
    let expired = mounted.authority.issue_expired("expired");
    let mixed = Files { cert: second.cert.clone(), key: third.key.clone() };
    for (files, reason) in [
        (&mixed, "its certificate is not that of the key beside it"),
        (&expired, "the certificate expired at 2021-01-01T00:00:00Z"),
    ] {
        mounted.publish(files);
        let reply = mounted.leasehold().admin(Method::POST, "/reload").await;
        assert!(reply.status >= 400 && reply.text.contains(reason), "{reply:?}");
        assert_eq!(mounted.shown().await, first);
        // And by itself, once.
        let said = async || {
            let log = mounted.leasehold().log();
            let lines = log.messages(REFUSED);
            lines.iter().filter(|line| line.to_string().contains(reason)).count()
        };
        eventually(SOON * 2, async || same(said().await, 1)).await;
        assert_eq!(mounted.shown().await, first);
    }
    mounted.publish(&second);
    let reloaded = mounted.leasehold().command(&["reload"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_eq!(mounted.shown().await, der(&second), "at once");
    mounted.publish(&third);
    mounted.leasehold().sighup();
    mounted.wait_shown(&third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_serves_with_a_warning_from_the_start_on() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let expired = authority.issue_expired("expired");
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        let builder = builder.upstream(db).flag("--tls-cert-file", shown(&expired.cert));
        builder.flag("--tls-key-file", shown(&expired.key))
    })
    .await;
    assert!(scene.leasehold.log().0.contains("the certificate expired at 2021-01-01T00:00:00Z"));
    let error =
        Raw::secured(scene.leasehold.addr(), &ClientTls::trusting(&authority.ca)).await.err().unwrap();
    assert!(error.to_string().contains("expired"), "{error}");
    let raw = Raw::secured(scene.leasehold.addr(), &ClientTls::trusting_anything()).await.unwrap();
    drop(raw);
    // It is not a reason to refuse a reload of something else.
    let reply = scene.leasehold.admin(Method::POST, "/reload").await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

const REFUSED: &str =
    "the certificate files for clients have changed and cannot be used: the earlier ones stay";

/// `[tls]` comes and goes with a reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_begins_and_ends_tls() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let ours = authority.issue("ours", 1);
    let backends = Backends::new(Spec::new("app")).await;
    let without = "log_level = 'debug'\n";
    let with =
        format!("{without}[tls]\ncert_file = '{}'\nkey_file = '{}'\n", shown(&ours.cert), shown(&ours.key));
    let leasehold = backends.leasehold().config_toml(without).start().await;
    let offered = async || {
        let mut raw = leasehold.connect_raw().await;
        raw.packet(80_877_103, &[]).await;
        raw.byte().await
    };
    assert_eq!(offered().await, Some(b'N'));
    for (text, answer) in [(with.as_str(), b'S'), (without, b'N')] {
        std::fs::write(leasehold.directory().join("leasehold.toml"), text).unwrap();
        let reply = leasehold.admin(Method::POST, "/reload").await;
        assert!(reply.status == 200 && reply.text.contains("[tls] changed"), "{reply:?}");
        assert_eq!(offered().await, Some(answer));
    }
}
