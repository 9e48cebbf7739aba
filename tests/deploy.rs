//! `deploy/` is right: what can be checked without a cluster or a container, by `tests/deploy/validate.py`, and the
//! examples at work, by `tests/deploy/examples.py`. Python 3 is a prerequisite of all tests on real servers.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

const LEASEHOLD: &str = env!("CARGO_BIN_EXE_leasehold");

/// Runs a script of tests/deploy; panics with what it said if it fails.
fn script(name: &str, args: &[&str]) {
    let path = format!("{}/tests/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new("python3").arg(&path).arg(LEASEHOLD).args(args).output().expect("Python 3 runs");
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        panic!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
}

#[test]
fn manifests_unit_and_image_are_valid() {
    script("validate.py", &[]);
}

#[test]
fn a_broken_manifest_is_found() {
    script("broken.py", &[]);
}

#[test]
fn examples_run_through_rotations() {
    script("examples.py", &[]);
}

/// No Vault answers, and the service is up all the same: its unit would otherwise be ended by its own time limit.
#[test]
fn a_service_manager_is_told_of_start_and_stop() {
    let path = std::env::temp_dir().join(format!("leasehold-manager-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let told = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("a state within 20 s");
        String::from_utf8_lossy(buffer.get(..length).expect("it fits")).into_owned()
    };
    let mut leasehold = Command::new(LEASEHOLD)
        .args([
            "run",
            "--listen=127.0.0.1:0",
            "--http=off",
            "--admin=off",
            "--upstream=postgresql://127.0.0.1:1/",
        ])
        .args(["--vault-path=database/creds/app", "--vault-addr=http://127.0.0.1:1"])
        .env_clear()
        .env("VAULT_TOKEN", "none")
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let log = BufReader::new(leasehold.stderr.take().expect("it is piped"));
    let drain = std::thread::spawn(move || log.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    assert_eq!(told(), "READY=1");
    let stopped = Command::new("kill").arg(leasehold.id().to_string()).status().expect("kill runs");
    assert!(stopped.success());
    assert_eq!(told(), "STOPPING=1");
    let status = leasehold.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", drain.join().expect("the log is read"));
    std::fs::remove_file(path).expect("it is still there");
}
