//! The console: SHOW in a database of leasehold's own, by psql and by the extended protocol.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::output;
use crate::harness::{Backends, SOON, Session, Spec, connect, eventually, leasehold, same};
use crate::process::OnSockets;

/// psql over the Unix socket in this directory, with the libpq of another one or the system's.
async fn psql(directory: &Path, libpq: Option<&Path>, sql: &str) -> (bool, String) {
    let mut command = Command::new("psql");
    command.args(["-wXAt", "-v", "ON_ERROR_STOP=1", "-h"]).arg(directory);
    command.args(["-p", "6432", "-U", "me", "-c", sql, "leasehold"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(libpq.map(|directory| ("LD_LIBRARY_PATH", directory)));
    let output = output(command).await;
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

async fn on_sockets(backends: &Backends, flags: &[&str]) -> OnSockets {
    OnSockets::start(&backends.db, &backends.vault, &backends.setup, Stdio::null(), flags).await
}

async fn connect_tcp(addr: std::net::SocketAddr) -> Result<Session, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(addr.ip().to_string()).port(addr.port()).user("me").dbname("leasehold");
    connect(&config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_shows_what_leasehold_does_with_the_libpq_of_two_versions() {
    let backends = Backends::new(Spec::new("app")).await;
    let running = on_sockets(&backends, &[]).await;
    let session = running.connect("app", backends.db.name()).await;
    let role = session.user().await;
    let superuser = backends.db.server.superuser("postgres").await;
    let libpq_18 =
        PathBuf::from(superuser.value("SELECT setting FROM pg_config WHERE name = 'LIBDIR'").await);
    for libpq in [None, Some(libpq_18.as_path())] {
        let show = async |sql: &str| {
            let (fine, said) = psql(&running.directory, libpq, sql).await;
            assert!(fine, "{sql}: {said}");
            said
        };
        let routes = show("SHOW ROUTES").await;
        assert!(routes.starts_with("app|dynamic|t|") && routes.contains(&backends.setup.path), "{routes}");
        let leads = format!("|*|*|{}", backends.db.server.addr());
        assert!(routes.trim_end().ends_with(&leads), "{routes}, not {leads}");
        let credentials = show("show credentials;").await;
        assert!(credentials.starts_with(&format!("app|1|current|1|{role}|")), "{credentials}");
        let sessions = show("SHOW SESSIONS").await;
        assert!(sessions.lines().count() == 1 && sessions.contains(&role), "{sessions}");
        assert!(show("SHOW STATS").await.starts_with("app|1|1|0|0|"));
        assert!(show("SHOW VAULT").await.starts_with(&format!("{}|t||20", backends.vault.addr)));
        let config = show("SHOW CONFIG").await;
        assert!(config.contains("http|off|--http|restart"), "{config}");
        assert!(config.contains(&format!("route.app.vault_path|{}|--vault-path|", backends.setup.path)));
        assert!(!config.contains(&backends.setup.role_id()), "{config}");
        assert!(show("SHOW VERSION").await.starts_with("leasehold 0."));
        assert_eq!(show("SHOW HELP").await.lines().count(), 8);
        assert_eq!(show("BEGIN; SHOW VERSION; COMMIT").await.lines().last(), Some("COMMIT"));
    }
    // What psql asks of its own accord gets an error, or an answer, and never silence.
    for (sql, said) in [
        (r"\l", "SHOW HELP lists what it shows."),
        ("SHOW SESIONS", "Did you mean SHOW SESSIONS?"),
        ("SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings WHERE name LIKE 'r%'", "SHOW HELP"),
        ("RELOAD", "changes nothing"),
    ] {
        let (fine, error) = psql(&running.directory, None, sql).await;
        assert!(!fine && error.contains(said), "{sql}: {error}");
    }
    let (fine, said) = psql(&running.directory, None, r"\conninfo").await;
    assert!(fine && said.contains("database \"leasehold\""), "{said}");
}

/// Types into psql on a terminal, each text once the prompt before it is there; all that psql has shown.
fn typed(directory: &Path, steps: &[(&str, &str)]) -> String {
    let psql = format!("psql -wX -P pager=off -h {} -p 6432 -U me leasehold", directory.display());
    // util-linux' script gives it the terminal.
    let mut command = Command::new("script");
    command.args(["-qec", &psql, "/dev/null"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("TERM", "dumb").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let (mut keys, mut screen) = (running.stdin.take().unwrap(), running.stdout.take().unwrap());
    let (sender, pieces) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = screen.read(&mut buffer)
            && count > 0
        {
            sender.send(buffer[..count].to_vec()).unwrap();
        }
    });
    let (mut shown, mut seen) = (String::new(), 0);
    for (prompt, text) in steps {
        seen += loop {
            if let Some(at) = shown[seen..].find(prompt) {
                break at + prompt.len();
            }
            match pieces.recv_timeout(SOON) {
                Ok(piece) => shown.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => {
                    running.kill().unwrap();
                    panic!("{shown:?}, and no {prompt:?} behind {seen}");
                }
            }
        };
        keys.write_all(text.as_bytes()).unwrap();
    }
    running.wait().unwrap();
    reading.join().unwrap();
    shown.extend(pieces.iter().map(|piece| String::from_utf8_lossy(&piece).into_owned()));
    shown
}

/// In a transaction it shows that psql has asked for the words: the refusal has ended it.
#[tokio::test(flavor = "multi_thread")]
async fn the_words_that_psql_asks_for_at_a_tab_are_refused_and_it_goes_on() {
    let backends = Backends::new(Spec::new("app")).await;
    let running = on_sockets(&backends, &[]).await;
    for line in ["SELECT * FROM ", "ALTER ROLE ", "DROP TABLE "] {
        let shown = typed(
            &running.directory,
            &[
                ("leasehold=> ", "BEGIN;\n"),
                // Twice for a list, and then the line is taken back.
                ("leasehold=*> ", &format!("{line}\t\t\u{15}SHOW VERSION;\n")),
                ("aborted, commands ignored", "ROLLBACK;\n"),
                ("leasehold=> ", "SHOW VERSION;\n"),
                ("leasehold 0.", "\\q\n"),
            ],
        );
        assert!(!shown.contains("server closed the connection"), "{line}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_watches_what_it_shows_until_it_is_interrupted() {
    let backends = Backends::new(Spec::new("app")).await;
    let running = on_sockets(&backends, &[]).await;
    let session = running.connect("app", backends.db.name()).await;
    let role = session.user().await;
    let one = [("(every 0.2s)", ""), (role.as_str(), "")];
    let watched = typed(
        &running.directory,
        &[
            &[("leasehold=> ", "\\x\nSHOW CREDENTIALS \\watch 0.2\n")][..],
            &one,
            &one,
            &[("(every 0.2s)", ""), (role.as_str(), "\u{3}")],
            &[("leasehold=> ", "SHOW VERSION;\n"), ("leasehold 0.", "\\q\n")],
        ]
        .concat(),
    );
    assert!(!watched.contains("ERROR") && !watched.contains("FATAL"), "{watched}");
}

/// The seventeenth client is told of the console's own limit, which no setting raises.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_too_many_is_told_what_it_can_do() {
    let backends = Backends::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().flag("--console", "all").start().await;
    let mut consoles = Vec::new();
    for _ in 0..16 {
        consoles.push(connect_tcp(leasehold.addr()).await.unwrap());
    }
    let Err(error) = connect_tcp(leasehold.addr()).await else { panic!("it is the seventeenth") };
    let said = error.as_db_error().unwrap();
    assert_eq!((said.code().code(), said.message()), ("53300", "too many clients of leasehold's console"));
    assert_eq!(said.hint(), Some("Close one of them."));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_have_types_by_the_extended_protocol() {
    let backends = Backends::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().flag("--console", "all").start().await;
    leasehold.wait_ready().await;
    let console = connect_tcp(leasehold.addr()).await.unwrap();

    let statement = console.client.prepare("SHOW CREDENTIALS").await.unwrap();
    let types: Vec<_> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!((&types[0], &types[1], &types[9]), (&Type::TEXT, &Type::INT8, &Type::TIMESTAMPTZ));
    let row = console.client.query_one(&statement, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>("route"), row.get::<_, i64>("generation")), ("app", 1));
    let issued_at: SystemTime = row.get("issued_at");
    assert!(issued_at < row.get::<_, SystemTime>("ends_at"));
    let routes = console.client.query_one("SHOW routes", &[]).await.unwrap();
    assert!(routes.get::<_, bool>("ready") && routes.get::<_, f64>("runway_seconds") > 0.0);
    assert_eq!(console.client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    let error = console.client.query("SELECT * FROM pg_class", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000");

    leasehold.sigterm();
    assert_eq!(console.ended().await.as_deref(), Some("57P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tcp_it_is_only_where_that_is_allowed() {
    let backends = Backends::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let Err(error) = connect_tcp(leasehold.addr()).await else { panic!("it is the server's own database") };
    assert_eq!(error.code().unwrap().code(), "3D000", "the route takes every database");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_off_or_have_another_name() {
    let backends = Backends::new(Spec::new("app")).await;
    let off = on_sockets(&backends, &["--console", "off"]).await;
    let (fine, said) = psql(&off.directory, None, "SHOW HELP").await;
    assert!(!fine && said.contains("database \"leasehold\" does not exist"), "{said}");
    let renamed = on_sockets(&backends, &["--console-database", "admin"]).await;
    assert_eq!(renamed.connect("me", "admin").await.value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_names_its_database_goes_first() {
    let backends = Backends::new(Spec::new("app")).await;
    let toml = format!(
        "console = \"all\"\n[[route]]\nuser = \"me\"\ndatabase = \"leasehold\"\n\
         upstream = \"postgresql://{}/?sslmode=disable\"\nvault_path = \"{}\"\n",
        backends.db.server.addr(),
        backends.setup.path
    );
    let leasehold =
        leasehold().vault(&backends.vault).approle(&backends.setup).config_toml(&toml).start().await;
    leasehold.wait_ready().await;
    let Err(error) = connect_tcp(leasehold.addr()).await else { panic!("it is the route's database") };
    assert_eq!(error.code().unwrap().code(), "3D000");
    let other = leasehold.connect("somebody", "leasehold").await;
    assert_eq!(other.value("SELECT 1").await, "1", "the route is not for this user, so it is the console");
}

#[tokio::test(flavor = "multi_thread")]
async fn config_shows_what_a_reload_has_put_in_force() {
    let backends = Backends::new(Spec::new("app")).await;
    let toml = format!(
        "console = \"all\"\n[[route]]\nname = \"app\"\ndrain = \"7s\"\n\
         upstream = \"postgresql://{}/?sslmode=disable\"\nvault_path = \"{}\"\n",
        backends.db.server.addr(),
        backends.setup.path
    );
    let leasehold =
        leasehold().vault(&backends.vault).approle(&backends.setup).config_toml(&toml).start().await;
    let console = connect_tcp(leasehold.addr()).await.unwrap();
    let drain = async || {
        let rows = console.client.query("SHOW CONFIG", &[]).await.unwrap();
        let row = rows.iter().find(|row| row.get::<_, &str>("key") == "route.app.drain").unwrap();
        let origin: String = row.get("origin");
        (row.get::<_, String>("value"), origin.ends_with("leasehold.toml:4"))
    };
    assert_eq!(drain().await, ("7s".to_owned(), true));
    let file = leasehold.directory().join("leasehold.toml");
    std::fs::write(&file, toml.replace("7s", "8s")).unwrap();
    assert!(leasehold.command(&["reload"]).await.status.success());
    eventually(SOON, async || same(drain().await, ("8s".to_owned(), true))).await;
}
