//! Sessions that have served a client, and serve the next equal one after a reset (`reuse`). Floor 4.
//!
//! A session is returned if its client left with a Terminate between transactions, and the server reported no error in
//! it. Its next client gets what the server said at the login, with the parameters' present values and another cancel
//! key.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Alike, Counted, Inner, Left, LoggedIn, WarmSessions, ended, part};
use crate::credentials::Guard;
use crate::dial::Stream;
use crate::postgres::upstream::{CancelTarget, UpstreamSession};
use crate::session::end::Stop;
use crate::socket::Address;

/// How an open session is returned, and what else its next client needs.
pub(in crate::postgres::session) struct Returns {
    to: Arc<Inner>,
    alike: Arc<Alike>,
    prologue: BytesMut,
    cancel: Option<Arc<CancelTarget>>,
    address: Address,
    stop: watch::Receiver<Stop>,
}

impl WarmSessions {
    /// How a session is returned once its client has left. `None`: the route does not reuse sessions, or the server is too
    /// old, which the log says once.
    pub(in crate::postgres::session) fn returns(
        &self,
        alike: &Arc<Alike>,
        session: &UpstreamSession,
        stop: &watch::Receiver<Stop>,
    ) -> Option<Box<Returns>> {
        if !self.0.reuse {
            return None;
        }
        if !session.can_be_reset() {
            if !self.0.is_too_old.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    route = self.0.credentials.name(),
                    upstream.addr = %session.address,
                    "sessions are not reused: DISCARD ALL of this server loses a role that ALTER ROLE has set; \
                     PostgreSQL 14.14, 15.9, 16.5 and 17.1 keep it"
                );
            }
            return None;
        }
        Some(Box::new(Returns {
            to: Arc::clone(&self.0),
            alike: Arc::clone(alike),
            prologue: session.prologue.clone(),
            cancel: session.cancel.clone(),
            address: session.address.clone(),
            stop: stop.clone(),
        }))
    }
}

impl Returns {
    /// Whether there is room for another session that waits, or is reset.
    pub(in crate::postgres::session) fn have_room(&self) -> bool {
        *self.to.open.borrow() < self.to.most_waiting()
    }

    /// Returns a session that is between transactions. `reported`: the server has reported other values of its parameters
    /// since the login. The session is reset, and waits for its next client, in a task of its own.
    pub(in crate::postgres::session) fn give_back(self, stream: Stream, guard: Guard, reported: bool) {
        let Self { to, alike, prologue, cancel, address, stop } = self;
        let session = UpstreamSession { stream, prologue, rest: BytesMut::new(), cancel, address };
        let open = Counted::one(&to);
        let keeping = to.keep_returned(alike, (Box::new(session), guard), reported, stop);
        // No tracker is needed: the session is a member of its generation, which waits for it.
        tokio::spawn(Box::pin(async move {
            keeping.await;
            drop(open);
        }));
    }
}

impl Inner {
    async fn keep_returned(
        self: Arc<Self>,
        alike: Arc<Alike>,
        (mut session, guard): LoggedIn,
        reported: bool,
        stop: watch::Receiver<Stop>,
    ) {
        let number = guard.generation().number();
        // A cancel request of the client may still be under way, and would cancel what the next client runs.
        let is_being_cancelled = session
            .cancel
            .as_ref()
            .is_some_and(|cancel| Arc::strong_count(cancel) > 1 || cancel.is_in_doubt());
        if is_being_cancelled || !self.credentials.is_current(number) {
            return part(session, guard).await;
        }
        let is_reset = tokio::select! {
            biased;
            () = self.closed(stop.clone()) => false,
            () = ended(&guard) => false,
            reset = timeout(RESET_WITHIN, session.reset(reported)) => matches!(reset, Ok(Ok(()))),
        };
        if !is_reset {
            // The server does not read a Terminate while it works.
            let cancel = session.cancel.clone();
            let cancelling = async {
                if let Some(cancel) = cancel {
                    let _ = cancel.send(RESET_WITHIN).await;
                }
            };
            tokio::join!(cancelling, part(session, guard));
            return;
        }
        let (id, asked) = self.lock().is_returned(&alike, self.most_waiting(), number);
        tracing::debug!(
            route = self.credentials.name(),
            lease.generation = number.get(),
            db.user = guard.generation().username(),
            upstream.pid = session.cancel.as_ref().map(|cancel| cancel.request().process_id),
            "an upstream session is ready for its next client"
        );
        let (session, guard) = match self.wait(&mut session, &guard, asked, stop).await {
            Left::Asked(give) => match give.send((session, guard)) {
                Ok(()) => return,
                // The client has gone meanwhile.
                Err(not_taken) => not_taken,
            },
            Left::Old | Left::Spoke | Left::Superseded | Left::Closed => {
                self.lock().has_left(&alike, id);
                (session, guard)
            }
        };
        part(session, guard).await;
    }
}

/// How long a server may take to reset a session.
const RESET_WITHIN: Duration = Duration::from_secs(5);
