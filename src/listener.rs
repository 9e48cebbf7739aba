//! Where clients connect: TCP and Unix sockets, and the loops that accept. Floor 5.

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

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused.
    #[error("cannot listen on {address}")]
    Bind {
        address: Address,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The Unix socket is not to be had.
    #[error(transparent)]
    Unix(#[from] socket::Error),
}

/// What serves the clients of all listeners, whatever they speak. Its clones number their clients together.
#[derive(Clone)]
pub(crate) struct Service<S, T> {
    descriptors: Arc<Descriptors>,
    last_id: Arc<AtomicU64>,
    serve: S,
    turn_away: T,
}

impl<S, T> Service<S, T> {
    /// `descriptors` counts what clients may take. `serve` serves one to its end; its number counts from 1. `turn_away`
    /// answers one for which there are no descriptors: it may not wait for that client.
    #[must_use]
    pub(crate) fn new(descriptors: Arc<Descriptors>, serve: S, turn_away: T) -> Self {
        Self { descriptors, last_id: Arc::default(), serve, turn_away }
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A bound address. Nobody is accepted before [`Listener::run`]; connections wait in the backlog.
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

    /// The address, with the port that was taken.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts clients until `stop`, and serves each in a task of a worker, for which `sessions` waits. Connections that
    /// are still in the backlog then are refused by the system.
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
                        // They are free again when both sockets are closed.
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

    /// The next client, and the worker to whose runtime its socket belongs.
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
            // A client that vanished without a word is found out, as by the server itself.
            SockRef::from(stream).set_keepalive(true)?;
            SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
        }
        Ok((client, peer, worker))
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::1]` and `[::]` stand beside their IPv4 kin and do not take their clients.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where a client comes from, written only where a log asks for it.
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

/// Of the file of a Unix socket. Its user and group may connect: whoever connects needs no password.
const MODE: u32 = 0o660;
/// What is left is kept for renewals, proofs and probes.
const NO_ROOM: &str = "the limit of open files leaves no room for more clients: they get 53300; raise it";
/// Room for a burst of reconnecting clients while a core is busy.
const BACKLOG: i32 = 1024;
/// Then a silent client is asked whether it is still there, and again as often as the system does (about eleven minutes).
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// What cannot be accepted for want of file descriptors stays ready: without a pause the loop would spin.
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
