//! The command line as users and supervisors meet it: commands, exit codes, where a value is taken from.

use std::net::TcpListener;
use std::process::{Command, Output};

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Backends, Fault, Mode, SOON, Spec, bench, eventually, leasehold, same};
use crate::process::{BINARY, output, run_command};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A port that was free a moment ago, kept from others while it is held.
fn held() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

/// `run` with this file, these variables and these flags, until it ends by itself.
async fn run(toml: &str, variables: &[(&str, &str)], flags: &[&str]) -> Output {
    let path = bench().directory().await.join("leasehold.toml");
    std::fs::write(&path, toml).unwrap();
    let mut command = Command::new(BINARY);
    command.arg("run").arg("--config").arg(&path).args(flags).env_clear();
    command.envs(variables.iter().copied());
    output(command).await
}

/// What `status` with these flags writes on a terminal of this size, with these variables, in five seconds at most.
async fn on_a_terminal(admin: &str, flags: &str, size: (usize, usize), variables: &[(&str, &str)]) -> String {
    let (rows, columns) = size;
    let shown =
        format!("stty rows {rows} cols {columns}; timeout 5 {} status {flags} --admin {admin}", BINARY);
    // util-linux' script gives it the terminal.
    let mut command = Command::new("script");
    command.args(["-qec", &shown, "/dev/null"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(variables.iter().copied());
    text(&output(command).await.stdout).replace("\r\n", "\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn status_fits_the_terminal_that_it_is_watched_on_and_has_colours_where_they_are_wanted() {
    let backends = Backends::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let admin = leasehold.listening("admin")[0].clone();

    let coloured = on_a_terminal(&admin, "", (40, 120), &[("TERM", "xterm")]).await;
    assert!(coloured.contains("\u{1b}[32mready\u{1b}[0m"), "{coloured:?}");
    let plain = on_a_terminal(&admin, "", (40, 120), &[("TERM", "xterm"), ("NO_COLOR", "1")]).await;
    assert!(plain.contains("  ready  ") && !plain.contains('\u{1b}'), "{plain:?}");

    let watched = on_a_terminal(&admin, "--watch", (6, 50), &[("NO_COLOR", "1")]).await;
    let frames: Vec<&str> = watched.split("\u{1b}[H").filter(|frame| !frame.is_empty()).collect();
    // The time limit may have cut the last one.
    let whole: Vec<&&str> = frames.iter().filter(|frame| frame.ends_with("\u{1b}[J")).collect();
    assert!(!whole.is_empty(), "{watched:?}");
    for frame in whole {
        let lines: Vec<&str> = frame.trim_end_matches("\u{1b}[J").split_terminator("\u{1b}[K\n").collect();
        assert_eq!(lines.len(), 5, "one line is the cursor's: {frame:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 50), "{frame:?}");
        assert!(lines[4].starts_with("… ") && lines[4].ends_with(" more lines"), "{frame:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_answer_with_text_and_exit_codes_that_scripts_can_use() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, vault, setup } = &backends;
    let mut leasehold = backends.leasehold().start().await;
    let waited = leasehold.command(&["wait", "--max", "10s"]).await;
    assert_eq!((waited.status.code(), text(&waited.stdout)), (Some(0), String::new()));
    let session = leasehold.connect("app", db.name()).await;

    let table = text(&leasehold.command(&["status"]).await.stdout);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][2..], ["serving"], "{table}");
    assert_eq!(
        lines[3][..],
        ["ROUTE", "KIND", "USER", "DATABASE", "UPSTREAM", "STATE", "RUNWAY", "SESSIONS", "NEXT"]
    );
    assert_eq!(lines[4][..6], ["app", "dynamic", "*", "*", &db.server.addr(), "ready"], "{table}");
    let user = session.user().await;
    assert_eq!(
        (&lines[7][..3], lines[7][3].get(..6)),
        (&["app", "1", "current"][..], user.get(..6)),
        "{table}"
    );
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours where there is no terminal: {table}");
    let json: Value = serde_json::from_slice(&leasehold.command(&["status", "--json"]).await.stdout).unwrap();
    let generations = &json["routes"][0]["generations"];
    assert_eq!(generations, &leasehold.status().await["routes"][0]["generations"]);

    let rotated = leasehold.command(&["rotate", "app"]).await;
    assert_eq!(text(&rotated.stdout), "app: generation 2 is published\n");
    for (wanted, said) in [
        ("nobody", "leasehold: no such route; there is app\n"),
        ("aap", "leasehold: no such route; did you mean app?\n"),
    ] {
        let unknown = leasehold.command(&["rotate", wanted]).await;
        assert_eq!((unknown.status.code(), text(&unknown.stdout)), (Some(1), String::new()));
        assert_eq!(text(&unknown.stderr), said);
    }
    assert_eq!(leasehold.command(&["rotate", "--drain=soon"]).await.status.code(), Some(64));
    let apart = leasehold.command(&["rotate", "--drain", "5s"]).await;
    assert_eq!(apart.status.code(), Some(64), "5s is no route");
    assert!(text(&apart.stderr).contains("as in --drain=5s"), "{apart:?}");

    for (level, opened) in [("info", 1), ("debug", 2)] {
        let set = leasehold.command(&["log-level", level]).await;
        assert_eq!((set.status.code(), text(&set.stdout)), (Some(0), format!("log level {level}\n")));
        leasehold.connect("app", db.name()).await.close().await;
        eventually(SOON, async || same(leasehold.log().messages("session opened").len(), opened)).await;
    }
    assert_eq!(leasehold.admin(Method::POST, "/log?level=loud").await.status, 400);

    vault.delete(&format!("{}/roles/app", setup.mount())).await;
    let failed = leasehold.command(&["rotate"]).await;
    assert_eq!((failed.status.code(), text(&failed.stdout)), (Some(1), String::new()));
    assert!(text(&failed.stderr).starts_with("leasehold: app: issue: "), "{}", text(&failed.stderr));
    assert_eq!(session.value("SELECT 1").await, "1", "nothing is drained by a rotation that failed");

    let admin = leasehold.listening("admin")[0].clone();
    assert_eq!(leasehold.command(&["shutdown", "--wait"]).await.status.code(), Some(0));
    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    for command in ["status", "rotate", "shutdown"] {
        let nobody = run_command(&[command, "--admin", &admin]).await;
        assert_eq!(nobody.status.code(), Some(69), "{command}");
        assert!(text(&nobody.stderr).starts_with("leasehold: no leasehold at 127.0.0.1:"));
    }
    let nobody = run_command(&["wait", "--max", "300ms", "--admin", &admin]).await;
    assert_eq!(nobody.status.code(), Some(69));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_in_vain_says_what_is_missing() {
    let Backends { db, setup, .. } = Backends::new(Spec::new("app")).await;
    let away = Fault::before("127.0.0.1:1").await;
    away.set(Mode::Refuse).await;
    let leasehold =
        leasehold().upstream(&db).vault_addr(&format!("http://{}", away.addr())).login(&setup).start().await;
    eventually(SOON, async || same(leasehold.http("/readyz").await.text.contains("(log in: "), true)).await;

    let waited = leasehold.command(&["wait", "--max", "300ms"]).await;

    assert_eq!(waited.status.code(), Some(1));
    let complaint = text(&waited.stderr);
    assert!(
        complaint.starts_with("leasehold: not ready: starting; app: no usable credential (log in: "),
        "{complaint}"
    );
    let rotated = leasehold.command(&["rotate"]).await;
    assert_eq!(rotated.status.code(), Some(1), "{rotated:?}");
    assert_eq!(leasehold.admin(Method::POST, "/rotate").await.status, 503);
    let status = async |flags: &[&str]| leasehold.command(&[&["status"], flags].concat()).await.status.code();
    assert_eq!((status(&["--check"]).await, status(&[]).await), (Some(1), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_one_line_that_names_the_place_and_binds_nothing() {
    // No other test binds at this address of loopback.
    let listen = TcpListener::bind("127.0.7.1:0").unwrap().local_addr().unwrap().to_string();
    let route = "[[route]]\nupstream = \"postgresql://db/\"\nvault_path = \"database/creds/app\"\n";
    let good = format!("listen = \"{listen}\"\nhttp = \"off\"\nadmin = \"off\"\n");
    let two = "[[route]]\nuser = \"*\"\nname = \"b\"\nupstream = \"postgresql://db/\"\nvault_path = \"database/creds/b\"\n";
    for (toml, line, reason) in [
        (format!("{good}{route}drian = \"2m\"\n"), 7, "route: unknown key; did you mean drain?"),
        (format!("{good}{route}drain = \"soon\"\n"), 7, "route.drain: "),
        (format!("{good}[vault]\nadress = \"x\"\n"), 5, "vault: unknown key"),
        (format!("{good}lisen = 1\n"), 4, "(top): unknown key; did you mean listen?"),
        (format!("{good}log_level = 7\n"), 4, "log_level: "),
        (format!("{good}= = =\n"), 4, ""),
        (format!("{good}{route}state_file = \"/x\"\n"), 7, "route: unknown key"),
        (format!("{good}{route}vault = \"x\"\n"), 7, "route.vault: not supported yet"),
        (format!("{good}{route}{two}"), 4, "route.user: with several routes"),
        (format!("{good}{route}").replace("creds/app", "roles/app"), 6, "route.vault_path: "),
        (format!("{good}[limits]\nconnect_timeout = \"0s\"\n{route}"), 5, "limits.connect_timeout: "),
        (format!("listen = \"0.0.0.0:0\"\n{route}"), 1, "listen: 0.0.0.0:0 is open beyond this machine"),
        (format!("admin = \"0.0.0.0:0\"\n{route}"), 1, "admin: "),
    ] {
        let output = run(&toml, &[("VAULT_TOKEN", "t")], &[]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{toml}{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let place = format!("leasehold.toml:{line}: {reason}");
        assert!(said.starts_with("leasehold: /") && said.contains(&place), "{said}, not {place}");
        TcpListener::bind(&listen).expect("nothing was bound");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_where_none_belongs_is_refused_and_not_repeated() {
    let flags = ["--vault-path=database/creds/app"];
    let token = [("VAULT_TOKEN", "t")];
    for uri in [
        "postgresql://postgres:hunter2@db:5432/",
        "postgresql://postgres@db:5432/",
        "postgresql://db/?password=hunter2",
        "postgresql://db/?user=postgres&password=hunter2",
        "postgresql://db/?sslpassword=hunter2",
        "postgres:hunter2@db",
        "host=db password=hunter2",
    ] {
        let by_flag = run("", &token, &[&["--upstream", uri], &flags[..]].concat()).await;
        let toml = format!("[[route]]\nvault_path = \"database/creds/app\"\nupstream = \"{uri}\"\n");
        for (output, code) in [(by_flag, 64), (run(&toml, &token, &[]).await, 78)] {
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{uri}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.contains("upstream"), "{said}");
        }
    }
    let upstream = ["--upstream=postgresql://db/"];
    let said = text(
        &run("", &token, &[&["--vault-ca-cert=/none"], &upstream[..], &flags[..]].concat()).await.stderr,
    );
    assert_eq!(said.matches("/none").count(), 1, "once is enough: {said}");
    for flag in ["--vault-addr=https://root:hunter2@vault:8200", "--vault-path=hunter2", "--password=hunter2"]
    {
        let output = run("", &token, &[&[flag], &upstream[..], &flags[..]].concat()).await;
        let said = text(&output.stderr);
        assert!([64, 78].contains(&output.status.code().unwrap()), "{flag}: {said}");
        assert!(!said.contains("hunter2"), "{flag}: {said}");
    }
    let toml = "[vault]\ntoken = \"hunter2\"\n";
    let said = text(&run(toml, &token, &[]).await.stderr);
    assert!(said.contains(":2: vault: unknown key") && !said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_it_with_71_and_says_which() {
    let backends = Backends::new(Spec::new("app")).await;
    let (_held, addr) = held();
    for listener in ["--listen", "--http", "--admin"] {
        let (status, log) = backends.leasehold().flag(listener, &addr).run_to_end().await;
        assert_eq!(status.code(), Some(71), "{listener}: {}", log.0);
        let said = log.0.lines().find(|line| line.starts_with("leasehold: ")).unwrap();
        assert!(said.contains(&addr) && said.matches("in use").count() == 1, "{listener}: {said}");
        assert!(said.contains(&format!("(pid {})", std::process::id())), "who has it: {said}");
        assert!(said.ends_with(&format!("; {listener} names another address")), "{said}");
    }
    let (_also, other) = held();
    let (_, log) = backends.leasehold().flag("--listen", &addr).flag("--http", &other).run_to_end().await;
    let said: Vec<_> = log.0.lines().filter(|line| line.contains(" in use ")).collect();
    assert!(said.len() == 2 && said[0].contains(&addr) && said[1].contains(&other), "each at once: {said:?}");
    assert!(backends.vault.leases(&backends.setup.path).await.is_empty(), "nothing was asked of Vault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_without_its_directory_ends_it_with_71_and_says_what_to_make() {
    let route = ["--upstream=postgresql://db/", "--vault-path=database/creds/app"];
    let others = ["--listen=127.0.0.1:0", "--http=off", "--admin=127.0.0.1:0"];
    for (flag, path) in [("--listen", "/nonexistent/sockets"), ("--admin", "/nonexistent/sockets/admin.sock")]
    {
        let others = others.iter().copied().filter(|other| !other.starts_with(flag));
        let flags: Vec<_> = route.iter().copied().chain(others).chain([flag, path]).collect();
        let output = run("", &[("VAULT_TOKEN", "t")], &flags).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(71), "{said}");
        let made = "there is no directory /nonexistent/sockets; make it, for the user that leasehold runs as";
        assert!(said.contains(&format!(": {made}; {flag} names another address")), "{said}");
        assert!(!said.contains("os error"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let (_in_use, flag) = held();
    let (_too, variable) = held();
    let (_also, file) = held();
    let route = ["--upstream=postgresql://db/", "--vault-path=database/creds/app"];
    let toml = format!("http = \"{file}\"\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\n");
    let env = [("VAULT_TOKEN", "t"), ("LEASEHOLD_HTTP", variable.as_str())];
    let with_flag = [&["--http", &flag], &route[..]].concat();
    // Each of them is in use, so the one that was taken is the one complained of.
    for (expected, output) in [
        (&flag, run(&toml, &env, &with_flag).await),
        (&variable, run(&toml, &env, &route).await),
        (&file, run(&toml, &env[..1], &route).await),
    ] {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(71), "{said}");
        assert!(said.contains(expected), "{said}, not {expected}");
    }
}
