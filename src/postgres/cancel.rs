//! CancelRequests: maps the key that a client holds to its server's key, and delivers requests. Floor 4.
//!
//! A request comes on a connection of its own and gets no reply. That connection is closed once the server has closed
//! the connection on which it received the request, so the client knows that it was delivered.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bucket::Bucket;
use crate::clock;
use crate::metrics::{self, Cancel};
use crate::postgres::protocol::startup::CancelRequest;
use crate::postgres::upstream::{CancelTarget, Upstream};

/// What happens to a request whose key is not in the table. It may belong to a session of another instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The connection is closed without a reply.
    #[default]
    Off,
    /// The request is sent to every upstream host, within limits.
    Forward,
}

/// The table of the keys of all sessions.
pub(crate) struct Cancels {
    targets: Mutex<HashMap<CancelRequest, Entry>>,
    unknown: Unknown,
    /// Limits the rate of requests with unknown keys, since each costs every upstream host a connection.
    bucket: Mutex<Bucket>,
    in_flight: Semaphore,
}

struct Entry {
    target: Arc<CancelTarget>,
    /// Distinguishes this entry from a later one with the same key: two servers may create equal keys.
    session: u64,
}

impl Cancels {
    /// Creates an empty table.
    #[must_use]
    pub(crate) fn new(unknown: Unknown) -> Self {
        Self {
            targets: Mutex::default(),
            unknown,
            bucket: Mutex::new(Bucket::full(BURST, ONE_EACH)),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        }
    }

    /// Adds the key that a session's client was given. Dropping the registration removes it.
    pub(super) fn register(
        self: &Arc<Self>,
        key: CancelRequest,
        target: Arc<CancelTarget>,
        session: u64,
    ) -> Registration {
        let entry = Entry { target, session };
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), entry);
        Registration { cancels: Arc::clone(self), key, session }
    }

    /// Handles one request until the server has closed the connection or `SEND_WITHIN` has passed. A request with an
    /// unknown key may go to `upstreams`.
    pub(super) async fn handle(
        &self,
        request: &CancelRequest,
        upstreams: impl FnOnce() -> Vec<Arc<Upstream>>,
    ) {
        let known = self
            .targets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(request)
            .map(|entry| Arc::clone(&entry.target));
        let outcome = match known {
            Some(target) => match target.send(SEND_WITHIN).await {
                Ok(()) => Cancel::Known,
                Err(error) => {
                    tracing::warn!(error = %error, "a cancel request did not reach its server");
                    Cancel::Failed
                }
            },
            None if self.unknown == Unknown::Forward => self.forward(request, upstreams()).await,
            None => Cancel::Failed,
        };
        metrics::cancel_request(outcome);
    }

    /// Sends a request with an unknown key to all distinct hosts.
    async fn forward(&self, request: &CancelRequest, upstreams: Vec<Arc<Upstream>>) -> Cancel {
        let allowed = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).try_take(clock::now());
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Cancel::Limited;
        };
        if !allowed {
            return Cancel::Limited;
        }
        let mut sending = JoinSet::new();
        for (upstream, host) in distinct_hosts(&upstreams) {
            let request = request.clone();
            sending.spawn(async move { upstream.cancel(host, &request, SEND_WITHIN).await.is_ok() });
        }
        let mut outcome = Cancel::Failed;
        while let Some(sent) = sending.join_next().await {
            if matches!(sent, Ok(true)) {
                outcome = Cancel::Forwarded;
            }
        }
        outcome
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

/// A session's key in the table. Dropping it removes the key.
pub(super) struct Registration {
    cancels: Arc<Cancels>,
    key: CancelRequest,
    session: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut targets = self.cancels.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if targets.get(&self.key).is_some_and(|entry| entry.session == self.session) {
            targets.remove(&self.key);
        }
    }
}

const SEND_WITHIN: Duration = Duration::from_secs(5);
const MAX_HOSTS: usize = 8;
const MAX_IN_FLIGHT: usize = 4;
/// So many requests with unknown keys may pass at once, and then one per `ONE_EACH`.
const BURST: u32 = 10;
const ONE_EACH: Duration = Duration::from_millis(200);

#[cfg(test)]
pub(in crate::postgres) mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::postgres::protocol::auth::method::RequireAuth;
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
            require_auth: RequireAuth::default(),
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

    fn request(key: &[u8]) -> CancelRequest {
        CancelRequest::from_backend_key_data(key).unwrap()
    }

    #[tokio::test]
    async fn a_known_key_reaches_its_server_until_the_session_is_over() {
        let (listener, session, _server) = session().await;
        let cancels = Arc::new(Cancels::new(Unknown::Off));
        // The client's key may differ from the server's.
        let key = request(&[9; 40]);
        let registration = cancels.register(key.clone(), Arc::new(session.cancel.unwrap()), 1);
        let accepting = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = [0; 16];
            stream.read_exact(&mut packet).await.unwrap();
            packet
        };
        let ((), packet) = tokio::join!(cancels.handle(&key, Vec::new), accepting);
        assert_eq!(packet, CANCEL);
        drop(registration);
        cancels.handle(&key, Vec::new).await;
        assert!(cancels.targets.lock().unwrap().is_empty());
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
            require_auth: RequireAuth::default(),
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
        let cancels = Cancels::new(Unknown::Forward);
        let key = request(&[0, 0, 0, 7, 1, 2, 3, 4]);
        let ((), first, second) = tokio::join!(cancels.handle(&key, || upstreams), heard(&one), heard(&two));
        assert_eq!((first, second), (CANCEL, CANCEL));
        nobody_came_before(&one).await;
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
        let cancels = Arc::new(Cancels::new(Unknown::Off));
        let target = Arc::new(session.cancel.unwrap());
        let key = request(&[9; 8]);
        let earlier = cancels.register(key.clone(), Arc::clone(&target), 1);
        let _later = cancels.register(key.clone(), target, 2);
        drop(earlier);
        assert_eq!(cancels.targets.lock().unwrap().len(), 1);
    }
}
