//! Real clients are served by leasehold as they are directly, by `tests/clients/run.py`. `make clients` runs more of them,
//! on more servers. Python 3 is a prerequisite of all tests on real servers.

#![expect(clippy::expect_used, reason = "a test that cannot start its script fails")]

use std::process::Command;

const LEASEHOLD: &str = env!("CARGO_BIN_EXE_leasehold");

/// Runs the matrix; panics with what it said if it fails.
fn run(args: &[&str]) {
    let path = format!("{}/tests/clients/run.py", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3")
        .args([&path, "--binary", LEASEHOLD])
        .args(args)
        .output()
        .expect("Python 3 runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&said));
}

#[test]
fn clients_of_libpq_and_asyncpg_are_served_as_they_are_directly() {
    run(&["--only", "psql,psycopg,psycopg async,asyncpg", "--servers", "system", "--large", "16"]);
}
