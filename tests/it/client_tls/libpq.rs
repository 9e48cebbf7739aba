//! psql, and libpq of two versions.

use std::path::Path;
use std::process::{Command, Output};

use super::{Bed, libpq_18, shown};
use crate::harness::{Authority, bench};

/// Runs `psql` with this connection string, with the libpq of this directory or the system's.
async fn psql(connection: &str, libpq: Option<&Path>, sql: &str) -> Output {
    let mut command = Command::new("psql");
    command.args(["-w", "-XAt", "-c", sql, connection]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(libpq.map(|directory| ("LD_LIBRARY_PATH", directory)));
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_of_libpq_gets_in_that_gets_into_the_server() {
    let bed = Bed::new().await;
    let (ca, name) = (shown(&bed.authority.ca), bed.scene.db.name());
    let stranger = Authority::new(&bench().directory().await, "stranger");
    let stranger = shown(&stranger.ca);
    let libpq_18 = libpq_18(bed.server()).await;
    let modes = [
        ("sslmode=disable".to_owned(), true),
        ("sslmode=allow".to_owned(), true),
        ("sslmode=prefer".to_owned(), true),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=require sslrootcert={ca}"), true),
        (format!("sslmode=verify-ca sslrootcert={ca}"), true),
        (format!("sslmode=verify-full sslrootcert={ca}"), true),
        (format!("sslmode=verify-full sslrootcert={ca} ssl_max_protocol_version=TLSv1.2"), true),
        (format!("sslmode=verify-ca sslrootcert={stranger}"), false),
        (format!("sslmode=verify-full sslrootcert={ca} hostaddr=127.0.0.1 host=elsewhere"), false),
    ];
    let direct = [
        (format!("sslmode=verify-full sslrootcert={ca} sslnegotiation=direct"), true),
        ("sslmode=require sslnegotiation=direct".to_owned(), true),
        (format!("sslmode=verify-full sslrootcert={stranger} sslnegotiation=direct"), false),
    ];
    let with_15 = modes.iter().map(|mode| (mode, None));
    let with_18 = modes.iter().chain(&direct).map(|mode| (mode, Some(libpq_18.as_path())));
    for ((mode, gets_in), libpq) in with_15.chain(with_18) {
        for addr in [bed.server().addr(), bed.scene.leasehold.addr().to_string()] {
            let port = addr.rsplit_once(':').unwrap().1;
            let connection = format!("host=localhost port={port} user=app dbname={name} {mode}");
            let output = psql(&connection, libpq, "SELECT 40 + 2").await;
            assert_eq!(output.status.success(), *gets_in, "{connection} {libpq:?}: {}", said(&output));
            if *gets_in {
                assert_eq!(output.stdout, b"42\n");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_says_that_it_is_encrypted() {
    let bed = Bed::new().await;
    let port = bed.scene.leasehold.addr().port();
    let connection =
        format!("host=localhost port={port} user=app dbname={} sslmode=require", bed.scene.db.name());
    let output = psql(&connection, None, r"\conninfo").await;
    assert!(said(&output).contains("SSL connection (protocol: TLSv1.3"), "{}", said(&output));
}
