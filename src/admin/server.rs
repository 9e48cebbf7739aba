//! Sockets of the two HTTP servers, and the bounds on whoever connects. Floor 5.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::handler::{Scope, handle};
use super::{Address, Process};
use crate::error::Blame;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{listener}: cannot listen on {addr}")]
pub struct Error {
    listener: &'static str,
    addr: Address,
    source: io::Error,
}

impl Error {
    /// The configuration, or the machine: both are for the operator to mend.
    #[must_use]
    pub fn blame(&self) -> Blame {
        Blame::Config
    }
}

/// A bound server that does not serve yet: what connects waits in the backlog.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    scope: Scope,
    addr: Address,
}

/// Binds the server of probes and metrics, and logs its address. Port 0 is any free port.
///
/// # Errors
/// If the address cannot be bound. Call it inside the runtime.
pub fn bind_http(addr: SocketAddr) -> Result<Server, Error> {
    bind(&Address::Tcp(addr), Scope::Http, "http")
}

/// Binds the admin server, and logs its address. Port 0 is any free port; a Unix socket gets mode 0600, and replaces
/// one on which nobody answers.
///
/// # Errors
/// If the address cannot be bound. Call it inside the runtime.
pub fn bind_admin(addr: &Address) -> Result<Server, Error> {
    bind(addr, Scope::Admin, "admin")
}

fn bind(addr: &Address, scope: Scope, name: &'static str) -> Result<Server, Error> {
    let failed = |source| Error { listener: name, addr: addr.clone(), source };
    let listener = match addr {
        Address::Tcp(addr) => tcp(*addr).map(Listener::Tcp),
        Address::Unix(path) => UnixSocket::bind(path).map(Listener::Unix),
    }
    .map_err(failed)?;
    let addr = match &listener {
        Listener::Tcp(tcp) => Address::Tcp(tcp.local_addr().map_err(failed)?),
        Listener::Unix(_) => addr.clone(),
    };
    tracing::info!(listener = name, %addr, "listening");
    Ok(Server { listener, scope, addr })
}

impl Server {
    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> &Address {
        &self.addr
    }

    /// Serves until it is dropped; its connections go with it.
    pub async fn serve(self, process: Arc<Process>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut complained_at: Option<Instant> = None;
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            let process = Arc::clone(&process);
            let scope = self.scope;
            let accepted = match &self.listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    connections.spawn(async move {
                        converse(stream, process, scope).await;
                        drop(slot);
                    });
                }),
                Listener::Unix(socket) => socket.listener.accept().await.map(|(stream, _)| {
                    connections.spawn(async move {
                        converse(stream, process, scope).await;
                        drop(slot);
                    });
                }),
            };
            if let Err(error) = accepted {
                // Mostly no descriptors are left; others have to close some first.
                if complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    complained_at = Some(Instant::now());
                    tracing::warn!(addr = %self.addr, %error, "cannot accept, retrying");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, one request. Reading its head, answering it and writing the reply are bounded each.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, process: Arc<Process>, scope: Scope) {
    let answered = Notify::new();
    let service = service_fn(|request: Request<Incoming>| {
        let (process, answered) = (&process, &answered);
        async move {
            let (request, _unread) = request.into_parts();
            let reply = handle(process, scope, &request).await;
            answered.notify_one();
            Ok::<_, Infallible>(reply)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let writing = async {
        answered.notified().await;
        sleep(WRITE_TIME).await;
    };
    // A client that breaks off or is too slow is its own fault, and not worth a line.
    let _ = timeout(ANSWER_TIME, first(connection.as_mut(), writing)).await;
}

/// Until one of them ends.
async fn first(one: impl Future, other: impl Future) {
    tokio::select! {
        _ = one => {}
        _ = other => {}
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

fn tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// A Unix socket whose file goes with it.
#[derive(Debug)]
struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// The socket is made under another name and moved into place once its mode is right, so that nobody can connect
    /// before that.
    fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            Ok(_) => {
                let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                // A full backlog must not hold us up; it is an answer too.
                probe.set_nonblocking(true)?;
                match probe.connect(&SockAddr::unix(path)?) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {}
                    _ => return Err(io::ErrorKind::AddrInUse.into()),
                }
            }
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let bound = Self::bind_fresh(&fresh, path);
        if bound.is_err() {
            // It may not have come to be.
            let _ = std::fs::remove_file(&fresh);
        }
        bound
    }

    fn bind_fresh(fresh: &Path, path: &Path) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::bind(fresh)?;
        std::fs::set_permissions(fresh, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        std::fs::rename(fresh, path)?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Whoever removed it before us did no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// At once on each server; probes and scrapers need a handful.
const CONNECTIONS: usize = 64;

/// From accept to the end of the request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// hyper takes no less than 8 KiB.
const HEAD_BYTES: usize = 16 * 1024;

/// As many as a browser or a proxy sends, several times over.
const HEADERS: usize = 64;

/// From accept to the reply: a rotation waits for a new role to be let in, which is tried for a minute or more.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// From the reply to its last byte.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Between two attempts to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two lines that say so.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
