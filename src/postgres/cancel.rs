//! Delivers CancelRequests to the servers of their sessions. Floor 4.
//!
//! A request comes on a connection of its own and gets no reply. That connection is closed once the server has closed
//! the connection on which it received the request, so the client knows that it was delivered.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>

mod rate;
mod table;
mod turns;

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::metrics::{self, Cancel};
use crate::postgres::protocol::startup::CancelRequest;
use crate::postgres::upstream::{CancelTarget, Upstream};
use crate::socket::Peer;
use crate::socket::descriptors::Descriptors;
use rate::Rate;
pub(super) use table::Registration;
use table::Table;
use turns::Turns;

/// What happens to a request whose key is not in the table. It may belong to a session of another instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The connection is closed without a reply.
    #[default]
    Off,
    /// The request is sent to every upstream host, within limits.
    Forward,
}

/// The keys of all sessions, and the requests that are under way.
pub(crate) struct Cancels {
    table: Arc<Table>,
    turns: Turns,
    unknown: Unknown,
    /// Limits requests with unknown keys, since each costs every upstream host a connection.
    rate: Arc<Rate>,
    /// The descriptors of these connections beyond each client's own.
    descriptors: Arc<Descriptors>,
}

impl Cancels {
    /// Creates an empty table. `descriptors` counts those that requests take.
    #[must_use]
    pub(crate) fn new(unknown: Unknown, descriptors: Arc<Descriptors>) -> Self {
        Self { table: Arc::default(), turns: Turns::default(), unknown, rate: Arc::default(), descriptors }
    }

    /// Adds the key that a session's client was given: `other_key`, or else the server's. Dropping the registration removes
    /// it.
    pub(super) fn register(
        &self,
        other_key: Option<CancelRequest>,
        target: Arc<CancelTarget>,
    ) -> Registration {
        self.table.register(other_key, target)
    }

    /// Handles one request of this client, its wait for a turn included, until the server has closed the connection or
    /// `SEND_WITHIN` has passed. A request with an unknown key may go to `upstreams`.
    pub(super) async fn handle(
        &self,
        source: Peer,
        request: &CancelRequest,
        upstreams: impl FnOnce() -> Vec<Arc<Upstream>>,
    ) {
        let outcome = match self.table.get(request) {
            Some(target) => self.send(request, &target).await,
            None if self.unknown == Unknown::Forward => self.forward(source, request, upstreams()).await,
            None => Cancel::Failed,
        };
        metrics::cancel_request(outcome);
    }

    /// Sends a request with a known key to the server of its session, after those with the same key.
    async fn send(&self, request: &CancelRequest, target: &CancelTarget) -> Cancel {
        let ends_at = Instant::now() + SEND_WITHIN;
        let Some(_turn) = self.turns.next(request, SEND_WITHIN).await else {
            return Cancel::Limited;
        };
        match target.send(ends_at.saturating_duration_since(Instant::now())).await {
            Ok(()) => Cancel::Known,
            Err(error) => {
                tracing::warn!(error = %error, "a cancel request did not reach its server");
                Cancel::Failed
            }
        }
    }

    /// Sends a request with an unknown key to all distinct hosts.
    async fn forward(&self, source: Peer, request: &CancelRequest, upstreams: Vec<Arc<Upstream>>) -> Cancel {
        let Some(_permit) = self.rate.begin(source, clock::now()) else {
            return Cancel::Limited;
        };
        let hosts = distinct_hosts(&upstreams);
        let all = hosts.len();
        // The client's own descriptors are enough for one host.
        let descriptors = iter::once(None).chain(iter::from_fn(|| self.descriptors.take().map(Some)));
        let mut sending = JoinSet::new();
        for ((upstream, host), descriptors) in hosts.into_iter().zip(descriptors) {
            let request = request.clone();
            sending.spawn(async move {
                let _held = descriptors;
                upstream.cancel(host, &request, SEND_WITHIN).await.is_ok()
            });
        }
        let is_whole = sending.len() == all;
        let mut is_sent = false;
        while let Some(sent) = sending.join_next().await {
            is_sent |= matches!(sent, Ok(true));
        }
        if !is_whole {
            Cancel::Limited
        } else if is_sent {
            Cancel::Forwarded
        } else {
            Cancel::Failed
        }
    }
}

/// Returns each host once, at most [`MAX_HOSTS`].
fn distinct_hosts(upstreams: &[Arc<Upstream>]) -> Vec<(Arc<Upstream>, usize)> {
    let mut found: Vec<(Arc<Upstream>, usize)> = Vec::new();
    for upstream in upstreams {
        for host in 0..upstream.hosts() {
            let name = upstream.host_name(host);
            let known = found.iter().any(|(other, at)| other.host_name(*at) == name);
            if !known && found.len() < MAX_HOSTS {
                found.push((Arc::clone(upstream), host));
            }
        }
    }
    found
}

const SEND_WITHIN: Duration = Duration::from_secs(5);
const MAX_HOSTS: usize = 8;

#[cfg(test)]
pub(in crate::postgres) mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::postgres::upstream::uri::Uri;
    use crate::postgres::upstream::{Settings, Shared, UpstreamSession};
    use crate::secret::Secret;

    /// AuthenticationOk, BackendKeyData of process 7 with the key 1 2 3 4, ReadyForQuery.
    const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04Z\0\0\0\x05I";
    /// The CancelRequest for that key.
    pub(in crate::postgres) const CANCEL: [u8; 16] =
        [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 7, 1, 2, 3, 4];

    /// Returns a server that has let its first client in, that client's session, and the server's side of it.
    pub(in crate::postgres) async fn session() -> (TcpListener, UpstreamSession, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("postgresql://{}/shop?sslmode=disable", listener.local_addr().unwrap());
        let settings = Settings {
            connect_timeout: Duration::from_secs(5),
            // These servers let everybody in.
            require_auth: "scram-sha-256,none".parse().unwrap(),
            replica_grace: None,
            shared: Shared::default(),
        };
        let upstream = Upstream::new(Uri::parse(&uri).unwrap(), settings).unwrap();
        let secret = Secret::new("secret".to_owned());
        let startup = b"\0\0\0\x0f\0\x03\0\0user\0v\0";
        let turn = upstream.order()[0];
        let letting_in = async {
            let (mut server, _) = listener.accept().await.unwrap();
            let mut hello = [0; 15];
            server.read_exact(&mut hello).await.unwrap();
            server.write_all(LET_IN).await.unwrap();
            server
        };
        let (session, server) = tokio::join!(upstream.login(turn, startup, "v", &secret), letting_in);
        (listener, session.unwrap(), server)
    }

    const SOURCE: Peer = Peer::User(None);

    fn request(key: &[u8]) -> CancelRequest {
        CancelRequest::from_backend_key_data(key).unwrap()
    }

    #[tokio::test]
    async fn a_known_key_reaches_its_server_until_the_session_is_over() {
        let (listener, session, _server) = session().await;
        let cancels = Arc::new(Cancels::new(Unknown::Off, Arc::default()));
        // The client's key may differ from the server's.
        let key = request(&[9; 40]);
        let registration = cancels.register(Some(key.clone()), session.cancel.unwrap());
        let accepting = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = [0; 16];
            stream.read_exact(&mut packet).await.unwrap();
            packet
        };
        let ((), packet) = tokio::join!(cancels.handle(SOURCE, &key, Vec::new), accepting);
        assert_eq!(packet, CANCEL);
        drop(registration);
        cancels.handle(SOURCE, &key, Vec::new).await;
        assert_eq!(cancels.table.len(), 0);
        nobody_came_before(&listener).await;
    }

    #[tokio::test]
    async fn a_flood_with_a_known_key_costs_the_server_one_connection_at_a_time() {
        let (listener, session, _server) = session().await;
        let cancels = Arc::new(Cancels::new(Unknown::Off, Arc::default()));
        let key = request(&[9; 40]);
        let _registration = cancels.register(Some(key.clone()), session.cancel.unwrap());
        let mut flood = JoinSet::new();
        for _ in 0..9 {
            let (cancels, key) = (Arc::clone(&cancels), key.clone());
            flood.spawn(async move { cancels.handle(SOURCE, &key, Vec::new).await });
        }
        for _ in 0..9 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            nobody_came_before(&listener).await;
        }
        flood.join_all().await;
        nobody_came_before(&listener).await;
    }

    /// Connects, and checks that the listener accepts this connection next, so that no other was waiting.
    async fn nobody_came_before(listener: &TcpListener) {
        let own = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_, next) = listener.accept().await.unwrap();
        assert_eq!(next, own.local_addr().unwrap(), "a connection that nothing asked for");
    }

    fn upstream(hosts: &str) -> Arc<Upstream> {
        let uri = Uri::parse(&format!("postgresql://{hosts}/?sslmode=disable")).unwrap();
        let settings = Settings {
            connect_timeout: Duration::from_secs(5),
            // These servers let everybody in.
            require_auth: "scram-sha-256,none".parse().unwrap(),
            replica_grace: None,
            shared: Shared::default(),
        };
        Arc::new(Upstream::new(uri, settings).unwrap())
    }

    #[tokio::test]
    async fn an_unknown_key_goes_to_every_host_once() {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let two = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let upstreams = vec![upstream(&format!("{a},{b}")), upstream(&a.to_string())];
        let heard = async |listener: &TcpListener| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = [0; 16];
            stream.read_exact(&mut packet).await.unwrap();
            // PostgreSQL closes once it has handled the request. The other side then closes too, without sending more.
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            packet
        };
        let cancels = Cancels::new(Unknown::Forward, Arc::default());
        let key = request(&[0, 0, 0, 7, 1, 2, 3, 4]);
        let ((), first, second) =
            tokio::join!(cancels.handle(SOURCE, &key, || upstreams), heard(&one), heard(&two));
        assert_eq!((first, second), (CANCEL, CANCEL));
        nobody_came_before(&one).await;
        nobody_came_before(&two).await;
    }

    #[tokio::test]
    async fn an_unknown_key_takes_no_descriptors_that_are_kept_for_leases() {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let two = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstreams =
            vec![upstream(&format!("{},{}", one.local_addr().unwrap(), two.local_addr().unwrap()))];
        let descriptors = Arc::new(Descriptors::default());
        descriptors.keep_for(0, usize::MAX);
        let cancels = Cancels::new(Unknown::Forward, descriptors);
        let key = request(&[0, 0, 0, 7, 1, 2, 3, 4]);
        let ((), first) = tokio::join!(cancels.handle(SOURCE, &key, || upstreams), async {
            let (mut stream, _) = one.accept().await.unwrap();
            let mut packet = [0; 16];
            stream.read_exact(&mut packet).await.unwrap();
            packet
        });
        assert_eq!(first, CANCEL, "the client has a descriptor for one");
        nobody_came_before(&two).await;
    }

    #[test]
    fn at_most_eight_hosts_are_asked() {
        let many: Vec<String> = (1..=20).map(|n| format!("127.0.0.{n}:5432")).collect();
        assert_eq!(distinct_hosts(&[upstream(&many.join(","))]).len(), MAX_HOSTS);
    }

    #[tokio::test]
    async fn a_key_that_two_servers_made_is_the_later_sessions() {
        let (_listener, session, _server) = session().await;
        let cancels = Arc::new(Cancels::new(Unknown::Off, Arc::default()));
        let target = session.cancel.unwrap();
        let key = request(&[9; 8]);
        let earlier = cancels.register(Some(key.clone()), Arc::clone(&target));
        let _later = cancels.register(Some(key), target);
        drop(earlier);
        assert_eq!(cancels.table.len(), 1);
    }
}
