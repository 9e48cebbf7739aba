//! Listens for clients on TCP and Unix sockets, and runs the accept loops. Floor 5.

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
use tracing::{Instrument as _, Span};

use crate::clock;
use crate::error::Limited;
use crate::log_throttle::LogThrottle;
use crate::session::{Admission, SessionPermit};
use crate::socket::descriptors::{Descriptors, Taken};
use crate::socket::{self, Address, AllowedNetworks, Bound, Client, UnixSocket, Unserved, is_the_clients};
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
    allowed: Arc<AllowedNetworks>,
    last_id: Arc<AtomicU64>,
    serve: S,
    turn_away: T,
}

impl<S, T> Service<S, T> {
    /// `descriptors` counts the descriptors that clients use. `allowed` are the networks that clients connect from.
    /// `serve` serves a client to its end; its arguments are the client's number, from 1, and the permit for its handshake.
    /// `turn_away` answers a client that is not served; it must not wait for the client. Both are told what lets the clients
    /// of the listener in.
    #[must_use]
    pub(crate) fn new(
        descriptors: Arc<Descriptors>,
        allowed: Arc<AllowedNetworks>,
        serve: S,
        turn_away: T,
    ) -> Self {
        Self { descriptors, allowed, last_id: Arc::default(), serve, turn_away }
    }

    /// Takes the descriptors of a client, and the permit for its handshake.
    fn admit(&self, client: &Client, admission: &Admission) -> Result<(Taken, SessionPermit), Unserved> {
        if let Client::Tcp(_) = client
            && !self.allowed.contain(client.address())
        {
            return Err(Unserved::Address);
        }
        let descriptors = self.descriptors.take().ok_or(Unserved::NoDescriptors)?;
        Ok((descriptors, admission.begin_handshake().map_err(Unserved::Handshakes)?))
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
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts clients until `stop`, and serves each that `admission` lets in in a task of a worker. The system refuses the
    /// connections that are still in the backlog at `stop`.
    pub(crate) async fn run<S, F, T, G>(
        self,
        service: Service<S, T>,
        admission: Arc<Admission>,
        workers: Arc<Workers>,
        stop: CancellationToken,
    ) where
        S: Fn(Client, Arc<Admission>, u64, SessionPermit) -> F,
        F: Future<Output = ()> + Send + 'static,
        T: Fn(Client, socket::Peer, Unserved, Arc<Admission>, Span) -> G,
        G: Future<Output = ()>,
    {
        let (failures, notices) = (LogThrottle::every(LOG_EVERY), Notices::default());
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.accept(&workers) => accepted,
            };
            match accepted {
                Ok((client, peer, worker)) => {
                    let id = service.next_id();
                    let span = tracing::debug_span!("session", session.id = id, client.addr = %client.peer());
                    match service.admit(&client, &admission) {
                        Ok((descriptors, handshake)) => {
                            let serving = (service.serve)(client, Arc::clone(&admission), id, handshake);
                            // The descriptors are given back after both sockets are closed.
                            if span.is_disabled() {
                                // Without room for a span the task is half as large.
                                worker.spawn(serving, descriptors);
                            } else {
                                worker.spawn(serving.instrument(span), descriptors);
                            }
                        }
                        Err(why) => {
                            notices.say(why, &self.address, &client);
                            (service.turn_away)(client, peer, why, Arc::clone(&admission), span).await;
                        }
                    }
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    if self.socket.has_waiting() && failures.admit(clock::now()).is_some() {
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

/// Says, once in a while, that clients are not served.
struct Notices {
    no_room: LogThrottle,
    address: LogThrottle,
}

impl Default for Notices {
    fn default() -> Self {
        let [no_room, address] = [LOG_EVERY; 2].map(LogThrottle::every);
        Self { no_room, address }
    }
}

impl Notices {
    fn say(&self, why: Unserved, listener: &Address, client: &Client) {
        match why {
            Unserved::NoDescriptors => {
                if self.no_room.admit(clock::now()).is_some() {
                    tracing::warn!(addr = %listener, "{NO_ROOM}");
                }
            }
            Unserved::Handshakes(whose) => {
                if self.no_room.admit(clock::now()).is_some() {
                    let of = if whose == Limited::Listener { " of this listener" } else { "" };
                    tracing::warn!(addr = %listener, "max_handshakes clients{of} {HANDSHAKES}");
                }
            }
            Unserved::Address => {
                if let Some(left_out) = self.address.admit(clock::now()) {
                    tracing::info!(addr = %listener, client.addr = %client.peer(), left_out, "{NOT_ALLOWED}");
                }
            }
        }
    }
}

/// The mode of a Unix socket's file. Its user and group may connect, without a password.
const MODE: u32 = 0o660;
/// The remaining descriptors are reserved for renewals, proofs and probes.
const NO_ROOM: &str = "the limit of open files leaves no room for more clients: they get 53300; raise it";
const HANDSHAKES: &str = "have connected and not yet said what they want: further ones get 53300";
const NOT_ALLOWED: &str = "a client is refused: allow_addresses does not have its address";
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
    use crate::session::{ListenerLimits, SessionLimit};

    #[tokio::test]
    async fn a_client_is_served_until_the_listener_is_stopped() {
        let serve = |mut client: Client, _, id, _| async move {
            client.write_u64(id).await.unwrap();
            let _ = client.read_u8().await;
        };
        let turn_away = |_, _, _, _, _| async { panic!("there are descriptors") };
        let service = Service::new(Arc::default(), Arc::default(), serve, turn_away);
        let [handshakes, sessions] = [(); 2].map(|()| SessionLimit::of(Limited::Process));
        let admission = Arc::new(Admission::new(ListenerLimits::default(), handshakes, sessions));
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let Address::Tcp(address) = *listener.address() else { panic!("it is TCP") };
        assert_ne!(address.port(), 0);
        let workers = Arc::new(Workers::start(NonZeroUsize::MIN).unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(listener.run(service, admission, Arc::clone(&workers), stop.clone()));

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
        workers.tasks_gone().await;
    }
}
