//! The servers as a client on the wire sees them, with no route. Floor 5.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::shutdown::{Delays, Phase};

struct Running {
    addr: SocketAddr,
    process: Arc<Process>,
    _task: tokio::task::JoinSet<()>,
}

fn process() -> Arc<Process> {
    let delays = Delays { min: Duration::ZERO, max: Duration::ZERO };
    Arc::new(Process::new(
        Vec::new(),
        Shutdown::new(delays),
        Box::new(|| VaultStatus {
            addr: "https://secrets:8200".to_owned(),
            reachable: false,
            last_success: None,
        }),
        Box::new(|| "leasehold_build_info 1\n".to_owned()),
        mpsc::channel(1).0,
    ))
}

fn start(server: Server) -> Running {
    let Address::Tcp(addr) = *server.local_addr() else {
        panic!("no TCP");
    };
    let process = process();
    let mut task = tokio::task::JoinSet::new();
    task.spawn(server.serve(Arc::clone(&process)));
    Running { addr, process, _task: task }
}

fn http() -> Running {
    start(bind_http("127.0.0.1:0".parse().unwrap()).unwrap())
}

fn admin() -> Running {
    start(bind_admin(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap())
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

impl Running {
    /// The first line's code, and the body.
    async fn ask(&self, line: &str, headers: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let reply = say(stream, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        parts(&reply)
    }
}

fn parts(reply: &str) -> (u16, String) {
    let code = reply.split(' ').nth(1).unwrap().parse().unwrap();
    (code, reply.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn probes_and_metrics_are_on_both_servers() {
    for server in [http(), admin()] {
        for path in ["/livez", "/liveness", "/startup"] {
            assert_eq!(server.ask(&format!("GET {path}"), "").await.0, 200, "{path}");
        }
        for path in ["/readyz", "/readiness"] {
            assert_eq!(server.ask(&format!("GET {path}"), "").await.0, 503, "{path}");
        }
        assert_eq!(server.ask("GET /readyz?route=none", "").await.0, 404);
        assert_eq!(server.ask("GET /metrics", "").await, (200, "leasehold_build_info 1\n".to_owned()));
    }
}

#[tokio::test]
async fn commands_are_on_admin_alone() {
    let server = http();
    for line in ["GET /status", "POST /rotate", "POST /quitquitquit"] {
        assert_eq!(server.ask(line, "").await.0, 404, "{line}");
    }
    assert!(!server.process.shutdown.is_requested());
}

#[tokio::test]
async fn status_has_the_shape_of_the_contract() {
    let server = admin();
    let (code, body) = server.ask("GET /status", "").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 200);
    assert_eq!(
        status,
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "state": "serving",
            "vault": {"addr": "https://secrets:8200", "reachable": false, "last_success": null},
            "routes": [],
        })
    );
}

#[tokio::test]
async fn a_shutdown_can_be_asked_for_again_and_again() {
    let server = admin();
    for line in ["POST /quitquitquit", "GET /quitquitquit", "POST /quitquitquit"] {
        assert_eq!(server.ask(line, "").await.0, 200);
    }
    assert_eq!(server.process.shutdown.phase(), Phase::Draining);
    assert!(server.ask("GET /readyz", "").await.1.starts_with("shutting down\n"));
    assert!(server.ask("GET /status", "").await.1.contains("\"state\":\"draining\""));
    assert_eq!(server.ask("GET /livez", "").await.0, 200);
}

#[tokio::test]
async fn web_pages_are_kept_away_from_admin() {
    let server = admin();
    for headers in [
        "Origin: http://localhost\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Host: localhost\r\n",
    ] {
        assert_eq!(server.ask("POST /quitquitquit", headers).await.0, 403, "{headers}");
    }
    for host in ["Host: evil.example\r\n", "Host: localhost.evil.example:9091\r\n", ""] {
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let request = format!("POST /quitquitquit HTTP/1.1\r\n{host}\r\n");
        assert_eq!(parts(&say(stream, &request).await).0, 403, "{host}");
    }
    assert!(!server.process.shutdown.is_requested());
    assert_eq!(server.ask("GET /livez", "Sec-Fetch-Site: same-origin\r\n").await.0, 200);
}

#[tokio::test]
async fn wrong_methods_and_paths_are_said_so() {
    let server = admin();
    assert_eq!(server.ask("GET /rotate", "").await.0, 405);
    assert_eq!(server.ask("POST /status", "").await.0, 405);
    assert_eq!(server.ask("DELETE /quitquitquit", "").await.0, 405);
    assert_eq!(server.ask("GET /reload", "").await.0, 405);
    for path in ["/", "/sessions", "/livez/"] {
        assert_eq!(server.ask(&format!("GET {path}"), "").await.0, 404, "{path}");
    }
    assert_eq!(server.ask("POST /rotate?route=none", "").await.0, 404);
    assert_eq!(server.ask("POST /rotate?drain=soon", "").await.0, 400);
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_shut_out_others_beyond_the_bound() {
    let server = http();
    let mut silent = Vec::new();
    for _ in 0..63 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    assert_eq!(server.ask("GET /livez", "").await.0, 200);
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = http();
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(server.ask("GET /livez", &many).await.0, 431);
    let long = format!("X: {}\r\n", "x".repeat(20_000));
    assert_eq!(server.ask("GET /livez", &long).await.0, 431);
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("leasehold-admin-{}.sock", std::process::id()));
    let address = Address::Unix(path.clone());
    // A stale one, left by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = bind_admin(&address).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(bind_admin(&address).is_err());
    let mut task = tokio::task::JoinSet::new();
    task.spawn(server.serve(process()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let reply = say(stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(parts(&reply).0, 200);
    task.shutdown().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_in_the_place_of_the_socket_is_not_touched() {
    let path = std::env::temp_dir().join(format!("leasehold-file-{}", std::process::id()));
    std::fs::write(&path, "precious").unwrap();
    assert!(bind_admin(&Address::Unix(path.clone())).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}
