//! The commands against a real admin server with no route. Floor 6.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::admin::{Process, Readings, bind_admin};
use crate::config::{Cli, Command};
use crate::credentials::status::VaultStatus;
use crate::shutdown::{Delays, Shutdown};
use crate::socket::Address;

struct Running {
    addr: Address,
    shutdown: Shutdown,
    task: JoinSet<()>,
}

fn start(addr: &Address) -> Running {
    let shutdown = Shutdown::new(Delays { min: Duration::ZERO, max: Duration::ZERO });
    let process = Process::new(
        Vec::new(),
        shutdown.clone(),
        Readings {
            vault_status: Box::new(|| VaultStatus {
                addr: "https://vault:8200".to_owned(),
                reachable: true,
                trouble: None,
                last_success: None,
            }),
            vault_changes: Box::new(Vec::new),
            render_metrics: Box::new(String::new),
            sessions: Arc::default(),
        },
        mpsc::channel(1).0,
    );
    let server = bind_admin(addr).unwrap();
    let addr = server.local_addr().clone();
    let mut task = JoinSet::new();
    task.spawn(server.serve(Arc::new(process), 8));
    Running { addr, shutdown, task }
}

fn tcp() -> Running {
    start(&Address::Tcp("127.0.0.1:0".parse().unwrap()))
}

fn env() -> Environment {
    Environment::default()
}

fn command(args: &[&str], addr: &Address) -> Command {
    let addr = format!("--admin={addr}");
    let args = ["leasehold"].into_iter().chain(args.iter().copied());
    Cli::try_parse_from(args.chain([addr.as_str()])).unwrap().command
}

async fn run(args: &[&str], addr: &Address) -> Result<(), Error> {
    match command(args, addr) {
        Command::Rotate(flags) => rotate(&flags, &env()).await,
        Command::Wait(flags) => wait(&flags, &env()).await,
        Command::Shutdown(flags) => shutdown(&flags, &env()).await,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_document_comes_over_tcp_and_over_a_unix_socket() {
    let path: PathBuf = std::env::temp_dir().join(format!("leasehold-cli-{}.sock", std::process::id()));
    for running in [tcp(), start(&Address::Unix(path.clone()))] {
        let client = Client::new(running.addr.clone());
        let answer = client.ask(&Method::GET, "/status", QUICK).await.unwrap();
        let status: Status = client.document(&answer).unwrap();
        assert_eq!(status.vault.addr, "https://vault:8200");
    }
}

#[tokio::test]
async fn waiting_in_vain_is_a_negative_answer_with_its_reason() {
    let running = tcp();
    running.shutdown.ask();
    let error = run(&["wait", "--max=300ms"], &running.addr).await.unwrap_err();
    assert_eq!(error.to_string(), "not ready: shutting down");
    assert_eq!(error.exit_code(), 1);
}

#[tokio::test]
async fn rotating_an_unknown_route_is_a_negative_answer() {
    let running = tcp();
    for args in [&["rotate", "none"][..], &["rotate", "--drain"], &["rotate", "--drain=1m30s"]] {
        let error = run(args, &running.addr).await.unwrap_err();
        assert_eq!((error.to_string(), error.exit_code()), ("no such route".to_owned(), 1), "{args:?}");
    }
}

#[tokio::test]
async fn shutdown_with_wait_returns_when_the_address_is_gone() {
    let mut running = tcp();
    let addr = running.addr.clone();
    let asked = tokio::spawn(async move { run(&["shutdown", "--wait"], &addr).await });
    running.shutdown.requested().await;
    assert!(!asked.is_finished());
    running.task.shutdown().await;
    asked.await.unwrap().unwrap();
}

#[tokio::test]
async fn something_else_at_the_address_is_nobody() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Address::Tcp(listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH\r\n").await;
        }
    });
    let error = run(&["shutdown"], &addr).await.unwrap_err();
    assert_eq!(error.exit_code(), 69);
}
