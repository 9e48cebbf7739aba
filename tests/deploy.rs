//! `deploy/` is right: what can be checked without a cluster or a container, by `tests/deploy/validate.py`, and the
//! examples at work, by `tests/deploy/examples.py`. Python 3 is a prerequisite of all tests on real servers.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
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
fn every_link_in_the_documents_leads_somewhere() {
    script("links.py", &[]);
}

#[test]
fn the_steps_for_systemd_work_as_they_are_written() {
    script("steps.py", &[]);
}

#[test]
fn a_release_lists_its_parts_and_its_image_is_the_same_twice() {
    script("release.py", &[]);
}

#[test]
fn examples_run_through_rotations() {
    script("examples.py", &[]);
}

/// A service manager's socket.
fn manager(path: &Path) -> UnixDatagram {
    let manager = UnixDatagram::bind(path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    manager
}

/// The next state that the service manager is sent.
fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = manager.recv(&mut buffer).expect("a state within 20 s");
    String::from_utf8_lossy(buffer.get(..length).expect("it fits")).into_owned()
}

/// No Vault answers, and the service is up all the same: its unit would otherwise be ended by its own time limit.
#[test]
fn a_service_manager_is_told_of_start_life_and_stop() {
    let path = std::env::temp_dir().join(format!("leasehold-manager-{}", std::process::id()));
    let manager = manager(&path);
    let told = || told(&manager);
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
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let log = BufReader::new(leasehold.stderr.take().expect("it is piped"));
    let drain = std::thread::spawn(move || log.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    assert_eq!(told(), "READY=1");
    let life: Vec<_> = std::iter::repeat_with(told).take(8).collect();
    assert!(life.iter().filter(|state| *state == "WATCHDOG=1").count() >= 5, "{life:?}");
    assert!(
        life.iter().any(|state| state.starts_with("STATUS=starting: 0 of 1 routes ready, 0 sessions")),
        "{life:?}"
    );
    let stopped = Command::new("kill").arg(leasehold.id().to_string()).status().expect("kill runs");
    assert!(stopped.success());
    assert!(std::iter::repeat_with(told).take(100).any(|state| state == "STOPPING=1"));
    let status = leasehold.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", drain.join().expect("the log is read"));
    std::fs::remove_file(path).expect("it is still there");
}

/// As `Type=notify-reload` wants it, a reload that changes nothing and one that fails alike.
#[test]
fn a_service_manager_is_told_of_a_reload_and_of_its_end() {
    let name = |what: &str| std::env::temp_dir().join(format!("leasehold-{what}-{}", std::process::id()));
    let (path, config) = (name("reload-manager"), name("reload.toml"));
    let manager = manager(&path);
    let told = || told(&manager);
    let told = || std::iter::repeat_with(told).find(|state| !state.starts_with("STATUS=")).expect("a state");
    let text = "listen = '127.0.0.1:0'\nhttp = 'off'\nadmin = 'off'\n[vault]\naddr = 'http://127.0.0.1:1'\n\
                [[route]]\nupstream = 'postgresql://127.0.0.1:1/'\nvault_path = 'database/creds/app'\n";
    std::fs::write(&config, text).expect("a file");
    let mut leasehold = Command::new(LEASEHOLD)
        .arg("run")
        .arg("--config")
        .arg(&config)
        .env_clear()
        .env("VAULT_TOKEN", "none")
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let send = |signal: &str| {
        let sent = Command::new("kill").args([signal, &leasehold.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    };
    assert_eq!(told(), "READY=1");
    let mut last = 0;
    for text in [text, "nonsense = 1\n"] {
        std::fs::write(&config, text).expect("a file");
        send("-HUP");
        let reloading = told();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        let time: u64 = time.parse().expect("microseconds");
        // `/proc/uptime` may count suspended time, which this clock does not.
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let uptime: f64 = uptime.split(' ').next().expect("a number").parse().expect("seconds");
        assert!(time > last && time as f64 / 1e6 <= uptime + 1.0, "{time} at {uptime}");
        last = time;
        assert_eq!(told(), "READY=1");
    }
    send("-TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(leasehold.wait().expect("it ends").code(), Some(0));
    drop((std::fs::remove_file(path), std::fs::remove_file(config)));
}
