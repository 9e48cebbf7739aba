//! The hot path: one future a session carries both directions, from one borrowed buffer, without a channel. Floor 4.
//!
//! It forwards bytes as they are and follows framing and phase only to know when the session may be ended. How it is
//! ended is in [`closing`]; when, in [`end`](crate::session::end).

mod closing;
mod pipe;
#[cfg(test)]
mod tests;

pub(super) use closing::{close_client, terminate_upstream};

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock;
use crate::credentials::Guard;
use crate::lease::{Ending, GenerationId};
use crate::metrics::{Closed, Direction, RouteMetrics};
use crate::postgres::protocol::error_response;
use crate::postgres::protocol::phase::Phase;
use crate::published::{Published, Watched};
use crate::session::activity::SessionState;
use crate::session::end::{self, EndDecision, EndPolicy, HardClose, Stop};
use crate::session::registry::Session as Listed;
use crate::session::timer::Timer;
use crate::session::{Buffered, read_buffer};
use crate::time::Time;

use pipe::{Pipe, Step, Unreadable};

/// What a relay needs beside its two streams.
pub(super) struct Session {
    /// The session's place in its generation.
    pub(super) guard: Guard,
    /// Where it leaves what it does.
    pub(super) listed: Arc<Listed>,
    /// The metrics of its route.
    pub(super) metrics: Arc<RouteMetrics>,
    /// Called with the generation's number when the server denies something as though the role had lost its rights.
    pub(super) denied: Denied,
    /// What the process asks of its sessions.
    pub(super) stop: Arc<Published<Stop>>,
    /// Whether the upstream's session is wanted for another client.
    pub(super) reuse: bool,
    /// Bounds the last message to the client; a hard close has its own, shorter bounds.
    pub(super) send_within: Duration,
}

/// Called for each 42501 or 42704 that passes by, with the generation's number. The box makes it one word.
pub(super) type Denied = Arc<Box<dyn Fn(GenerationId) + Send + Sync>>;

/// A client and its upstream, logged in, both at their first ReadyForQuery. Ready when the session has to be closed,
/// which is then done by [`Relay::close`].
pub(super) struct Relay<C, U> {
    client: C,
    upstream: U,
    to_upstream: Pipe,
    to_client: Pipe,
    phase: Phase,
    /// Since when the server has owed no answer; [`Time::NEVER`] while it owes one.
    quiet_since: Time,
    /// The server has said that it ends the session.
    ended_by_server: bool,
    /// The server has reported a transaction's end since the activity was noted.
    transaction_ended: bool,
    listed: Arc<Listed>,
    metrics: Arc<RouteMetrics>,
    ends: EndPolicy,
    ending: Watched<Ending, Stop>,
    timer: Timer,
    guard: Guard,
    denied: Denied,
    reuse: Reuse,
    /// In milliseconds, which fit where the flags leave room.
    send_within: u32,
}

/// Whether the upstream's session may serve another client once this one has left.
#[derive(Clone, Copy, Debug, Default)]
struct Reuse {
    /// It may, as far as is known: it is wanted, and the server has reported no error in it.
    possible: bool,
    /// The server has reported another value of a parameter.
    reported: bool,
}

/// What is left of a session whose client has left with a Terminate between transactions.
pub(super) struct Left<C, U> {
    /// The client, to be closed.
    pub(super) client: C,
    /// The upstream, which knows nothing of the client's end.
    pub(super) upstream: U,
    /// The session's place in its generation.
    pub(super) guard: Guard,
    /// The server has reported other values of its parameters.
    pub(super) reported: bool,
}

/// Why the relay has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelayExit {
    /// The session is between transactions and has to end.
    Idle(Closed),
    /// The session has to end whatever it does.
    Hard(HardClose),
    /// The upstream's socket is at its end: the server has let go of the session.
    UpstreamGone {
        /// In order, by a FIN; otherwise by a reset.
        in_order: bool,
    },
    /// The upstream's socket has failed; the server may still hold the session.
    UpstreamLost,
    /// The client's socket has failed or is closed, and the server is in the midst of an answer that cannot be written.
    ClientGone,
    /// The server sent bytes that are no message.
    UpstreamUnreadable,
    /// The client has sent Terminate between transactions. The server has not got it: its session may be used again, see
    /// [`Relay::into_left`].
    ClientLeft,
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// What was read ahead is the client's behind its StartupMessage, and the server's behind its first ReadyForQuery.
    pub(super) fn new(client: Buffered<C>, upstream: Buffered<U>, session: Session) -> Self {
        let Session { guard, listed, metrics, denied, stop, reuse, send_within } = session;
        Self {
            client: client.stream,
            upstream: upstream.stream,
            // PostgreSQL has its own way with bytes that are no message.
            to_upstream: Pipe::new(&client.buffer, Unreadable::Passed),
            to_client: Pipe::new(&upstream.buffer, Unreadable::Refused),
            phase: Phase::default(),
            quiet_since: Time::NEVER,
            ended_by_server: false,
            transaction_ended: false,
            listed,
            metrics,
            ends: EndPolicy::new(rand::random()),
            ending: Watched::new(guard.generation().published_ending(), stop),
            timer: Timer::default(),
            guard,
            denied,
            reuse: Reuse { possible: reuse, reported: false },
            // At least one.
            send_within: u32::try_from(send_within.as_micros().div_ceil(1000)).unwrap_or(u32::MAX),
        }
    }

    /// Bounds the last message to the client.
    pub(super) fn send_within(&self) -> Duration {
        Duration::from_millis(self.send_within.into())
    }

    /// What is left after [`RelayExit::ClientLeft`].
    pub(super) fn into_left(self) -> Left<C, U> {
        let Self { client, upstream, guard, reuse, .. } = self;
        Left { client, upstream, guard, reported: reuse.reported }
    }

    /// Both directions in turns, until neither can move or the session has to end. What the server said is forwarded
    /// before an end is decided, and after the decision no client byte is read.
    fn turn(&mut self, cx: &mut Context<'_>, now: Time, buffer: &mut [u8]) -> Poll<RelayExit> {
        let order = self.order(cx, now);
        if let EndDecision::Now(close) = order {
            return Poll::Ready(RelayExit::Hard(close));
        }
        let (mut down, mut up) = (Step::Moved, Step::Moved);
        for _ in 0..STEPS_PER_POLL {
            // What has blocked has registered its wake-up: it is tried again at the next poll.
            if down != Step::Blocked {
                down = self.step_to_client(cx, buffer);
            }
            match down {
                Step::SourceEnded => return Poll::Ready(RelayExit::UpstreamGone { in_order: true }),
                Step::SourceFailed(kind) => return Poll::Ready(upstream_failed(kind)),
                Step::Unreadable => return Poll::Ready(RelayExit::UpstreamUnreadable),
                Step::SinkFailed => self.to_client.lose_sink(),
                Step::Moved | Step::Blocked | Step::TooLate | Step::Terminated => {}
            }
            if down != Step::Blocked && !self.to_client.has_sink() {
                if self.phase.statement_running() {
                    return Poll::Ready(RelayExit::ClientGone);
                }
                self.to_upstream.end_source();
            }
            if let EndDecision::WhenIdle { cause } = order
                && self.is_idle()
            {
                return Poll::Ready(RelayExit::Idle(cause));
            }
            if up != Step::Blocked || down != Step::Blocked {
                up = self.step_to_upstream(cx, buffer);
            }
            match up {
                Step::SourceFailed(_) if self.client_has_gone() => return Poll::Ready(RelayExit::ClientGone),
                Step::SinkFailed => {
                    // What the server said last is still to be read.
                    self.to_upstream.end_source();
                    self.to_upstream.lose_sink();
                }
                Step::TooLate => {
                    let close = end::by_the_clock(clock::now(), Closed::LeaseEnd);
                    return Poll::Ready(RelayExit::Hard(close));
                }
                Step::Terminated => return Poll::Ready(RelayExit::ClientLeft),
                Step::Moved => self.quiet_since = Time::NEVER,
                Step::SourceEnded | Step::SourceFailed(_) | Step::Blocked | Step::Unreadable => {}
            }
            if !matches!(up, Step::Moved | Step::Blocked) {
                // That may have let the other direction go on.
                down = Step::Moved;
            }
            if down == Step::Blocked && up == Step::Blocked {
                if let EndDecision::IfQuiet { cause, .. } = order
                    && self.quiet_since().is_some()
                    && self.is_idle()
                {
                    return Poll::Ready(RelayExit::Idle(cause));
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Decides whether the session has to end, and registers all wake-ups that may change that.
    fn order(&mut self, cx: &mut Context<'_>, now: Time) -> EndDecision {
        let (ending, stop) = self.ending.look(cx);
        let idle_since = self.quiet_since().filter(|_| ending.drain_from.is_some() && self.is_idle());
        let order = self.ends.order(now, idle_since, ending, stop);
        let look_at = match order {
            EndDecision::Relay { look_at } => look_at,
            EndDecision::IfQuiet { look_at, .. } => Some(look_at),
            EndDecision::WhenIdle { .. } | EndDecision::Now(_) => None,
        };
        self.timer.wake_at(cx, now, look_at);
        order
    }

    /// Whether the session can be ended without loss to the client or the server.
    fn is_idle(&self) -> bool {
        self.phase.between_transactions()
            && !self.phase.terminated()
            && self.is_quiet()
            && self.to_upstream.is_open()
    }

    /// Whether all that was asked for is answered, and the client has the answer.
    fn is_quiet(&self) -> bool {
        !self.phase.statement_running() && self.to_upstream.at_boundary() && self.to_client.at_boundary()
    }

    /// `now` is the time of the turn: what moved in it, moved then.
    fn note_quiet(&mut self, now: Time) {
        if !self.is_quiet() {
            self.quiet_since = Time::NEVER;
        } else if self.quiet_since().is_none() {
            self.quiet_since = now;
        }
    }

    fn quiet_since(&self) -> Option<Time> {
        Some(self.quiet_since).filter(|since| *since != Time::NEVER)
    }

    fn note_activity(&mut self, now: Time) {
        let state = if self.phase.statement_running() {
            SessionState::Active
        } else if self.phase.between_transactions() {
            SessionState::Idle
        } else {
            SessionState::IdleInTransaction
        };
        self.listed.activity.note(now, state, std::mem::take(&mut self.transaction_ended));
    }

    fn step_to_client(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Step {
        let phase = &mut self.phase;
        let (mut denied, mut ended, mut failed, mut reported) = (false, false, false, false);
        let transaction_ended = &mut self.transaction_ended;
        let always = || true;
        let step = self.to_client.step(cx, buffer, &mut self.upstream, &mut self.client, always, |frame| {
            phase.backend(frame.tag, frame.body);
            match frame.tag {
                b'Z' => *transaction_ended |= frame.body.first() == Some(&b'I'),
                b'E' => {
                    failed = true;
                    denied |= is_denial(frame.body);
                    ended |= is_fatal(frame.body);
                }
                b'S' => reported = true,
                _ => {}
            }
        });
        self.ended_by_server |= ended;
        self.reuse.possible &= !failed;
        self.reuse.reported |= reported;
        if denied {
            (self.denied)(self.guard.generation().number());
        }
        step
    }

    fn step_to_upstream(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Step {
        self.to_upstream.hold_terminate(self.reuse.possible && self.is_idle());
        let phase = &mut self.phase;
        let generation = self.guard.generation();
        let in_time = || clock::now() < generation.hard_close_at();
        self.to_upstream.step(cx, buffer, &mut self.client, &mut self.upstream, in_time, |frame| {
            phase.frontend(frame.tag);
        })
    }

    /// The client's socket has failed. True if the server has been saying something to it.
    ///
    /// A server does not look at its client while it works: up to its first write that fails a statement runs, and one
    /// that has no answer runs to its end. A half close would change how that write fails, and with it whether the
    /// server still commits; so a half close goes only to a server that reads.
    fn client_has_gone(&mut self) -> bool {
        let unheard = !self.to_client.is_written();
        self.to_client.lose_sink();
        // Of half a message the server waits for the rest.
        if self.phase.is_working() && self.to_upstream.at_boundary() {
            self.to_upstream.stop_source();
        } else {
            self.to_upstream.end_source();
        }
        unheard && self.phase.statement_running()
    }

    fn count(&mut self) {
        let up = self.to_upstream.take_moved();
        if up > 0 {
            self.metrics.relayed(Direction::Upstream, up);
            self.listed.activity.relayed(Direction::Upstream, up);
        }
        let down = self.to_client.take_moved();
        if down > 0 {
            self.metrics.relayed(Direction::Client, down);
            self.listed.activity.relayed(Direction::Client, down);
        }
    }
}

impl<C, U> Future for Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    type Output = RelayExit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayExit> {
        let this = self.get_mut();
        let now = clock::now();
        let done = read_buffer::lend(|buffer| this.turn(cx, now, buffer));
        this.note_quiet(now);
        this.note_activity(now);
        this.count();
        done
    }
}

/// A reset, and TCP's end without TLS's, say as much as a FIN: the server's socket is no more.
fn upstream_failed(kind: io::ErrorKind) -> RelayExit {
    match kind {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            RelayExit::UpstreamGone { in_order: false }
        }
        _ => RelayExit::UpstreamLost,
    }
}

/// 42501 insufficient_privilege, 42704 undefined_object: what a session meets whose role was dropped.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_denial(body: &[u8]) -> bool {
    matches!(error_response::sqlstate(body), Some(b"42501" | b"42704"))
}

/// After such an error the server closes the connection.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config-logging.html#RUNTIME-CONFIG-SEVERITY-LEVELS>
fn is_fatal(body: &[u8]) -> bool {
    matches!(error_response::Fields::new(body).severity(), Some(b"FATAL" | b"PANIC"))
}

/// A session that never runs dry lets the others have their turn after half a megabyte each way.
const STEPS_PER_POLL: usize = 16;
