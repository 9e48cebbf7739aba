//! Sockets of the two HTTP servers, and the bounds on their clients. Floor 5.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Process;
use super::handler::{Scope, handle};
use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::socket::{self, Address, Bound, Client, Connections, Progress, UnixSocket, is_the_clients};

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused a TCP address.
    #[error("{listener}: cannot listen on {addr}")]
    Tcp {
        /// Names the server, of the two.
        listener: &'static str,
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The Unix socket cannot be bound.
    #[error("admin")]
    Unix(#[source] socket::Error),
}

/// A bound server that does not serve yet: clients that connect wait in the backlog.
#[derive(Debug)]
pub(crate) struct Server {
    socket: Bound,
    scope: Scope,
    addr: Address,
}

/// Binds the server of probes and metrics, and logs its address. Port 0 is any free port.
///
/// # Errors
/// If the address cannot be bound. Call it inside the runtime.
pub(crate) fn bind_http(addr: SocketAddr) -> Result<Server, Error> {
    bind(&Address::Tcp(addr), Scope::Http, "http")
}

/// Binds the admin server, and logs its address. Port 0 is any free port; a Unix socket gets mode 0600, and replaces
/// one on which no process answers.
///
/// # Errors
/// If the address cannot be bound. Call it inside the runtime.
pub(crate) fn bind_admin(addr: &Address) -> Result<Server, Error> {
    bind(addr, Scope::Admin, "admin")
}

fn bind(addr: &Address, scope: Scope, name: &'static str) -> Result<Server, Error> {
    let failed = |addr| move |source| Error::Tcp { listener: name, addr, source };
    let (socket, addr) = match addr {
        Address::Tcp(wanted) => {
            let listener = tcp(*wanted).map_err(failed(*wanted))?;
            let bound = listener.local_addr().map_err(failed(*wanted))?;
            (Bound::Tcp(listener), Address::Tcp(bound))
        }
        Address::Unix(path) => {
            let socket = UnixSocket::bind(path, MODE, BACKLOG).map_err(Error::Unix)?;
            (Bound::Unix(socket), addr.clone())
        }
    };
    tracing::info!(listener = name, %addr, "listening");
    Ok(Server { socket, scope, addr })
}

impl Server {
    /// Where it listens, with the real port.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn local_addr(&self) -> &Address {
        &self.addr
    }

    /// Serves until it is dropped; its connections go with it. There are at most so many of them at once.
    pub(crate) async fn serve(self, process: Arc<Process>, most: usize) {
        let mut connections = Connections::new(most);
        let failures = LogThrottle::every(LOG_EVERY);
        loop {
            match self.socket.accept().await {
                Ok((client, peer)) => {
                    let (process, scope) = (Arc::clone(&process), self.scope);
                    connections.admit(peer, |progress| converse(client, process, scope, progress)).await;
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    if self.socket.has_waiting() {
                        // Mostly no descriptors are left: the one of a client that says nothing will do.
                        connections.give_up_one();
                        if failures.admit(clock::now()).is_some() {
                            tracing::warn!(addr = %self.addr, %error, "cannot accept, retrying");
                        }
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection, one request. Reading its head, answering it and writing the reply are bounded each.
async fn converse(client: Client, process: Arc<Process>, scope: Scope, progress: Progress) {
    let answered = Notify::new();
    let service = service_fn(|request: Request<Incoming>| {
        let (process, answered, progress) = (&process, &answered, &progress);
        async move {
            progress.answering();
            let (request, _unread) = request.into_parts();
            let reply = handle(process, scope, &request).await;
            progress.answered();
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
        .serve_connection(TokioIo::new(client), service);
    let mut connection = pin!(connection);
    let writing = async {
        answered.notified().await;
        sleep(WRITE_TIME).await;
    };
    // A client that breaks off or is too slow is its own fault, and not worth a line.
    let _ = timeout(ANSWER_TIME, first(connection.as_mut(), writing)).await;
}

/// Waits until one of the two servers ends.
async fn first(one: impl Future, other: impl Future) {
    tokio::select! {
        _ = one => {}
        _ = other => {}
    }
}

fn tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The mode of the admin server's Unix socket: a client that connects commands this process.
const MODE: u32 = 0o600;

/// The backlog of a Unix socket, which is that of the standard library for TCP.
const BACKLOG: i32 = 128;

/// How long a client may take from accept to the end of the request's head. A probe's own limit is a second by default;
/// more is for a client on a machine with no CPU time to spare.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// hyper takes no less than 8 KiB.
const HEAD_BYTES: usize = 16 * 1024;

/// The most headers: several times as many as a browser or a proxy sends.
const HEADERS: usize = 64;

/// How long a reply may take from accept on: a rotation waits for its proof, which is tried for a minute or more.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// How long writing a reply may take.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How long to wait between two attempts to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much time lies between two log lines about it.
const LOG_EVERY: Duration = Duration::from_secs(10);
