//! Who may connect: users of the machine over a Unix socket, networks over TCP. Client certificates are in `client_tls`.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_postgres::Config;

use crate::harness::{
    Backends, Raw, SOON, Scene, Session, Spec, bench, connect, eventually, leasehold, packet, same,
    startup_body, tags,
};

/// A route of the file, for a user of its own name.
fn route(backends: &Backends, name: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nuser = \"{name}\"\nupstream = \"postgresql://{}/?sslmode=disable\"\n\
         vault_path = \"{}\"\n{more}\n",
        backends.db.server.addr(),
        backends.setup.path
    )
}

/// What a login over this Unix socket ends with: a session, or SQLSTATE and hint.
async fn session_over_unix(
    directory: &Path,
    user: &str,
    database: &str,
) -> Result<Session, (String, String)> {
    let mut config = Config::new();
    config.host_path(directory).port(6432).user(user).dbname(database);
    let session = connect(&config).await.map_err(|error| {
        let error = error.as_db_error().expect("an answer").clone();
        (error.code().code().to_owned(), error.hint().unwrap_or_default().to_owned())
    })?;
    assert_eq!(session.value("SELECT 1").await, "1");
    Ok(session)
}

/// The same, and the session is closed.
async fn over_unix(directory: &Path, user: &str, database: &str) -> Result<(), (String, String)> {
    session_over_unix(directory, user, database).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_for_the_users_and_groups_that_it_lists() {
    let backends = Backends::new(Spec::new("app")).await;
    let directory = bench().directory().await;
    let us = std::fs::metadata(&directory).unwrap();
    let name = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let name = String::from_utf8(name).unwrap().trim().to_owned();
    let (uid, gid) = (us.uid(), us.gid());
    let toml = [
        format!("listen = [\"127.0.0.1:0\", \"{}\"]\n", directory.display()),
        route(&backends, "ours", &format!("allow_uids = [{}, {uid}]", uid + 1)),
        route(&backends, "named", &format!("allow_uids = [\"{name}\"]")),
        route(&backends, "grouped", &format!("allow_uids = [{}]\nallow_gids = [{gid}]", uid + 1)),
        route(&backends, "strange", &format!("allow_uids = [{}]\nallow_gids = [{}]", uid + 1, gid + 1)),
        route(&backends, "open", ""),
    ];
    // The flag of the harness would beat the file.
    let listen = format!("127.0.0.1:0,{}", directory.display());
    let builder = leasehold().approle(&backends.setup).vault(&backends.vault).flag("--listen", &listen);
    let leasehold = builder.config_toml(&toml.concat()).start().await;
    leasehold.wait_ready_route("open").await;
    leasehold.wait_ready_route("strange").await;
    let database = backends.db.name();

    for user in ["ours", "named", "grouped", "open"] {
        assert_eq!(over_unix(&directory, user, database).await, Ok(()), "{user}");
    }
    let (code, hint) = over_unix(&directory, "strange", database).await.unwrap_err();
    assert!(code == "28000" && hint.contains("allow_uids"), "{code} {hint}");

    // Over TCP nobody can show who it is.
    for user in ["ours", "named", "grouped", "strange"] {
        let (_, frames) = Raw::login(leasehold.addr(), user, database).await;
        let [error] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(error.sqlstate(), "28000", "{user}");
        assert_eq!(error.fields()[&'M'], "the route is not for this client");
    }
    leasehold.connect("open", database).await;
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("login_failures_total", &[("reason", "denied")]), 5.0);
    assert_eq!(metrics.get("login_failures_total", &[("route", "strange")]), 2.0);
    leasehold.wait_log("login refused: the route is not for this client").await;
}

/// A client from another address of this machine.
async fn from(source: &str, to: SocketAddr, database: &str) -> Result<(), String> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(source.parse().unwrap()).unwrap();
    let stream: TcpStream = socket.connect(to).await.unwrap();
    let mut raw = Raw::over(stream);
    raw.startup(Raw::PROTOCOL_3_0, &[("user", "app"), ("database", database)]).await;
    let frames = raw.until("ZE").await;
    if tags(&frames).ends_with('Z') { Ok(()) } else { Err(frames.last().unwrap().sqlstate()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_connect_from_the_networks_that_are_listed() {
    let toml = |networks: &str| format!("allow_addresses = [{networks}]\n");
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).config_toml(&toml("\"127.0.0.0/30\", \"192.0.2.0/24\""))
    })
    .await;
    let (addr, database) = (scene.leasehold.addr(), scene.db.name());
    let (mut inside, frames) = Raw::login(addr, "app", database).await;
    assert!(tags(&frames).ends_with('Z'), "{frames:?}");
    assert_eq!(from("127.0.0.3:0", addr, database).await, Ok(()));
    assert_eq!(from("127.0.0.4:0", addr, database).await, Err("28000".to_owned()));

    // A reload changes it for new connections.
    let file = scene.leasehold.directory().join("leasehold.toml");
    std::fs::write(file, toml("\"127.0.0.4\"")).unwrap();
    let reloaded = scene.leasehold.command(&["reload"]).await;
    assert!(String::from_utf8_lossy(&reloaded.stdout).contains("allow_addresses changed"), "{reloaded:?}");
    assert_eq!(from("127.0.0.4:0", addr, database).await, Ok(()));
    assert_eq!(from("127.0.0.1:0", addr, database).await, Err("28000".to_owned()));
    assert_eq!(tags(&inside.query("SELECT 1").await), "TDCZ", "a session goes on");
    let denied = async || {
        scene.leasehold.metrics().await.get("login_failures_total", &[("reason", "denied"), ("route", "app")])
    };
    eventually(SOON, async || same(denied().await, 2.0)).await;
}

/// They take nothing from those that may connect.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_from_elsewhere_leaves_clients_alone() {
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).limit_files(128).flag("--allow-addresses", "127.0.0.1")
    })
    .await;
    let addr = scene.leasehold.addr();
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        crowd.push(socket.connect(addr).await.unwrap());
    }
    assert_eq!(tags(&scene.raw().await.query("SELECT 1").await), "TDCZ");
    assert_eq!(scene.leasehold.http("/readyz").await.status, 200);
    assert_eq!(from("127.0.0.9:0", addr, scene.db.name()).await, Err("28000".to_owned()));
}

/// What a login ends with: nothing, or SQLSTATE and hint.
async fn outcome(addr: SocketAddr, database: &str) -> Result<Raw, [String; 2]> {
    let (raw, frames) = Raw::login(addr, "app", database).await;
    match frames.last() {
        Some(frame) if frame.tag == 'E' => Err([frame.sqlstate(), frame.fields()[&'H'].clone()]),
        _ => Ok(raw),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_beyond_their_rate_get_53300_and_sessions_go_on() {
    for flag in ["--logins-per-second", "--limits-logins-per-second"] {
        let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
            builder.upstream(db).flag(flag, "1")
        })
        .await;
        let (addr, database) = (scene.leasehold.addr(), scene.db.name());
        let mut first = outcome(addr, database).await.unwrap();
        let mut refused = 0;
        // However slow the machine is, some of so many come within the same second.
        while refused < 3 {
            if let Err([code, hint]) = outcome(addr, database).await {
                assert!(code == "53300" && hint.contains("logins_per_second"), "{flag}: {code} {hint}");
                refused += 1;
            }
        }
        assert_eq!(tags(&first.query("SELECT 1").await), "TDCZ");
        eventually(SOON, async || same(outcome(addr, database).await.is_ok(), true)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_take_only_the_places_of_handshakes() {
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--limits-max-handshakes", "4").flag("--limits-handshake-timeout", "8s")
    })
    .await;
    let (addr, database) = (scene.leasehold.addr(), scene.db.name());
    let mut inside = scene.raw().await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(scene.leasehold.connect_raw().await);
    }
    let [code, hint] = outcome(addr, database).await.err().unwrap();
    assert!(code == "53300" && hint.contains("max_handshakes"), "{code} {hint}");
    assert_eq!(tags(&inside.query("SELECT 1").await), "TDCZ");
    assert_eq!(scene.leasehold.http("/readyz").await.status, 200);
    // One that goes makes room, and so does time.
    silent.pop();
    eventually(SOON, async || same(outcome(addr, database).await.is_ok(), true)).await;
}

/// A scene that listens on a Unix socket in its directory without limits of its own, and on TCP with these.
async fn two_listeners(of_tcp: &str, of_process: &str) -> (Scene, PathBuf) {
    let directory = bench().directory().await;
    let toml =
        format!("[[listener]]\naddress = [\"127.0.0.1:0\", \"[::1]:0\"]\n{of_tcp}\n[limits]\n{of_process}\n");
    let listen = directory.display().to_string();
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--listen", &listen).config_toml(&toml)
    })
    .await;
    (scene, directory)
}

impl Scene {
    /// The two TCP addresses of [`two_listeners`].
    fn both(&self) -> [SocketAddr; 2] {
        let tcp = self.leasehold.listening("client").iter().filter_map(|addr| addr.parse().ok());
        tcp.collect::<Vec<_>>().try_into().unwrap()
    }

    /// A login over TCP is refused for a limit of the listener, with this setting in its hint, and counted.
    async fn refuses_over_tcp(&self, setting: &str) {
        let limited = async || {
            self.leasehold
                .metrics()
                .await
                .get("login_failures_total", &[("reason", "limit"), ("route", "app")])
        };
        for addr in self.both() {
            let before = limited().await;
            let (_, frames) = Raw::login(addr, "app", self.db.name()).await;
            let fields = frames.last().unwrap().fields();
            assert_eq!((&*fields[&'C'], &*fields[&'D']), ("53300", "This listener has as many as it may."));
            assert!(fields[&'H'].contains(setting), "{setting}: {fields:?}");
            eventually(SOON, async || same(limited().await, before + 1.0)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_all_its_sessions_takes_none_of_anothers() {
    let (scene, directory) = two_listeners("max_sessions = 2", "max_sessions = 3").await;
    let database = scene.db.name();
    let [v4, v6] = scene.both();
    let mut inside = [outcome(v4, database).await.unwrap(), outcome(v6, database).await.unwrap()];
    scene.refuses_over_tcp("max_sessions").await;
    // The process has room for one more, and it is no client's of the full listener.
    let third = session_over_unix(&directory, "app", database).await.unwrap();
    let (code, _) = over_unix(&directory, "app", database).await.unwrap_err();
    assert_eq!(code, "53300", "the limit of the process bounds the sum");
    assert_eq!(tags(&inside[0].query("SELECT 1").await), "TDCZ");
    third.close().await;
    drop(inside);
    eventually(SOON, async || same(outcome(v4, database).await.is_ok(), true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_full_of_silent_clients_takes_no_handshake_of_anothers() {
    let (scene, directory) = two_listeners("max_handshakes = 2", "max_handshakes = 3").await;
    // One socket accepts in order, so both have their places when the first client behind them is refused.
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(scene.leasehold.connect_raw().await);
    }
    scene.refuses_over_tcp("max_handshakes").await;
    for _ in 0..3 {
        assert_eq!(over_unix(&directory, "app", scene.db.name()).await, Ok(()));
    }
    drop(silent);
    eventually(SOON, async || same(outcome(scene.both()[0], scene.db.name()).await.is_ok(), true)).await;
}

/// The process lets in two in a second, one of which is left, however often the listener refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logins_on_one_listener_takes_none_of_anothers() {
    let (scene, directory) = two_listeners("logins_per_second = 1", "logins_per_second = 2").await;
    let database = scene.db.name();
    let mut refused = 0;
    while refused < 20 {
        for addr in scene.both() {
            if let Err([code, hint]) = outcome(addr, database).await {
                assert!(code == "53300" && hint.contains("logins_per_second"), "{code} {hint}");
                refused += 1;
            }
        }
    }
    assert_eq!(over_unix(&directory, "app", database).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_for_a_handshake_is_that_of_its_listener() {
    let (scene, directory) = two_listeners("handshake_timeout = \"1s\"", "handshake_timeout = \"5m\"").await;
    let mut first = UnixStream::connect(directory.join(".s.PGSQL.6432")).await.unwrap();
    for addr in scene.both() {
        assert_eq!(
            Raw::connect(addr).await.recv_within(SOON).await.map(|frame| frame.tag),
            None,
            "it is closed"
        );
    }
    // It has been silent for longer than those.
    let parameters = [("user", "app"), ("database", scene.db.name())];
    let body = startup_body(parameters.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    first.write_all(&packet(Raw::PROTOCOL_3_0, &body)).await.unwrap();
    assert_eq!(first.read_u8().await.ok(), Some(b'R'));
}
