//! Exit codes and messages of the built command, as a user or a supervisor sees them.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

fn leasehold(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leasehold")).args(args).env_clear().output().expect("the command starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn code(args: &[&str]) -> Option<i32> {
    leasehold(args).status.code()
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("leasehold-cli-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).expect("a temporary file");
    path
}

#[test]
fn usage_errors_exit_with_64() {
    assert_eq!(code(&[]), Some(64));
    assert_eq!(code(&["frobnicate"]), Some(64));
    assert_eq!(code(&["run", "--frobnicate"]), Some(64));
    assert_eq!(code(&["run", "--drain=soon"]), Some(64));
    for later in leasehold::settings().filter(|setting| setting.is_flag() && !setting.is_built()) {
        assert_eq!(code(&["run", &format!("--{}=true", later.flag())]), Some(64), "{later:?}");
    }
    assert_eq!(code(&["rotate", "a", "b"]), Some(64));
    assert_eq!(code(&["wait", "--max"]), Some(64));
    assert_eq!(code(&["check", "--frobnicate"]), Some(64));
    assert_eq!(code(&["policy", "--json"]), Some(64));
}

#[test]
fn help_and_version_are_no_errors() {
    let help = leasehold(&["run", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(text.contains("--vault-path"));
    for later in leasehold::settings().filter(|setting| setting.is_flag() && !setting.is_built()) {
        assert!(!text.contains(&format!("--{}", later.flag())), "{later:?}");
    }
    assert_eq!(code(&["--version"]), Some(0));
}

#[test]
fn a_wrong_file_exits_with_78_and_one_line() {
    let path = file("unknown", "listen = '127.0.0.1:0'\n[vault]\nadress = 'x'\n");
    let path_text = path.to_str().expect("UTF-8");
    for command in ["run", "status", "wait", "check", "policy"] {
        let output = leasehold(&[command, "--config", path_text]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{command}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with(&format!("leasehold: {path_text}:3: vault: unknown key")), "{text}");
    }
    std::fs::remove_file(path).expect("it is still there");
}

#[test]
fn a_missing_file_is_said_with_the_directory_that_its_path_begins_at() {
    let directory = std::env::temp_dir().join(format!("leasehold-cli-{}-missing", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let route = "[[route]]\nupstream = 'postgresql://db/'\nvault_path = 'database/creds/app'\n";
    let of_token = "[vault.auth]\nmethod = 'token-file'\ntoken_file = 'token'\n";
    std::fs::write(directory.join("leasehold.toml"), format!("{of_token}{route}")).expect("written");
    let said = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        let output = command.args(args).env_clear().current_dir(&directory).output().expect("it starts");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output))
    };
    let begins =
        format!("a relative path begins at the working directory of the process, {}", directory.display());
    let missing = format!("there is no such file; {begins}\n");
    for command in ["run", "check", "status"] {
        let text = said(&[command, "--config", "other.toml"]);
        assert_eq!(text, format!("leasehold: --config: cannot use ./other.toml: {missing}"));
    }
    let hidden = said(&["run", "--config", "hunter2"]);
    assert!(!hidden.contains("hunter2") && hidden.ends_with(&missing), "{hidden}");
    let route = ["--upstream=postgresql://db/", "--vault-path=database/creds/app"];
    let pki: [&[&str]; 3] = [
        &["--vault-ca-cert=ca.pem"],
        &["--tls-cert-file=tls.pem", "--tls-key-file=key.pem"],
        &["--vault-client-cert=client.pem", "--vault-client-key=key.pem"],
    ];
    for flags in pki {
        let text = said(&[&["check", "--offline"], flags, &route].concat());
        assert!(text.ends_with(&missing), "{flags:?}: {text}");
    }
    let text = said(&[&["check", "--offline", "--vault-ca-path=certs"][..], &route].concat());
    assert!(text.ends_with(&format!("there is no such directory; {begins}\n")), "{text}");
    let text = said(&["check", "--offline", "--json", "--config", "leasehold.toml"]);
    assert!(text.contains("leasehold.toml:3: vault.auth.token_file: cannot use "), "{text}");
    assert!(text.contains(&format!("there is no such file; {begins}")), "{text}");
    std::fs::remove_dir_all(directory).expect("it is still there");
}

#[test]
fn what_is_wrong_with_the_content_of_a_file_comes_with_its_path() {
    let directory = std::env::temp_dir().join(format!("leasehold-cli-{}-content", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let contents: [(&[u8], &str); 4] = [
        (b"\xff\xfel\0", "--config: cannot use ./settings: it is not text in UTF-8"),
        (b"listen = 5\n", "settings:1: listen: "),
        (b"[vault.auth]\nmethod = 'approle'\n", "settings: vault.auth.role_id: the method approle needs it"),
        (b"[vault.auth]\nmethod = 'token-file'\ntoken_file = 'x'\n", "settings: upstream: is needed: "),
    ];
    for (content, says) in contents {
        std::fs::write(directory.join("settings"), content).expect("written");
        for command in ["run", "check"] {
            let mut leasehold = Command::new(env!("CARGO_BIN_EXE_leasehold"));
            leasehold.args([command, "--config", "settings"]).env_clear().current_dir(&directory);
            let output = leasehold.output().expect("it starts");
            assert!(stderr(&output).starts_with(&format!("leasehold: {says}")), "{output:?}");
        }
    }
    std::fs::remove_dir_all(directory).expect("it is still there");
}

#[test]
fn a_missing_value_exits_with_78_and_names_it() {
    let output = leasehold(&["run", "--upstream=postgresql://db/", "--vault-path=database/creds/app"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).starts_with("leasehold: vault.auth.method: "), "{}", stderr(&output));
}

#[test]
fn route_flags_beside_routes_in_the_file_exit_with_64() {
    let path = file("routes", "[[route]]\nupstream = 'postgresql://db/'\nvault_path = 'database/creds/a'\n");
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["run", "--drain=1m", "--config"])
        .arg(&path)
        .env_clear()
        .env("VAULT_TOKEN", "t")
        .output()
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    std::fs::remove_file(path).expect("it is still there");
}

#[test]
fn nobody_at_the_admin_address_exits_with_69() {
    let addr = nobody();
    for command in
        [&["status"][..], &["status", "--json"], &["rotate"], &["wait", "--max=300ms"], &["shutdown"]]
    {
        let output = leasehold(&[command, &["--admin", &addr]].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(69), "{command:?}: {text}");
        assert!(text.starts_with(&format!("leasehold: no leasehold at {addr}: ")), "{text}");
    }
    assert_eq!(code(&["status", "--admin=/nonexistent/x.sock"]), Some(69));
    assert_eq!(code(&["status", "--admin=off"]), Some(69));
}

#[test]
fn the_admin_address_may_stand_in_the_environment() {
    let addr = nobody();
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .arg("status")
        .env_clear()
        .env("LEASEHOLD_ADMIN", &addr)
        .output()
        .expect("the command starts");
    assert!(stderr(&output).contains(&addr), "{}", stderr(&output));
}

/// What `run` writes on a terminal of its own, up to its end: a port that it needs is taken.
fn on_a_terminal(variables: &[(&str, &str)]) -> String {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let run = format!(
        "{} run --listen=127.0.0.1:0 --admin=off --http={} --upstream=postgresql://db/ --vault-path=database/creds/app",
        env!("CARGO_BIN_EXE_leasehold"),
        taken.local_addr().expect("its address")
    );
    // util-linux' script gives it the terminal.
    let mut command = Command::new("script");
    command
        .args(["-qec", &run, "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("VAULT_TOKEN", "t").envs(variables.iter().copied());
    String::from_utf8(command.output().expect("script starts").stdout).expect("UTF-8")
}

/// One definition: what a setting is called is the same wherever it stands.
#[test]
fn a_setting_is_in_the_help_the_manual_the_completions_and_the_document() {
    let said = |args: &[&str]| {
        let output = leasehold(args);
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).expect("UTF-8").replace("\\-", "-").replace("\n", " ")
    };
    let places = [
        said(&["run", "--help"]),
        said(&["man", "run"]),
        said(&["completion", "bash"]),
        said(&["completion", "zsh"]),
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md"))
            .expect("the document"),
    ];
    let squeezed = places.map(|place| place.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut count = 0;
    for setting in leasehold::settings().filter(|setting| setting.is_built() && setting.is_flag()) {
        let flag = format!("--{}", setting.flag());
        for (at, place) in squeezed.iter().enumerate() {
            assert!(place.contains(&flag), "{flag} is not in place {at}");
        }
        for at in [0, 1, 4] {
            assert!(
                squeezed[at].contains(&setting.variable()),
                "{} is not in place {at}",
                setting.variable()
            );
        }
        count += 1;
    }
    assert!(count > 50, "{count}");
    assert!(said(&["man"]).contains("leasehold-run(1)"));
    assert_eq!(code(&["man", "nothing"]), Some(1));
    assert_eq!(code(&["completion", "nothing"]), Some(64));
}

#[test]
fn bash_takes_its_completions() {
    let script =
        format!("source <({} completion bash); complete -p leasehold", env!("CARGO_BIN_EXE_leasehold"));
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash starts");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("_leasehold"));
}

#[test]
fn lines_on_a_terminal_are_made_for_people() {
    let coloured = on_a_terminal(&[("TERM", "xterm")]);
    assert!(coloured.contains("\u{1b}[32mINFO \u{1b}[0m listening"), "{coloured}");
    for plain in [[("TERM", "xterm"), ("NO_COLOR", "1")], [("TERM", "dumb"), ("NO_COLOR", "")]] {
        let said = on_a_terminal(&plain);
        let line = said.lines().find(|line| line.contains("listening")).expect(&said);
        let (time, rest) = line.split_once(' ').expect(line);
        assert!(time.len() == "20:31:05Z".len() && time.ends_with('Z'), "{line}");
        assert!(rest.trim().starts_with("INFO  listening listener=client addr=127.0.0.1:"), "{line}");
        assert!(!said.contains('\u{1b}') && !said.contains("leasehold::"), "{said}");
    }
}

#[test]
fn help_has_an_example_and_the_variable_of_each_flag() {
    let help = |args: &[&str]| String::from_utf8(leasehold(args).stdout).expect("UTF-8");
    assert!(help(&["--help"]).contains("\n  leasehold run --upstream "), "{}", help(&["--help"]));
    let run = help(&["run", "--help"]);
    assert!(run.contains("\n  leasehold run --upstream "), "{run}");
    let words: Vec<_> = run.split_whitespace().collect();
    for setting in leasehold::settings().filter(|setting| setting.is_flag() && setting.is_built()) {
        let variable = format!("{}]", setting.variable());
        assert!(words.windows(2).any(|pair| pair == ["[env:", &variable]), "{variable}");
    }
}
