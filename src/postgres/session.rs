//! One client, from its first byte to its last: what it asks for, its login upstream, its relay, its end. Floor 4.
//!
//! ```text
//!   accepted ──▶ Handshake ──▶ Login ──▶ Relay ──▶ closed
//!                  │ CancelRequest │ refused, hung up
//!                  ▼               ▼
//!               cancel          closed
//! ```

mod away;
mod encryption;
mod entry;
mod error;
mod handshake;
mod login;
mod reasons;
mod routes;
mod shared;
mod warm;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::clock;
use crate::dial::Stream;
use crate::error::Chain;
use crate::metrics::{self, Closed, OpenSession};
use crate::postgres::cancel::Registration;
use crate::postgres::protocol::startup::CancelRequest;
use crate::postgres::relay::{self, Relay};
use crate::session::registry::Place;
use crate::session::{Admission, Limits, SessionPermit, audit};
use crate::socket::Client;

pub(crate) use away::turn_away;
use entry::{Entry, Rejected};
use handshake::Request;
pub(crate) use routes::{FAILURES_EVERY, Routes, SessionRoute, UsedDatabases};
pub(crate) use shared::Shared;
use warm::Returns;
pub(crate) use warm::WarmSessions;

/// Serves one client to its end. `admission`: that of its listener. `id`: no other session of the process has it.
/// `handshake` is held until its request is read.
///
/// Not cancel safe: dropped, it leaves the server's session uncounted for. To end it early use [`Stop`].
pub(crate) fn serve(
    client: Client,
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    id: u64,
    handshake: SessionPermit,
) -> impl Future<Output = ()> + Send + 'static {
    Serving(Box::new(Stage::Around(Box::pin(begin(client, shared, admission, id, handshake)))))
}

/// The task of a session. It is one word long, as tokio has room for three in a task of 128 bytes, and the next larger one
/// is of 256.
struct Serving(Box<Stage>);

/// How far a session has come.
///
/// ```text
///   Around ──first ReadyForQuery──▶ Relay ──▶ Around ──▶ Over
/// ```
#[expect(clippy::large_enum_variant, reason = "most sessions are in the large one most of the time")]
enum Stage {
    /// It begins, or ends: then there is no session to come.
    Around(Around),
    /// Its client has had its first ReadyForQuery.
    Relay(Open<Client, Stream>),
    /// Both sockets are closed.
    Over,
}

type Around = Pin<Box<dyn Future<Output = Option<Open<Client, Stream>>> + Send>>;

impl Future for Serving {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let stage = &mut *self.get_mut().0;
        loop {
            match stage {
                Stage::Around(around) => {
                    let open = ready!(around.as_mut().poll(cx));
                    *stage = open.map_or(Stage::Over, Stage::Relay);
                }
                Stage::Relay(open) => {
                    let done = ready!(Pin::new(&mut open.relay).poll(cx));
                    if let Stage::Relay(open) = std::mem::replace(stage, Stage::Over) {
                        *stage = Stage::Around(Box::pin(async move {
                            open.close(done).await;
                            None
                        }));
                    }
                }
                Stage::Over => return Poll::Ready(()),
            }
        }
    }
}

/// A session whose client has had its first ReadyForQuery.
struct Open<C, U> {
    relay: Relay<C, U>,
    counted: OpenSession,
    /// Held until the server has closed, or the client of a session that is returned has left.
    registration: Option<Registration>,
    place: Place,
    returns: Option<Box<Returns>>,
    permits: (SessionPermit, SessionPermit),
}

impl Open<Client, Stream> {
    async fn close(self, done: relay::RelayExit) {
        let Self { relay, counted, registration, place, returns, permits } = self;
        place.session().activity.closing(clock::now());
        if let (relay::RelayExit::ClientLeft, Some(returns)) =
            (done, returns.filter(|returns| returns.have_room()))
        {
            let send_timeout = relay.send_within();
            let relay::Left { mut client, upstream, guard, reported } = relay.into_left();
            audit::closed(place.session(), Closed::Client);
            let id = place.session().id;
            drop((registration, place, permits));
            returns.give_back(upstream, guard, reported);
            tracing::debug!(session.id = id, "its upstream session may serve another client");
            counted.closed(Closed::Client);
            return relay::close_client(&mut client, &[], send_timeout).await;
        }
        // A client that has gone takes up no place, however long its server takes to notice.
        let _permits = (done != relay::RelayExit::ClientGone).then_some(permits);
        let cancel = registration.as_ref().map(Registration::target);
        let cause = Box::new(relay).close(done, cancel).await;
        audit::closed(place.session(), cause);
        counted.closed(cause);
    }
}

async fn begin(
    client: Client,
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    id: u64,
    handshake: SessionPermit,
) -> Option<Open<Client, Stream>> {
    let Limits { handshake_timeout, send_timeout, .. } = shared.limits;
    let handshake_timeout = admission.handshake_timeout(handshake_timeout);
    let acceptor = shared.acceptor.in_force();
    let request = tokio::select! {
        biased;
        request = encryption::answer(client, acceptor.as_deref(), handshake_timeout, send_timeout) => request,
        () = shared.closing_for(LAST_PACKET_WITHIN) => return None,
    };
    drop(handshake);
    match request {
        Ok((Request::Session(startup), mut client)) => {
            if let Some(console) = shared.console_for(&startup, &client.stream) {
                console.serve(client, &startup, shared.stop.subscribe(), send_timeout).await;
                return None;
            }
            let mut span = shared.trace_login(id);
            match Entry::log_in(&mut client, &startup, &shared, &admission, &mut span).await {
                Ok(entry) => entry.open(client, &shared, id, span).await,
                Err(rejected) => {
                    span.word("outcome", rejected.outcome());
                    // However long the client takes to read why.
                    span.end();
                    if let Rejected::Refused { message, .. } = rejected {
                        relay::close_client(&mut client.stream, &message, send_timeout).await;
                    }
                    None
                }
            }
        }
        Ok((Request::Cancel(cancel), client)) => {
            tokio::select! {
                () = answer_cancel(client.stream, &cancel, &shared) => {}
                () = shared.closing_for(LAST_CANCEL_WITHIN) => {}
            }
            None
        }
        Err(error) => {
            metrics::handshake_failed(error.word());
            tracing::debug!(error = %Chain(&error), "a client did not get as far as its startup message");
            None
        }
    }
}

/// Sends the request on. There is no reply: the close tells the client that the request was delivered.
async fn answer_cancel(mut client: Client, cancel: &CancelRequest, shared: &Shared) {
    shared.cancels.handle(client.source(), cancel, || shared.routes().upstreams()).await;
    let _ = timeout(shared.limits.send_timeout, client.shutdown()).await;
}

/// How long a handshake may go on once the process closes: what a client has sent by then is read, and it gets an error.
const LAST_PACKET_WITHIN: Duration = Duration::from_millis(250);
/// How long a cancel request may go on then: mostly its session is why the process does not end yet.
const LAST_CANCEL_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::postgres::cancel::{Cancels, Unknown};
    use crate::postgres::protocol::error_response;
    use crate::postgres::upstream::CancelTarget;
    use crate::published::Published;
    use crate::session::ListenerLimits;
    use crate::session::end::Stop;
    use crate::socket::descriptors::Descriptors;

    /// A session without any route, and its client's end.
    fn session() -> (impl Future<Output = ()> + Send + 'static, UnixStream, Arc<Published<Stop>>) {
        let (near, client) = UnixStream::pair().unwrap();
        let within = Duration::from_secs(5);
        let limits = Limits {
            handshake_timeout: within,
            login_wait: within,
            send_timeout: within,
            max_sessions: 0,
            max_handshakes: 0,
            logins_per_second: 0,
        };
        let stop = Published::new(Stop::Running);
        let descriptors = Arc::new(Descriptors::default());
        let cancels = Cancels::new(Unknown::Off, Arc::clone(&descriptors));
        let shared = Shared::new(Routes::default(), limits, cancels, Arc::clone(&stop), descriptors);
        let admission = shared.admission(ListenerLimits::default());
        let handshake = admission.begin_handshake().unwrap();
        (serve(Client::Unix(near), shared, admission, 1, handshake), client, stop)
    }

    #[tokio::test]
    async fn the_task_of_a_session_is_small() {
        let (session, ..) = session();
        let bytes = size_of_val(&session);
        assert!(bytes <= 8, "{bytes} bytes");
    }

    #[test]
    fn what_an_idle_session_holds_is_small() {
        // tokio aligns what it keeps of a socket, 256 bytes, to 128. glibc puts 8 in front of each block: between two of those
        // there is room for one of 104 bytes or of 360, and for none in between.
        let (of_task, to_cancel) = (size_of::<Stage>(), size_of::<CancelTarget>());
        assert!(of_task <= 360, "{of_task} bytes");
        // An `Arc` counts in two words.
        assert!(to_cancel + 16 <= 104, "{to_cancel} bytes");
    }

    #[tokio::test]
    async fn a_client_without_a_route_is_told_so() {
        let (session, mut client, _stop) = session();
        let session = tokio::spawn(session);
        client.write_all(b"\0\0\0\x12\0\x03\0\0user\0app\0\0").await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(error_response::sqlstate(heard.get(5..).unwrap()), Some(&b"28000"[..]));
        drop(client);
        session.await.unwrap();
    }

    #[tokio::test]
    async fn an_unknown_cancel_is_closed_silently() {
        let (session, mut client, _stop) = session();
        let session = tokio::spawn(session);
        client.write_all(&crate::postgres::cancel::tests::CANCEL).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        session.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_does_not_hold_up_a_forced_stop() {
        let (session, mut client, stop) = session();
        let session = tokio::spawn(session);
        stop.send_replace(Stop::Forced);
        session.await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}
