//! A TCP forwarder that fails on demand, and keeps what passes through it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{SOON, eventually};

/// What happens to bytes, from the moment it is set, on connections old and new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// Nobody listens: a new connection is refused. Old ones go on.
    Refuse,
    /// A new connection is accepted, and nothing passes. What is held passes in the next mode that lets it.
    Blackhole,
    /// Each read is handed on so much later.
    Delay(Duration),
    /// Nothing passes to the server; the other way is open.
    HoldToServer,
    /// Nothing passes to the client: what it asks for is done, and it does not learn so.
    HoldToClient,
    /// Each connection is reset once so many bytes have passed to the client from now on.
    CutToClientAfter(usize),
}

/// Forwards to a target until dropped.
pub(crate) struct Fault {
    addr: SocketAddr,
    /// Never listens. It keeps the port from others while nobody else is bound to it.
    _held: Socket,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Fault {
    /// Forwards to `target` (`host:port`), passing everything.
    pub(crate) async fn before(target: &str) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), target).await
    }

    /// The same, at an address of its own: one name can lead to several.
    pub(crate) async fn at(addr: SocketAddr, target: &str) -> Self {
        let held = bind(addr);
        let addr = held.local_addr().unwrap().as_socket().unwrap();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            recordings: Mutex::default(),
            asked: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listen(addr), addr, Arc::clone(&shared)));
        Self { addr, _held: held, shared, accepting }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the mode. When it returns, the new one is in force.
    pub(crate) async fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        let refused = mode == Mode::Refuse;
        eventually(SOON, async || super::same(TcpStream::connect(self.addr).await.is_err(), refused)).await;
    }

    /// Resets every connection there is; new ones are served in the present mode.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What has passed on each connection, oldest first.
    pub(crate) fn recordings(&self) -> Vec<Recording> {
        let recordings = self.shared.recordings.lock().unwrap();
        recordings.iter().map(|recording| recording.lock().unwrap().clone()).collect()
    }

    /// The HTTP requests that have come so far, in the order of their coming, whatever became of them. One that found nobody
    /// behind has no line.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many requests that begin with this, such as `GET /v1/sys/health `, were handed on to the server.
    pub(crate) fn handed_on(&self, request: &str) -> usize {
        let count = |bytes: &[u8]| String::from_utf8_lossy(bytes).matches(request).count();
        self.recordings().iter().map(|recording| count(&recording.to_server)).sum()
    }

    /// The tokens, passwords, secret_ids and JWTs that have passed, as Vault's HTTP API carries them.
    pub(crate) fn secrets(&self) -> BTreeSet<String> {
        let mut secrets = BTreeSet::new();
        for recording in self.recordings() {
            for bytes in [&recording.to_server, &recording.to_client] {
                for key in ["client_token", "token", "password", "secret_id", "jwt"] {
                    secrets.extend(json_strings(bytes, key));
                }
                secrets.extend(header_values(bytes, "x-vault-token: "));
            }
        }
        secrets
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// The bytes of one connection, as they were handed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording {
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
}

/// A request of HTTP: when it came, and its first line.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) line: String,
}

struct Shared {
    target: String,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    recordings: Mutex<Vec<Arc<Mutex<Recording>>>>,
    asked: Mutex<Vec<Asked>>,
}

impl Shared {
    /// A client sends each request in one piece, so that a read begins with its first line, or goes on with its body.
    fn note(&self, read: &[u8]) {
        if ["GET ", "POST ", "PUT ", "LIST ", "DELETE "].iter().any(|verb| read.starts_with(verb.as_bytes()))
        {
            let line = read.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            self.asked.lock().unwrap().push(Asked { at: Instant::now(), line });
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Mode {
    fn holds(self, way: Way) -> bool {
        match self {
            Self::Blackhole => true,
            Self::HoldToServer => way == Way::ToServer,
            Self::HoldToClient => way == Way::ToClient,
            Self::Pass | Self::Refuse | Self::Delay(_) | Self::CutToClientAfter(_) => false,
        }
    }
}

async fn accept(mut listener: TcpListener, addr: SocketAddr, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                tokio::spawn(forward(client, Arc::clone(&shared)));
            }
            () = async { drop(mode.wait_for(|mode| *mode == Mode::Refuse).await) } => {
                // Closed alone it would still listen while a process that was just forked has it, until its exec.
                SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
                drop(mode.wait_for(|mode| *mode != Mode::Refuse).await);
                listener = listen(addr);
            }
        }
    }
}

/// A socket that others may be bound beside, as long as none listens.
fn bind(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket
}

fn listen(addr: SocketAddr) -> TcpListener {
    let socket = bind(addr);
    socket.listen(1024).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

async fn forward(mut client: TcpStream, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(&shared.target).await else {
        shared.asked.lock().unwrap().push(Asked { at: Instant::now(), line: String::new() });
        reset(&client);
        return;
    };
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let recording = Arc::new(Mutex::new(Recording::default()));
    shared.recordings.lock().unwrap().push(Arc::clone(&recording));
    let mut cuts = shared.cuts.subscribe();
    let cut = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let to_server = pump(client_reads, server_writes, Way::ToServer, &shared, &recording);
        let to_client = pump(server_reads, client_writes, Way::ToClient, &shared, &recording);
        tokio::select! {
            // A cut comes before what could still pass.
            biased;
            _ = cuts.changed() => true,
            done = async { tokio::try_join!(to_server, to_client) } => done.is_err(),
        }
    };
    if cut {
        reset(&client);
        reset(&server);
    }
}

/// Hands bytes on until the end of one side. `Err`: both are to be reset.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    shared: &Shared,
    recording: &Mutex<Recording>,
) -> Result<(), ()> {
    let mut mode = shared.mode.subscribe();
    let mut passed = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.map_err(drop)?,
            _ = mode.changed() => {
                passed = 0;
                continue;
            }
        };
        if way == Way::ToServer {
            shared.note(&buffer[..read]);
        }
        let now = *mode.wait_for(|mode| !mode.holds(way)).await.map_err(drop)?;
        if let Mode::Delay(span) = now {
            tokio::time::sleep(span).await;
        }
        if read == 0 {
            return to.shutdown().await.map_err(drop);
        }
        let allowed = match now {
            Mode::CutToClientAfter(limit) if way == Way::ToClient => read.min(limit.saturating_sub(passed)),
            _ => read,
        };
        let bytes = &buffer[..allowed];
        to.write_all(bytes).await.map_err(drop)?;
        passed += allowed;
        let mut recording = recording.lock().unwrap();
        match way {
            Way::ToServer => recording.to_server.extend_from_slice(bytes),
            Way::ToClient => recording.to_client.extend_from_slice(bytes),
        }
        if allowed < read {
            return Err(());
        }
    }
}

/// Closing it will send RST in place of FIN.
fn reset(stream: &TcpStream) {
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// The string values of a JSON key, wherever it stands.
fn json_strings(bytes: &[u8], key: &str) -> Vec<String> {
    let needle = format!("\"{key}\":");
    positions(bytes, needle.as_bytes())
        .filter_map(|end| {
            serde_json::Deserializer::from_slice(&bytes[end..]).into_iter::<String>().next()?.ok()
        })
        .filter(|value| !value.is_empty())
        .collect()
}

/// The values of an HTTP header; `name` is in lower case, with its colon and space.
fn header_values(bytes: &[u8], name: &str) -> Vec<String> {
    let lower = bytes.to_ascii_lowercase();
    positions(&lower, name.as_bytes())
        .map(|start| {
            let value = bytes[start..].split(|byte| *byte == b'\r').next().unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        })
        .filter(|value| !value.is_empty())
        .collect()
}

/// Where each occurrence of `needle` ends.
fn positions(bytes: &[u8], needle: &[u8]) -> impl Iterator<Item = usize> {
    let width = needle.len();
    bytes
        .windows(width)
        .enumerate()
        .filter(move |(_, window)| *window == needle)
        .map(move |(at, _)| at + width)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_listens_again_on_its_port_whatever_is_started_meanwhile() {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let fault = Fault::before(&target.local_addr().unwrap().to_string()).await;
    let (stop, stopped) = mpsc::channel::<()>();
    // A test that fails drops `stop` as well.
    let starting = std::thread::spawn(move || {
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            assert!(std::process::Command::new("true").status().unwrap().success());
        }
    });
    for _ in 0..50 {
        fault.set(Mode::Refuse).await;
        fault.set(Mode::Pass).await;
    }
    drop(stop);
    starting.join().unwrap();
}
