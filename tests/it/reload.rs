//! Routes that come, change and go while sessions run, and routes that have a credential only while one needs it.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Authority, Backends, Leasehold, SOON, Spec, Writers, eventually, same};

impl Backends {
    /// With a second Vault role of the same kind.
    async fn with_two_roles() -> Self {
        let Self { db, vault, setup } = Self::new(Spec::new("app")).await;
        let role = vault.read(&format!("{}/roles/app", setup.mount())).await["data"].clone();
        vault.write(&format!("{}/roles/other", setup.mount()), role).await;
        let policy = format!(
            "path \"{}/creds/*\" {{ capabilities = [\"read\"] }}
             path \"sys/leases/renew\" {{ capabilities = [\"update\"] }}",
            setup.mount()
        );
        vault.write(&format!("sys/policies/acl/{}", setup.id()), json!({"policy": policy})).await;
        Self { db, vault, setup }
    }

    fn route(&self, user: &str, role: &str, more: &str) -> String {
        format!(
            "[[route]]\nname = \"{user}\"\nuser = \"{user}\"\n\
             upstream = \"postgresql://{}/?sslmode=disable\"\nvault_path = \"{}/creds/{role}\"\n{more}",
            self.db.server.addr(),
            self.setup.mount()
        )
    }

    async fn start_with(&self, toml: &str) -> Leasehold {
        self.with_file(toml).start().await
    }
}

fn file(leasehold: &Leasehold) -> PathBuf {
    leasehold.directory().join("leasehold.toml")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_adds_and_removes_routes_and_closes_nothing() {
    let backends = Backends::with_two_roles().await;
    let database = backends.db.name();
    let leasehold =
        backends.start_with(&(backends.route("one", "app", "") + &backends.route("two", "app", ""))).await;
    leasehold.wait_ready_route("one").await;
    leasehold.wait_ready_route("two").await;
    let kept = leasehold.connect("one", database).await;
    let removed = leasehold.connect("two", database).await;
    let (kept_user, removed_user) = (kept.user().await, removed.user().await);

    let toml = backends.route("one", "other", "") + &backends.route("three", "app", "");
    std::fs::write(file(&leasehold), toml).unwrap();
    let said = leasehold.command(&["reload"]).await;

    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for word in ["one changed", "two removed", "three added"] {
        assert!(said.contains(word), "{said}");
    }
    leasehold.wait_ready_route("three").await;
    leasehold.connect("three", database).await.close().await;
    let refused = leasehold.try_connect("two", database).await.err().unwrap();
    assert_eq!(refused.code().unwrap().code(), "28000");
    eventually(SOON, async || {
        let reloads =
            leasehold.metrics().await.get("rotations_total", &[("route", "one"), ("reason", "reload")]);
        same(reloads, 1.0)
    })
    .await;
    let fresh = leasehold.connect("one", database).await;
    assert!(fresh.user().await.contains("-other-"), "the new path serves new sessions");
    assert_eq!(kept.user().await, kept_user);
    assert_eq!(removed.user().await, removed_user);
    removed.close().await;
    // What only the removed route held goes back with its last session.
    eventually(SOON, async || {
        let roles = backends.db.roles().await;
        if roles.contains(&removed_user) { Err(roles) } else { Ok(()) }
    })
    .await;
}

/// How a reload is asked for.
#[derive(Clone, Copy, Debug)]
enum Way {
    Sighup,
    Command,
    Post,
}

impl Way {
    const ALL: [Self; 3] = [Self::Sighup, Self::Command, Self::Post];

    /// Asks for it, and waits for the answer: whether anything was done, and the words.
    async fn ask(self, leasehold: &Leasehold) -> (bool, String) {
        match self {
            Self::Sighup => {
                let before = reloads(leasehold).len();
                leasehold.sighup();
                eventually(SOON, async || same(reloads(leasehold).len(), before + 1)).await;
                let said = reloads(leasehold).pop().unwrap();
                (said.starts_with("reloaded: "), said)
            }
            Self::Command => {
                let done = leasehold.command(&["reload"]).await;
                (done.status.success(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
            }
            Self::Post => {
                let reply = leasehold.admin(Method::POST, "/reload").await;
                assert!([200, 422].contains(&reply.status), "{reply:?}");
                (reply.status == 200, reply.text)
            }
        }
    }
}

/// What the log says of each reload.
fn reloads(leasehold: &Leasehold) -> Vec<String> {
    let lines = leasehold.log().lines();
    let messages = lines.iter().filter_map(|line| line["message"].as_str());
    let of_reloads = |said: &&str| said.starts_with("reloaded: ") || said.starts_with("nothing is reloaded");
    messages.filter(of_reloads).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_closes_nothing_however_it_is_asked_for() {
    let backends = Backends::with_two_roles().await;
    let database = backends.db.name();
    let leasehold = backends.start_with(&backends.route("one", "app", "")).await;
    leasehold.wait_ready_route("one").await;
    let writers = Writers::start(&backends.db, &leasehold.config("one", database), 12).await;
    let rotations = async || {
        let reload = [("route", "one"), ("reason", "reload")];
        leasehold.metrics().await.get("rotations_total", &reload)
    };

    let logins = async || leasehold.metrics().await.get("sessions_opened_total", &[("route", "one")]);
    let more_logins_than = async |before: f64| {
        eventually(SOON * 2, async || {
            let now = logins().await;
            if now >= before + 6.0 { Ok(()) } else { Err((before, now)) }
        })
        .await;
    };

    // Each gives the busy route the other role of Vault, takes a neighbour away and brings another.
    let mut held = Vec::new();
    let mut last = String::new();
    for (turn, way) in Way::ALL.into_iter().enumerate() {
        let (role, neighbour) = (["other", "app", "other"][turn], format!("next{turn}"));
        more_logins_than(logins().await).await;
        last = backends.route("one", role, "") + &backends.route(&neighbour, "app", "");
        std::fs::write(file(&leasehold), &last).unwrap();
        let (done, said) = way.ask(&leasehold).await;
        assert!(done, "{way:?}: {said}");
        for word in ["one changed".to_owned(), format!("{neighbour} added")] {
            assert!(said.contains(&word), "{way:?}: {said}");
        }
        eventually(SOON, async || same(rotations().await, (turn + 1) as f64)).await;
        leasehold.wait_ready_route(&neighbour).await;
        held.push(leasehold.connect(&neighbour, database).await);
    }
    let issued = leasehold.metrics().await.get("issuances_total", &[]);

    // Now a file that nobody can go by.
    for way in Way::ALL {
        std::fs::write(file(&leasehold), last.clone() + "drian = \"2m\"\n").unwrap();
        let (done, said) = way.ask(&leasehold).await;
        assert!(!done, "{way:?}: {said}");
        assert!(said.contains("leasehold.toml:") && said.contains("did you mean drain?"), "{way:?}: {said}");
    }

    more_logins_than(logins().await).await;
    for (turn, session) in held.iter().enumerate() {
        assert!(session.user().await.contains("-app-"), "the session of neighbour {turn} runs on");
    }
    let written = writers.stop(&backends.db).await;
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[]), issued, "a bad file changes nothing");
    assert_eq!(metrics.get("login_failures_total", &[]), 0.0);
    assert_eq!(metrics.get("sessions_opened_total", &[]), f64::from(written.logins + 3));
    eventually(SOON, async || {
        let metrics = leasehold.metrics().await;
        let by_clients = metrics.get("sessions_closed_total", &[("cause", "client")]);
        let logins = f64::from(written.logins);
        same((by_clients, metrics.get("sessions_closed_total", &[])), (logins, logins))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_reported_by_line_and_key_and_changes_nothing() {
    let backends = Backends::with_two_roles().await;
    let good = backends.route("one", "app", "");
    let leasehold = backends.start_with(&good).await;
    leasehold.wait_ready().await;
    let before = leasehold.connect("one", backends.db.name()).await;

    std::fs::write(file(&leasehold), good.clone() + "drian = \"2m\"\n").unwrap();
    let said = leasehold.command(&["reload"]).await;

    assert_eq!(said.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        complaint.contains("leasehold.toml:") && complaint.contains("did you mean drain?"),
        "{complaint}"
    );
    leasehold.sighup();
    eventually(SOON, async || {
        let lines = leasehold.log().lines();
        let said =
            lines.iter().filter(|l| l["message"].as_str().unwrap_or("").starts_with("nothing is reloaded"));
        same(said.count(), 2)
    })
    .await;
    let after = leasehold.connect("one", backends.db.name()).await;
    assert_eq!(after.user().await, before.user().await, "nothing has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_to_its_end_holds_up_neither_sessions_nor_the_stop() {
    let backends = Backends::with_two_roles().await;
    let mut leasehold = backends.start_with(&backends.route("one", "app", "")).await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("one", backends.db.name()).await;

    // What a file is on a file system that does not answer: opening it takes until somebody writes.
    std::fs::remove_file(file(&leasehold)).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, file(&leasehold), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let said = leasehold.command(&["reload"]).await;
    assert_eq!(said.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(complaint.contains("could not be read within"), "{complaint}");

    assert_eq!(session.value("SELECT 40 + 2").await, "42");
    leasehold.connect("one", backends.db.name()).await.close().await;
    // Another one is under way when it is told to stop.
    leasehold.sighup();
    drop(session);
    assert!(leasehold.stop().await.success());
    assert!(backends.db.roles().await.is_empty(), "everything is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_does_not_forget_when_vault_was_reached() {
    let backends = Backends::with_two_roles().await;
    let leasehold = backends.start_with(&backends.route("one", "app", "")).await;
    leasehold.wait_ready().await;
    let before = leasehold.status().await["vault"].clone();
    assert_eq!(before["reachable"], true);

    assert!(leasehold.command(&["reload"]).await.status.success());

    assert_eq!(leasehold.status().await["vault"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_which_certificate_files_have_changed() {
    let backends = Backends::with_two_roles().await;
    let directory = backends.setup.directory();
    let (first, second) = (Authority::new(directory, "first"), Authority::new(directory, "second"));
    let file = directory.join("ca.pem");
    std::fs::copy(&first.ca, &file).unwrap();
    let leasehold = backends
        .with_file(&backends.route("one", "app", ""))
        .flag("--vault-ca-cert", file.to_str().unwrap())
        .start()
        .await;
    leasehold.wait_ready().await;
    let reload = async || Way::Command.ask(&leasehold).await.1;

    let said = reload().await;
    let unchanged = format!(
        "no route changed: {} was read, and says of them what it said before",
        self::file(&leasehold).display()
    );
    assert_eq!(said, format!("{unchanged}, certificate files read again, none changed\n"));
    std::fs::copy(&second.ca, &file).unwrap();
    let said = reload().await;
    assert!(said.contains("changed: ") && said.contains(file.to_str().unwrap()), "{said}");
    assert!(reload().await.contains("none changed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_without_a_file_says_that_there_is_none() {
    let backends = Backends::with_two_roles().await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let said = leasehold.command(&["reload"]).await;
    assert!(said.status.success(), "{said:?}");
    let none =
        "this process has no config file to read again, and its flags and variables hold until a restart";
    assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("no route changed: {none}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_restart_can_change_is_named() {
    let backends = Backends::with_two_roles().await;
    let toml = backends.route("one", "app", "");
    let leasehold = backends.start_with(&toml).await;
    leasehold.wait_ready().await;

    let audit = leasehold.directory().join("audit");
    let general =
        format!("threads = 7\naudit_file = {audit:?}\nconsole = \"all\"\nconsole_database = \"other\"\n");
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let tables = "[limits]\nlogin_wait = \"3s\"\n[cancel]\nunknown = \"forward\"\n";
    std::fs::write(file(&leasehold), general + &toml + listener + tables).unwrap();
    let said = leasehold.command(&["reload"]).await;

    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains(
            "a restart is needed for listen or [[listener]], [limits], threads, audit_file, console, [cancel]"
        ),
        "{said}"
    );
    assert!(!audit.exists(), "no session is recorded in it");
    assert!(leasehold.try_connect("me", "other").await.is_err(), "no console is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_route_has_a_role_only_while_sessions_need_it() {
    let backends = Backends::with_two_roles().await;
    let leasehold =
        backends.start_with(&backends.route("one", "app", "lazy = true\nidle_after = \"1s\"\n")).await;
    leasehold.wait_ready().await;
    assert_eq!(backends.db.roles().await, Vec::<String>::new(), "nothing is issued ahead of need");

    let session = leasehold.connect("one", backends.db.name()).await;

    let user = session.user().await;
    assert_eq!(backends.db.roles().await, [user]);
    session.close().await;
    eventually(SOON, async || same(backends.db.roles().await, Vec::<String>::new())).await;
    let again = leasehold.connect("one", backends.db.name()).await;
    assert_eq!(backends.db.roles().await, [again.user().await]);
    leasehold.wait_ready().await;
}

/// The lines of `/metrics` that are about this route.
async fn series(leasehold: &Leasehold, route: &str) -> Vec<String> {
    let text = leasehold.http("/metrics").await.text;
    let wanted = format!("route=\"{route}\"");
    text.lines().filter(|line| line.contains(&wanted)).map(ToOwned::to_owned).collect()
}

fn of<'a>(series: &'a [String], name: &str) -> Vec<&'a str> {
    series
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with(&format!("leasehold_{name}{{")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_routes_series_go_with_it_and_reloads_leave_none() {
    let backends = Backends::with_two_roles().await;
    let leasehold = backends.start_with(&backends.route("one", "app", "")).await;
    leasehold.wait_ready_route("one").await;
    let session = leasehold.connect("one", backends.db.name()).await;
    let lines = async || leasehold.http("/metrics").await.text.lines().count();
    let before = lines().await;

    for at in 0..8 {
        let name = format!("two{at}");
        std::fs::write(file(&leasehold), backends.route(&name, "app", "")).unwrap();
        assert!(leasehold.command(&["reload"]).await.status.success());
        leasehold.wait_ready_route(&name).await;
        leasehold.connect(&name, backends.db.name()).await.close().await;
    }

    // Its session is still there and counted; nothing says that its credential comes to an end.
    let left = series(&leasehold, "one").await;
    assert_eq!(of(&left, "sessions"), ["leasehold_sessions{route=\"one\"} 1"], "{left:?}");
    assert!(
        of(&left, "lease_runway_seconds").is_empty() && of(&left, "lease_ends_timestamp_seconds").is_empty()
    );
    session.close().await;
    for name in ["one", "two0", "two6"] {
        eventually(SOON * 2, async || same(series(&leasehold, name).await, Vec::<String>::new())).await;
    }
    let after = lines().await;
    // Of Vault's requests there are more kinds by now.
    assert!(after < before + 60, "{before} lines before, {after} after");
    assert_eq!(of(&series(&leasehold, "two7").await, "lease_runway_seconds").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_was_removed_and_added_again_has_one_runway_and_one_count_of_sessions() {
    let backends = Backends::with_two_roles().await;
    let (one, two) = (backends.route("one", "app", ""), backends.route("two", "app", ""));
    let leasehold = backends.start_with(&one).await;
    leasehold.wait_ready_route("one").await;
    let old = leasehold.connect("one", backends.db.name()).await;
    for toml in [&two, &one] {
        std::fs::write(file(&leasehold), toml).unwrap();
        assert!(leasehold.command(&["reload"]).await.status.success());
    }
    leasehold.wait_ready_route("one").await;
    let new = leasehold.connect("one", backends.db.name()).await;
    assert_ne!(old.user().await, new.user().await, "both drivers have something to say");

    // Each driver shows its own once a second.
    for _ in 0..40 {
        let series = series(&leasehold, "one").await;
        let [runway] = of(&series, "lease_runway_seconds")[..] else { panic!("{series:?}") };
        let runway: f64 = runway.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(runway > 3_000.0, "{runway}");
        assert_eq!(of(&series, "sessions"), ["leasehold_sessions{route=\"one\"} 2"]);
        let current = of(&series, "generations").into_iter().find(|line| line.contains("current")).unwrap();
        assert!(current.ends_with(" 1"), "{current}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    old.close().await;
    eventually(SOON, async || same(backends.db.roles().await.len(), 1)).await;
    let left = series(&leasehold, "one").await;
    assert_eq!(of(&left, "sessions"), ["leasehold_sessions{route=\"one\"} 1"], "{left:?}");
    assert_eq!(of(&left, "lease_runway_seconds").len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_route_at_rest_has_no_runway() {
    let backends = Backends::with_two_roles().await;
    let leasehold =
        backends.start_with(&backends.route("one", "app", "lazy = true\nidle_after = \"1s\"\n")).await;
    let runway = async || of(&series(&leasehold, "one").await, "lease_runway_seconds").len();
    let shown = async || leasehold.status().await["routes"][0]["runway_seconds"].clone();
    assert_eq!((runway().await, shown().await), (0, serde_json::Value::Null));
    // Vault was not asked, and nothing is known of it.
    let up = async || leasehold.http("/metrics").await.text.contains("\nleasehold_vault_up 1");
    assert_eq!(leasehold.status().await["vault"]["trouble"], "not asked yet");
    let table = leasehold.command(&["status"]).await.stdout;
    assert!(String::from_utf8_lossy(&table).contains(", not asked yet\n"), "{table:?}");
    let metrics = leasehold.http("/metrics").await.text;
    assert!(!metrics.contains("\nleasehold_vault_up "), "{metrics}");
    let session = leasehold.connect("one", backends.db.name()).await;
    assert_eq!(runway().await, 1);
    assert_eq!(leasehold.status().await["vault"]["reachable"], true);
    assert!(up().await);
    assert!(shown().await.as_f64().unwrap() > 3_000.0);
    session.close().await;
    eventually(SOON, async || same(runway().await, 0)).await;
    assert_eq!(shown().await, serde_json::Value::Null);
}
