//! The servers as a client on the wire sees them, with no route. Floor 5.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::server::Server;
use super::*;
use crate::shutdown::{Delays, Phase};
use crate::socket::Address;

/// The header of requests that change something.
const COMMAND: &str = "leasehold-admin: 1\r\n";

struct Running {
    addr: SocketAddr,
    process: Arc<Process>,
    _task: tokio::task::JoinSet<()>,
}

fn process() -> Arc<Process> {
    process_with("leasehold_build_info 1\n".to_owned())
}

fn process_with(metrics: String) -> Arc<Process> {
    let delays = Delays { min: Duration::ZERO, max: Duration::ZERO };
    Arc::new(Process::new(
        Vec::new(),
        Shutdown::new(delays),
        Readings {
            vault_status: Box::new(|| VaultStatus {
                addr: "https://secrets:8200".to_owned(),
                reachable: false,
                trouble: None,
                last_success: None,
            }),
            vault_changes: Box::new(Vec::new),
            render_metrics: Box::new(move || metrics.clone()),
            sessions: Arc::default(),
        },
        mpsc::channel(1).0,
    ))
}

fn start(server: Server) -> Running {
    start_with(server, "leasehold_build_info 1\n".to_owned(), 64)
}

/// With these metrics, and so many connections at once.
fn start_with(server: Server, metrics: String, most: usize) -> Running {
    let Address::Tcp(addr) = *server.local_addr() else {
        panic!("no TCP");
    };
    let process = process_with(metrics);
    let mut task = tokio::task::JoinSet::new();
    task.spawn(server.serve(Arc::clone(&process), most));
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
    for _ in 0..2 {
        assert_eq!(server.ask("POST /quitquitquit", COMMAND).await.0, 200);
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
        let headers = format!("{headers}{COMMAND}");
        assert_eq!(server.ask("POST /quitquitquit", &headers).await.0, 403, "{headers}");
    }
    for host in ["Host: evil.example\r\n", "Host: localhost.evil.example:9091\r\n", ""] {
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let request = format!("POST /quitquitquit HTTP/1.1\r\n{host}{COMMAND}\r\n");
        assert_eq!(parts(&say(stream, &request).await).0, 403, "{host}");
    }
    assert!(!server.process.shutdown.is_requested());
    assert_eq!(server.ask("GET /livez", "Sec-Fetch-Site: same-origin\r\n").await.0, 200);
}

#[tokio::test]
async fn a_command_is_a_post_with_a_header_of_its_own() {
    let server = admin();
    for path in ["/quitquitquit", "/rotate", "/reload"] {
        for headers in ["", "Content-Type: application/x-www-form-urlencoded\r\n"] {
            let (code, body) = server.ask(&format!("POST {path}"), headers).await;
            assert!(code == 403 && body.contains("leasehold-admin"), "{path}: {code} {body}");
        }
        for method in ["GET", "HEAD"] {
            assert_eq!(server.ask(&format!("{method} {path}"), COMMAND).await.0, 405, "{method} {path}");
        }
    }
    assert!(!server.process.shutdown.is_requested());
    assert_eq!(server.ask("POST /quitquitquit", "Leasehold-Admin: \r\n").await.0, 200);
}

#[tokio::test]
async fn the_page_is_on_admin_alone_and_may_load_nothing_from_elsewhere() {
    assert_eq!(http().ask("GET /", "").await.0, 404);
    assert_eq!(http().ask("GET /history", "").await.0, 404);
    let server = admin();
    for path in ["/", "/page.js", "/page.css"] {
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let reply = say(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("\r\ncontent-security-policy: default-src 'none'; script-src 'self';"),
            "{head}"
        );
        assert!(!head.contains("unsafe") && head.contains("\r\nx-frame-options: DENY\r\n"), "{head}");
        assert!(!body.is_empty());
        assert_eq!(
            server.ask(&format!("GET {path}"), "Sec-Fetch-Site: cross-site\r\n").await.0,
            403,
            "{path}"
        );
    }
    let history: serde_json::Value = serde_json::from_str(&server.ask("GET /history", "").await.1).unwrap();
    assert_eq!((&history["span_seconds"], &history["routes"]), (&3600.into(), &serde_json::json!([])));
}

#[tokio::test]
async fn wrong_methods_and_paths_are_said_so() {
    let server = admin();
    assert_eq!(server.ask("GET /rotate", "").await.0, 405);
    assert_eq!(server.ask("POST /status", "").await.0, 405);
    assert_eq!(server.ask("DELETE /quitquitquit", "").await.0, 405);
    assert_eq!(server.ask("GET /reload", "").await.0, 405);
    for path in ["/index.html", "/livez/"] {
        assert_eq!(server.ask(&format!("GET {path}"), "").await.0, 404, "{path}");
    }
    assert_eq!(server.ask("POST /rotate?route=none", COMMAND).await.0, 404);
    assert_eq!(server.ask("POST /rotate?drain=soon", COMMAND).await.0, 400);
    assert_eq!(server.ask("GET /sessions?usr=app", "").await.0, 400);
    assert_eq!(server.ask("GET /sessions?user=app", "").await, (200, "{\"sessions\":[]}\n".to_owned()));
}

/// Connects from this address of loopback and says nothing.
async fn silent(server: &Running, from: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    socket.connect(server.addr).await.unwrap()
}

/// Whether the server has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[tokio::test]
async fn clients_that_say_nothing_shut_nobody_out() {
    for server in [http(), admin()] {
        let mut crowd = Vec::new();
        for at in 0..64 {
            crowd.push(silent(&server, &format!("127.0.0.{}:0", 2 + at / 16)).await);
        }
        for _ in 0..3 {
            assert_eq!(server.ask("GET /livez", "").await.0, 200);
        }
        assert!(is_closed(&crowd[0]), "the one that has waited longest made room");
        assert!(
            !is_closed(crowd.last().unwrap()),
            "the answers did not wait until the silent ones were given up"
        );
    }
}

#[tokio::test]
async fn a_peer_that_fills_its_share_pushes_out_nobody_else() {
    let server = http();
    let mut patient = silent(&server, "127.0.0.2:0").await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(silent(&server, "127.0.0.3:0").await);
    }
    assert_eq!(server.ask("GET /livez", "").await.0, 200);
    assert!(!is_closed(&patient));
    patient.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    patient.read_to_string(&mut reply).await.unwrap();
    assert_eq!(parts(&reply).0, 200);
}

#[tokio::test]
async fn a_head_that_drips_is_given_up_before_it_is_whole() {
    let server = http();
    let mut drip = silent(&server, "127.0.0.1:0").await;
    let dripping = async {
        while drip.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), dripping).await.is_ok());
}

/// A client that has asked for the metrics and reads nothing: its window closes.
async fn stuck(server: &Running) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.addr).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn replies_that_are_not_read_take_no_place_from_others_and_are_given_up() {
    // More than the system takes for a client that does not read.
    let long = 16 << 20;
    let server = start_with(bind_http("127.0.0.1:0".parse().unwrap()).unwrap(), "x".repeat(long), 3);
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(stuck(&server).await);
        assert_eq!(server.ask("GET /livez", "").await.0, 200);
    }
    let mut last = all.pop().unwrap();
    let all_given_up = async {
        // Each connection holds it, beside the server and us.
        while Arc::strong_count(&server.process) > 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_given_up).await.unwrap();
    let mut reply = Vec::new();
    let _ = last.read_to_end(&mut reply).await;
    assert!(reply.starts_with(b"HTTP/1.1 200 ") && reply.len() < long, "{} bytes", reply.len());
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
    task.spawn(server.serve(process(), 64));
    let stream = UnixStream::connect(&path).await.unwrap();
    let reply = say(stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(parts(&reply).0, 200);
    task.shutdown().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_unix_socket_leaves_its_successors_file_alone() {
    let path = std::env::temp_dir().join(format!("leasehold-succeeded-{}.sock", std::process::id()));
    let first = bind_admin(&Address::Unix(path.clone())).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = bind_admin(&Address::Unix(path.clone())).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_unix_socket_may_have_the_longest_path_that_the_system_takes() {
    let directory = std::env::temp_dir().join(format!("leasehold-long-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let room = 107 - directory.as_os_str().len() - 1;
    for length in [room - 14, room] {
        let path = directory.join("s".repeat(length));
        let server = bind_admin(&Address::Unix(path.clone())).unwrap();
        UnixStream::connect(&path).await.unwrap();
        drop(server);
    }
    std::fs::remove_dir(&directory).unwrap();
}

#[tokio::test]
async fn a_file_in_the_place_of_the_socket_is_not_touched() {
    let path = std::env::temp_dir().join(format!("leasehold-file-{}", std::process::id()));
    std::fs::write(&path, "precious").unwrap();
    assert!(bind_admin(&Address::Unix(path.clone())).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}
