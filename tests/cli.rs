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
    assert_eq!(code(&["run", "--reuse=true"]), Some(64));
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
    assert!(!text.contains("--reuse"));
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
