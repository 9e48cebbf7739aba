//! A primary and a real streaming standby: which of them serves, and what happens where the standby lags.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::{
    Backends, Builder, Fault, Leasehold, Mode, SOON, Server, Session, Spec, bench, eventually, same,
};

/// A primary with a database, its standby, and a forwarder before each.
struct Cluster {
    backends: Backends,
    standby: Server,
    to_primary: Fault,
    to_standby: Fault,
}

impl Deref for Cluster {
    type Target = Backends;

    fn deref(&self) -> &Backends {
        &self.backends
    }
}

impl Cluster {
    async fn new(version: &str) -> Self {
        let primary = bench().own_postgres(json!({"version": version})).await;
        let standby = primary.standby(version).await;
        let backends = Backends::on(&primary, Spec::new("app").policy(Spec::MAY_REVOKE)).await;
        let to_primary = Fault::before(&primary.addr()).await;
        let to_standby = Fault::before(&standby.addr()).await;
        Self { backends, standby, to_primary, to_standby }
    }

    /// The primary first, then the standby; `words` of the URI.
    fn primary_first(&self, words: &str) -> Builder {
        self.at(&format!("{},{}", self.to_primary.addr(), self.to_standby.addr()), words)
    }

    /// The standby first.
    fn standby_first(&self, words: &str) -> Builder {
        self.at(&format!("{},{}", self.to_standby.addr(), self.to_primary.addr()), words)
    }

    fn at(&self, hosts: &str, words: &str) -> Builder {
        let uri = format!("postgresql://{hosts}/?sslmode=disable&{words}");
        self.leasehold_at(&uri)
    }

    /// Waits until the standby knows what the primary does.
    async fn in_step(&self) {
        self.standby.catch_up(&self.db.admin).await;
    }

    async fn connect(&self, leasehold: &Leasehold) -> Session {
        leasehold.connect("app", self.db.name()).await
    }

    /// Which of the two a new session is with.
    async fn serves(&self, leasehold: &Leasehold) -> &'static str {
        let session = self.connect(leasehold).await;
        let standby = session.value("SELECT pg_is_in_recovery()").await == "t";
        session.close().await;
        if standby { "standby" } else { "primary" }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn target_session_attrs_picks_the_host() {
    for version in ["system", "18"] {
        let cluster = Cluster::new(version).await;
        for (word, from_primary, from_standby) in [
            ("any", "primary", "standby"),
            ("read-write", "primary", "primary"),
            ("read-only", "standby", "standby"),
            ("primary", "primary", "primary"),
            ("standby", "standby", "standby"),
            ("prefer-standby", "standby", "standby"),
        ] {
            let words = format!("target_session_attrs={word}");
            for (builder, wanted) in
                [(cluster.primary_first(&words), from_primary), (cluster.standby_first(&words), from_standby)]
            {
                let leasehold = builder.start().await;
                leasehold.wait_ready().await;
                cluster.in_step().await;
                assert_eq!(cluster.serves(&leasehold).await, wanted, "{version} {word}");
            }
        }
        // Those passed over were told goodbye, and none of them is left.
        let holds = |bytes: &[u8], piece: &[u8]| bytes.windows(piece.len()).any(|window| window == piece);
        let recordings = [cluster.to_primary.recordings(), cluster.to_standby.recordings()].concat();
        let passed_over: Vec<_> = recordings
            .iter()
            .filter(|one| holds(&one.to_client, b"Z\0\0\0\x05I"))
            .map(|one| &one.to_server)
            .filter(|sent| !holds(sent, b"pg_is_in_recovery"))
            .collect();
        assert!(passed_over.len() > 6, "{}", passed_over.len());
        for sent in passed_over {
            assert!(sent.ends_with(b"X\0\0\0\x04"), "{sent:?}");
        }
        eventually(SOON, async || same(cluster.db.backends().await.len(), 0)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_of_read_only_counts_and_the_client_may_set_it() {
    let cluster = Cluster::new("system").await;
    let leasehold = cluster.primary_first("target_session_attrs=read-write").start().await;
    leasehold.wait_ready().await;
    cluster.in_step().await;
    let mut config = leasehold.config("app", cluster.db.name());
    config.options("-c default_transaction_read_only=on");

    let refused = crate::harness::connect(&config).await.err().unwrap();

    let told = refused.as_db_error().unwrap();
    assert_eq!(told.code().code(), "08001");
    assert_eq!(told.message(), "no upstream server is what target_session_attrs asks for");
    assert_eq!(cluster.serves(&leasehold).await, "primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_host_is_what_is_asked_for_the_client_is_told_and_prefer_standby_takes_any() {
    let cluster = Cluster::new("18").await;
    let primary = cluster.to_primary.addr().to_string();
    let none = cluster.at(&primary, "target_session_attrs=standby").start().await;
    none.wait_log("published unproved").await;
    let error = none.try_connect("app", cluster.db.name()).await.err().unwrap();
    let told = error.as_db_error().unwrap();
    assert_eq!(told.code().code(), "08001");
    assert_eq!(told.message(), "no upstream server is what target_session_attrs asks for");
    assert!(told.hint().is_some());
    eventually(SOON, async || same(cluster.db.backends().await.len(), 0)).await;
    // A credential alone is not enough to be ready.
    let not_ready = none.http("/readyz").await;
    assert_eq!(not_ready.status, 503);
    let why = "app: no session can log in (prove: no upstream server is what target_session_attrs asks for)";
    assert!(not_ready.text.contains(why), "{}", not_ready.text);
    let status = none.status().await;
    assert_eq!(status["routes"][0]["ready"], false);
    let kind = status["routes"][0]["last_error"]["kind"].as_str().unwrap().to_owned();
    assert!(kind.contains("target_session_attrs"), "{kind}");

    // It needs no session to learn of a standby.
    cluster.to_standby.set(Mode::Refuse).await;
    let later = cluster.primary_first("target_session_attrs=standby").start().await;
    later.wait_log("published unproved").await;
    assert_eq!(later.http("/readyz").await.status, 503);
    cluster.in_step().await;
    cluster.to_standby.set(Mode::Pass).await;
    later.wait_ready().await;
    assert_eq!(cluster.serves(&later).await, "standby");

    let prefers = cluster.primary_first("target_session_attrs=prefer-standby").start().await;
    prefers.wait_ready().await;
    cluster.in_step().await;
    assert_eq!(cluster.serves(&prefers).await, "standby");
    cluster.standby.stop("fast").await;
    assert_eq!(cluster.serves(&prefers).await, "primary");
    cluster.standby.restart().await;
    assert_eq!(cluster.serves(&prefers).await, "standby");
}

/// The numbers of the generations there are.
async fn generations(leasehold: &Leasehold) -> Vec<u64> {
    let generations = leasehold.generations().await;
    generations.iter().map(|generation| generation["generation"].as_u64().unwrap()).collect()
}

/// Rotations, and credentials asked for.
async fn asked_for(leasehold: &Leasehold) -> (f64, f64) {
    let metrics = leasehold.metrics().await;
    (metrics.get("rotations_total", &[]), metrics.get("issuances_total", &[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_has_not_replayed_the_fresh_role_is_used_with_the_credential_before_at_once() {
    let cluster = Cluster::new("18").await;
    let leasehold = cluster
        .standby_first("target_session_attrs=prefer-standby")
        .flag("--limits-replica-grace", "20s")
        .start()
        .await;
    leasehold.wait_ready().await;
    cluster.in_step().await;
    let before = cluster.connect(&leasehold).await.user().await;

    cluster.standby.pause_replay().await;
    leasehold.rotate().await;
    let counted = asked_for(&leasehold).await;
    for logins in 1..=20 {
        let session = cluster.connect(&leasehold).await;
        assert_eq!(session.value("SELECT pg_is_in_recovery()").await, "t");
        assert_eq!(session.user().await, before);
        session.close().await;
        let suspects = leasehold.metrics().await.get("suspect_logins_total", &[]);
        assert_eq!(suspects, f64::from(logins), "the standby is asked once for each, and not waited for");
    }
    cluster.standby.replay().await;
    cluster.in_step().await;

    let session = cluster.connect(&leasehold).await;
    assert_eq!(session.value("SELECT pg_is_in_recovery()").await, "t");
    assert_ne!(session.user().await, before, "the fresh one");
    assert_eq!(asked_for(&leasehold).await, counted, "no rotation came of it");
    // The one before is given back once its successor is old enough for every replica, not sooner.
    assert_eq!(generations(&leasehold).await, [1, 2]);
    assert_eq!(cluster.db.roles().await.len(), 2);
    eventually(Duration::from_secs(30), async || same(generations(&leasehold).await, [2])).await;
    eventually(SOON, async || same(cluster.db.roles().await.len(), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_before_a_standby_that_lags_is_waited_for() {
    let cluster = Cluster::new("18").await;
    let leasehold = cluster
        .standby_first("target_session_attrs=prefer-standby")
        .flag("--limits-replica-grace", "1m")
        .flag("--limits-login-wait", "1m")
        .start()
        .await;
    leasehold.wait_ready().await;
    cluster.in_step().await;
    let before = cluster.connect(&leasehold).await.user().await;

    cluster.standby.pause_replay().await;
    // What is ended on command takes no newcomers, wherever they come to.
    assert!(leasehold.command(&["rotate", "--drain=1m"]).await.status.success(), "the primary proves it");
    let counted = asked_for(&leasehold).await;
    let catching_up = async {
        let suspects = async || {
            let suspects = leasehold.metrics().await.get("suspect_logins_total", &[]);
            same(suspects >= 2.0, true)
        };
        eventually(SOON, suspects).await;
        cluster.standby.replay().await;
    };
    let (session, ()) = tokio::join!(cluster.connect(&leasehold), catching_up);

    assert_eq!(session.value("SELECT pg_is_in_recovery()").await, "t");
    assert_ne!(session.user().await, before, "the fresh one");
    assert_eq!(asked_for(&leasehold).await, counted, "no rotation came of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_before_another_host_serves_after_the_grace() {
    let cluster = Cluster::new("18").await;
    let grace = Duration::from_secs(3);
    let leasehold = cluster
        .standby_first("target_session_attrs=prefer-standby")
        .flag("--limits-replica-grace", "3s")
        .start()
        .await;
    leasehold.wait_ready().await;
    cluster.in_step().await;

    cluster.standby.pause_replay().await;
    let begun = Instant::now();
    assert!(leasehold.command(&["rotate", "--drain=0s"]).await.status.success(), "the primary proves it");
    let counted = asked_for(&leasehold).await;
    let session = cluster.connect(&leasehold).await;

    assert!(begun.elapsed() >= grace, "it waits for the standby first: {:?}", begun.elapsed());
    assert_eq!(session.value("SELECT pg_is_in_recovery()").await, "f", "the primary knows the fresh one");
    // So it is for the next, who need not wait any more.
    assert_eq!(cluster.serves(&leasehold).await, "primary");
    assert_eq!(asked_for(&leasehold).await, counted, "no rotation came of it");
    cluster.standby.replay().await;
    cluster.in_step().await;
    assert_eq!(cluster.serves(&leasehold).await, "standby");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_proved_where_sessions_go_and_the_one_before_serves_until_then() {
    let cluster = Cluster::new("18").await;
    let leasehold = cluster
        .primary_first("target_session_attrs=standby")
        .flag("--limits-replica-grace", "1s")
        .start()
        .await;
    // The first one may have come before the standby knew it, and then it is proved later.
    cluster.in_step().await;
    leasehold.wait_ready().await;
    let before = cluster.connect(&leasehold).await.user().await;
    let unproved = async || leasehold.metrics().await.get("proofs_total", &[("outcome", "unprovable")]);
    let at_first = unproved().await;

    cluster.standby.pause_replay().await;
    let lagging = async {
        // Beyond the grace: by then it would have been given back.
        let refused = async || same(unproved().await >= at_first + 3.0, true);
        eventually(SOON, refused).await;
        for _ in 0..10 {
            assert_eq!(cluster.connect(&leasehold).await.user().await, before, "the standby knows no other");
        }
        assert_eq!(leasehold.metrics().await.get("suspect_logins_total", &[]), 0.0, "no login was refused");
        cluster.standby.replay().await;
    };
    let (rotated, ()) = tokio::join!(leasehold.command(&["rotate"]), lagging);

    assert!(rotated.status.success(), "{rotated:?}");
    assert_ne!(cluster.connect(&leasehold).await.user().await, before);
    eventually(SOON, async || same(generations(&leasehold).await, [2])).await;
}

/// Two forwarders at one port of two addresses, to which a file of hosts gives one name.
async fn under_one_name(cluster: &Cluster, hosts: &Path) -> (Fault, Fault, String) {
    let addresses = [[127, 0, 0, 2], [127, 0, 0, 3]];
    let to_primary = Fault::at((addresses[0], 0).into(), &cluster.to_primary.addr().to_string()).await;
    let port = to_primary.addr().port();
    let to_standby = Fault::at((addresses[1], port).into(), &cluster.to_standby.addr().to_string()).await;
    std::fs::write(hosts, "127.0.0.1 localhost\n127.0.0.2 cluster.test\n127.0.0.3 cluster.test\n").unwrap();
    (to_primary, to_standby, format!("cluster.test:{port}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_several_addresses_is_several_hosts() {
    let cluster = Cluster::new("18").await;
    let hosts = bench().directory().await.join("hosts");
    let (_to_primary, _to_standby, name) = under_one_name(&cluster, &hosts).await;
    let leasehold = cluster.at(&name, "load_balance_hosts=random").hosts_file(&hosts).start().await;
    leasehold.wait_ready().await;
    cluster.in_step().await;

    cluster.standby.pause_replay().await;
    assert!(leasehold.command(&["rotate"]).await.status.success(), "the primary proves it");
    let counted = asked_for(&leasehold).await;
    let catching_up = async {
        let suspects = async || same(leasehold.metrics().await.get("suspect_logins_total", &[]) >= 1.0, true);
        eventually(SOON, suspects).await;
        cluster.standby.replay().await;
    };
    let logins = async {
        // So many that one of them is surely at the standby first.
        for _ in 0..20 {
            cluster.connect(&leasehold).await.close().await;
        }
    };
    tokio::join!(logins, catching_up);

    assert_eq!(asked_for(&leasehold).await, counted, "no rotation came of it");
    assert_eq!(generations(&leasehold).await, [1, 2], "the standby may need the one before");
    assert_eq!(cluster.db.roles().await.len(), 2);
    eventually(Duration::from_secs(40), async || same(generations(&leasehold).await, [2])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_that_is_written_holds_for_one_host_too_and_there_is_none_by_default() {
    let cluster = Cluster::new("18").await;
    let primary = cluster.to_primary.addr().to_string();
    let grace = Duration::from_secs(3);
    let (unwritten, written) = tokio::join!(
        cluster.at(&primary, "").start(),
        cluster.at(&primary, "").flag("--limits-replica-grace", "3s").start(),
    );
    for leasehold in [&unwritten, &written] {
        leasehold.wait_ready().await;
    }

    let begun = Instant::now();
    for leasehold in [&unwritten, &written] {
        assert!(leasehold.command(&["rotate"]).await.status.success());
    }
    eventually(SOON, async || same(generations(&unwritten).await, [2])).await;
    eventually(SOON, async || same(generations(&written).await, [2])).await;

    assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
}
