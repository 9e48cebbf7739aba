//! Listens for clients on TCP and Unix sockets, and runs the accept loops. Floor 5.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::socket::descriptors::Descriptors;
use crate::socket::{self, Address, Bound, Client, UnixSocket, is_the_clients};
use crate::workers::{Worker, Workers};

/// The reason why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused.
    #[error("cannot listen on {address}")]
    Bind {
        address: Address,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The Unix socket cannot be bound.
    #[error(transparent)]
    Unix(#[from] socket::Error),
}

/// Serves the clients of all listeners, whatever their protocol. Its clones share the numbering of clients.
#[derive(Clone)]
pub(crate) struct Service<S, T> {
    descriptors: Arc<Descriptors>,
    last_id: Arc<AtomicU64>,
    serve: S,
    turn_away: T,
}

impl<S, T> Service<S, T> {
    /// `descriptors` counts the descriptors that clients use. `serve` serves a client to its end; its argument is the
    /// client's number, from 1. `turn_away` answers a client for which there are no descriptors; it must not wait for
    /// the client.
    #[must_use]
    pub(crate) fn new(descriptors: Arc<Descriptors>, serve: S, turn_away: T) -> Self {
        Self { descriptors, last_id: Arc::default(), serve, turn_away }
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A bound address. No client is accepted before [`Listener::run`]; connections wait in the backlog.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Bound,
    address: Address,
}

impl Listener {
    /// Binds the address. Call it within a tokio runtime.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn bind(address: &Address) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address: address.clone(), source };
        let (socket, address) = match address {
            Address::Tcp(wanted) => {
                let listener = bind_tcp(*wanted).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                (Bound::Tcp(listener), Address::Tcp(bound))
            }
            Address::Unix(path) => (Bound::Unix(UnixSocket::bind(path, MODE, BACKLOG)?), address.clone()),
        };
        tracing::info!(listener = "client", addr = %address, "listening");
        Ok(Self { socket, address })
    }

    /// The bound address, with its actual port.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts clients until `stop`, and serves each in a task of a worker. `sessions` tracks these tasks. The system
    /// refuses the connections that are still in the backlog at `stop`.
    pub(crate) async fn run<S, F, T, G>(
        self,
        service: Service<S, T>,
        workers: Arc<Workers>,
        sessions: TaskTracker,
        stop: CancellationToken,
    ) where
        S: Fn(Client, u64) -> F,
        F: Future<Output = ()> + Send + 'static,
        T: Fn(Client, socket::Peer, Span) -> G,
        G: Future<Output = ()>,
    {
        let [failures, no_room] = [LOG_EVERY; 2].map(LogThrottle::every);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.accept(&workers) => accepted,
            };
            match accepted {
                Ok((client, peer, worker)) => {
                    let id = service.next_id();
                    let span = tracing::debug_span!("session", session.id = id, client.addr = %Peer(&client));
                    if let Some(descriptors) = service.descriptors.take() {
                        let serving = (service.serve)(client, id);
                        // The descriptors are given back after both sockets are closed.
                        let serving = async move { (serving.await, drop(descriptors)).0 };
                        worker.spawn(&sessions, serving.instrument(span));
                    } else {
                        if no_room.admit(clock::now()).is_some() {
                            tracing::warn!(addr = %self.address, "{NO_ROOM}");
                        }
                        (service.turn_away)(client, peer, span).await;
                    }
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    if failures.admit(clock::now()).is_some() {
                        tracing::warn!(addr = %self.address, error = %error, "cannot accept clients, retrying");
                    }
                    let pause = PAUSE.mul_f64(rand::random_range(0.5..1.5));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Accepts the next client, and returns the worker to whose runtime the socket belongs.
    async fn accept<'a>(&self, workers: &'a Workers) -> io::Result<(Client, socket::Peer, &'a Worker)> {
        let accept = poll_fn(|cx| {
            let worker = workers.least_loaded();
            let _entered = worker.enter();
            let (client, peer) = ready!(self.socket.poll_accept(cx))?;
            Poll::Ready(Ok::<_, io::Error>((client, peer, worker)))
        });
        let (client, peer, worker) = accept.await?;
        if let Client::Tcp(stream) = &client {
            stream.set_nodelay(true)?;
            // Keepalives detect a client whose host has vanished.
            SockRef::from(stream).set_keepalive(true)?;
            SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
        }
        Ok((client, peer, worker))
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::1]` and `[::]` do not accept IPv4 connections, so that an IPv4 listener can use the same port.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Formats the address of a client, only if a log line needs it.
struct Peer<'a>(&'a Client);

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Client::Tcp(stream) => match stream.peer_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("gone"),
            },
            Client::Unix(_) => f.write_str("unix"),
            Client::Tls(stream) => match stream.get_ref().0.peer_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("gone"),
            },
        }
    }
}

/// The mode of a Unix socket's file. Its user and group may connect, without a password.
const MODE: u32 = 0o660;
/// The remaining descriptors are reserved for renewals, proofs and probes.
const NO_ROOM: &str = "the limit of open files leaves no room for more clients: they get 53300; raise it";
/// Enough for a burst of reconnecting clients while a core is busy.
const BACKLOG: i32 = 1024;
/// The idle time before the first keepalive. The system sends more at its own interval, for about eleven minutes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// A connection that cannot be accepted for lack of descriptors stays ready: without a pause the loop would spin.
const PAUSE: Duration = Duration::from_millis(100);
const LOG_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_client_is_served_until_the_listener_is_stopped() {
        let serve = |mut client: Client, id| async move {
            client.write_u64(id).await.unwrap();
            let _ = client.read_u8().await;
        };
        let turn_away = |_, _, _| async { panic!("there are descriptors") };
        let service = Service::new(Arc::default(), serve, turn_away);
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let Address::Tcp(address) = *listener.address() else { panic!("it is TCP") };
        assert_ne!(address.port(), 0);
        let workers = Arc::new(Workers::start(NonZeroUsize::MIN).unwrap());
        let (sessions, stop) = (TaskTracker::new(), CancellationToken::new());
        let running = tokio::spawn(listener.run(service, workers, sessions.clone(), stop.clone()));

        let mut clients = Vec::new();
        for id in 1..=2 {
            let mut client = TcpStream::connect(address).await.unwrap();
            assert_eq!(client.read_u64().await.unwrap(), id);
            clients.push(client);
        }
        stop.cancel();
        running.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
        drop(clients);
        sessions.close();
        sessions.wait().await;
    }
}
