//! Who may connect: users of the machine over a Unix socket, networks over TCP. Client certificates are in `client_tls`.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::net::{TcpSocket, TcpStream};
use tokio_postgres::Config;

use crate::harness::{Backends, Raw, SOON, Scene, Spec, bench, connect, eventually, leasehold, same, tags};

/// A route of the file, for a user of its own name.
fn route(backends: &Backends, name: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nuser = \"{name}\"\nupstream = \"postgresql://{}/?sslmode=disable\"\n\
         vault_path = \"{}\"\n{more}\n",
        backends.db.server.addr(),
        backends.setup.path
    )
}

/// What a login over this Unix socket ends with: nothing, or SQLSTATE and hint.
async fn over_unix(directory: &Path, user: &str, database: &str) -> Result<(), (String, String)> {
    let mut config = Config::new();
    config.host_path(directory).port(6432).user(user).dbname(database);
    let session = connect(&config).await.map_err(|error| {
        let error = error.as_db_error().expect("an answer").clone();
        (error.code().code().to_owned(), error.hint().unwrap_or_default().to_owned())
    })?;
    assert_eq!(session.value("SELECT 1").await, "1");
    Ok(())
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
