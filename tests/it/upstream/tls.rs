//! The upstream URI's words about TLS and authentication, each against a real PostgreSQL.

use std::ops::Deref;
use std::path::Path;

use serde_json::json;

use crate::harness::{
    Authority, Backends, Fault, Files, Leasehold, SOON, Spec, bench, eventually, leasehold, same,
};

/// A PostgreSQL 18 with a certificate of ours, and a Vault role for it.
struct Bed(Backends);

impl Deref for Bed {
    type Target = Backends;

    fn deref(&self) -> &Backends {
        &self.0
    }
}

impl Bed {
    async fn new(server: &Files, more: serde_json::Value) -> Self {
        let mut options =
            json!({"version": "18", "ssl": {"cert": server.cert, "key": server.key, "ca": server.cert}});
        for (key, value) in more.as_object().unwrap() {
            options[key] = value.clone();
        }
        Self(Backends::on(&bench().own_postgres(options).await, Spec::new("app")).await)
    }

    /// A leasehold whose URI has these words.
    async fn start(&self, words: &str) -> Leasehold {
        self.start_at(&self.db.server.addr(), words, &[]).await
    }

    async fn start_at(&self, addr: &str, words: &str, flags: &[(&str, &str)]) -> Leasehold {
        let builder = self.leasehold_at(&format!("postgresql://{addr}/?{words}"));
        builder.flag("--limits-login-wait", "300ms").flags(flags).start().await
    }

    /// Has the server show another certificate from now on.
    async fn serve(&self, files: &Files) {
        let data = self.db.admin.value("SHOW data_directory").await;
        for (from, to) in [(&files.cert, "server.cert"), (&files.key, "server.key")] {
            // In place, so that it goes on belonging to the server's user.
            std::fs::write(Path::new(&data).join(to), std::fs::read(from).unwrap()).unwrap();
        }
        self.reload().await;
    }

    /// Has the server read its files again, those of its certificates too.
    async fn reload(&self) {
        let loaded = async || {
            let session = self.db.server.superuser("postgres").await;
            session.value("SELECT pg_conf_load_time()").await
        };
        let before = loaded().await;
        self.db.admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually(SOON, async || if loaded().await == before { Err("not reloaded") } else { Ok(()) }).await;
    }

    /// A fact of a session through this leasehold in `pg_stat_ssl`.
    async fn stat(&self, leasehold: &Leasehold, column: &str) -> String {
        leasehold.wait_ready().await;
        let session = leasehold.connect("app", self.db.name()).await;
        let pid = session.value("SELECT pg_backend_pid()").await;
        self.db.admin.value(&format!("SELECT {column} FROM pg_stat_ssl WHERE pid = {pid}")).await
    }

    /// Nobody gets in, and the log says why; the client gets this SQLSTATE, or 57P03 while nothing is published.
    async fn is_shut(&self, leasehold: &Leasehold, sqlstate: &str, why: &str) {
        eventually(SOON, async || {
            let log = leasehold.log();
            if log.0.contains(why) { Ok(()) } else { Err(format!("no {why:?} in the log")) }
        })
        .await;
        let error = leasehold.try_connect("app", self.db.name()).await.err().unwrap();
        let seen = error.code().unwrap().code();
        assert!([sqlstate, "57P03"].contains(&seen), "{seen}");
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_the_server() {
    let directory = bench().directory().await;
    let authority = Authority::new(&directory, "ca");
    let (server, ours) = (authority.issue("db", 1), authority.issue("leasehold", 2));
    let stranger = Authority::new(&directory, "other-ca").issue("stranger", 3);
    let idents = directory.join("idents");
    std::fs::write(&idents, "ours leasehold all\n").unwrap();
    let root = format!("sslrootcert={}", shown(&authority.ca));
    let with = |files: &Files| format!("{root}&sslcert={}&sslkey={}", shown(&files.cert), shown(&files.key));

    // With a password too, and in place of one: then a map lets it stand for every dynamic role.
    for method in ["scram-sha-256 clientcert=verify-ca", "cert map=ours"] {
        let conf = json!({"ssl_ca_file": authority.ca, "ident_file": idents});
        let hba = [format!("hostssl all all all {method}")];
        let bed = Bed::new(&server, json!({"conf": conf, "hba": hba})).await;

        let known = bed.start(&with(&ours)).await;
        assert_eq!(bed.stat(&known, "client_dn").await, "/CN=leasehold", "{method}");
        let without = bed.start(&root).await;
        bed.is_shut(&without, "28000", "the proof is refused").await;
        let strange = bed.start(&with(&stranger)).await;
        bed.is_shut(&strange, "08006", "no proof").await;
    }
}

/// What OpenSSL, and with it libpq, has on P-521: the server's key, its CA's, ours, and the key exchange.
#[tokio::test(flavor = "multi_thread")]
async fn p_521_serves_in_every_place_where_libpq_takes_it() {
    let authority = Authority::p_521(&bench().directory().await, "ca");
    let ours = authority.issue("leasehold", 3);
    let hba = ["hostssl all all all scram-sha-256 clientcert=verify-ca"];
    for version in ["TLSv1.2", "TLSv1.3"] {
        let conf = json!({"ssl_ca_file": authority.ca, "ssl_groups": "secp521r1",
            "ssl_min_protocol_version": version, "ssl_max_protocol_version": version});
        let bed = Bed::new(&authority.issue("db", 1), json!({"conf": conf, "hba": hba})).await;
        let words = format!(
            "sslrootcert={}&sslcert={}&sslkey={}&channel_binding=require",
            shown(&authority.ca),
            shown(&ours.cert),
            shown(&ours.key)
        );
        let leasehold = bed.start(&words).await;
        assert_eq!(bed.stat(&leasehold, "client_dn").await, "/CN=leasehold");
        assert_eq!(bed.stat(&leasehold, "version").await, version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_an_algorithm_in_common_is_named_as_that() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let server = authority.issue("db", 1);
    // Block ciphers in CBC mode alone; and a version of TLS that was given up in 2021.
    for conf in [
        json!({"ssl_max_protocol_version": "TLSv1.2", "ssl_ciphers": "ECDHE-ECDSA-AES256-SHA"}),
        json!({"ssl_min_protocol_version": "TLSv1.1", "ssl_max_protocol_version": "TLSv1.1",
            "ssl_ciphers": "ALL:@SECLEVEL=0"}),
    ] {
        let bed = Bed::new(&server, json!({"conf": conf})).await;
        let leasehold = bed.start(&format!("sslrootcert={}", shown(&authority.ca))).await;
        let why = "no algorithm or version of TLS in common";
        bed.is_shut(&leasehold, "08001", why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_server_certificate_is_refused() {
    let directory = bench().directory().await;
    let authority = Authority::new(&directory, "ca");
    let bed = Bed::new(&authority.issue("db", 7), json!({})).await;
    let words = |mode: &str, list: &Path| {
        format!("sslmode={mode}&sslrootcert={}&sslcrl={}", shown(&authority.ca), shown(list))
    };

    for mode in ["require", "verify-ca", "verify-full"] {
        let others = bed.start(&words(mode, &authority.revoke(&[6, 8], 2090))).await;
        assert_eq!(bed.stat(&others, "ssl").await, "t", "{mode}");
        let revoked = bed.start(&words(mode, &authority.revoke(&[6, 7], 2090))).await;
        bed.is_shut(&revoked, "08001", "is revoked by a list of sslcrl").await;
    }
    let old = bed.start(&words("verify-ca", &authority.revoke(&[6], 2021))).await;
    bed.is_shut(&old, "08001", "sslcrl's list of a CA that signed the server's certificate is out of date")
        .await;
    let foreign = Authority::new(&directory, "other-ca").revoke(&[], 2090);
    let unknown = bed.start(&words("verify-ca", &foreign)).await;
    bed.is_shut(&unknown, "08001", "sslcrl has no list of a CA that signed the server's certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_sslcrl_without_a_list_ends_the_start() {
    let directory = bench().directory().await;
    let authority = Authority::new(&directory, "ca");
    for (file, why) in [
        (directory.join("missing"), "--upstream: sslcrl: cannot use /"),
        (authority.ca.clone(), "its PEM holds no certificate revocation list, but something else"),
    ] {
        let uri = format!("postgresql://db/?sslrootcert={}&sslcrl={}", shown(&authority.ca), shown(&file));
        let builder = leasehold().upstream_uri(&uri).path("database/creds/app").env("VAULT_TOKEN", "t");
        let (status, log) = builder.run_to_end().await;
        assert_eq!(status.code(), Some(78), "{}", log.0);
        assert!(log.0.contains(why), "{}", log.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_classic_self_signed_certificate_is_trusted_by_sslrootcert_alone() {
    let directory = bench().directory().await;
    let classic = Authority::new(&directory, "classic");
    let bed = Bed::new(&classic.itself, json!({})).await;

    for mode in ["verify-ca", "verify-full"] {
        let words = format!("sslmode={mode}&sslrootcert={}", shown(&classic.ca));
        let trusting = bed.start(&words).await;
        assert_eq!(bed.stat(&trusting, "ssl").await, "t", "{mode}");
    }
    let other = Authority::new(&directory, "ca");
    let refusing = bed.start(&format!("sslrootcert={}", shown(&other.ca))).await;
    let why = "server's certificate is its own CA; put that very certificate into the file of sslrootcert";
    bed.is_shut(&refusing, "08001", why).await;
    // Its own list can take it back, and none of another says anything of it.
    for (list, why) in [
        (classic.revoke(&[1], 2090), None),
        (classic.revoke(&[Authority::SERIAL], 2090), Some("is revoked by a list of sslcrl")),
        (classic.revoke(&[1], 2021), Some("is out of date")),
        (other.revoke(&[2], 2090), Some("sslcrl has no list of a CA")),
    ] {
        let words = format!("sslrootcert={}&sslcrl={}", shown(&classic.ca), shown(&list));
        let leasehold = bed.start(&words).await;
        match why {
            None => assert_eq!(bed.stat(&leasehold, "ssl").await, "t"),
            Some(why) => bed.is_shut(&leasehold, "08001", why).await,
        }
    }
    let unchecked = bed.start("sslmode=require").await;
    assert_eq!(bed.stat(&unchecked, "ssl").await, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn sslnegotiation_direct_begins_with_tls() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let bed = Bed::new(&authority.issue("db", 1), json!({})).await;
    let root = format!("sslrootcert={}", shown(&authority.ca));

    for (word, first) in [("direct", b"\x16\x03".as_slice()), ("postgres", b"\0\0\0\x08\x04\xd2\x16\x2f")] {
        let between = Fault::before(&bed.db.server.addr()).await;
        let words = format!("{root}&sslnegotiation={word}");
        let leasehold = bed.start_at(&between.addr().to_string(), &words, &[]).await;
        assert_eq!(bed.stat(&leasehold, "ssl").await, "t");
        for recording in between.recordings() {
            assert!(recording.to_server.starts_with(first), "{word}: {:?}", recording.to_server.get(..8));
        }
    }

    let plain = bench().postgres().await.addr();
    let leasehold = bed.start_at(&plain, &format!("{root}&sslnegotiation=direct"), &[]).await;
    bed.is_shut(&leasehold, "08001", "server did not take TLS from the first byte").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_binding_is_used_demanded_or_left_out() {
    let directory = bench().directory().await;
    let authority = Authority::new(&directory, "ca");
    let root = format!("sslrootcert={}", shown(&authority.ca));
    let bed = Bed::new(&authority.issue("db", 1), json!({})).await;
    for word in ["require", "prefer", "disable"] {
        let leasehold = bed.start(&format!("{root}&channel_binding={word}")).await;
        assert_eq!(bed.stat(&leasehold, "ssl").await, "t", "{word}");
    }
    let plain = bed.start("sslmode=disable&channel_binding=require").await;
    bed.is_shut(&plain, "28000", "channel").await;

    // A certificate signed with Ed25519 has no hash to bind to, so only a login without binding can pass.
    let bed =
        Bed::new(&Files::ed25519(&directory), json!({"conf": {"ssl_min_protocol_version": "TLSv1.3"}})).await;
    let prefer = bed.start("sslmode=require&channel_binding=prefer").await;
    assert_eq!(bed.stat(&prefer, "ssl").await, "t");
    let require = bed.start("sslmode=require&channel_binding=require").await;
    bed.is_shut(&require, "28000", "channel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn require_auth_has_libpqs_meaning() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let bed = Bed::new(&authority.issue("db", 1), json!({})).await;
    let (addr, words) = (bed.db.server.addr(), "sslmode=disable");

    for allowed in ["scram-sha-256", "!password,!md5", "scram-sha-256,none"] {
        let leasehold = bed.start_at(&addr, words, &[("--require-auth", allowed)]).await;
        leasehold.wait_ready().await;
        let session = leasehold.connect("app", bed.db.name()).await;
        same(session.value("SELECT 1").await, "1").unwrap();
    }
    for forbidden in ["md5", "!scram-sha-256", "none"] {
        let leasehold = bed.start_at(&addr, words, &[("--require-auth", forbidden)]).await;
        let why = "server asks for method scram-sha-256, which require_auth does not allow";
        bed.is_shut(&leasehold, "28000", why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_fails_everywhere_is_not_ready_until_a_login_has_succeeded() {
    let authority = Authority::new(&bench().directory().await, "ca");
    let bed = Bed::new(&authority.issue("db", 1), json!({"conf": {"ssl": "off"}})).await;
    let tls = async |word: &str| {
        let sql = [format!("ALTER SYSTEM SET ssl = {word}"), "SELECT pg_reload_conf()".to_owned()];
        for sql in sql {
            bed.db.admin.batch_execute(&sql).await.unwrap();
        }
        let seen = async || same(bed.db.admin.value("SHOW ssl").await, word.to_owned());
        eventually(SOON, seen).await;
    };
    let leasehold = bed.start(&format!("sslrootcert={}", shown(&authority.ca))).await;

    let not_ready = async || {
        let answer = leasehold.http("/readyz").await;
        same((answer.status, answer.text.contains("server does not support TLS")), (503, true))
    };
    eventually(SOON, not_ready).await;
    let status = leasehold.status().await;
    assert_eq!(status["routes"][0]["ready"], false);
    let kind = status["routes"][0]["last_error"]["kind"].as_str().unwrap().to_owned();
    assert!(kind.contains("server does not support TLS"), "{kind}");
    let error = leasehold.try_connect("app", bed.db.name()).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "08001");

    // Mended at the server, it is ready without a session.
    tls("on").await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", bed.db.name()).await;

    // From now on it is an outage of the server: what must be published is, and is ready.
    tls("off").await;
    bench().vault().await.revoke_prefix(&bed.setup.path).await;
    // A denial has the lease looked after, which is gone.
    assert!(session.batch_execute("TABLE pg_authid").await.is_err());
    session.ended().await;
    eventually(SOON, async || {
        let current = leasehold.generations().await.iter().any(|generation| {
            generation["generation"].as_u64() == Some(2) && generation["state"] == "current"
        });
        same(current, true)
    })
    .await;
    assert_eq!(leasehold.http("/readyz").await.status, 200);
}

/// The CA that is trusted, before and after the server has a certificate of another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_replaced_on_disk_is_read_when_the_servers_certificate_is_not_taken() {
    let directory = bench().directory().await;
    let (before, after) = (Authority::new(&directory, "before"), Authority::new(&directory, "after"));
    let roots = directory.join("roots");
    std::fs::copy(&before.ca, &roots).unwrap();
    let bed = Bed::new(&before.issue("db", 1), json!({})).await;
    let login = bed.start(&format!("sslrootcert={}", shown(&roots))).await;
    let cancel = bed.start(&format!("sslrootcert={}", shown(&roots))).await;
    assert_eq!(bed.stat(&login, "ssl").await, "t");
    cancel.wait_ready().await;
    let session = cancel.connect("app", bed.db.name()).await;

    // The file is half written at first: what was read before stays.
    std::fs::write(&roots, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    bed.serve(&after.issue("db", 2)).await;
    let error = login.try_connect("app", bed.db.name()).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "08001");
    login.wait_log("cannot be read again: the earlier content stays").await;
    let both = [&before.ca, &after.ca].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    std::fs::write(&roots, both).unwrap();
    eventually(SOON, async || match login.try_connect("app", bed.db.name()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    login.wait_log("were read again: they have changed").await;

    // A cancel has a handshake of its own; here it is the first that sees the other certificate.
    let running = session.value("SELECT pg_backend_pid()").await;
    let sleep = session.simple_query("SELECT pg_sleep(600)");
    let stop = async {
        let sleeping =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {running} AND wait_event = 'PgSleep'");
        eventually(SOON, async || same(bed.db.admin.value(&sleeping).await, "1")).await;
        session.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
    };
    let (slept, ()) = tokio::join!(sleep, stop);
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_replaced_on_disk_is_read_when_the_server_does_not_take_the_earlier_one()
{
    let directory = bench().directory().await;
    let server = Authority::new(&directory, "ca");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let (before, after) = (Authority::new(&directory, "before"), Authority::new(&directory, "after"));
        let (clients, files) = (directory.join("clients"), before.issue("leasehold", 1));
        std::fs::copy(&before.ca, &clients).unwrap();
        let hba = ["hostssl all all all scram-sha-256 clientcert=verify-ca"];
        let conf = json!({"ssl_ca_file": clients, "ssl_min_protocol_version": version,
            "ssl_max_protocol_version": version});
        let bed = Bed::new(&server.issue("db", 1), json!({"conf": conf, "hba": hba})).await;
        let words = format!(
            "sslrootcert={}&sslcert={}&sslkey={}",
            shown(&server.ca),
            shown(&files.cert),
            shown(&files.key)
        );
        let leasehold = bed.start(&words).await;
        assert_eq!(bed.stat(&leasehold, "client_serial").await, "1", "{version}");

        std::fs::copy(&after.ca, &clients).unwrap();
        bed.reload().await;
        after.issue("leasehold", 2);

        assert_eq!(bed.stat(&leasehold, "client_serial").await, "2", "{version}");
    }
}

/// A `dNSName` that is written like an address, which webpki does not take; psql beside leasehold.
#[tokio::test(flavor = "multi_thread")]
async fn a_dns_name_that_is_the_host_as_typed_suffices_as_with_libpq() {
    let authority = Authority::new(&bench().directory().await, "ca");
    for (name, fits) in [("127.0.0.1", true), ("127.0.0.2", false)] {
        let bed = Bed::new(&authority.issue_for_dns("db", name), json!({})).await;
        let psql = std::process::Command::new("psql")
            .arg(format!("dbname=postgres sslmode=verify-full sslrootcert={}", shown(&authority.ca)))
            .args(["-c", "SELECT"])
            .envs(bed.db.server.superuser_env())
            .output()
            .unwrap();
        assert_eq!(psql.status.success(), fits, "{psql:?}");
        let leasehold = bed.start(&format!("sslrootcert={}", shown(&authority.ca))).await;
        if fits {
            assert_eq!(bed.stat(&leasehold, "ssl").await, "t");
        } else {
            bed.is_shut(&leasehold, "08001", "no subject alternative name for this host").await;
        }
    }
}
